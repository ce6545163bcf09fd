"""A history that every chat template takes: alternating turns, calls and results in pairs, nothing empty.

Clients cut turns short, drop halves of a pair, repeat ids, and send empty blocks; an engine answers such a history with
a 400 that comes back with every later turn. Every mend here depends on what stands before it only, so that a mended
history of turn n+1 still begins with the mended history of turn n.
"""

from __future__ import annotations

from collections import deque

import msgspec

from qiao.core.conversation import (
    Document,
    Image,
    Part,
    Reasoning,
    ResultPart,
    Role,
    Text,
    ToolCall,
    ToolReference,
    ToolResult,
    Turn,
    is_blank,
)
from qiao.core.json_text import UNREADABLE_KEY, is_object
from qiao.policies.course import course
from qiao.policies.prefix import SideText, divide_side_text

Turns = tuple[Turn, ...]

NO_CONTENT = "(no content)"
NO_OUTPUT = "(no output)"
NO_RESULT = "(no result: the call was interrupted)"
_ORPHAN = "(result of a tool call that is not in this conversation)"

# How results begin that call themselves an error; Claude Code wraps its own in the tag.
_SAYS_ERROR = ("error", "<tool_use_error>")


class _Exchange:
    """An assistant turn (None before the first) and all that was said to it until the next one."""

    def __init__(self, assistant: list[Part] | None) -> None:
        self.assistant = assistant
        self.replies: list[Turn] = []


class _Ids:
    """Makes call ids unique, forward only: the k-th use of an id gets the suffix `_k`, a missing one its number."""

    def __init__(self) -> None:
        self._uses: dict[str, int] = {}
        self._taken: set[str] = set()
        self._calls = 0
        self.changed = 0

    def unique(self, original: str) -> str:
        self._calls += 1
        base = original or f"call_{self._calls}"
        use = self._uses.get(base, 0) + 1
        candidate = base if use == 1 else f"{base}_{use}"
        while candidate in self._taken:
            use += 1
            candidate = f"{base}_{use}"
        self._uses[base] = use
        self._taken.add(candidate)
        self.changed += candidate != original
        return candidate


class _Counts:
    def __init__(self) -> None:
        self.synthetic = 0
        self.orphans = 0
        self.arguments = 0


def heal(turns: Turns, side_text: SideText = "user") -> tuple[Turns, tuple[str, ...]]:
    """The history mended, and a note for every kind of mend.

    * Neighbours of the same role become one turn; blank texts go, a turn with nothing left says "(no content)".
    * Results follow their calls at once, in the order of the calls; a call without a result gets one that says so, a
      result without a call becomes the user's words.
    * Ids are unique and never missing; arguments are JSON objects; an error says that it is one.
    * An empty assistant turn at the end is no prefill and goes.

    `side_text`: where words go that stand beside results in one turn, see `prefix.divide_side_text`.
    """
    return (turns, ()) if course(turns).is_well else _mended(turns, side_text)


def _mended(turns: Turns, side_text: SideText) -> tuple[Turns, tuple[str, ...]]:
    ids = _Ids()
    counts = _Counts()
    exchanges = _exchanges(turns)
    healed: list[Turn] = []
    if not exchanges[0].replies and len(exchanges) > 1:
        # Templates that look for the user's query raise without any (Qwen3.5: "No user query found").
        healed.append(Turn("user", (Text(NO_CONTENT),)))
    for exchange in exchanges:
        calls = _calls_of(exchange, ids, counts, healed, is_last=exchange is exchanges[-1])
        healed.extend(_replies(calls, exchange.replies, counts, side_text))
    if not healed:
        healed.append(Turn("user", (Text(NO_CONTENT),)))
    notes = []
    if ids.changed:
        notes.append(f"history: call ids made unique: {ids.changed}")
    if counts.synthetic:
        notes.append(f"history: results made for calls without one: {counts.synthetic}")
    if counts.orphans:
        notes.append(f"history: results without a call kept as text: {counts.orphans}")
    if counts.arguments:
        notes.append(f"history: arguments that were no object: {counts.arguments}")
    return tuple(healed), tuple(notes)


def _exchanges(turns: Turns) -> list[_Exchange]:
    """The history cut before every assistant turn. Assistant neighbours become one, blank parts go."""
    exchanges = [_Exchange(None)]
    for turn in turns:
        last = exchanges[-1]
        parts = [clean for part in turn.parts if (clean := _clean(part, turn.role)) is not None]
        if turn.role != "assistant":
            if parts or turn.role == "user":
                last.replies.append(Turn(turn.role, tuple(parts)))
        elif last.assistant is None or last.replies:
            exchanges.append(_Exchange(parts))
        else:
            _join(last.assistant, parts)
    return exchanges


def _join(first: list[Part], second: list[Part]) -> None:
    """Assistant texts of two turns get the blank line that their pieces within one turn do not get."""
    has_text = any(isinstance(part, Text) for part in first)
    for part in second:
        if has_text and isinstance(part, Text):
            first.append(Text(f"\n\n{part.text}"))
            has_text = False
        else:
            first.append(part)


def _clean(part: Part, role: str) -> Part | None:
    """The part, if it says anything, in a form that `role` may say."""
    match part:
        case Text():
            return None if is_blank(part.text) else part
        case Reasoning():
            if is_blank(part.text):
                return None
            return part if role == "assistant" else Text(part.text)
        case ToolCall():
            return part if role == "assistant" else Text(f"[tool call: {part.name} {part.arguments}]")
        case ToolResult():
            if role == "user":
                return part
            words = "\n\n".join(text for block in part.parts if (text := _words(block)).strip())
            return Text(words) if words else None
        case Image() | Document():
            return part if role == "user" else Text(_words(part))


