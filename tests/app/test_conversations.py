"""Which requests belong to one conversation, and that memory of them stays bounded."""

from __future__ import annotations

import time

import msgspec
import pytest

from qiao.app.conversations import Conversations, in_session
from qiao.core.body import session_of
from qiao.core.conversation import Conversation, Tool, ToolCall, Turn
from tests.policies.test_history import assistant, call, result, user

BASH = Tool("Bash", "Runs.")
GREET = Tool("greet", "Greets.")
BEGUN = (user("go"),)
GONE_ON = (*BEGUN, assistant(call("1")), user(result("1", "out")))
ELSEWHERE = (*BEGUN, assistant(call("2")), user(result("2", "out")))
LATER = (*GONE_ON, assistant(call("3")), user(result("3", "out")))


def asked(turns: tuple[Turn, ...], *tools: Tool, session: str | None = "s", system: str = "You are.") -> Conversation:
    return Conversation(model="m", turns=turns, tools=tools, session=session, system=(system,))


def first_list(known: Conversations, conversation: Conversation, tenant: str = "t") -> list[str]:
    history = known.tools(tenant, conversation)
    assert history is not None
    return [tool.name for tool in history.first]


def test_a_conversation_keeps_its_first_list() -> None:
    known = Conversations()
    assert first_list(known, asked(BEGUN, BASH)) == ["Bash"]
    assert first_list(known, asked(GONE_ON, BASH, GREET)) == ["Bash"]
    assert len(known) == 2
    assert first_list(known, asked(LATER, GREET)) == ["Bash"]
    assert len(known) == 2


def test_a_list_that_lacks_most_is_another_conversation() -> None:
    known = Conversations()
    known.tools("t", asked(BEGUN, BASH, GREET))
    assert first_list(known, asked(GONE_ON, GREET)) == ["Bash", "greet"]
    assert first_list(known, asked(ELSEWHERE, Tool("Read"))) == ["Read"]


@pytest.mark.parametrize("session", ["s", None])
def test_one_with_the_same_calls_keeps_its_list_whatever_goes(session: str | None) -> None:
    known = Conversations()
    read = Tool("Read")
    known.tools("t", asked(BEGUN, BASH, GREET, read, session=session))
    known.tools("t", asked(GONE_ON, BASH, GREET, read, session=session))
    assert first_list(known, asked(LATER, read, session=session)) == ["Bash", "greet", "Read"]
    assert first_list(known, asked(LATER, Tool("Write"), session=session)) == ["Bash", "greet", "Read"]


@pytest.mark.parametrize("session", ["s", None])
def test_two_that_begin_alike_do_not_disturb_each_other(session: str | None) -> None:
    known = Conversations()
    known.tools("t", asked(BEGUN, BASH, session=session))
    one = known.tools("t", asked(GONE_ON, BASH, GREET, session=session))
    known.tools("t", asked(BEGUN, GREET, session=session))
    assert first_list(known, asked(ELSEWHERE, GREET, session=session)) == ["greet"]
    assert known.tools("t", asked(LATER, BASH, GREET, session=session)) == one


def test_an_id_that_every_conversation_has_is_no_mark() -> None:
    known = Conversations()
    numbered = [
        (*BEGUN, assistant(ToolCall("functions.Bash:0", "Bash", arguments)), user(result("functions.Bash:0", "out")))
        for arguments in ('{"command":"ls"}', '{"command":"pwd"}')
    ]
    known.tools("t", asked(BEGUN, BASH, session=None))
    known.tools("t", asked(numbered[0], BASH, session=None))
    assert first_list(known, asked(numbered[1], GREET, session=None)) == ["greet"]


@pytest.mark.parametrize(
    ("other", "tenant"),
    [
        (asked((user("other"), *GONE_ON[1:]), BASH, GREET), "t"),
        (asked(GONE_ON, BASH, GREET, session="another"), "t"),
        (asked(GONE_ON, BASH, GREET, system="You are a sub-agent."), "t"),
        (asked(GONE_ON, BASH, GREET), "another tenant"),
    ],
)
def test_another_conversation_has_its_own(other: Conversation, tenant: str) -> None:
    known = Conversations()
    known.tools("t", asked(BEGUN, BASH))
    assert first_list(known, other, tenant) == ["Bash", "greet"]


