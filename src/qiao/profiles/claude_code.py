"""How much room Claude Code needs, measured (2.1.330, prompts counted with Qwen's vocabulary). Data only."""

from __future__ import annotations

FIRST_REQUEST = 13_000
"""Tokens of a session's first request with tool search, as `qiao claude` leaves it: 11,500 headless, 12,800 in the
terminal."""

FIRST_REQUEST_ALL_TOOLS = 20_000
"""The same where every tool is sent at once (tool search off, old versions): 18,900 headless, more in the terminal."""

FIRST_REQUEST_WORDS = f"{FIRST_REQUEST:,} to {FIRST_REQUEST_ALL_TOOLS:,}"

USEFUL_WINDOW = 40_000
"""Tokens. In a smaller one Claude Code's own rule compacts at less than half: 32k at 15,600 tokens, which a compacted
conversation has again after two files, and Claude Code gives up ("Autocompact is thrashing")."""
