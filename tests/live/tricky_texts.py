"""The texts of `tests/golden/tool_call_texts`, said by a real server and asked for through any gateway.

`asked` makes the request of a case, `heard` reads what came back (also from servers that break the protocol's rules),
`judged` says what is wrong with it. The live tests hold qiao against them, `bench/comparison.py` qiao and others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qiao.core.sse import Decoder
from tests.core.dialects.answers import TOOLS, Case, read_case
from tests.live.vllm.script import marker
from tests.live.vllm.server import NAME
from tests.support.plain_http import Reply, ask

FOLDER = Path(__file__).parents[1] / "golden" / "tool_call_texts"
AFTER_A_STOP = '"}}\n</tool_call>\nmore'
"""What the model would have gone on with."""

Verdict = Literal["right", "wrong calls", "words lost or added", "wrong stop reason", "refused or broken"]
VERDICTS: tuple[Verdict, ...] = (
    "right",
    "wrong calls",
    "words lost or added",
    "wrong stop reason",
    "refused or broken",
)


def all_cases() -> dict[str, Case]:
    """Every case by its short name ("A1")."""
    cases = (read_case(path) for path in sorted(FOLDER.glob("*.case")))
    return {case.name.split()[0]: case for case in cases}


def is_markup(case: Case) -> bool:
    """Calls as `<function=…>`, which an engine reads with another parser than calls as JSON."""
    return "<function=" in case.text


def thinks(case: Case) -> bool:
    """Whether the client asks for thoughts: in a whole turn (group A), and where the text has some."""
    if case.settings.get("thinking") == "off":
        return False
    return case.name.startswith("A") or "<think>" in case.text or case.settings.get("reasoning") == "open"


def said_by(case: Case) -> str:
    """What the model would say if nothing stopped it."""
    return case.text + (case.settings["stop"] + AFTER_A_STOP if case.settings.get("stopped") else "")


def tokens_of(url: str, text: str) -> int:
    """How many tokens the server makes of a text."""
    body = {"model": NAME, "prompt": text, "add_special_tokens": False}
    return int(ask(url, "POST", "/tokenize", body, limit=60.0).json["count"])


def asked(case: Case, *, limit: int, thinking: bool, stream: bool, model: str = NAME) -> dict[str, Any]:
    """The request of a case. `limit`: tokens of the text where the answer is to be cut, else enough.

    A forced call is asked for as `auto`: under a grammar the model could not write these texts.
    """
    tools = [{"name": tool.name, "input_schema": json.loads(tool.parameters)} for tool in TOOLS[case.settings["tools"]]]
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": limit,
        "stream": stream,
        "thinking": {"type": "adaptive"} if thinking else {"type": "disabled"},
        "messages": [{"role": "user", "content": f"Case {case.name}. {marker(said_by(case))}"}],
    }
    if tools:
        body["tools"] = tools
        if case.settings.get("tool_choice") == "none":
            body["tool_choice"] = {"type": "none"}
        elif case.settings.get("one_call"):
            body["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    if case.settings.get("stop"):
        body["stop_sequences"] = [case.settings["stop"]]
    return body


@dataclass
class Heard:
    """An answer as a client understands it. `cut`: a call whose arguments are no JSON; `failure`: why there is none."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    cut: int = 0
    stop_reason: str | None = None
    stop_sequence: str | None = None
    failure: str = ""

    def add(self, block: Mapping[str, Any]) -> None:
        match block.get("type"):
            case "text":
                self.text += str(block.get("text") or "")
            case "thinking":
                self.reasoning += str(block.get("thinking") or "")
            case "tool_use":
                self.calls.append((str(block.get("name")), block.get("input")))
            case _:
                self.failure = f"a block of type {block.get('type')}"


def heard(reply: Reply) -> Heard:
    """What an answer says, whole or streamed."""
    said = Heard()
    if reply.status != 200:
        said.failure = f"{reply.status}: {reply.body[:300]!r}"
        return said
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        message = reply.json
        for block in message.get("content") or ():
            said.add(block)
        said.stop_reason, said.stop_sequence = message.get("stop_reason"), message.get("stop_sequence")
        return said
    _hear_stream(reply.body, said)
    return said


def _hear_stream(body: bytes, said: Heard) -> None:
    decoder = Decoder()
    blocks: dict[int, dict[str, Any]] = {}
    arguments: dict[int, str] = {}
    is_over = False
    for event in (*decoder.feed(body), *decoder.close()):
        if event.data == b"[DONE]":
            continue
        data = json.loads(event.data)
        match data.get("type"):
            case "content_block_start":
                blocks[data["index"]] = dict(data["content_block"])
                arguments[data["index"]] = ""
            case "content_block_delta":
                block, delta = blocks.setdefault(data["index"], {"type": "none"}), data["delta"]
                for name in ("text", "thinking"):
                    if delta.get("type") == f"{name}_delta":
                        block[name] = str(block.get(name) or "") + delta[name]
                if delta.get("type") == "input_json_delta":
                    arguments[data["index"]] += delta.get("partial_json") or ""
            case "message_delta":
                said.stop_reason = data["delta"].get("stop_reason")
                said.stop_sequence = data["delta"].get("stop_sequence")
            case "message_stop":
                is_over = True
            case "error":
                said.failure = json.dumps(data)[:300]
            case _:
                pass
    for index in sorted(blocks):
        block = blocks[index]
        if block["type"] == "tool_use" and arguments[index]:
            try:
                block["input"] = json.loads(arguments[index])
            except ValueError:
                said.cut += 1
                continue
        said.add(block)
    if not is_over and not said.failure:
        said.failure = "the stream has no end"


def judged(case: Case, said: Heard, *, thinking: bool, stream: bool) -> Verdict:
    """Held against the wanted calls with their arguments, the wanted words, and why the answer ended.

    White space does not count, and neither does where the words stand among the calls. A call of which bytes have gone
    out before it was cut may stay unfinished in a stream, as with Anthropic's own API.
    """
    if said.failure:
        return "refused or broken"
    calls, words, thoughts, ending = _wanted(case)
    if not thinking and not words and not calls and ending == ("end_turn", None):
        words = thoughts  # an answer that is all thought is not withheld, or nothing would be left of it
    is_right_end = ending == (said.stop_reason, said.stop_sequence)
    was_cut = case.settings.get("finish") == "length" or bool(case.settings.get("stopped"))
    if said.calls != calls or (said.cut and not (stream and was_cut and said.cut == 1)):
        return "wrong calls"
    if said.cut:
        return "right" if is_right_end else "wrong stop reason"
    if _solid(said.text) != _solid(words) or _solid(said.reasoning) != (_solid(thoughts) if thinking else ""):
        return "words lost or added"
    return "right" if is_right_end else "wrong stop reason"


def _wanted(case: Case) -> tuple[list[tuple[str, Any]], str, str, tuple[str, str | None]]:
    """Calls, words, thoughts, and (stop reason, stop sequence)."""
    calls: list[tuple[str, Any]] = []
    words = thoughts = ""
    for line in case.wanted[:-1]:
        kind, _, rest = line.partition(" ")
        if kind == "C":
            place = rest.index(" {")
            calls.append((rest[:place], json.loads(rest[place:])))
        elif kind == "T":
            words += json.loads(rest)
        else:
            thoughts += json.loads(rest)
    _, reason, *stop = case.wanted[-1].split(" ", 2)
    return calls, words, thoughts, (reason, json.loads(stop[0]) if stop else None)


def _solid(text: str) -> str:
    return "".join(text.split())
