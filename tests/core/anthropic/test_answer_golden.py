"""From an engine's answer to the client's, as cases in files: `tests/golden/openai_answer/*.case`.

First line: what the case shows. Then the engine's bytes as they were recorded, a stream or a whole body, ten dashes,
and what the client gets: the stream, ten dashes, and the message that it makes; of a whole body the message alone. If
the name begins with `hermes_`, calls are read from the text. `GOLDEN_ACCEPT=1` writes the outcome into the files; a
person reads the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qiao.core.anthropic import answer as anthropic_answer
from qiao.core.anthropic import errors
from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.grammar import Checker
from qiao.core.anthropic.stream import Encoder
from qiao.core.conversation import Tool
from qiao.core.dialects import text_tools
from qiao.core.exchange import Exchange
from qiao.core.openai.stream import Decoder

FOLDER = Path(__file__).parents[2] / "golden" / "openai_answer"
CASES = sorted(FOLDER.glob("*.case"))
DASHES = b"\n----------\n"
FRAME = Frame(message_id="msg_1", model="qwen3-235b")
TOOLS = (
    Tool(
        "get_weather",
        parameters='{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}',
    ),
    Tool("get_time", parameters='{"type":"object","properties":{"tz":{"type":"string"}},"required":["tz"]}'),
)


def answered(body: bytes, *, dialect: str | None, stream: bool) -> tuple[bytes, Exchange]:
    """What the client gets of a stream that comes event by event, and the exchange after it."""
    exchange = Exchange(
        Decoder(whole=not body.startswith(b"data:")),
        Encoder(FRAME) if stream else None,
        id_prefix="toolu",
        text_tools=None if dialect is None else text_tools(dialect, TOOLS),
        tools=TOOLS,
    )
    out = b"".join(exchange.receive(event + b"\n\n") for event in body.split(b"\n\n"))
    return out + exchange.eof(), exchange


def outcome(body: bytes, *, dialect: str | None) -> bytes:
    _, exchange = answered(body, dialect=dialect, stream=False)
    found = exchange.answer()
    if found.fault is not None:
        message = {"status": errors.status(found.fault), **json.loads(errors.body(found.fault, "req_1"))}
    else:
        message = json.loads(anthropic_answer.encode(found, FRAME))
    told = json.dumps(message, indent=2, ensure_ascii=False).encode()
    if not body.startswith(b"data:"):
        return told
    streamed, exchange = answered(body, dialect=dialect, stream=True)
    if exchange.facts.fault is None:
        # An engine may tell its usage behind everything else; what the gateway estimates before is not part of this.
        checker = Checker(exact_usage=False)
        checker.feed(streamed)
        checker.close()
    return streamed.rstrip(b"\n") + DASHES + told


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    given, dashes, expected = path.read_bytes().partition(DASHES)
    comment, _, body = given.partition(b"\n")
    assert comment.startswith(b"# "), "the first line says what the case shows"
    actual = outcome(body, dialect="hermes" if path.stem.startswith("hermes_") else None)
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_bytes(given + DASHES + actual + b"\n")
        return
    assert dashes, "no line of ten dashes"
    assert actual.decode() == expected.decode().rstrip("\n")


def test_there_are_cases() -> None:
    assert len(CASES) > 10
