"""Several requests at one embedded engine: who waits is told so, and nobody loses the main conversation's cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from qiao.core.conversation import Conversation, Text, Turn
from qiao.core.events import Event, UsageSeen
from qiao.core.llamacpp.request import Options
from qiao.upstream.llamacpp import Choices, LlamaCppUpstream
from tests.integration.test_embedded_engine import answer
from tests.support.embedded import Running, running

pytestmark = pytest.mark.timeout(180)

SYSTEM = ("You are an agent. " + "Look before you leap, and say what you see. " * 12,)
MAIN = "Please look at the parser of this project and tell me what is wrong with it. " * 8


@pytest.fixture(scope="module")
def engine() -> Iterator[Running]:
    with running(alias="tiny") as found:
        yield found


@pytest.fixture
async def upstream(engine: Running) -> AsyncIterator[LlamaCppUpstream]:
    choices = Choices(target=None, options=Options(temperature=0.0))
    found = LlamaCppUpstream(engine.endpoint.address, key=engine.endpoint.key, choices=choices)
    yield found
    await found.close()


def said(*words: str, system: tuple[str, ...] = SYSTEM, tokens: int = 4) -> Conversation:
    """A conversation in which the two sides take turns."""
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[place % 2], (Text(text),)) for place, text in enumerate(words))  # type: ignore[arg-type]
    return Conversation("m", turns, system=system, max_tokens=tokens)


def read(events: list[Event]) -> tuple[int, int]:
    """Tokens of the prompt, and how many of them came out of the cache."""
    usage = [event.usage for event in events if isinstance(event, UsageSeen)][-1]
    return usage.prompt or 0, usage.cached


async def test_side_requests_leave_the_main_conversation_in_the_cache(upstream: LlamaCppUpstream) -> None:
    words = [MAIN]
    before, _ = read(await answer(upstream, said(*words)))
    sides = (
        [said("Write a title for this session.", system=("You write titles.",))],
        # Sub-agents share the beginning of the prompt, and nothing else.
        [said("Search the tests. " * 6)],
        [said("Search the documents. " * 6), said("Search the history. " * 9)],
    )
    for number, side in enumerate(sides):
        for request in side:
            await answer(upstream, request)
        words += [f"Answer {number}.", f"And then? This is question {number}."]
        prompt, cached = read(await answer(upstream, said(*words)))
        # The last tokens of a prompt open the assistant's turn.
        assert cached >= before - 8, f"after side {number}: {cached} of {before} tokens were cached"
        before = prompt


async def test_the_speed_of_reading_is_measured(upstream: LlamaCppUpstream) -> None:
    speed = await upstream.reading_speed()
    assert speed is None or speed > 0
