"""Counting on a live server: exact, by the same request, only what is new, and never in the way of an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from qiao.core.conversation import (
    ClearThinking,
    ClearToolUses,
    Conversation,
    Edit,
    Image,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    Turn,
)
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.policies.overflow import LEAST_ANSWER
from qiao.policies.prepare import Prepared, Switches, prepare
from qiao.policies.quirks import Quirks
from qiao.policies.window import is_far
from qiao.profiles import find
from qiao.upstream.base import Preparation, Served
from qiao.upstream.counting import Counter
from qiao.upstream.fitting import Fitter, OnOverflow
from qiao.upstream.openai import OpenAIAnswer, OpenAIUpstream
from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.fakes.prompt import count, render
from tests.policies.test_history import assistant, result, user

WINDOW = 8192
NAME = "qwen3-235b"
TOOLS = (Tool("Read", "Reads a file.", '{"type":"object","properties":{"path":{"type":"string"}}}'),)


def talk(rounds: int, size: int = 100, **fields: Any) -> Conversation:
    turns: list[Turn] = [user("Read them all.")]
    for number in range(rounds):
        turns.append(assistant(f"Now {number}.", ToolCall(f"t{number}", "Read", '{"path": "x"}')))
        turns.append(user(result(f"t{number}", f"{number} " + "word " * size)))
    base = Conversation(NAME, tuple(turns), system=("Be brief.",), tools=TOOLS, max_tokens=1000)
    return msgspec.structs.replace(base, **fields)


def preparing(conversation: Conversation) -> Preparation:
    def run(quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True) -> Prepared:
        return prepare(
            conversation if edited else msgspec.structs.replace(conversation, edits=None),
            find(NAME),
            target=target,
            window=WINDOW,
            quirks=quirks,
            input_tokens=input_tokens,
        )

    return run


@asynccontextmanager
async def known(engine: FakeEngine, on_overflow: OnOverflow) -> AsyncIterator[tuple[OpenAIUpstream, Served]]:
    """The upstream that asks `engine` and has its facts, and the engine's model."""
    async with serving(engine) as url:
        asked = OpenAIUpstream(url, on_overflow=on_overflow)
        try:
            facts = await asked.facts()
            engine.forget()
            yield asked, facts.models[0]
        finally:
            await asked.close()


@asynccontextmanager
async def upstream(
    on_overflow: OnOverflow = "refuse", **behaviour: Any
) -> AsyncIterator[tuple[FakeEngine, OpenAIUpstream, Served]]:
    engine = FakeEngine({NAME: Behaviour(**{"max_model_len": WINDOW, **behaviour})})
    async with known(engine, on_overflow) as (asked, served):
        yield engine, asked, served


async def opened(asked: OpenAIUpstream, conversation: Conversation, served: Served) -> OpenAIAnswer:
    answer = await asked.open(preparing(conversation), served, request_id="r")
    answer.close()
    return answer


def counted(engine: FakeEngine) -> list[int]:
    """The number of messages in every count that the engine was asked for."""
    asked = [request for request in engine.requests if request.path in ("/tokenize", "/apply-template")]
    return [len(request.messages) for request in asked if "content" not in request.body]


def prompt(engine: FakeEngine) -> int:
    return count(engine.chats[-1].prompt)


@pytest.mark.parametrize("server", ["vllm", "llamacpp"])
@pytest.mark.parametrize(
    "conversation",
    [
        talk(2),
        talk(0),
        talk(1, tools=(), turns=(user("a"), assistant("b"), user("c"))),
        talk(1, thinking=Thinking("on", effort="high")),
        talk(1, system=()),
        talk(1, extras={"chat_template_kwargs": msgspec.Raw(b'{"enable_thinking":false}')}),
        talk(1, turns=(user("a"), Turn("system", (Text("Now."),)))),
    ],
)
async def test_what_is_counted_is_what_is_sent(server: str, conversation: Conversation) -> None:
    async with upstream(server=server, max_model_len=100_000) as (engine, asked, served):
        found = await asked.count(preparing(conversation), served)
        await opened(asked, conversation, served)
        assert (found.tokens, found.is_exact, found.by) == (prompt(engine), True, "engine")


