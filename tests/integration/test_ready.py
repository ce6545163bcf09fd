"""`/readyz` answers within a few seconds, however long the engine lets the gateway's own questions wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from qiao.upstream.probe import REQUEST_ID
from tests.fakes.behaviour import MODELS, Behaviour
from tests.fakes.engine import FakeEngine, Recorded, serving
from tests.fakes.script import Step, step
from tests.integration.conftest import KEY, MODEL
from tests.support.background import Background
from tests.support.gateway import gateway, tools_known
from tests.support.plain_http import Reply, ask

pytestmark = pytest.mark.timeout(90)

LIMIT = 9.0
"""Seconds for the two waits of four, and a busy machine."""


@dataclass
class Busy(FakeEngine):
    """An engine whose queue is full: what a probe asks waits, `listing` seconds its list of models."""

    answers: float = 0.0
    listing: float = 0.0

    def _step(self, body: dict[str, Any], behaviour: Behaviour, record: Recorded) -> Step:
        if REQUEST_ID in record.headers.values():
            return step("x", before_headers=self.answers)
        return super()._step(body, behaviour, record)

    async def _models(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.listing)
        return await super()._models(request)


@pytest.fixture
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


def look(url: str) -> tuple[Reply, float]:
    begun = time.monotonic()
    return ask(url, "GET", "/readyz"), time.monotonic() - begun


def test_it_does_not_wait_behind_the_engines_queue(background: Background, tmp_path: Path) -> None:
    """It says what is not known yet; the probe goes on, once for all who ask, and then it is known."""
    engine = Busy({MODEL: MODELS[MODEL]}, answers=50.0)
    with gateway(background.enter(serving(engine)), tmp_path, key=KEY) as front:
        for _ in range(2):
            reply, took = look(front.url)
            assert (reply.status, reply.json["status"]) == (200, "ready")
            assert took < LIMIT
            assert reply.json["tools"]["engine_parser"] is None
            assert "not known yet" in reply.json["tools"]["why"]
        assert len([each for each in engine.requests if each.path.endswith("/chat/completions")]) == 1
        engine.answers = 0.0
        engine.go_on()
        until = time.monotonic() + 30
        while look(front.url)[0].json["tools"]["engine_parser"] is None:
            assert time.monotonic() < until
        assert "not known yet" not in (look(front.url)[0].json["tools"]["why"] or "")


def test_it_does_not_wait_for_an_engine_that_says_nothing(background: Background, tmp_path: Path) -> None:
    engine = Busy({MODEL: MODELS[MODEL]})
    with gateway(background.enter(serving(engine)), tmp_path, key=KEY) as front:
        assert look(front.url)[0].status == 200
        engine.listing = 20.0
        time.sleep(2.1)  # a younger list is not asked for again
        reply, took = look(front.url)
        assert reply.status == 503
        assert took < LIMIT
        assert "within 4 s" in reply.json["reason"]
        engine.listing = 0.0
        assert look(front.url)[0].status == 200


def test_it_tells_how_the_main_models_calls_are_read(background: Background, tmp_path: Path) -> None:
    """Also where the upstream lists another one first."""
    engine = FakeEngine({MODEL: MODELS[MODEL], "bare": Behaviour(no_tools=True)})
    with gateway(background.enter(serving(engine)), tmp_path, "--model", "bare", key=KEY) as front:
        assert tools_known(front.url)["read_by"] == "qiao"


def test_it_tells_how_the_first_models_calls_are_read(background: Background, tmp_path: Path) -> None:
    """Whatever another one behind the same address has taught; that stands among the lessons."""
    engine = FakeEngine({MODEL: MODELS[MODEL], "bare": Behaviour(no_tools=True)})
    tool = {"name": "t", "input_schema": {"type": "object"}}
    hi = [{"role": "user", "content": "hi"}]
    with gateway(background.enter(serving(engine)), tmp_path, key=KEY) as front:
        before = tools_known(front.url)
        body = {"model": "bare", "max_tokens": 5, "messages": hi, "tools": [tool]}
        assert ask(front.url, "POST", "/v1/messages", body, headers={"x-api-key": KEY}).status == 200
        told = look(front.url)[0].json
        assert "no_tools" in told["quirks"]
        assert told["tools"] == before
