"""The last resort for a conversation that does not fit: its oldest tool results cut down, so that it goes on.

Only where the person who runs the gateway asked for it (`--on-overflow trim`); else the client is told, and compacts
as it sees fit. The system prompt, system turns (also those that became reminders in their neighbours), what the user
said last and all that follows stay whole; calls and results stay in pairs; what was cut says so in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from qiao.core.conversation import Conversation, Part, ResultPart, Text, ToolCall, ToolResult, Turn
from qiao.core.json_text import encode_json
from qiao.policies.prefix import is_reminder

CHARACTERS_PER_TOKEN = 4
"""A fixed rule, not the count: the same conversation is cut at the same place a turn later, for the prefix cache."""

LEFT_OUT = "[… this old tool result was left out: the conversation is longer than the model's window …]"

_HEAD, _TAIL = 240, 80
_LEAST = 2 * (_HEAD + _TAIL)
_STEPS = 4

_ARGUMENTS = msgspec.json.Decoder(dict[str, Any])


class Trimmed(msgspec.Struct, frozen=True):
    """A conversation cut down. `results`, `texts`: how many tool results, and other pieces, were shortened."""

    conversation: Conversation
    results: int = 0
    texts: int = 0

    @property
    def note(self) -> str:
        """What was done, in one line; empty if nothing was."""
        pieces = []
        if self.results:
            pieces.append(f"{self.results} old tool results")
        if self.texts:
            pieces.append(f"{self.texts} old texts")
        return f"trimmed: {' and '.join(pieces)} shortened" if pieces else ""


def to_free(excess: int, window: int) -> int:
    """Tokens to cut for an excess of `excess`: whole quarters of the window, so that the next turns, which only add
    to the excess, are cut at the same place."""
    step = max(1, window // _STEPS)
    return -(-max(1, excess) // step) * step


def trim(conversation: Conversation, tokens: int) -> Trimmed:
    """`conversation` with about `tokens` tokens less, or as many as can be had.

    Tool results first, the oldest first: long ones to their ends, then all to a note. Then what the assistant wrote
    into its calls, then other long texts.
    """
    border = _protected(conversation.turns)
    turns = list(conversation.turns)
    left = tokens * CHARACTERS_PER_TOKEN
    long, left = _pass(turns, border, left, _shorter_result)
    gone, left = _pass(turns, border, left, _noted_result)
    results = max(long, gone)
    texts = 0
    for shorter in (_shorter_call, _shorter_text):
        count, left = _pass(turns, border, left, shorter)
        texts += count
    if not results and not texts:
        return Trimmed(conversation)
    return Trimmed(msgspec.structs.replace(conversation, turns=tuple(turns)), results, texts)


def _protected(turns: tuple[Turn, ...]) -> int:
    """The first turn that stays whole: the last one of the user, or the assistant's behind it."""
    return max((place for place, turn in enumerate(turns) if turn.role == "user"), default=0)


def _pass(turns: list[Turn], border: int, left: int, shorter: Callable[[Part], Part]) -> tuple[int, int]:
    """Shorten parts before `border` until `left` characters are gone. The user's last words stay, wherever they are."""
    words = max((place for place, turn in enumerate(turns) if turn.role == "user" and _speaks(turn)), default=-1)
    changed = 0
    for place in range(border):
        turn = turns[place]
        if turn.role == "system" or place == words:
            continue
        parts: list[Part] = []
        for part in turn.parts:
            new = shorter(part) if left > 0 else part
            if new is not part:
                changed += 1
                left -= _size(part) - _size(new)
            parts.append(new)
        turns[place] = msgspec.structs.replace(turn, parts=tuple(parts))
    return changed, left


def _speaks(turn: Turn) -> bool:
    return any(isinstance(part, Text) for part in turn.parts)


def _shorter_result(part: Part) -> Part:
    if not isinstance(part, ToolResult):
        return part
    text, others = _divided(part)
    short = _shortened(text, "this old tool result")
    return part if short is text else msgspec.structs.replace(part, parts=(Text(short), *others))


def _noted_result(part: Part) -> Part:
    """Only a note, where that is shorter."""
    if not isinstance(part, ToolResult):
        return part
    text, others = _divided(part)
    return part if len(text) <= 2 * len(LEFT_OUT) else msgspec.structs.replace(part, parts=(Text(LEFT_OUT), *others))


def _divided(result: ToolResult) -> tuple[str, tuple[ResultPart, ...]]:
    """What the tool said, and what stands beside it and stays."""
    said = [block for block in result.parts if isinstance(block, Text) and not is_reminder(block)]
    others = tuple(block for block in result.parts if not isinstance(block, Text) or is_reminder(block))
    return "\n\n".join(block.text for block in said), others


def _shorter_call(part: Part) -> Part:
    """Long texts inside the arguments (a file that was written), which stay an object with the same names."""
    if not isinstance(part, ToolCall) or len(part.arguments) <= _LEAST:
        return part
    try:
        arguments = _ARGUMENTS.decode(part.arguments)
    except (msgspec.DecodeError, RecursionError):
        return part
    short = {
        name: _shortened(value, "this old argument") if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    if short == arguments:
        return part
    return msgspec.structs.replace(part, arguments=encode_json(short).decode())


def _shorter_text(part: Part) -> Part:
    if not isinstance(part, Text) or is_reminder(part):
        return part
    short = _shortened(part.text, "this old text")
    return part if short is part.text else Text(short)


def _shortened(text: str, what: str) -> str:
    if len(text) <= _LEAST:
        return text
    left_out = len(text) - _HEAD - _TAIL
    note = f"[… {left_out} characters of {what} left out: the conversation is longer than the model's window …]"
    return f"{text[:_HEAD]}\n{note}\n{text[-_TAIL:]}"


def _size(part: Part) -> int:
    match part:
        case Text():
            return len(part.text)
        case ToolCall():
            return len(part.arguments)
        case ToolResult():
            return sum(len(block.text) for block in part.parts if isinstance(block, Text))
        case _:
            return 0
