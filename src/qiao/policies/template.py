"""What a chat template asks the model for, read from a prompt that it made: in which dialect calls are to be written.

The template is the truth of it, more than the model's name: what it shows is what the model imitates. `SHOWN` is the
conversation to have rendered; the marks below are looked for in what came of it.
"""

from __future__ import annotations

import re

from qiao.core.conversation import Conversation, Text, Tool, ToolCall, ToolResult, Turn

_NAME = "noop"
TOOL = Tool(
    _NAME,
    "Does nothing. Never call it.",
    '{"type":"object","properties":{"word":{"type":"string"}},"required":["word"]}',
)
# Mistral's templates refuse an id that is not nine letters and digits.
_ID = "call00001"

# Byte-level vocabularies write a blank and a line break so; `▁` is the blank of the others.
_WRITTEN = str.maketrans({"Ġ": " ", "Ċ": "\n"})
_GAP = r"[\s▁]*"

# The first that is found. Dialects that share a tag come from the special to the general.
_MARKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("qwen3_coder", re.compile(r"<parameter=")),
    ("glm45", re.compile(r"<arg_key>")),
    ("mistral", re.compile(r"\[TOOL_CALLS\]|\[AVAILABLE_TOOLS\]")),
    ("kimi_k2", re.compile(r"<\|tool_calls_section_begin\|>|<\|tool_call_begin\|>")),
    ("deepseek_v3", re.compile(r"<｜tool▁calls?▁begin｜>function<｜tool▁sep｜>")),
    ("deepseek_v31", re.compile(r"<｜tool▁calls?▁begin｜>")),
    ("pythonic", re.compile(rf"\[{_NAME}\(")),
    ("hermes", re.compile(rf"<tool_call>{_GAP}\{{")),
    (
        "llama3_json",
        re.compile(rf'\{{{_GAP}"name"{_GAP}:{_GAP}"{_NAME}"{_GAP},{_GAP}"parameters"{_GAP}:{_GAP}\{{{_GAP}"word'),
    ),
)


def shown(asked: Conversation, *, history: bool = True) -> Conversation:
    """`asked` with a tool and, with `history`, a call of it: what makes a template show how it writes calls."""
    turns: tuple[Turn, ...] = (Turn("user", (Text("Hi"),)),)
    if history:
        turns += (
            Turn("assistant", (ToolCall(_ID, _NAME, '{"word": "Hi"}'),)),
            Turn("user", (ToolResult(_ID, (Text("Done."),)),)),
        )
    return Conversation(model=asked.model, turns=turns, tools=(TOOL,), max_tokens=1, extras=asked.extras)


def plain(pieces: list[str]) -> str:
    """Tokens as a vocabulary names them, as text."""
    return "".join(pieces).translate(_WRITTEN)


def dialect_of_prompt(prompt: str) -> str | None:
    """The dialect that a prompt made of `shown` is written in; None: it shows none that is known."""
    return next((dialect for dialect, mark in _MARKS if mark.search(prompt)), None)
