"""The laws that no input may break, and how the bytes of a fuzzer become an input. Standard library and qiao only.

The first byte chooses the law, some bytes after it the setting and the cuts, and the rest is the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.grammar import check
from qiao.core.anthropic.stream import Encoder
from qiao.core.arguments import Arguments
from qiao.core.dialects import DIALECTS, text_tools
from qiao.core.dialects.base import Layout, Piece
from qiao.core.events import Finished, TextAdded, ToolArgumentsAdded, ToolCallEnded
from qiao.core.exchange import Exchange
from qiao.core.openai.stream import Decoder
from qiao.core.repair import typed_json
from qiao.core.shape import Shape, read_shape
from qiao.core.sse import Decoder as EventDecoder
from qiao.core.sse import ServerSentEvent
from tests.core.dialects.answers import STRING, TOOLS, Case, Outcome, run, tool

DECLARED = (
    tool("f", {"a": STRING, "n": {"type": "integer"}, "u": {"type": ["string", "null"]}, "v": {}}),
    tool("get_weather", {"city": STRING}, additionalProperties=False),
)
TYPED = TOOLS["typed"]
NAMES = sorted(DIALECTS)
FINISHES = (
    Finished("stop"),
    Finished("tool_calls"),
    Finished("length"),
    Finished("stop_sequence", "END"),
)
_NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "b": {"type": "boolean"},
        "s": STRING,
        "l": {"type": "array", "items": {"type": "integer"}},
        "o": {"type": "object", "properties": {"k": {"type": "integer"}, "s": STRING}, "additionalProperties": False},
        "e": {"enum": ["Alpha", "beta_two"]},
        "m": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["n"],
    "additionalProperties": False,
}
SHAPES = (None, *(read_shape(json.dumps(schema)) for schema in (_NESTED, {"type": "object"}, {})))
SCALARS = tuple(
    read_shape(json.dumps({"type": kind})) for kind in ("string", "integer", "boolean", "array", "object", "null")
)
_CUTS = 4
_CLIENT = Frame(message_id="msg_1", model="m")


def cut(text: Any, places: Sequence[int]) -> list[Any]:
    """`text` (or bytes) in pieces."""
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if text[start:end]]


class Invented(Case, frozen=True):
    """A text that nobody expected anything of; its tools are `DECLARED`."""

    @property
    def tools(self) -> Any:
        return DECLARED


def read(name: str, pieces: Sequence[str], *, was_cut: bool, repair: bool) -> tuple[list[Piece], list[tuple[str, str]]]:
    """What a dialect makes of a text, neighbours of one kind joined."""
    dialect = DIALECTS[name](DECLARED, repair=repair)
    out: list[Piece] = []
    for piece in [*(found for text in pieces for found in dialect.read(text)), *dialect.finish(cut=was_cut)]:
        match out[-1:], piece:
            case [TextAdded(text=before)], TextAdded(text=text):
                out[-1] = TextAdded(before + text)
            case [Layout(text=before)], Layout(text=text):
                out[-1] = Layout(before + text)
            case [ToolArgumentsAdded(text=before)], ToolArgumentsAdded(index=index, text=text):
                out[-1] = ToolArgumentsAdded(index, before + text)
            case _:
                out.append(piece)
    return out, dialect.repairs


def words(piece: Piece) -> str:
    """What of the model's text a piece stands for."""
    match piece:
        case ToolCallEnded():
            return piece.raw
        case TextAdded() | Layout():
            return piece.text
        case _:
            return ""


# -- laws -------------------------------------------------------------------------------------------------------------


def letters(name: str, text: str, places: Sequence[int], *, was_cut: bool, repair: bool) -> None:
    """A dialect reads the same however the text is cut, keeps every letter, and ends calls as objects only."""
    found = read(name, [text], was_cut=was_cut, repair=repair)
    for pieces in (cut(text, places), list(text)):
        assert read(name, pieces, was_cut=was_cut, repair=repair) == found
    assert "".join(words(piece) for piece in found[0]) == text
    arguments: dict[int, str] = {}
    for piece in found[0]:
        if isinstance(piece, ToolArgumentsAdded):
            arguments[piece.index] = arguments.get(piece.index, "") + piece.text
        elif isinstance(piece, ToolCallEnded) and piece.complete:
            assert isinstance(json.loads(arguments[piece.index]), dict)


def answers(
    name: str,
    text: str,
    places: Sequence[int],
    finish: Finished,
    *,
    reasoning: str,
    one_call: bool,
    repair: bool = True,
) -> Outcome:
    """The client's answer is the same for every cut, and its stream, under the strict grammar, says the same."""
    given: dict[str, Any] = {"tools": "none", "reasoning": reasoning, "finish": finish.reason, "one_call": one_call}
    if finish.stop_sequence is not None:
        given |= {"stopped": True, "stop": finish.stop_sequence}
    case = Invented("", given, text, ())
    found = run(case, [text], dialect=name, repair=repair)
    for pieces in (cut(text, places), list(text)):
        assert run(case, pieces, dialect=name, repair=repair) == found
    if not found.cut:
        assert found.streamed == found.whole
    if finish.reason == "length":
        assert found.whole[-1] == "stop_reason max_tokens"
    return found


