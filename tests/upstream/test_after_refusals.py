"""What an engine says of a prompt's length after all: it knows more of the prompt than who counts in advance."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from qiao.core.conversation import Conversation, Image, Text, ToolCall, Turn
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared, prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import find
from qiao.upstream.base import Answer, Served
from qiao.upstream.fitting import OnOverflow
from qiao.upstream.openai import OpenAIUpstream
from tests.fakes import validation
from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, Recorded
from tests.fakes.prompt import count
from tests.policies.test_history import assistant, result, user
from tests.upstream.test_counting import WINDOW, known, talk

NAME = "a-model-that-sees"
PICTURE = 3000
EXACT = (
    "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length is {window} "
    "tokens and your request has {real} input tokens ({asked} > {window} - {real})."
)
AT_LEAST = (
    "This model's maximum context length is {window} tokens. However, you requested {asked} output tokens and your "
    "prompt contains at least {bound} input tokens, for a total of at least {over} tokens."
)
NO_NUMBER = "Input is too long."


@dataclasses.dataclass
class StrictEngine(FakeEngine):
    """Refuses a prompt that leaves no room for what was asked, in its own words; a picture costs `PICTURE` tokens and
    every other token `weight`, neither of which its /tokenize tells."""

    words: str = EXACT
    weight: float = 1.0

    def _accept(self, body: dict[str, Any], name: str, behaviour: Behaviour, record: Recorded) -> Any:
        wide = msgspec.structs.replace(behaviour, max_model_len=10**9)
        accepted = super()._accept(body, name, wide, record)
        pictures = str(body["messages"]).count("'image_url'") // 2
        real = round(count(record.prompt) * self.weight) + pictures * PICTURE
        window, asked = behaviour.max_model_len, body["max_completion_tokens"]
        if real + asked > window:
            bound = max(1, window - asked + 1)
            raise validation.bad(
                self.words.format(asked=asked, window=window, real=real, bound=bound, over=bound + asked)
            )
        return accepted


@asynccontextmanager
async def strict(
    words: str, on_overflow: OnOverflow = "trim", weight: float = 1.0, **behaviour: Any
) -> AsyncIterator[tuple[StrictEngine, OpenAIUpstream, Served]]:
    engine = StrictEngine(
        {NAME: Behaviour(max_model_len=WINDOW, multimodal=True, **behaviour)}, words=words, weight=weight
    )
    async with known(engine, on_overflow) as (asked, served):
        yield engine, asked, served


async def opened(asked: OpenAIUpstream, conversation: Conversation, served: Served) -> Answer:
    def run(quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True) -> Prepared:
        return prepare(conversation, find(NAME), target=target, window=WINDOW, quirks=quirks)

    answer = await asked.open(run, served, request_id="r")
    answer.close()
    return answer


def old_result(words: int, *beside: Image, **fields: Any) -> Conversation:
    turns = (
        user("a"),
        assistant(ToolCall("1", "Read", "{}")),
        user(result("1", "word " * words)),
        assistant("b"),
        Turn("user", (Text("c"), *beside)),
    )
    return talk(0, turns=turns, **fields)


PICTURES = (Image("image/png", "AA=="),)


@pytest.mark.parametrize("words", [EXACT, AT_LEAST, NO_NUMBER])
async def test_beside_a_picture_old_results_are_trimmed_by_the_engine_s_number(words: str) -> None:
    """The words alone would fit: 6,000 of them, and 3,000 that only the engine sees."""
    async with strict(words) as (engine, asked, served):
        answer = await opened(asked, old_result(6000, *PICTURES), served)
        assert answer.prepared.trimmed == 1
        assert 2 <= len(engine.chats) <= 3
        sent = engine.chats[-1].messages
        assert "left out" in sent[-3]["content"]
        assert "image_url" in str(sent[-1])


async def test_beside_a_picture_words_that_do_not_fit_by_themselves_are_trimmed_at_once() -> None:
    async with strict(EXACT) as (engine, asked, served):
        answer = await opened(asked, old_result(9000, *PICTURES), served)
        assert answer.prepared.trimmed == 1
        assert len(engine.chats) == 1


@pytest.mark.parametrize("words", [EXACT, AT_LEAST, NO_NUMBER])
@pytest.mark.parametrize("weight", [0.8, 1.0, 2.5])
async def test_where_nobody_counts_old_results_are_trimmed_by_the_engine_s_number(
    words: str, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qiao.upstream.vocabulary.load", lambda: None)
    async with strict(words, weight=weight, server="ray") as (engine, asked, served):
        answer = await opened(asked, old_result(10_000), served)
        assert answer.prepared.trimmed == 1
        assert 2 <= len(engine.chats) <= 3


async def test_what_cannot_be_trimmed_is_refused_by_the_engine_s_number() -> None:
    async with strict(EXACT) as (engine, asked, served):
        conversation = talk(0, turns=(Turn("user", (Text("word " * 6000), *PICTURES)),))
        with pytest.raises(Fault, match=r"prompt is too long: (\d+) tokens > \d+ maximum") as caught:
            await opened(asked, conversation, served)
        assert len(engine.chats) == 1
        assert int(caught.value.message.split()[4]) == count(engine.chats[0].prompt) + PICTURE


@pytest.mark.parametrize("on_overflow", ["refuse", "trim"])
async def test_an_answer_gets_what_the_engine_s_own_number_leaves(on_overflow: OnOverflow) -> None:
    async with strict(EXACT, on_overflow) as (engine, asked, served):
        await opened(asked, old_result(3000, *PICTURES, max_tokens=4000), served)
        assert len(engine.chats) == 2
        left = WINDOW - count(engine.chats[-1].prompt) - PICTURE
        assert left - 65 <= engine.chats[-1].body["max_completion_tokens"] <= left


async def test_a_refusal_without_a_number_is_told_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is the one that the engine lists."""
    monkeypatch.setattr("qiao.upstream.vocabulary.load", lambda: None)
    async with strict(NO_NUMBER, "refuse", server="ray") as (_, asked, served):
        with pytest.raises(Fault, match=r"^prompt is too long: \d+ tokens > 8192 maximum$"):
            await opened(asked, old_result(10_000), served)


async def test_nothing_is_trimmed_where_a_shorter_answer_will_do() -> None:
    """A bound tells little: the answer is halved first."""
    async with strict(AT_LEAST) as (engine, asked, served):
        answer = await opened(asked, old_result(2500, *PICTURES, max_tokens=4000), served)
        assert (answer.prepared.trimmed, answer.prepared.is_limited) == (0, True)
        assert [chat.body["max_completion_tokens"] for chat in engine.chats] == [4000, 2000]
