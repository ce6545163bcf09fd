"""The context window: how long an answer may be, and the context edits that a client asks for."""

from __future__ import annotations

from typing import Literal

import msgspec

from qiao.core.conversation import (
    ClearThinking,
    ClearToolUses,
    Conversation,
    Image,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)

Turns = tuple[Turn, ...]

CLEARED = "[old tool result cleared to save context]"

# A rough rule for what an edit frees, reported to the client as such; the engine's own count is not at hand here.
_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_PICTURE = 1_500
_TOKENS_PER_PART = 8


class AppliedEdit(msgspec.Struct, frozen=True):
    """A context edit that was carried out. Tokens are estimated."""

    kind: Literal["clear_thinking_20251015", "clear_tool_uses_20250919"]
    cleared_input_tokens: int
    cleared_thinking_turns: int = 0
    cleared_tool_uses: int = 0


def clamp_max_tokens(
    asked: int | None, window: int | None, max_output: int | None
) -> tuple[int | None, tuple[str, ...]]:
    """The limit of the answer in tokens, at least 1: not above what the model is good for, nor above the window less
    one token of prompt. How much room the prompt leaves is for who has counted it. None stays None: an engine fills
    what the prompt leaves."""
    if asked is None:
        return None, ()
    limits = [limit for limit in (max_output, window - 1 if window is not None else None) if limit is not None]
    allowed = max(1, min([asked, *limits]))
    if asked <= 0:
        return 1, ("max_tokens: 0 asked, 1 sent to fill the cache",)
    if allowed < asked:
        return allowed, (f"max_tokens: {asked} asked, {allowed} possible",)
    return allowed, ()


def clamp_budget(budget: int | None, max_tokens: int | None) -> int | None:
    """A thinking budget that leaves a quarter of the answer, where our own limit made it too large."""
    if budget is None or max_tokens is None or budget < max_tokens:
        return budget
    return max(1, max_tokens * 3 // 4)


def token_trigger(conversation: Conversation) -> int | None:
    """The least number of prompt tokens for which an edit waits, so that they have to be counted first."""
    triggers = (
        edit.trigger
        for edit in conversation.edits or ()
        if isinstance(edit, ClearToolUses) and edit.trigger_kind == "input_tokens"
    )
    return min(triggers, default=None)


def apply_edits(conversation: Conversation, input_tokens: int | None = None) -> tuple[Turns, tuple[AppliedEdit, ...]]:
    """The turns after the context edits that the client asked for, in its order.

    `input_tokens`: the prompt's size before any edit, None to estimate. What an edit frees is reckoned by its share of
    the characters.
    """
    turns = conversation.turns
    if not conversation.edits:
        return turns, ()
    roughly = estimate_tokens(turns) + _framing_tokens(conversation)
    total = roughly if input_tokens is None else input_tokens
    scale = total / max(1, roughly)
    applied: list[AppliedEdit] = []
    for edit in conversation.edits:
        match edit:
            case ClearThinking():
                turns, done = _clear_thinking(turns, edit, scale)
            case ClearToolUses():
                turns, done = _clear_tool_uses(turns, edit, total, scale)
        if done is not None:
            total -= done.cleared_input_tokens
            applied.append(done)
    return turns, tuple(applied)


def estimate_tokens(turns: Turns) -> int:
    """A rough count of the tokens in `turns`."""
    return sum(_tokens(part) for turn in turns for part in turn.parts)


def _framing_tokens(conversation: Conversation) -> int:
    """The head of the prompt, and what the template writes around every part."""
    parts = sum(len(turn.parts) for turn in conversation.turns)
    characters = sum(map(len, conversation.system))
    characters += sum(len(tool.name) + len(tool.description) + len(tool.parameters) for tool in conversation.tools)
    return characters // _CHARACTERS_PER_TOKEN + parts * _TOKENS_PER_PART


def _clear_thinking(turns: Turns, edit: ClearThinking, scale: float) -> tuple[Turns, AppliedEdit | None]:
    if edit.keep is None:
        return turns, None
    thinking = [i for i, turn in enumerate(turns) if any(isinstance(part, Reasoning) for part in turn.parts)]
    cleared = set(thinking[: max(0, len(thinking) - edit.keep)])
    if not cleared:
        return turns, None
    freed = sum(_tokens(part) for i in cleared for part in turns[i].parts if isinstance(part, Reasoning))
    result = tuple(
        msgspec.structs.replace(turn, parts=tuple(part for part in turn.parts if not isinstance(part, Reasoning)))
        if i in cleared
        else turn
        for i, turn in enumerate(turns)
    )
    return result, AppliedEdit("clear_thinking_20251015", round(freed * scale), cleared_thinking_turns=len(cleared))


def _clear_tool_uses(
    turns: Turns, edit: ClearToolUses, input_tokens: int, scale: float
) -> tuple[Turns, AppliedEdit | None]:
    """Old results become a short note; calls and results stay in pairs, which templates insist on."""
    calls = [part for turn in turns for part in turn.parts if isinstance(part, ToolCall)]
    reached = len(calls) if edit.trigger_kind == "tool_uses" else input_tokens
    if reached <= edit.trigger:
        return turns, None
    first_kept = max(0, len(calls) - edit.keep)
    names = {call.id: call.name for call in calls[:first_kept] if call.name not in edit.exclude_tools}
    for call in calls[first_kept:]:
        names.pop(call.id, None)
    freed = 0
    cleared = 0
    result: list[Turn] = []
    for turn in turns:
        parts: list[Part] = []
        for part in turn.parts:
            new = part
            if isinstance(part, ToolResult) and part.call_id in names and part.parts != (Text(CLEARED),):
                new = msgspec.structs.replace(part, parts=(Text(CLEARED),))
                cleared += 1
            elif isinstance(part, ToolCall) and part.id in names and edit.clears_input(part.name):
                new = msgspec.structs.replace(part, arguments="{}")
            freed += _tokens(part) - _tokens(new)
            parts.append(new)
        result.append(msgspec.structs.replace(turn, parts=tuple(parts)))
    freed = max(0, round(freed * scale))
    if not cleared or freed < (edit.clear_at_least or 0):
        return turns, None
    return tuple(result), AppliedEdit("clear_tool_uses_20250919", freed, cleared_tool_uses=cleared)


def _tokens(part: Part) -> int:
    match part:
        case Text() | Reasoning():
            return len(part.text) // _CHARACTERS_PER_TOKEN
        case ToolCall():
            return len(part.arguments) // _CHARACTERS_PER_TOKEN
        case Image():
            return _TOKENS_PER_PICTURE
        case ToolResult():
            return sum(
                _TOKENS_PER_PICTURE if isinstance(block, Image) else len(_text(block)) // _CHARACTERS_PER_TOKEN
                for block in part.parts
            )
        case _:
            return 0


def _text(block: object) -> str:
    return block.text if isinstance(block, Text) else ""
