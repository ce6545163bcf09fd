"""The gateway's own look at an engine: what it asks, what it makes of it, and what it does not let spoil the rest."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from aiohttp import web

from qiao.upstream.asking import REQUEST_ID
from qiao.upstream.openai import OpenAIUpstream
from qiao.upstream.probe import Findings
from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving


@dataclass
class Fragile(FakeEngine):
    """An engine that breaks off at a picture."""

    async def _tokenize(self, http: web.Request) -> web.Response:
        if b"image_url" in await http.read() and http.transport is not None:
            http.transport.close()
        return await super()._tokenize(http)


async def found(engine: FakeEngine) -> Findings:
    """Of its only model."""
    async with serving(engine) as url:
        upstream = OpenAIUpstream(url)
        try:
            findings = await upstream.probe()
            assert findings is not None
            assert await upstream.probe() is findings
            return findings
        finally:
            await upstream.close()


async def test_few_tokens_and_once() -> None:
    engine = FakeEngine({"my-model": Behaviour(tool_parser=False)})
    findings = await found(engine)
    assert (findings.tool_parser, findings.template_dialect) == (False, "hermes")
    chats = [request.body for request in engine.requests if request.path.endswith("/chat/completions")]
    assert sum(chat.get("max_completion_tokens", 0) for chat in chats) <= 42
    asked = [request for request in engine.requests if request.method == "POST"]
    assert len(asked) <= 8
    assert all(REQUEST_ID in request.headers.values() for request in asked)


async def test_an_engine_that_breaks_off_at_a_picture() -> None:
    findings = await found(Fragile({"my-model": Behaviour(tool_parser=False)}))
    assert (findings.tool_parser, findings.renders_tools, findings.structural_tags) == (False, True, True)
    assert findings.template_dialect == "hermes"
    can = findings.abilities
    assert (can.tokenize, can.structured_outputs, can.prefill, can.images) == (True, True, True, None)


@pytest.mark.parametrize(
    ("behaviour", "splits", "opens", "leaves"),
    [
        (Behaviour(opens_reasoning=True), False, True, True),
        (Behaviour(), False, False, False),
        (Behaviour(swallows_text=True, opens_reasoning=True), True, True, False),
        (Behaviour(server="ray"), False, None, None),
        (Behaviour(server="ray", swallows_text=True), True, None, False),
    ],
)
async def test_who_marks_the_reasoning(
    behaviour: Behaviour, splits: bool | None, opens: bool | None, leaves: bool | None
) -> None:
    """An engine that splits it off leaves nothing unmarked, whoever opened it."""
    findings = await found(FakeEngine({"my-model": behaviour}))
    assert (findings.splits_reasoning, findings.opens_reasoning, findings.leaves_reasoning_open) == (
        splits,
        opens,
        leaves,
    )


@pytest.mark.parametrize(
    ("model", "behaviour", "leaves"),
    [
        ("Qwen3.5-35B-A3B", Behaviour(server="ray", opens_reasoning=True), True),
        ("Qwen3.5-35B-A3B", Behaviour(server="ray"), None),
        ("qwen3-235b", Behaviour(server="ray", opens_reasoning=True), None),
        ("Qwen3.5-35B-A3B", Behaviour(server="ray", opens_reasoning=True, swallows_text=True), False),
    ],
    ids=["its switch shows in the prompt", "the switch does not reach it", "not of this family", "the engine splits"],
)
async def test_a_prompt_that_cannot_be_seen(model: str, behaviour: Behaviour, leaves: bool | None) -> None:
    """Thoughts that nothing marks would come as text, and an answer taken for thoughts would not come at all."""
    assert (await found(FakeEngine({model: behaviour}))).leaves_reasoning_open is leaves
