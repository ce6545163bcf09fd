"""Which requests may wait for others."""

from __future__ import annotations

import msgspec
import pytest

from qiao.core.conversation import Conversation, Text, Thinking, Tool, Turn
from qiao.core.openai import request
from qiao.core.openai.target import Target
from qiao.policies.rank import is_side, ranked
from qiao.profiles.engines import target_for

PLAIN = Conversation(model="m", turns=(Turn("user", (Text("hi"),)),))
SESSION = {"session": "s", "names_session": True}


@pytest.mark.parametrize(
    ("changes", "headers", "expected"),
    [
        ({**SESSION}, {}, True),  # a title, the summary of a page
        ({**SESSION, "thinking": Thinking("off")}, {}, True),  # a safety check
        ({**SESSION, "tools": (Tool("a"),)}, {}, False),
        ({**SESSION, "thinking": Thinking("on")}, {}, False),  # a conversation that was started without tools
        ({}, {}, False),
        ({"session": "a person"}, {}, False),
        ({}, {"x-claude-code-request-class": "main"}, False),
        ({"tools": (Tool("a"),)}, {"x-claude-code-request-class": "title"}, True),
    ],
)
def test_side_requests(changes: dict[str, object], headers: dict[str, str], expected: bool) -> None:
    assert is_side(msgspec.structs.replace(PLAIN, **changes), headers) is expected


def test_a_rank_is_sent_only_to_engines_that_know_it() -> None:
    body = request.encode(ranked(PLAIN), target_for("vllm", "0.32.0", "m"))
    assert msgspec.json.decode(body)["priority"] == 1
    for other in (Target("m"), target_for("sglang", None, "m"), target_for("openai", None, "gpt-5")):
        assert b"priority" not in request.encode(ranked(PLAIN), other)


def test_a_clients_own_priority_stays() -> None:
    own = msgspec.structs.replace(PLAIN, extras={"priority": msgspec.Raw(b"7")})
    assert ranked(own) == own