@pytest.mark.parametrize("server", ["vllm", "llamacpp"])
async def test_a_grown_conversation_costs_what_it_grew_by(server: str) -> None:
    async with upstream(server=server, max_model_len=10**6) as (engine, asked, served):
        for rounds in range(20, 40):
            engine.forget()
            found = await asked.count(preparing(talk(rounds)), served)
            asks = counted(engine)
            await opened(asked, talk(rounds), served)
            assert (found.tokens, found.is_exact) == (prompt(engine), True)
            # The first asks for the whole and for the trial of the template; then three messages: the stub, the call
            # and its result.
            assert len(asks) == (5 if rounds == 20 else 1)
            assert max(asks) == (2 + 2 * rounds if rounds == 20 else 3)
        engine.forget()
        await asked.count(preparing(talk(39)), served)
        assert counted(engine) == []


async def test_a_model_without_a_tokenizer_does_not_keep_others_from_theirs() -> None:
    """Behind a proxy each model may have an engine of its own."""
    engine = FakeEngine({NAME: Behaviour(max_model_len=WINDOW), "b": Behaviour(max_model_len=WINDOW, server="ray")})
    async with known(engine, "refuse") as (asked, served):
        other = next(model for model in (await asked.facts()).models if model.id == "b")
        found = [await asked.count(preparing(talk(2)), model) for model in (served, other, served)]
        assert [count.is_exact for count in found] == [True, False, True]


async def test_a_template_that_is_not_additive_is_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that says in its head how many turns there are."""

    def render(messages: Any, tools: Any, **options: Any) -> str:
        return "turn " * len(messages) ** 2 + str(messages)

    monkeypatch.setattr("tests.fakes.engine.render", render)
    async with upstream(max_model_len=10**6) as (engine, asked, served):
        for rounds in range(20, 24):
            found = await asked.count(preparing(talk(rounds)), served)
            await opened(asked, talk(rounds), served)
            assert found.tokens == prompt(engine)


async def test_reasoning_that_a_later_turn_takes_away_is_not_counted_twice() -> None:
    """The family keeps reasoning within a tool loop: a new question drops it, so the count begins anew."""
    thought = (
        user("a"),
        assistant(Reasoning("x" * 50), ToolCall("1", "Read", "{}")),
        user(result("1", "b")),
        assistant("c"),
        user("d"),
    )
    async with upstream(max_model_len=10**6) as (engine, asked, served):
        for turns in (thought[:1], thought[:3], thought):
            found = await asked.count(preparing(talk(0, turns=turns)), served)
            await opened(asked, talk(0, turns=turns), served)
            assert found.tokens == prompt(engine)


def loops(rounds: int) -> tuple[Turn, ...]:
    """A tool loop with reasoning and a new question, again and again."""
    turns: list[Turn] = [user("a")]
    for number in range(rounds):
        turns.append(assistant(Reasoning(f"thought {number}"), ToolCall(f"t{number}", "Read", "{}")))
        turns += [user(result(f"t{number}", "word " * 50)), assistant(f"Done {number}."), user(f"And {number}?")]
    return tuple(turns)


def keeping(conversation: Conversation) -> Preparation:
    """With the reasoning of all earlier turns."""

    def run(quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True) -> Prepared:
        return prepare(conversation, find(NAME), target=target, switches=Switches(reasoning="send"), quirks=quirks)

    return run


async def test_where_reasoning_is_kept_a_new_question_costs_what_it_adds() -> None:
    """The fake engine's template keeps it all, which a trial finds out once."""
    async with upstream(max_model_len=10**6) as (engine, asked, served):
        for rounds in range(10, 20):
            engine.forget()
            found = await asked.count(keeping(talk(0, turns=loops(rounds))), served)
            asks = counted(engine)
            answer = await asked.open(keeping(talk(0, turns=loops(rounds))), served, request_id="r")
            answer.close()
            assert (found.tokens, found.is_exact) == (prompt(engine), True)
            if rounds > 10:
                assert len(asks) == (4 if rounds == 11 else 1)
                assert max(asks) <= 7


