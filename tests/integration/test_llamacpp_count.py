"""llama.cpp as an upstream of its own: what `/apply-template` and `/tokenize` count is what its chat route reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qiao.core.conversation import Conversation, ToolCall
from qiao.core.events import UsageSeen
from qiao.upstream.openai import OpenAIUpstream
from tests.policies.test_history import assistant, result, user
from tests.support.embedded import Running, running
from tests.upstream.test_counting import preparing

pytestmark = pytest.mark.timeout(120)

TALK = (
    user("Say hi – 桥."),
    assistant("Hi.", ToolCall("1", "Read", '{"path": "x"}')),
    user(result("1", "one\ntwo")),
    assistant("Two lines."),
    user("And now?"),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Running]:
    with running(alias="tiny") as found:
        yield found


async def prompt_tokens(asked: OpenAIUpstream, conversation: Conversation) -> int | None:
    """What the engine itself says of the prompt that it read."""
    served = (await asked.facts()).models[0]
    answer = await asked.open(preparing(conversation), served, request_id="r")
    seen: list[Any] = []

    def take(data: bytes) -> bool:
        seen.extend(answer.decoder.feed(data))
        return True

    await answer.pump(take)
    seen.extend(answer.decoder.close())
    answer.close()
    return next((event.usage.prompt for event in reversed(seen) if isinstance(event, UsageSeen)), None)


@pytest.mark.parametrize("turns", [1, 3, 5])
async def test_what_is_counted_is_what_is_read(engine: Running, turns: int) -> None:
    asked = OpenAIUpstream(engine.endpoint.address, api_key=engine.endpoint.key, flavor="llamacpp")
    try:
        served = (await asked.facts()).models[0]
        for system in ((), ("Be brief.",)):
            conversation = Conversation("m", TALK[:turns], system=system, max_tokens=2)
            found = await asked.count(preparing(conversation), served)
            assert found.is_exact
            assert found.tokens == await prompt_tokens(asked, conversation)
    finally:
        await asked.close()
