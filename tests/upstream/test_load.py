"""The engine's queue as it tells it."""

from __future__ import annotations

import asyncio

import pytest

from qiao.core.fault import Fault
from qiao.upstream.client import Client
from qiao.upstream.load import Load, waiting_in
from tests.fakes.engine import FakeEngine, serving
from tests.support.gateway import free_port
from tests.support.listening import speaking

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
        await load.admit()
        engine.waiting = 2
        await load.look()
        await load.admit()
        with pytest.raises(Fault) as raised:
            await load.admit()  # the one sent since the look waits as well
        assert raised.value.kind == "overloaded"
        assert raised.value.retry_after is not None
        assert 1 <= raised.value.retry_after <= 10
        engine.waiting = 0
        await load.look()
        for _ in range(5):
            await load.admit()
        assert load.waiting == 0
        await load.close()
        await client.close()


async def turned_away(load: Load) -> bool:
    try:
        await load.admit()
    except Fault as fault:
        return fault.kind == "overloaded"
    return False


async def test_the_very_first_request_is_turned_away_and_a_burst_shares_one_look() -> None:
    engine = FakeEngine(waiting=50)
    async with serving(engine) as url:
        client = Client(url)
        load = Load(client, limit=2)
        assert await asyncio.gather(*[turned_away(load) for _ in range(5)]) == [True] * 5
        assert [request.path for request in engine.requests] == ["/metrics"]
        await load.close()
        await client.close()


async def test_after_a_pause_the_queue_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    async with serving(engine) as url:
        client = Client(url)
        load = Load(client, limit=2)
        for waiting in (0, 50, 0):
            engine.waiting = waiting
            assert await turned_away(load) is (waiting == 50)
            await load.close()  # the watch is over, as after ten idle seconds
            monkeypatch.setattr(load, "_over_at", -10.0)
        await client.close()


async def test_an_engine_that_is_slow_to_tell_turns_nobody_away_and_is_waited_for_once() -> None:
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with speaking(say_nothing) as url:
        client = Client(url)
        load = Load(client, limit=1)
        async with asyncio.timeout(5):
            assert not await turned_away(load)
        assert asked.is_set()
        waited_for = asyncio.get_running_loop().time()
        for _ in range(20):
            assert not await turned_away(load)
        assert asyncio.get_running_loop().time() - waited_for < 5
        await load.close()
        await client.close()


async def test_it_is_watched_only_while_it_is_asked() -> None:
    engine = FakeEngine()
    async with serving(engine) as url:
        client = Client(url)
        load = Load(client, limit=1)
        await asyncio.sleep(0.1)
        assert engine.requests == []
        await load.admit()
        await load.admit()
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
        await load.admit()
    assert load.waiting is None
    await load.close()
    await client.close()
