"""What a test tells the scripted vLLM to say, and the marker that carries it through any client."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

AFTER_LAST = "Done."


def marker(*texts: str) -> str:
    """Text i answers the i-th assistant turn after this marker; after the last one comes `AFTER_LAST`.

    Text goes out as it stands. Where the server has a reasoning parser, text without `</think>` is reasoning from end
    to end, unless thinking is off: `said` writes both.
    """
    code = base64.urlsafe_b64encode(json.dumps(texts).encode()).decode().rstrip("=")
    return f"@@SAY:{code}@@"


def call(name: str, /, **arguments: Any) -> str:
    """A call as Qwen3 writes it (Hermes style)."""
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False) + "\n</tool_call>"


def said(text: str = "", *, think: str | None = None, calls: Sequence[str] = ()) -> str:
    """An answer as Qwen3 writes it: thoughts (None: thinking is off), words, calls."""
    thoughts = "" if think is None else f"<think>\n{think}\n</think>\n\n"
    return thoughts + "\n".join(part for part in (text, *calls) if part)