def mended(text: str, places: Sequence[int], shape: Shape | None, *, was_cut: bool, mend: bool) -> None:
    """Arguments end as one object, as text, or cut; the same for every cut; what was sent is never contradicted."""
    results = []
    for pieces in ([text] if text else [], cut(text, places), list(text)):
        arguments = Arguments(shape, mend=mend)
        out = "".join([arguments.feed(piece) for piece in pieces])
        closed = arguments.close(cut=was_cut)
        out += closed.text
        if closed.outcome == "object":
            assert isinstance(json.loads(out), dict)
        elif closed.outcome == "text":
            assert out == ""
        results.append((out, closed.outcome, closed.leftover, arguments.repairs))
    assert results[0] == results[1] == results[2]


def typed(text: str, shape: Shape | None) -> None:
    """A parameter without quotes becomes JSON, whatever it holds."""
    notes: list[str] = []
    for written in (typed_json(text, shape), typed_json(text, shape, notes.append)):
        value = json.loads(written)
        assert isinstance(value, str) or shape is None or shape.allows(value) is not None


def events(data: bytes, places: Sequence[int]) -> None:
    """Server-sent events are the same for every cut."""

    def decoded(pieces: Sequence[bytes]) -> list[ServerSentEvent]:
        decoder = EventDecoder()
        return [*(event for piece in pieces for event in decoder.feed(piece)), *decoder.close()]

    whole = decoded([data])
    assert decoded(cut(data, places)) == whole
    assert decoded([data[at : at + 1] for at in range(len(data))]) == whole


_PER_EVENT = re.compile(rb".+?(?:\n\n|\Z)", re.DOTALL)


def streams(data: bytes, places: Sequence[int], dialect: str | None) -> None:
    """Whatever bytes an engine sends, the client's stream keeps the grammar, ends, and is the same for every cut."""

    def answered(pieces: Sequence[bytes]) -> tuple[Any, bool]:
        made = text_tools(dialect, DECLARED) if dialect is not None else None
        exchange = Exchange(Decoder(), Encoder(_CLIENT), id_prefix="toolu", text_tools=made, tools=DECLARED)
        out = b"".join([exchange.receive(piece) for piece in pieces]) + exchange.eof()
        assert exchange.is_over
        return check(out, exact_usage=False), exchange.facts.fault is None

    whole = answered([data])
    assert answered(cut(data, places)) == whole
    # As engines send them, which is where chunks are read by their likeness.
    assert answered([*_PER_EVENT.findall(data)]) == whole


# -- from bytes -------------------------------------------------------------------------------------------------------


def _letters(setting: bytes, places: list[int], rest: bytes) -> None:
    name = NAMES[setting[0] % len(NAMES)]
    letters(name, text_of(rest), places, was_cut=bool(setting[1] & 1), repair=not setting[1] & 2)


def _answers(setting: bytes, places: list[int], rest: bytes) -> None:
    reasoning: Literal["tag", "open"] = "open" if setting[1] & 4 else "tag"
    answers(
        NAMES[setting[0] % len(NAMES)],
        text_of(rest),
        places,
        FINISHES[setting[1] & 3],
        reasoning=reasoning,
        one_call=bool(setting[1] & 8),
        repair=not setting[1] & 16,
    )


def _mended(setting: bytes, places: list[int], rest: bytes) -> None:
    shape = SHAPES[setting[0] % len(SHAPES)]
    mended(text_of(rest), places, shape, was_cut=bool(setting[1] & 1), mend=not setting[1] & 2)
    typed(text_of(rest), SCALARS[setting[1] % len(SCALARS)])


def _events(setting: bytes, places: list[int], rest: bytes) -> None:
    events(rest, places)


def _streams(setting: bytes, places: list[int], rest: bytes) -> None:
    """A line that begins with `t:` or `a:` is a delta of text or of arguments; others are the engine's own bytes."""
    lines = []
    for line in rest.split(b"\n"):
        match line[:2]:
            case b"t:":
                delta: dict[str, Any] = {"content": text_of(line[2:])}
            case b"r:":
                delta = {"reasoning": text_of(line[2:])}
            case b"a:":
                delta = {"tool_calls": [{"index": setting[1] & 1, "function": {"arguments": text_of(line[2:])}}]}
            case b"c:":
                call = {"index": setting[1] & 1, "id": "c", "function": {"name": text_of(line[2:]) or "f"}}
                delta = {"tool_calls": [call]}
            case b"f:":
                ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": text_of(line[2:]) or "stop"}]}
                lines.append(b"data: " + json.dumps(ended).encode() + b"\n")
                continue
            case _:
                lines.append(line)
                continue
        lines.append(b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n")
    streams(b"\n".join(lines), places, None if setting[0] & 128 else NAMES[setting[0] % len(NAMES)])


LAWS: tuple[Callable[[bytes, list[int], bytes], None], ...] = (_letters, _answers, _mended, _events, _streams)


def text_of(data: bytes) -> str:
    """Text of any bytes."""
    return data.decode("utf-8", "replace")


def hold(data: bytes) -> None:
    """The law that the first byte names, for the input that the others make. Raises where it is broken."""
    if len(data) < 3 + _CUTS:
        return
    LAWS[data[0] % len(LAWS)](data[1:3], list(data[3 : 3 + _CUTS]), data[3 + _CUTS :])