async def test_where_a_new_question_drops_it_the_whole_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropping(messages: Any, tools: Any, **options: Any) -> str:
        spoken = max(place for place, message in enumerate(messages) if message["role"] == "user")
        kept = [
            {name: value for name, value in message.items() if place > spoken or not name.startswith("reasoning")}
            for place, message in enumerate(messages)
        ]
        return render(kept, tools, **options)

    monkeypatch.setattr("tests.fakes.engine.render", dropping)
    async with upstream(max_model_len=10**6) as (engine, asked, served):
        for rounds in range(10, 14):
            conversation = talk(0, turns=loops(rounds))
            for turns in (conversation.turns[:-2], conversation.turns):
                part = msgspec.structs.replace(conversation, turns=turns)
                found = await asked.count(keeping(part), served)
                answer = await asked.open(keeping(part), served, request_id="r")
                answer.close()
                assert found.tokens == prompt(engine)


async def test_far_from_the_limit_nothing_is_counted() -> None:
    async with upstream() as (engine, asked, served):
        answer = await opened(asked, talk(2), served)
        assert counted(engine) == []
        assert engine.chats[-1].body["max_completion_tokens"] == 1000
        assert (answer.prepared.is_limited, answer.notes) == (False, ())


async def test_the_answer_gets_what_is_left() -> None:
    async with upstream() as (engine, asked, served):
        conversation = talk(35, max_tokens=8000)
        answer = await opened(asked, conversation, served)
        left = WINDOW - prompt(engine)
        assert engine.chats[-1].body["max_completion_tokens"] == left < 8000
        assert answer.prepared.is_limited
        assert answer.notes == (f"max_tokens: 8000 asked, {left} left in the window",)


async def test_a_budget_stays_below_the_limit() -> None:
    async with upstream() as (engine, asked, served):
        conversation = talk(35, max_tokens=8000, thinking=Thinking("on", budget=7000))
        await opened(asked, conversation, served)
        body = engine.chats[-1].body
        assert body["thinking_token_budget"] < body["max_completion_tokens"]


@pytest.mark.parametrize("max_tokens", [100, 32_000, None])
async def test_a_prompt_over_the_window_is_refused_before_it_is_sent(max_tokens: int | None) -> None:
    async with upstream() as (engine, asked, served):
        conversation = talk(200, max_tokens=max_tokens)
        with pytest.raises(Fault) as caught:
            await opened(asked, conversation, served)
        true = (await asked.count(preparing(conversation), served)).tokens
        assert true > WINDOW
        assert caught.value.message == f"prompt is too long: {true} tokens > {WINDOW} maximum"
        assert caught.value.kind == "invalid_request"
        assert engine.chats == []


async def test_too_little_room_is_too_long() -> None:
    async with upstream() as (engine, asked, served):
        base = (await asked.count(preparing(talk(1, size=0)), served)).tokens
        conversation = talk(1, size=WINDOW - base - 100)
        tokens = (await asked.count(preparing(conversation), served)).tokens
        assert WINDOW - LEAST_ANSWER < tokens < WINDOW
        with pytest.raises(Fault) as caught:
            await opened(asked, conversation, served)
        assert caught.value.message == f"prompt is too long: {tokens} tokens > {WINDOW - LEAST_ANSWER} maximum"
        small = msgspec.structs.replace(conversation, max_tokens=1)
        await opened(asked, small, served)
        assert engine.chats[-1].body["max_completion_tokens"] == 1


