"""Several schemas that an engine cannot take, in one request: two mends have to be enough."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared, Switches, prepare
from qiao.policies.quirks import Quirks
from qiao.policies.remedies import TABLE
from qiao.profiles import find
from qiao.upstream.base import Served
from qiao.upstream.client import Client
from qiao.upstream.grammars import Grammars
from tests.support.listening import speaking
from tests.upstream.test_late_refusals import HEAD, MODELS, REST, WORDS, before

BAD = '{"type": "object", "properties": {"x": {"$ref": "#/$defs/Nope"}}}'
GOOD = '{"type": "object"}'
REFUSAL = json.dumps(
    {
        "error": {
            "message": "Grammar error: Pointer '/$defs/Nope' does not exist",
            "type": "BadRequestError",
            "code": 400,
        }
    }
).encode()


class Engine:
    """Refuses every request with a schema that makes no grammar. `tries`: whether it answers trials of schemas."""

    def __init__(self, *, tries: bool) -> None:
        self.tries = tries
        self.bodies: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            body = MODELS if b"/models" in head else b'{"version": "0.32.0"}'
            _whole(writer, 200, body)
        else:
            length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:"))
            asked = json.loads(await reader.readexactly(length))
            is_trial = not asked.get("stream")
            if is_trial and not self.tries:
                _whole(writer, 503, b"{}")
            elif self.refuses(asked):
                _whole(writer, 400, REFUSAL)
            else:
                writer.write(HEAD + WORDS + REST)
            if not is_trial:
                self.bodies.append(asked)

    def refuses(self, asked: dict[str, Any]) -> bool:
        strict = [tool for tool in asked.get("tools", ()) if tool["function"].get("strict")]
        return "Nope" in json.dumps([strict, asked.get("response_format")])


def _whole(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}"
    writer.write(head.encode() + b"\r\n\r\n" + body)


def asking(answer_schema: str) -> Conversation:
    return Conversation(
        model="m",
        turns=(Turn("user", (Text("Hi"),)),),
        stream=True,
        tools=(
            Tool("one", "", BAD, strict=True),
            Tool("two", "", BAD.replace("x", "y"), strict=True),
            Tool("three", "", GOOD, strict=True),
        ),
        # Where tools may be called, the answer's schema is told in words.
        tool_choice=ToolChoice("none"),
        output_schema=answer_schema,
    )


@pytest.mark.parametrize("tries", [True, False], ids=["tries", "busy"])
@pytest.mark.parametrize("answer_schema", [GOOD, BAD], ids=["good answer", "bad answer"])
async def test_bad_tools_and_a_bad_answer(tries: bool, answer_schema: str) -> None:
    engine = Engine(tries=tries)
    conversation = asking(answer_schema)

    def prepared(
        quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True
    ) -> Prepared:
        switches = Switches(tool_parser="engine")
        return prepare(conversation, find("qwen3-235b"), target=target, quirks=quirks, switches=switches)

    async with before(engine) as found:
        answer = await found.open(prepared, Served("qwen3-235b"), request_id="req_1")
        answer.close()
    sent = engine.bodies[-1]
    if answer_schema == GOOD:
        assert answer.healed == ("strict_schema",)
        assert "response_format" in sent
    else:
        assert answer.healed == ("strict_schema", "answer_schema")
    strict = [tool["function"]["name"] for tool in sent["tools"] if tool["function"].get("strict")]
    assert strict == (["three"] if tries else [])


async def test_one_search_that_does_not_find_all_is_followed_by_another() -> None:
    """A search has a bound; the same remedy mends the request again, for the tools that are left."""
    engine = Engine(tries=True)
    schemas = [(BAD if number % 2 else GOOD[:-1] + ', "properties": {"x": {}}}') for number in range(40)]
    tools = tuple(
        Tool(f"t{number}", "", schema.replace('"x"', f'"x{number}"'), strict=True)
        for number, schema in enumerate(schemas)
    )
    conversation = msgspec.structs.replace(asking(GOOD), tools=tools, output_schema=None)

    def prepared(
        quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True
    ) -> Prepared:
        switches = Switches(tool_parser="engine")
        return prepare(conversation, find("qwen3-235b"), target=target, quirks=quirks, switches=switches)

    async with before(engine) as found:
        answer = await found.open(prepared, Served("qwen3-235b"), request_id="req_1")
        answer.close()
    assert answer.healed == ("strict_schema", "strict_schema")
    strict = [tool["function"]["name"] for tool in engine.bodies[-1]["tools"] if tool["function"].get("strict")]
    assert strict == [f"t{number}" for number in range(0, 40, 2)]


async def test_what_another_request_found_out_meanwhile_is_heeded() -> None:
    """Two requests are refused for the same tool: who comes second has nothing to find out, and something to heed."""
    engine = Engine(tries=True)
    tool = asking(BAD).tools[0]
    prepared = Prepared(asking(BAD), grammar="tags", bound=(tool,))
    remedy = next(remedy for remedy in TABLE if remedy.name == "call_structure")
    target = Target(model="qwen3-235b")
    async with speaking(engine.serve) as url:
        client = Client(url)
        grammars = Grammars(client, "/v1/chat/completions")
        grammars._schemas.keep((tool,), fit=False)
        assert await grammars.lesson(remedy, prepared, target, frozenset()) == "schema"
        assert await grammars.lesson(remedy, prepared, target, grammars.refused) == "request"
        await client.close()
