"""A long conversation cut down for a small window: what an agent's client sends, for a model that takes 2k tokens.

Only what is over the target is shortened, and in this order: tools to their names and one line, or to less where they
are many (their schemas stay, for the grammar), reminders of the client away, the system prompt to its first sentences,
old turns away, long tool results to their ends. The user's last words are always kept whole; what then still does not
fit is the engine's to refuse. The head of the prompt depends on nothing that a further turn changes, and old turns go
many at a time, so that the engine's prompt cache stays useful.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from qiao.core.conversation import Conversation, Part, ResultPart, Text, Tool, ToolCall, ToolResult, Turn
from qiao.core.llamacpp.tools import described, line

DEFAULT_TARGET = 2000
"""Tokens of a prompt. A 135M model reads them in under 10 s on two cores that have nothing else to do."""

LEAST_TARGET = 400
"""Less leaves no room for a question and what it is about."""

MEASURED = 256
"""Tokens of the prompt by which the reading speed is measured; see `target_for`."""

_PATIENCE = 9.0
# Seconds for n tokens grow like n * (1 + n / 4200): measured with SmolLM2-135M, 512 to 6,000 tokens.
_DOUBLED_AT = 4200
_STEP = 100

_CHARACTERS_A_TOKEN = 3.5
_SYSTEM_CHARACTERS = 400
_DESCRIPTION_CHARACTERS = 90
_LEAST_RESULT = 400
_LEAST_TURNS_SHARE = 0.4
_MOST_TOOLS_SHARE = 0.4
_REMINDER = re.compile(r"\s*<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`*#<(-])|\n{2,}")


class Shortened(msgspec.Struct, frozen=True):
    """The conversation to send, and what was left out in one line; empty if nothing was."""

    conversation: Conversation
    note: str = ""


def estimate(text: str) -> int:
    """Tokens of `text`, rather too many than too few for English and code."""
    return int(len(text.encode()) / _CHARACTERS_A_TOKEN) + 1


def reading_time(tokens: int, tokens_per_second: float) -> float:
    """Seconds for a prompt of `tokens`, where one of `MEASURED` tokens was read with `tokens_per_second`."""
    return tokens * (1 + tokens / _DOUBLED_AT) / (tokens_per_second * (1 + MEASURED / _DOUBLED_AT))


def target_for(tokens_per_second: float | None) -> int:
    """The largest target, up to the default, of which the first token comes within 10 s; None: a very slow engine."""
    if tokens_per_second is None:
        return LEAST_TARGET
    fitting = (
        target
        for target in range(DEFAULT_TARGET, LEAST_TARGET, -_STEP)
        if reading_time(target, tokens_per_second) <= _PATIENCE
    )
    return next(fitting, LEAST_TARGET)


def shorten(
    conversation: Conversation, *, target: int = DEFAULT_TARGET, count: Callable[[str], int] = estimate
) -> Shortened:
    """`conversation` with a prompt of about `target` tokens, as `count` counts them."""
    if _size(conversation, count) <= target:
        return Shortened(conversation)
    notes: list[str] = []
    tools = _shortened_tools(conversation, int(target * _MOST_TOOLS_SHARE), count, notes)
    system = _shortened_system(conversation.system, notes)
    turns = _without_reminders(conversation.turns)
    if turns != conversation.turns:
        notes.append("the client's reminders left out")
    head = sum(count(text) for text in system) + _told(tools, count)
    room = max(target - head, int(target * _LEAST_TURNS_SHARE))
    kept = _last_turns(turns, room, count)
    if len(kept) < len(turns):
        notes.append(f"{len(kept)} of {len(turns)} turns")
    kept, cut = _cut_results(kept, room, count)
    if cut:
        notes.append(f"{cut} tool results cut")
    short = msgspec.structs.replace(conversation, system=system, tools=tools, turns=kept)
    return Shortened(short, "shortened: " + ", ".join(notes) if notes else "")


def _size(conversation: Conversation, count: Callable[[str], int]) -> int:
    tools = conversation.tools if conversation.tool_choice.mode != "none" else ()
    return (
        _told(tools, count)
        + sum(map(count, conversation.system))
        + sum(_turn_size(turn, count) for turn in conversation.turns)
    )


def _turn_size(turn: Turn, count: Callable[[str], int]) -> int:
    return sum(count(_words(part)) for part in turn.parts) + 6


def _words(part: Part | ResultPart) -> str:
    match part:
        case Text():
            return part.text
        case ToolCall():
            return part.name + part.arguments
        case ToolResult():
            return "\n".join(_words(inner) for inner in part.parts)
        case _:
            return ""


# -- the head: tools and system prompt ----------------------------------------------------------------------------


def _shortened_tools(
    conversation: Conversation, room: int, count: Callable[[str], int], notes: list[str]
) -> tuple[Tool, ...]:
    """The tools as far as `room` tokens tell them: by one line, without it, by their names, by the first names.

    The one that has to be called keeps its line.
    """
    choice, before = conversation.tool_choice, sum(len(tool.description) for tool in conversation.tools)
    forced = choice.name if choice.mode == "tool" else None
    tools = tuple(map(_one_line, conversation.tools))
    if choice.mode == "none" or _told(tools, count) <= room:
        if sum(len(tool.description) for tool in tools) < before:
            notes.append(f"{len(tools)} tools to names")
        return tools
    plain = tuple(tool if tool.name == forced else msgspec.structs.replace(tool, description="") for tool in tools)
    if _told(plain, count) <= room:
        notes.append(f"{len(tools)} tools without descriptions")
        return plain
    bare = tuple(tool if tool.name == forced else msgspec.structs.replace(tool, told="name") for tool in plain)
    notes.append(f"{len(tools)} tools to bare names")
    left = room - _told(tuple(tool for tool in bare if tool.name == forced), count)
    kept: list[Tool] = []
    for tool in bare:
        if tool.name != forced:
            left -= count(line(tool))
            tool = tool if left >= 0 else msgspec.structs.replace(tool, told="nothing")
        kept.append(tool)
    if untold := sum(tool.told == "nothing" for tool in kept):
        notes.append(f"{untold} of them left out")
    return tuple(kept)


def _one_line(tool: Tool) -> Tool:
    first, _, _ = tool.description.strip().partition("\n\n")
    return msgspec.structs.replace(tool, description=_beginning(first, _DESCRIPTION_CHARACTERS))


def _told(tools: tuple[Tool, ...], count: Callable[[str], int]) -> int:
    return count(described(tools)) if tools else 0


def _beginning(text: str, most: int) -> str:
    """The first sentences of `text` that fit into `most` characters, or as much of the first as does."""
    kept = ""
    for sentence in _SENTENCE_END.split(text.strip()):
        plain = " ".join(sentence.split())
        if kept and len(kept) + 1 + len(plain) > most:
            break
        kept = f"{kept} {plain}".strip()
        if len(kept) >= most:
            break
    if len(kept) <= most:
        return kept
    return kept[:most].rsplit(" ", 1)[0] + " …"


def _shortened_system(blocks: tuple[str, ...], notes: list[str]) -> tuple[str, ...]:
    """The first sentences: who the model is to be. An agent's rules and a small model's window do not go together."""
    kept: list[str] = []
    left = _SYSTEM_CHARACTERS
    for block in blocks:
        plain = _REMINDER.sub("\n", block).strip()
        if not plain or left <= 0:
            continue
        beginning = _beginning(plain, left)
        kept.append(beginning)
        left -= len(beginning)
    before, after = sum(map(len, blocks)), sum(map(len, kept))
    if after < before:
        notes.append(f"system {_kilobytes(before)} to {_kilobytes(after)}")
    return tuple(kept)


def _kilobytes(characters: int) -> str:
    return f"{characters / 1024:.1f} KB"


# -- turns --------------------------------------------------------------------------------------------------------


def _without_reminders(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns without what the client itself put in; a turn that held nothing else goes too."""
    kept: list[Turn] = []
    for turn in turns:
        if turn.role == "system":
            continue
        parts = tuple(part for part in map(_without_reminder, turn.parts) if not _is_empty(part))
        if parts or turn is turns[-1]:
            kept.append(msgspec.structs.replace(turn, parts=parts or turn.parts))
    return tuple(kept) or turns


