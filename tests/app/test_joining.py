"""What can be joined, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from qiao.app import joining
from qiao.app.joining import Joining, Running


@pytest.fixture
def hall(monkeypatch: pytest.MonkeyPatch) -> Joining:
    monkeypatch.setattr(joining, "GRACE", 0.05)
    monkeypatch.setattr(joining, "GRACE_AFTER", 0.0)
    return Joining()


def begun(hall: Joining) -> Running:
    running = hall.begin(("s",), b"body", "req_1")
    assert running is not None
    return running


async def ever() -> None:
    await asyncio.Event().wait()


async def test_an_answer_that_is_being_stopped_is_not_joined(hall: Joining) -> None:
    """Who asks now would be told its beginning and an error."""
    running = begun(hall)
    running.join()
    running.add(b"a word")
    assert running.hand_over(ever, lambda: running.end(is_lost=True))
    await asyncio.sleep(0)
    running.leave()
    assert hall.find(("s",), b"body") is None
    await hall.close()


async def test_one_that_ended_in_its_grace_was_not_given_up(hall: Joining) -> None:
    running = begun(hall)

    async def end() -> None:
        running.end()

    assert running.hand_over(end, lambda: None)
    await asyncio.sleep(0.2)
    assert hall._given_up == {}


async def test_one_that_was_given_up_is_waited_for_longer(hall: Joining) -> None:
    running = begun(hall)
    assert running.hand_over(ever, lambda: running.end(is_lost=True))
    async with asyncio.timeout(5):
        while not running.is_over:
            await asyncio.sleep(0.01)
    assert list(hall._given_up.values()) == [1]


async def test_one_that_is_kept_no_more_has_no_followers(hall: Joining, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the engine waits for the client that asked first."""
    monkeypatch.setattr(joining, "MOST_KEPT", 2)
    monkeypatch.setattr(joining, "MOST_FOLLOWED", 4)
    running = begun(hall)
    running.join()
    running.add(b"abc")
    assert running.is_followed
    running.add(b"de")
    assert not running.is_followed
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.followed(), 0.05)
