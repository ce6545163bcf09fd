"""`messages` → turns, and what the conversation itself changes on its way: effort, tools, words that expire."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from qiao.core.anthropic import wire
from qiao.core.anthropic.blocks import parts_of
from qiao.core.anthropic.tools import Toolbox
from qiao.core.conversation import Document, Image, Part, Reasoning, Role, Text, ToolCall, ToolResult, Turn
from qiao.core.fault import Fault, invalid
from qiao.core.fields import read, shown
from qiao.core.head import without_billing_line

_KNOWN_MESSAGES: Final = 2048
_KNOWN_SIZE: Final = 8 * 1024
"""Messages come again when the rest of their request changes, and in other requests: as many of at most so many bytes
are not read anew. Longer ones are few, and cost little a byte."""

_NOBODYS: Final = Toolbox()
"""For messages that change no tools."""

_MARKED: Final = b',"cache_control":{"type":"ephemeral"}}]}'
_UNMARKED: Final = b"}]}"
"""Clients mark the last block for their cache, and in the next request the same message comes without the mark. Nothing
else ends so: a quote inside a string would have a backslash before it."""

_MESSAGE: msgspec.json.Decoder[wire.Message] = msgspec.json.Decoder(wire.Message)


class Spoken(NamedTuple):
    """A message that says nothing but its words."""

    role: Role
    turns: tuple[Turn, ...]


class History(msgspec.Struct, frozen=True):
    """`effort`: the last one that a system message set, None if none did."""

    turns: tuple[Turn, ...]
    effort: str | None


def system_texts(system: str | list[wire.ContentBlock] | None) -> tuple[str, ...]:
    """The head of the prompt, one entry a block, without empty ones and without Claude Code's billing line."""
    if system is None:
        return ()
    if isinstance(system, str):
        texts = [system]
    else:
        texts = [_system_text(block, f"system.{index}") for index, block in enumerate(system)]
    return tuple(text for text in map(without_billing_line, texts) if text)


def _system_text(block: wire.ContentBlock, path: str) -> str:
    if not isinstance(block, wire.TextBlock):
        raise invalid(path, f"'{_kind(block)}' blocks are not allowed in system; only text is")
    return block.text or ""


def spoken(raw: bytes) -> Spoken | bytes:
    """A message on its own, or its text where it has to be read in its place. Raises nothing."""
    if raw.endswith(_MARKED):
        raw = raw.removesuffix(_MARKED) + _UNMARKED
    found = _known(raw) if len(raw) <= _KNOWN_SIZE else _known.__wrapped__(raw)
    return raw if found is None else found


def history(messages: Sequence[Spoken | bytes], toolbox: Toolbox) -> History:
    """The turns in the order of the client. Additions and removals of tools are applied to `toolbox`."""
    if not messages:
        raise invalid("messages", "at least one message is required")
    turns: list[Turn] = []
    expiring: list[Turn] = []
    effort: str | None = None
    for index, said in enumerate(messages):
        if isinstance(said, Spoken):
            if expiring and said.role == "user":
                turns, expiring = _without(turns, expiring), []
            turns += said.turns
            continue
        path = f"messages.{index}"
        message = read(_MESSAGE, msgspec.Raw(said), path)
        match message.role:
            case "user":
                turns, expiring = _without(turns, expiring), []
                turns += _spoken_turns("user", _content(message, path), path, toolbox)
            case "assistant":
                turns += _spoken_turns("assistant", _content(message, path), path, toolbox)
            case "system":
                if message.output_config is not None and message.output_config.effort:
                    effort = message.output_config.effort
                if parts := _system_parts(message, path, toolbox):
                    turns.append(Turn("system", parts))
                    if message.clear_at == "next_user_message":
                        expiring.append(turns[-1])
            case other:
                problem = f"expected 'user', 'assistant' or 'system', got {shown(other)}"
                raise invalid(f"{path}.role", problem)
    if not turns:
        raise invalid("messages", "at least one message with content is required")
    return History(tuple(turns), effort)


@lru_cache(_KNOWN_MESSAGES)
def _known(raw: bytes) -> Spoken | None:
    try:
        message = _MESSAGE.decode(raw)
        if message.role not in ("user", "assistant") or isinstance(message.content, msgspec.UnsetType):
            return None
        content = message.content or []
        if not isinstance(content, str) and wire.CompactionBlock in map(type, content):
            return None
        role: Role = "user" if message.role == "user" else "assistant"
        return Spoken(role, tuple(_spoken_turns(role, content, "", _NOBODYS)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Fault):
        return None  # it is read again, where the error can name its place


def _without(turns: list[Turn], expired: list[Turn]) -> list[Turn]:
    return [turn for turn in turns if all(turn is not each for each in expired)] if expired else turns


def _content(message: wire.Message, path: str) -> str | list[wire.ContentBlock]:
    if isinstance(message.content, msgspec.UnsetType):
        raise invalid(f"{path}.content", "Field required")
    return message.content or []


def _spoken_turns(role: Role, content: str | list[wire.ContentBlock], path: str, toolbox: Toolbox) -> list[Turn]:
    """One turn as a rule, without parts if it was empty.

    What only the other side can say (the results of server tools inside an assistant's message, a picture in it)
    becomes a turn of its own in that place, so that every turn holds only what its role can say.
    """
    if isinstance(content, str):
        return [Turn(role, (Text(content),) if content else ())]
    turns: list[Turn] = []
    speaker = role
    parts: list[Part] = []
    for index, block in enumerate(content):
        where = f"{path}.content.{index}"
        is_compaction = isinstance(block, wire.CompactionBlock)
        if isinstance(block, wire.CompactionBlock):
            _change_tools(block.tool_changes or (), f"{where}.tool_changes", toolbox)
        for part in parts_of(block, where):
            owner = "user" if is_compaction else _speaker(part, role)
            if owner != speaker:
                if parts:
                    turns.append(Turn(speaker, tuple(parts)))
                speaker, parts = owner, []
            parts.append(part)
    if parts or not turns:
        turns.append(Turn(speaker, tuple(parts)))
    return turns


def _speaker(part: Part, role: Role) -> Role:
    match part:
        case Text():
            return role
        case Reasoning() | ToolCall():
            return "assistant"
        case ToolResult() | Image() | Document():
            return "user"


def _system_parts(message: wire.Message, path: str, toolbox: Toolbox) -> tuple[Part, ...]:
    content = message.content
    if isinstance(content, str):
        return (Text(content),) if content else ()
    parts: list[Part] = []
    for index, block in enumerate(content or ()):
        match block:
            case wire.TextBlock(text=text):
                parts += [Text(text)] if text else []
            case wire.ToolAdditionBlock(tool=target):
                toolbox.add(target, f"{path}.content.{index}.tool")
            case wire.ToolRemovalBlock(tool=target):
                toolbox.remove(target, f"{path}.content.{index}.tool")
            case _:
                problem = f"'{_kind(block)}' blocks are not allowed in system messages"
                raise invalid(f"{path}.content.{index}", problem)
    return tuple(parts)


def _change_tools(
    changes: list[wire.ToolAdditionBlock | wire.ToolRemovalBlock] | tuple[()], path: str, toolbox: Toolbox
) -> None:
    for index, change in enumerate(changes):
        if isinstance(change, wire.ToolAdditionBlock):
            toolbox.add(change.tool, f"{path}.{index}.tool")
        else:
            toolbox.remove(change.tool, f"{path}.{index}.tool")


def _kind(block: wire.ContentBlock) -> str:
    return str(type(block).__struct_config__.tag)
