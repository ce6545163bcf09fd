"""Turns are written once: the same bytes, whatever was written before."""

from __future__ import annotations

import msgspec

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


def test_a_conversation_is_written_alike_whatever_came_before() -> None:
    first, other = Turn("user", (Text("Hi"),)), Turn("user", (Text("Ho"),))
    said, meant = Turn("assistant", (Text("1"),)), Turn("assistant", (Text("2"),))
    empty = Turn("user", ())
    conversations = [
        (first,),
        (first, said, other),
        (first, said),
        (first, meant, other, said),
        (other, said),
        (empty, said),
        (first, said, other, meant, other),
        (),
    ]
    target = Target(model="m")
    for turns in conversations * 2:
        expected = [
            {"role": turn.role, "content": part.text} for turn in turns for part in turn.parts if isinstance(part, Text)
        ]
        assert body(turns, target)["messages"] == expected