def _without_reminder(part: Part) -> Part:
    match part:
        case Text() if "<system-reminder>" in part.text:
            return Text(_REMINDER.sub("\n", part.text).strip())
        case ToolResult():
            inner = tuple(
                Text(_REMINDER.sub("\n", block.text).strip())
                if isinstance(block, Text) and "<system-reminder>" in block.text
                else block
                for block in part.parts
            )
            return msgspec.structs.replace(part, parts=inner) if inner != part.parts else part
        case _:
            return part


def _is_empty(part: Part) -> bool:
    return isinstance(part, Text) and not part.text.strip()


def _has_user_text(turn: Turn) -> bool:
    return turn.role == "user" and any(isinstance(part, Text) for part in turn.parts)


def _last_turns(turns: tuple[Turn, ...], room: int, count: Callable[[str], int]) -> tuple[Turn, ...]:
    """The last turns that fit into `room` tokens, calls with their results, and the user's last words before them."""
    sizes = [_turn_size(turn, count) for turn in turns]
    if sum(sizes) <= room:
        return turns
    asked = max((place for place, turn in enumerate(turns) if _has_user_text(turn)), default=0)
    start = _first_that_fits(sizes, room)
    opening = next((place for place in range(start, asked + 1) if _has_user_text(turns[place])), None)
    if opening is not None:
        return turns[opening:]
    # The user's last words lie further back than what fits: they lead, and whole rounds of calls follow.
    words = tuple(part for part in turns[asked].parts if not isinstance(part, ToolResult))
    lead = msgspec.structs.replace(turns[asked], parts=words)
    start = _first_that_fits(sizes, room - _turn_size(lead, count))
    start = next(
        (place for place in range(max(start, asked + 1), len(turns)) if turns[place].role == "assistant"),
        max(asked + 1, _last_assistant(turns)),
    )
    return (lead, *turns[start:])


