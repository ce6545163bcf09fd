"""Answers in which a model writes calls as text, run through the whole path, whole and streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.answer import encode as encode_whole
from qiao.core.anthropic.grammar import Checker
from qiao.core.anthropic.stream import Encoder
from qiao.core.conversation import Tool
from qiao.core.dialects import text_tools
from qiao.core.events import Finished, TextAdded, ToolCallEnded
from qiao.core.fold import Folder
from qiao.core.sequence import Sequencer
from qiao.core.stops import StopScanner

FRAME = Frame(message_id="msg_1", model="m")
DASHES = "\n----------\n"


def tool(name: str, properties: dict[str, Any] | None = None, *, required: Sequence[str] = (), **rest: Any) -> Tool:
    schema = {"type": "object", "properties": properties or {}, "required": list(required), **rest}
    return Tool(name, parameters=json.dumps(schema))


STRING = {"type": "string"}
TOOLS: dict[str, tuple[Tool, ...]] = {
    "none": (),
    "weather": (
        tool("get_weather", {"city": STRING, "days": {"type": "integer"}}, required=["city"]),
        tool("get_time", {"tz": {"type": "string", "enum": ["UTC", "CET"]}}, required=["tz"]),
    ),
    "any": (tool("f"), tool("g")),
    "named": (tool("a"), tool("b"), tool("Write"), tool("greet"), tool("Bash")),
    "list": (tool("f", {"list": {"type": "array", "items": {"type": "integer"}}}),),
    "text": (tool("f", {"text": STRING}),),
    "shell": (tool("Bash", {"command": STRING}, required=["command"]),),
    "typed": (
        tool(
            "typed",
            {
                "i": {"type": "integer"},
                "b": {"type": "boolean"},
                "l": {"type": "array"},
                "o": {"type": "object"},
                "s": STRING,
                "u": {"anyOf": [STRING, {"type": "null"}]},
                "w": {"type": ["integer", "string"]},
            },
        ),
    ),
    "house": (
        tool("TodoWrite", {"todos": {"type": "array"}}, required=["todos"]),
        tool(
            "Bash",
            {
                "command": STRING,
                "timeout": {"type": "integer"},
                "run_in_background": {"type": "boolean"},
                "mode": {"type": "string", "enum": ["fast", "slow"]},
            },
            required=["command"],
        ),
    ),
    "files": (
        tool("Write", {"path": STRING, "content": STRING}),
        tool("Bash", {"command": STRING}, required=["command"]),
    ),
}


class Case(msgspec.Struct, frozen=True):
    """One golden case. `settings`: what stands in its second line.

    `"in_stream": "cut"`: bytes of a call have gone out before it turned out not to be one. The stream keeps the
    unfinished block, as the real API does; the whole answer gives the text back.
    `"repairs"`: the names of the mends, where the case is about them. `"repair": false`: as with `--no-repair`.
    """

    name: str
    settings: dict[str, Any]
    text: str
    wanted: tuple[str, ...]

    @property
    def tools(self) -> tuple[Tool, ...]:
        return () if self.settings.get("tool_choice") == "none" else TOOLS[self.settings["tools"]]

    @property
    def dialect(self) -> str:
        return str(self.settings.get("dialect", "hermes"))

    @property
    def end(self) -> Finished:
        if self.settings.get("stopped"):
            return Finished("stop_sequence", self.settings["stop"])
        return Finished(self.settings.get("finish", "stop"))


class Outcome(NamedTuple):
    """`whole`: the answer as lines of a case; `streamed`: what its stream amounts to; `cut`: with unfinished input."""

    whole: list[str]
    streamed: list[str]
    repairs: list[tuple[str, str]]
    cut: bool


def read_case(path: Path) -> Case:
    given, _, wanted = path.read_text("utf-8").partition(DASHES)
    comment, settings, text = given.split("\n")
    return Case(
        comment.removeprefix("# "), json.loads(settings), json.loads(text), tuple(wanted.strip("\n").split("\n"))
    )


def tokens(text: str) -> list[str]:
    """Pieces of about the size of a tokenizer's."""
    return re.findall(r" ?[^\W_]{1,6}|\s+|[^\w\s]{1,3}|_", text)


def run(
    case: Case,
    pieces: Sequence[str],
    *,
    dialect: str | None = None,
    stops: Sequence[str] = (),
    repair: bool | None = None,
) -> Outcome:
    """What becomes of the answer. `repair`: None: as the case says."""
    if repair is None:
        repair = bool(case.settings.get("repair", True))
    stage = text_tools(
        dialect or case.dialect,
        case.tools,
        reasoning="open" if case.settings.get("reasoning") == "open" else "tag",
        repair=repair,
    )
    sequencer = Sequencer(
        id_prefix="toolu", one_call=bool(case.settings.get("one_call")), tools=case.tools, repair=repair
    )
    scanner = StopScanner(stops)
    folder, encoder, checker = Folder(), Encoder(FRAME), Checker(exact_usage=False)
    is_over = was_cut = False
    for events in [*([TextAdded(piece)] for piece in pieces), [case.end]]:
        if is_over:
            break
        scanned = scanner.feed(events)
        is_over = scanner.matched is not None
        sequenced = sequencer.feed(stage.feed(scanned))
        was_cut |= any(isinstance(event, ToolCallEnded) and not event.complete for event in sequenced)
        folder.feed(sequenced)
        checker.feed(encoder.encode(sequenced))
    checker.close()
    answer = folder.answer()
    assert answer.fault is None
    whole = json.loads(encode_whole(answer, FRAME), object_pairs_hook=ordered)
    repairs = sorted([*stage.repairs, *sequencer.repairs])
    return Outcome(lines(whole), lines(checker.message), repairs, was_cut)


def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)


def lines(message: dict[str, Any]) -> list[str]:
    out = []
    for block in message["content"]:
        match block["type"]:
            case "text":
                out.append("T " + json.dumps(block["text"], ensure_ascii=False))
            case "thinking":
                out.append("R " + json.dumps(block["thinking"], ensure_ascii=False))
            case _:
                out.append(f"C {block['name']} {json.dumps(block['input'], ensure_ascii=False)}")
    reason = message["stop_reason"]
    stop = message["stop_sequence"]
    return [*out, f"stop_reason {reason}" + (f" {json.dumps(stop)}" if stop is not None else "")]
