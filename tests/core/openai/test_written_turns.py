"""Turns are written once: the same bytes, whatever was written before, and in bounded memory."""

from __future__ import annotations

import msgspec
import pytest

from qiao.core.conversation import Conversation, Reasoning, Text, Turn
from qiao.core.openai import request
from qiao.core.openai.target import Target


def body(turns: tuple[Turn, ...], target: Target) -> dict[str, object]:
    decoded = msgspec.json.decode(request.encode(Conversation(model="m", turns=turns), target))
    assert isinstance(decoded, dict)
    return decoded


def test_a_turn_is_written_for_each_engine_in_its_words() -> None:
    turns = (Turn("user", (Text("Hi"),)), Turn("assistant", (Reasoning("Hm."), Text("Ho"))), Turn("user", (Text("?"),)))
    for _ in range(2):
        newer = body(turns, Target(model="m", reasoning_field="reasoning"))["messages"]
        older = body(turns, Target(model="m", reasoning_field="reasoning_content"))["messages"]
        none = body(turns, Target(model="m", reasoning_field=None))["messages"]
        assert newer[1] == {"role": "assistant", "content": "Ho", "reasoning": "Hm."}  # type: ignore[index]
        assert older[1] == {"role": "assistant", "content": "Ho", "reasoning_content": "Hm."}  # type: ignore[index]
        assert none[1] == {"role": "assistant", "content": "Ho"}  # type: ignore[index]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    written = request._WrittenTurns()
    monkeypatch.setattr(request, "_KEPT_TURN", 100)
    monkeypatch.setattr(request, "_KEPT_TURNS", 1000)
    for number in range(200):
        for length in (1, 50, 200):
            turn = Turn("user", (Text(f"{number} " + "x" * length),))
            first = written.messages(turn, None)
            assert first == written.messages(turn, None)
            assert bytes(first[0]) == msgspec.json.encode({"role": "user", "content": turn.parts[0].text})  # type: ignore[union-attr]
            assert written._size == sum(len(raw) for raws in written._known.values() for raw in raws) <= 1000
            assert all(len(raw) <= 100 for raws in written._known.values() for raw in raws)
