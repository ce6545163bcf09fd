"""The engine comes back as another between two requests: what was known of the old one is not held against the next."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.integration.conftest import KEY, MODEL
from tests.support.background import Background
from tests.support.gateway import free_port, gateway
from tests.support.plain_http import Reply, ask

pytestmark = pytest.mark.timeout(60)

TOOL = {"name": "t", "input_schema": {"type": "object"}}


def asked(url: str, words: int) -> Reply:
    body = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "word " * words}],
        "tools": [TOOL],
    }
    return ask(url, "POST", "/v1/messages", body, headers={"x-api-key": KEY})


def test_the_next_request_meets_it_as_it_is(tmp_path: Path) -> None:
    port = free_port()
    old = FakeEngine({MODEL: Behaviour(max_model_len=4096, tool_parser=False)})
    new = FakeEngine({MODEL: Behaviour(max_model_len=131_072)}, version="0.33.0")
    with contextlib.ExitStack() as stack:
        with Background() as first:
            front = stack.enter_context(gateway(first.enter(serving(old, port=port)), tmp_path, key=KEY))
            assert asked(front.url, 10).status == 200
            assert old.chats[-1].body.get("tool_choice") == "none"
            too_long = asked(front.url, 6000)
            assert (too_long.status, "prompt is too long" in too_long.json["error"]["message"]) == (400, True)
        stack.enter_context(Background()).enter(serving(new, port=port))
        assert ask(front.url, "GET", "/healthz").status == 200  # so it has seen that its connections were closed
        assert asked(front.url, 6000).status == 200
        assert new.chats[0].body["tool_choice"] == "auto"
        assert len(new.chats) == 1