def test_a_beginning_begins_anew() -> None:
    known = Conversations()
    known.tools("t", asked(BEGUN, BASH))
    assert first_list(known, asked(BEGUN, GREET)) == ["greet"]


def test_without_a_session_a_list_that_lacks_tools_is_another_conversation() -> None:
    known = Conversations()
    known.tools("t", asked(BEGUN, BASH, session=None))
    assert first_list(known, asked(GONE_ON, BASH, GREET, session=None)) == ["Bash"]
    assert first_list(known, asked(ELSEWHERE, GREET, session=None)) == ["greet"]


def test_a_header_names_the_session_where_the_body_does_not() -> None:
    header = {"x-claude-code-session-id": "s"}
    nobody = asked(BEGUN, session=None)
    named = in_session(nobody, header)
    assert (named.session, named.names_session) == (session_of("s"), True)
    assert in_session(nobody, {}) is nobody
    assert in_session(msgspec.structs.replace(nobody, session="a person"), header) == named
    assert in_session(named, {"x-claude-code-session-id": "another"}) is named


def test_counting_leaves_nothing_behind() -> None:
    known = Conversations()
    known.tools("t", asked(BEGUN, BASH), is_asked=False)
    assert len(known) == 0
    known.tools("t", asked(BEGUN, BASH))
    counted = known.tools("t", asked(GONE_ON, BASH, GREET), is_asked=False)
    asked_for = known.tools("t", asked(GONE_ON, BASH, GREET))
    assert counted == asked_for


def test_requests_without_tools_are_not_remembered() -> None:
    known = Conversations()
    assert known.tools("t", asked(BEGUN)) is None
    assert len(known) == 0


def test_the_oldest_is_forgotten_first() -> None:
    known = Conversations(most=2)
    for session in ("a", "b"):
        known.tools("t", asked(BEGUN, BASH, session=session))
    known.tools("t", asked(GONE_ON, BASH, session="a"))
    known.tools("t", asked(BEGUN, BASH, session="c"))
    assert len(known) == 2
    assert first_list(known, asked(GONE_ON, BASH, GREET, session="a")) == ["Bash"]
    assert first_list(known, asked(GONE_ON, BASH, GREET, session="b")) == ["Bash", "greet"]


def test_its_size_is_bounded_too() -> None:
    large = Tool("Large", "x" * 1000)
    known = Conversations(most_characters=5_000)
    for session in range(50):
        known.tools("t", asked(BEGUN, large, session=str(session)))
    assert 1 <= len(known) <= 5
    known.tools("t", asked(BEGUN, Tool("Huge", "x" * (3 * 2**20)), session="huge"))
    assert first_list(known, asked(GONE_ON, Tool("Huge", "x"), session="huge")) == ["Huge"]


def test_a_large_request_is_found_in_a_few_microseconds() -> None:
    tools = [Tool(f"tool {number}", "d" * 1800, "{}" + " " * 300) for number in range(24)]
    known = Conversations()
    known.tools("t", asked((user("w" * 9000),), *tools, system="s" * 7000))
    turns = (user("w" * 9000), *(GONE_ON[1:] * 20))
    best = 1.0
    for _ in range(50):
        # Fresh texts, as a decoder makes them: a text's hash and identity are kept once they were asked for.
        fresh = [Tool(tool.name + "", "".join(["d" * 1800]), "{}" + " " * 300) for tool in tools]
        again = (user("".join(["w" * 9000])), *turns[1:])
        conversation = asked(again, *fresh, system="".join(["s" * 7000]))
        begun = time.perf_counter()
        known.tools("t", conversation)
        best = min(best, time.perf_counter() - begun)
    assert best < 100e-6, f"{best * 1e6:.0f} µs"
    print(f"{best * 1e6:.1f} µs")
