"""Who reads tool calls and reasoning, why, and what had better be changed: for `GET /readyz` and the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qiao.policies import text_mode, text_tools
from qiao.policies.guided import can_guide
from qiao.policies.prepare import Switches
from qiao.policies.quirks import Quirks
from qiao.profiles import Profile
from qiao.upstream.probe import Findings


def described(switches: Switches, quirks: Quirks, profile: Profile, found: Findings) -> dict[str, Any]:
    """What is known of one upstream and its main model."""
    dialect = text_mode.reader(profile, quirks, switches.tool_parser)
    in_words = dialect is not None and (quirks.no_tools or quirks.no_tool_rendering)
    if dialect is not None and in_words:
        dialect = text_tools.form_of(profile, dialect, quirks).dialect
    guided = dialect is not None and quirks.structural_tags and can_guide(dialect) and switches.guided
    return {
        "tool_parser": switches.tool_parser,
        "read_by": "engine" if dialect is None else "qiao",
        "dialect": dialect,
        "engine_parser": found.tool_parser,
        "why": found.reason or None,
        "tools_rendered": found.renders_tools,
        "tools_written_by": None if dialect is None else "qiao" if in_words else "template",
        "structural_tags": found.structural_tags,
        "guided": guided,
        "interferes": found.interferes,
        "reasoning_field": found.reasoning_field,
        "reasoning_split_by_engine": found.splits_reasoning,
        "reasoning_opened_by_template": found.opens_reasoning,
        "repair": switches.repair,
        "advice": list(_advice(switches, profile, found, dialect, guided=guided)),
    }


def _advice(
    switches: Switches, profile: Profile, found: Findings, dialect: str | None, *, guided: bool
) -> Iterator[str]:
    """What works against the one who reads, and what to do about it."""
    if dialect is None:
        if switches.tool_parser == text_mode.ENGINE and found.tool_parser is False:
            yield (
                "the engine has no tool parser, so calls stay words: start it with --enable-auto-tool-choice and "
                "--tool-call-parser, or leave --tool-parser at auto"
            )
    elif found.interferes:
        yield (
            "the engine makes calls of the text although it was told not to: start it without --tool-call-parser, or "
            "run qiao with --tool-parser engine"
        )
    elif found.tool_parser and dialect == "mistral":
        yield (
            "vLLM with a Mistral tokenizer and a tool parser keeps [TOOL_CALLS] out of an answer that is to have no "
            "calls: start it without --tool-call-parser, or run qiao with --tool-parser engine"
        )
    if profile.reasoning == "none" and found.splits_reasoning:
        yield (
            "the engine's reasoning parser takes the whole answer of this model, which does not reason, for reasoning: "
            "start it without --reasoning-parser"
        )
    if switches.guided and not guided:
        yield (
            "--guided-tools has no effect: "
            + ("the engine reads the calls" if dialect is None else "there are no structural tags for them")
            + "; tools that the client sends with strict are bound where the engine can"
        )