def _words(block: ResultPart) -> str:
    match block:
        case Text():
            return block.text
        case Image():
            return f"[image: {block.media_type or block.url or 'no data'}]"
        case Document():
            return f"[document: {block.title or block.media_type}]"
        case ToolReference():
            return f"[tool: {block.name}]"


def _calls_of(
    exchange: _Exchange, ids: _Ids, counts: _Counts, healed: list[Turn], *, is_last: bool
) -> list[tuple[str, ToolCall]]:
    """Writes the assistant turn to `healed`; its calls as (id in the client's history, call as it is sent)."""
    if exchange.assistant is None:
        return []
    calls: list[tuple[str, ToolCall]] = []
    parts: list[Part] = []
    for part in exchange.assistant:
        if isinstance(part, ToolCall):
            call_id, arguments = ids.unique(part.id), _object(part.arguments)
            counts.arguments += arguments is not part.arguments
            is_right = call_id is part.id and arguments is part.arguments
            call = part if is_right else ToolCall(call_id, part.name, arguments)
            calls.append((part.id, call))
            parts.append(call)
        else:
            parts.append(part)
    says_something = calls or any(isinstance(part, Text) for part in parts)
    if is_last and not exchange.replies and not says_something:
        return []
    healed.append(Turn("assistant", tuple(parts) or (Text(NO_CONTENT),)))
    return calls


def _object(arguments: str) -> str:
    """The same text where it is the JSON of an object; else an object that holds what was there."""
    if is_object(arguments):
        return arguments
    if not arguments.strip():
        return "{}"
    return msgspec.json.encode({UNREADABLE_KEY: arguments}).decode()


def _replies(
    calls: list[tuple[str, ToolCall]], replies: list[Turn], counts: _Counts, side_text: SideText
) -> list[Turn]:
    """What follows an assistant turn: the results in call order, then all else in its own order."""
    if len(replies) == 1 and (turn := _as_it_should_be(calls, replies[0])) is not None:
        return [turn]
    waiting: dict[str, deque[ToolResult]] = {}
    for turn in replies:
        for part in turn.parts:
            if isinstance(part, ToolResult):
                waiting.setdefault(part.call_id, deque()).append(part)
    results: list[ToolResult] = []
    for original, call in calls:
        if queue := waiting.get(original):
            results.append(_settled(queue.popleft(), call.id))
        else:
            counts.synthetic += 1
            results.append(ToolResult(call.id, (Text(NO_RESULT),)))
    # The first results of an id were taken; as many are passed over on the way through the turns.
    taken: dict[str, int] = {}
    for original, _ in calls:
        taken[original] = taken.get(original, 0) + 1
    side: list[Text] = []
    groups: list[tuple[Role, list[Part]]] = [("user", [])]
    for turn in replies:
        parts = _group(groups, turn.role)
        beside: list[Part] = []
        answers = False
        for part in turn.parts:
            if not isinstance(part, ToolResult):
                beside.append(part)
            elif taken.get(part.call_id, 0) > 0:
                taken[part.call_id] -= 1
                answers = True
            else:
                counts.orphans += 1
                beside += _orphan(part)
        if answers:
            joining, beside = divide_side_text(beside, side_text)
            side += joining
        parts += beside
    if side:
        results[-1] = ToolResult(results[-1].call_id, (*results[-1].parts, *side))
    if groups[0][0] == "user":
        groups[0] = ("user", [*results, *groups[0][1]])
    elif results:
        groups.insert(0, ("user", [*results]))
    healed = [Turn(role, tuple(parts)) for role, parts in groups if parts]
    if not healed and replies:
        healed.append(Turn("user", (Text(NO_CONTENT),)))
    return healed


def _as_it_should_be(calls: list[tuple[str, ToolCall]], turn: Turn) -> Turn | None:
    """The one turn between two answers where it needs no mending, as nearly every one: one result for each call in
    order and nothing beside them, or no calls and no results. None: it has to be looked at closely."""
    if not calls:
        has_result = any(type(part) is ToolResult for part in turn.parts)
        return turn if turn.parts and not has_result else None
    if turn.role != "user" or len(turn.parts) != len(calls):
        return None
    results: list[Part] = []
    for (original, call), part in zip(calls, turn.parts, strict=True):
        if not isinstance(part, ToolResult) or part.call_id != original:
            return None
        results.append(_settled(part, call.id))
    return Turn("user", tuple(results))


def _group(groups: list[tuple[Role, list[Part]]], role: Role) -> list[Part]:
    """The last group, if it is of `role`, else a new one; an empty one does not part its neighbours."""
    if not groups[-1][1] and groups[-1][0] != role:
        groups.pop()
    if not groups or groups[-1][0] != role:
        groups.append((role, []))
    return groups[-1][1]


def _settled(result: ToolResult, call_id: str) -> ToolResult:
    """A result that says something, and says that it is an error in words: the protocol has no field for it."""
    parts = [part for part in result.parts if not (isinstance(part, Text) and is_blank(part.text))]
    if parts and not result.is_error and len(parts) == len(result.parts) and result.call_id == call_id:
        return result
    if not parts:
        parts.append(Text(NO_OUTPUT))
    if result.is_error:
        first = parts[0]
        if not isinstance(first, Text):
            parts.insert(0, Text("Error:"))
        elif not first.text[:64].lstrip().lower().startswith(_SAYS_ERROR):
            parts[0] = Text(f"Error: {first.text}")
    return ToolResult(call_id, tuple(parts))


def _orphan(result: ToolResult) -> list[Part]:
    parts: list[Part] = [Text(_ORPHAN)]
    for block in result.parts:
        if isinstance(block, Image | Document):
            parts.append(block)
        elif (words := _words(block)).strip():
            parts.append(Text(words))
    return parts