async def test_a_refusal_is_never_said_by_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count put together from pieces may be wrong where a template surprises: then the whole is counted once."""
    async with upstream() as (engine, asked, served):
        await asked.count(preparing(talk(30)), served)
        monkeypatch.setattr("qiao.upstream.counting.Counter._grown", _far_too_many)
        answer = await opened(asked, talk(31, max_tokens=2000), served)
        assert not answer.prepared.is_limited
        assert prompt(engine) < WINDOW


async def _far_too_many(*_: object) -> int:
    return 10**6


async def test_where_nothing_can_be_counted_the_engine_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiao.upstream.vocabulary.load", lambda: None)
    async with upstream(server="ray") as (engine, asked, served):
        with pytest.raises(Fault, match=r"prompt is too long: \d+ tokens > 8192 maximum") as caught:
            await opened(asked, talk(0, turns=(user("word " * 30_000),)), served)
        assert len(engine.chats) == 1
        # The engine's own number is one more than its window; the estimate is nearer.
        assert int(caught.value.message.split()[4]) > 20_000


async def test_a_prompt_with_pictures_is_not_judged() -> None:
    """What a picture costs only the engine knows."""
    async with upstream(multimodal=True) as (engine, asked, _):
        turns = (Turn("user", (Text("word " * 7000), Image("image/png", "AA=="))),)
        fit = await Fitter(Counter(asked._client)).fit(talk(0, turns=turns), Target(NAME), WINDOW)
        assert fit.conversation.max_tokens == 1000
        assert counted(engine) == []


async def test_an_engine_without_a_tokenizer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiao.upstream.vocabulary.load", lambda: None)
    async with upstream(server="ray") as (engine, asked, served):
        for rounds in range(3):
            found = await asked.count(preparing(talk(rounds)), served)
            assert (found.is_exact, found.by) == (False, "estimate")
        assert len([request for request in engine.requests if request.path == "/tokenize"]) <= 5


async def test_trimming_makes_it_fit_and_says_so() -> None:
    async with upstream("trim") as (engine, asked, served):
        conversation = talk(40, size=300)
        answer = await opened(asked, conversation, served)
        assert prompt(engine) < WINDOW
        assert answer.prepared.trimmed > 20
        assert any("trimmed: " in note for note in answer.notes)
        sent = engine.chats[-1].messages
        assert sent[0]["content"] == "Be brief."
        assert sent[-1]["content"].startswith("39 word")
        calls = [call["id"] for message in sent for call in message.get("tool_calls") or ()]
        assert calls == [message["tool_call_id"] for message in sent if message["role"] == "tool"]


async def test_trimming_keeps_the_beginning_of_the_next_prompt() -> None:
    async with upstream("trim") as (engine, asked, served):
        for rounds in (30, 31, 32):
            await opened(asked, talk(rounds, size=300), served)
        first, second, third = (chat.prompt.removesuffix("<|im_start|>assistant\n") for chat in engine.chats)
        assert second.startswith(first) or third.startswith(second)


async def test_trimming_cannot_help() -> None:
    async with upstream("trim") as (engine, asked, served):
        turns = (user("word " * 9000),)
        with pytest.raises(Fault, match=r"prompt is too long: \d+ tokens > 8192 maximum"):
            await opened(asked, talk(0, turns=turns), served)
        assert engine.chats == []


async def test_what_the_look_at_the_size_missed_is_trimmed_after_the_refusal() -> None:
    """Nothing but digits: one token a byte, and half of it was reckoned with."""
    async with upstream("trim") as (engine, asked, served):
        turns = (
            user("a"),
            assistant(ToolCall("1", "Read", "{}")),
            user(result("1", ". " * 7000)),
            assistant("b"),
            user("c"),
        )
        answer = await opened(asked, talk(0, turns=turns, max_tokens=100), served)
        assert answer.prepared.trimmed == 1
        assert len(engine.chats) == 2


TOKENS = ClearToolUses("input_tokens", 3000, keep=1)


@pytest.mark.parametrize(
    ("edits", "cleared"),
    [
        (None, None),
        ((), 0),
        ((ClearThinking(1),), 0),
        ((TOKENS,), 39),
        ((msgspec.structs.replace(TOKENS, trigger=90_000),), 0),
        ((msgspec.structs.replace(TOKENS, clear_at_least=90_000),), 0),
    ],
)
async def test_edits_wait_for_the_true_count(edits: tuple[Edit, ...] | None, cleared: int | None) -> None:
    async with upstream(max_model_len=100_000) as (engine, asked, served):
        conversation = talk(40, edits=edits)
        plain = await asked.count(preparing(talk(40)), served)
        found = await asked.count(preparing(conversation), served)
        answer = await opened(asked, conversation, served)
        assert found.tokens == prompt(engine)
        if not edits:
            assert found.original is None
        else:
            assert found.original == plain.tokens
        applied = answer.prepared.applied_edits
        assert sum(edit.cleared_tool_uses for edit in applied) == (cleared or 0)
        if cleared:
            freed = plain.tokens - found.tokens
            assert 0.5 < applied[0].cleared_input_tokens / freed < 2


async def test_counting_in_the_way_of_many_requests_at_once() -> None:
    async with upstream(max_model_len=10**6) as (engine, asked, served):
        found = await asyncio.gather(*(asked.count(preparing(talk(rounds)), served) for rounds in range(20)))
        for rounds in range(20):
            await opened(asked, talk(rounds), served)
            assert found[rounds].tokens == prompt(engine)


async def test_a_count_at_100k_tokens_adds_at_most_5_ms_after_the_first_turn() -> None:
    """Near the limit, the fake engine's own part of it included. Time of the processor, the least of ten turns: others
    use this machine, and between two programs on it there is no other wait."""
    async with upstream(max_model_len=131_072) as (engine, asked, _):
        fitter, target = Fitter(Counter(asked._client)), Target(NAME)
        took = []
        for rounds in range(270, 281):
            conversation = talk(rounds, size=300, max_tokens=32_000)
            begun = time.process_time()
            fit = await fitter.fit(conversation, target, 131_072)
            took.append(time.process_time() - begun)
            assert fit.is_limited
        assert fit.conversation.max_tokens is not None
        assert 131_072 - fit.conversation.max_tokens > 95_000
        assert min(took[1:]) < 0.005, took
        assert min(took[1:]) < took[0] / 5, took
        assert counted(engine)[5:] == [3] * 10


async def test_a_look_at_the_size_costs_next_to_nothing() -> None:
    def took() -> float:
        begun = time.process_time()
        for _ in range(1000):
            is_far(71_000, 32_000, 131_072)
        return time.process_time() - begun

    assert min(took() for _ in range(5)) < 0.02


async def test_a_count_of_our_own_leaves_a_reserve() -> None:
    async with upstream(server="ray") as (engine, asked, served):
        conversation = talk(15, size=300, max_tokens=8000)
        answer = await opened(asked, conversation, served)
        found = await asked.count(preparing(conversation), served)
        assert (answer.prepared.is_limited, found.by) == (True, "tokenizer")
        assert engine.chats[-1].body["max_completion_tokens"] == WINDOW - found.tokens - 64


async def test_an_sglang_that_counts_no_messages_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: FakeEngine, http: web.Request) -> web.Response:
        return web.json_response({"error": "prompt: Field required"}, status=422)

    monkeypatch.setattr("tests.fakes.engine.FakeEngine._tokenize", refuse)
    async with upstream() as (engine, asked, _):
        counter, target = Counter(asked._client), Target(NAME, flavor="sglang")
        for _ in range(3):
            assert (await counter.count(talk(2), target)).by == "tokenizer"
        assert len(counted(engine)) <= 5
