"""What watches over an answer stops when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from qiao.app.delivery import Delivery, Patience


@pytest.mark.parametrize("is_waiting", [False, True], ids=["at once", "when the timer runs"])
async def test_an_answer_that_rests_is_not_watched(is_waiting: bool) -> None:
    """Also not after its client went away, by which it is watched anew."""
    called: list[str] = []
    request: Any = None  # nothing is sent
    line = Delivery(request, dict, b"", Patience(begin=60, interval=60, limit=0.05))
    line.on_silence = lambda: called.append("silence")
    if is_waiting:
        await asyncio.sleep(0.01)
    line.lose_client()
    line.rest()
    await asyncio.sleep(0.1)
    assert not called
    assert not line.gave_up


async def test_silence_is_noticed_without_a_client() -> None:
    called: list[str] = []
    request: Any = None
    line = Delivery(request, dict, b"", Patience(begin=60, interval=60, limit=0.02))
    line.on_silence = lambda: called.append("silence")
    line.lose_client()
    await asyncio.sleep(0.1)
    assert called == ["silence"]
    assert line.gave_up
