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
        "dialect_from": _dialect_from(switches, quirks, profile, dialect),
        "template_dialect": found.template_dialect,
        "engine_parser": found.tool_parser,
        "why": _why(switches, quirks, profile, found, dialect),
        "tools_rendered": found.renders_tools,
        "tools_written_by": None if dialect is None else "qiao" if in_words else "template",
        "structural_tags": found.structural_tags,
        "guided": guided,
        "interferes": found.interferes,
        "reasoning_field": found.reasoning_field,
        "reasoning_split_by_engine": found.splits_reasoning,
        "reasoning_opened_by_template": found.opens_reasoning,
        "tokenize": found.abilities.tokenize,
        "structured_outputs": found.abilities.structured_outputs,
        "images": found.abilities.images,
        "prefill": found.abilities.prefill,
        "repair": switches.repair,
        "advice": list(_advice(switches, profile, found, dialect, guided=guided)),
    }


def _dialect_from(switches: Switches, quirks: Quirks, profile: Profile, dialect: str | None) -> str | None:
    """Who told the dialect in which calls are read here."""
    if dialect is None:
        return None
    if switches.tool_parser == dialect:
        return f"--tool-parser {dialect}"
    if quirks.template_dialect == dialect:
        differs = profile.dialect is not None and profile.dialect != dialect
        return "the chat template" + (
            f", though {profile.family} writes {profile.dialect} otherwise" if differs else ""
        )
    if profile.dialect == dialect:
        return f"the model's family, {profile.family}"
    return "nobody told; it is the commonest"


def _why(switches: Switches, quirks: Quirks, profile: Profile, found: Findings, dialect: str | None) -> str | None:
    """Why the one who reads calls does."""
    if switches.tool_parser != text_mode.AUTO:
        return found.reason or f"--tool-parser {switches.tool_parser}"
    if found.reason:
        return found.reason
    if text_mode.passes_by(profile, quirks, switches.tool_parser):
        return (
            f"the engine's parser leaves calls ({dialect}) in the text where none is to be made, and the prompt is the "
            "same: read here they are mended and no word is lost"
        )
    if dialect is not None or found.tool_parser is None:
        return None
    return f"the engine has a tool parser, and {_doubt(profile, quirks, found)}: it is trusted"


def _doubt(profile: Profile, quirks: Quirks, found: Findings) -> str:
    """Why calls are not read from the text of an engine that has a parser."""
    if found.eats:
        return "it takes calls out of the text even where none is to be made"
    if found.interferes:
        return "it makes calls of the text even where none is to be made"
    if not text_mode.can_pass_by(profile, quirks.template_dialect):
        return f"how {profile.family} writes calls was not put to the test there"
    if found.renders_tools is False:
        return "without it the prompt does not list the tools"
    return "whether it would leave calls in the text could not be found out"


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
        elif switches.tool_parser == text_mode.AUTO and found.eats:
            yield (
                "the engine's tool parser takes calls out of the text even where it is not to read any (vLLM's "
                "qwen3_coder), so that only its own reading is left: start it without --tool-call-parser, and qiao "
                "reads and mends the calls itself"
            )
    elif found.interferes:
        yield (
            f"the engine {'drops calls from' if found.eats else 'makes calls of'} the text although it was told not "
            "to: start it without --tool-call-parser, or run qiao with --tool-parser engine"
        )
    elif found.tool_parser and dialect == "mistral":
        yield (
            "vLLM with a Mistral tokenizer and a tool parser keeps [TOOL_CALLS] out of an answer that is to have no "
            "calls: start it without --tool-call-parser, or run qiao with --tool-parser engine"
        )
    template = found.template_dialect
    if template is not None and switches.tool_parser not in (text_mode.AUTO, text_mode.ENGINE, template):
        yield (
            f"the chat template asks the model for calls in {template}, and they are read as {switches.tool_parser}: "
            "leave --tool-parser at auto"
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
