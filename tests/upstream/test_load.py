"""The engine's queue as it tells it."""

from __future__ import annotations

import asyncio

import pytest

from qiao.core.fault import Fault
from qiao.upstream.client import Client
from qiao.upstream.load import Load, waiting_in
from tests.fakes.engine import FakeEngine, serving
from tests.support.gateway import free_port

PAGES = {
    b"vllm:num_requests_waiting 3.0\n": 3,
    b'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0\nvllm:num_requests_waiting{engine="1"} 5.0\n': 7,
    b'# HELP vllm:num_requests_waiting x\nvllm:num_requests_waiting_by_reason{reason="capacity"} 9.0\n': None,
    b"llamacpp:requests_deferred 4\n": 4,
    b'sglang:num_queue_reqs{model="m"} 1\n': 1,
    b"": None,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page[:40].decode())
def test_pages(page: bytes) -> None:
    assert waiting_in(page) == PAGES[page]


async def test_a_long_queue_turns_away_and_a_short_one_does_not() -> None:
    engine = FakeEngine()
    async with serving(engine) as url:
        client = Client(url)
        load = Load(client, limit=2)
        load.admit()  # nothing is known yet
        engine.waiting = 2
        await load.look()
        load.admit()
        with pytest.raises(Fault) as turned_away:
            load.admit()  # the one sent since the look waits as well
        assert turned_away.value.kind == "overloaded"
        assert turned_away.value.retry_after is not None
        assert 1 <= turned_away.value.retry_after <= 10
        engine.waiting = 0
        await load.look()
        for _ in range(5):
            load.admit()
        assert load.waiting == 0
        await load.close()
        await client.close()


async def test_it_is_watched_only_while_it_is_asked() -> None:
    engine = FakeEngine()
    async with serving(engine) as url:
        client = Client(url)
        load = Load(client, limit=1)
        await asyncio.sleep(0.1)
        assert engine.requests == []
        load.admit()
        load.admit()
        for _ in range(100):
            if engine.requests:
                break
            await asyncio.sleep(0.02)
        assert [request.path for request in engine.requests] == ["/metrics"]
        await load.close()
        await client.close()


async def test_an_engine_that_does_not_tell_turns_nobody_away() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}")
    load = Load(client, limit=1)
    await load.look()
    for _ in range(10):
        load.admit()
    assert load.waiting is None
    await load.close()
    await client.close()