def _last_assistant(turns: tuple[Turn, ...]) -> int:
    return max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))


def _first_that_fits(sizes: list[int], room: int) -> int:
    """The first place from which the rest fits, out of places that lie half a room apart.

    The places depend only on what comes before them, so that they are the same in the next turn: the beginning of the
    prompt moves seldom, and by much.
    """
    total, passed, border = sum(sizes), 0, 0
    for place, size in enumerate(sizes):
        is_border = place == 0 or passed - border >= room // 2
        if is_border:
            border = passed
            if total - passed <= room:
                return place
        passed += size
    return len(sizes)


def _cut_results(turns: tuple[Turn, ...], room: int, count: Callable[[str], int]) -> tuple[tuple[Turn, ...], int]:
    """Tool results cut to an equal share where they are too long together: their beginning and their end stay."""
    total = sum(_turn_size(turn, count) for turn in turns)
    results = [part for turn in turns for part in turn.parts if isinstance(part, ToolResult)]
    if total <= room or not results:
        return turns, 0
    other = total - sum(count(_words(result)) for result in results)
    share = max(_LEAST_RESULT, int(max(0, room - other) * _CHARACTERS_A_TOKEN / len(results)))
    cut = sum(len(_words(result)) > share for result in results)
    shortened = tuple(
        msgspec.structs.replace(turn, parts=tuple(_cut(part, share) for part in turn.parts)) for turn in turns
    )
    return shortened, cut


def _cut(part: Part, most: int) -> Part:
    if not isinstance(part, ToolResult):
        return part
    text = _words(part)
    if len(text) <= most:
        return part
    half = most // 2
    left_out = len(text) - 2 * half
    return msgspec.structs.replace(
        part, parts=(Text(f"{text[:half]}\n[… {left_out} characters left out …]\n{text[-half:]}"),)
    )
