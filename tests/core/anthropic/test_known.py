"""What a conversation brings again is not read anew, and that changes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.anthropic import history, request, tools
from qiao.core.conversation import ToolCall
from qiao.core.fault import Fault

TOOLS = [{"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}]
CALL = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a"}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": [{"type": "text", "text": "I look."}, CALL]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "text"}]},
]


def body(messages: list[Any], **fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 5, "messages": messages, **fields}).encode()


def forget() -> None:
    history._known.cache_clear()
    tools._known.cache_clear()
    request._known_frame.cache_clear()
    for growing in request._REQUESTS.values():
        growing._known.clear()
        growing._bytes = 0


def test_a_known_conversation_decodes_to_the_same() -> None:
    forget()
    first = request.decode(body(MESSAGES, tools=TOOLS))
    again = request.decode(body([*MESSAGES, {"role": "assistant", "content": "done"}], tools=TOOLS))
    assert again.turns[:-1] == first.turns
    assert again.turns[1] is first.turns[1]
    assert again.tools == first.tools
    assert again.tools[0] is first.tools[0]


def test_a_mark_for_the_cache_makes_no_other_message() -> None:
    forget()
    marked = json.loads(json.dumps(MESSAGES))
    marked[2]["content"][0]["cache_control"] = {"type": "ephemeral"}

    def spoken(messages: list[Any]) -> Any:
        raw = json.dumps({"model": "m", "max_tokens": 5, "messages": messages}, separators=(",", ":")).encode()
        return request.decode(raw).turns

    first = spoken(marked)
    assert spoken([*MESSAGES, {"role": "assistant", "content": "done"}])[2] is first[2]
    assert first[2].parts[0].parts[0].text == "text"


NOTE = {"role": "system", "content": "only now", "clear_at": "next_user_message"}
REMOVAL = {"role": "system", "content": [{"type": "tool_removal", "tool": {"type": "tool_reference", "name": "Read"}}]}
WRONG: list[Any] = [{"role": "nobody", "content": "x"}, {"role": "user", "content": [{"type": "image"}]}, 7, None]
FIELDS: list[dict[str, Any]] = [
    {},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "Read"}},
    {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "Write"}},
    {"tools": [{}]},
    {"system": "s", "max_tokens": 6},
    {"max_tokens": "many"},
    {"unknown": [1], "stream": True},
]
ASKED = st.tuples(
    st.lists(st.sampled_from([*MESSAGES, NOTE, REMOVAL]), min_size=1, max_size=5),
    st.lists(st.sampled_from([*MESSAGES, NOTE, REMOVAL, *WRONG]), max_size=2),
    st.sampled_from(FIELDS),
    st.booleans(),
)


def answer(raw: bytes, *, counting: bool) -> Any:
    try:
        return request._decode(raw, counting=counting)
    except Fault as fault:
        return str(fault)


@given(asked=st.lists(ASKED, min_size=2, max_size=8))
def test_what_was_asked_before_changes_nothing(asked: list[Any]) -> None:
    found = [answer(body(first + more, **fields), counting=counting) for first, more, fields, counting in asked]
    for (first, more, fields, counting), before in zip(asked, found, strict=True):
        forget()
        assert answer(body(first + more, **fields), counting=counting) == before


@pytest.mark.parametrize(
    "end",
    [
        {"a": [{"b": 1, "cache_control": {"type": "ephemeral"}}]},
        {"a": ',"cache_control":{"type":"ephemeral"}}]}'},
        {"a": 1, "cache_control": {"type": "ephemeral"}},
    ],
)
def test_an_input_keeps_what_looks_like_a_mark(end: Any) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": end}
    message = {"role": "assistant", "content": [call]}
    raw = json.dumps({"model": "m", "max_tokens": 5, "messages": [message]}, separators=(",", ":")).encode()
    part = request.decode(raw).turns[0].parts[0]
    assert isinstance(part, ToolCall)
    assert json.loads(part.arguments) == end


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (1, {"role": "assistant", "content": [{"type": "nonsense"}]}),
        (1, {"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}),
        (2, {"role": "nobody", "content": "x"}),
        (0, {"role": "user"}),
        (0, "text"),
    ],
)
def test_an_error_names_its_own_place_however_often_it_comes(place: int, message: Any) -> None:
    forget()
    for moved in (0, 0, 2):
        messages = [*MESSAGES[:1] * moved, *MESSAGES[:place], message, *MESSAGES[place:]]
        with pytest.raises(Fault, match=rf"^messages\.{place + moved}\b"):
            request.decode(body(messages))


def test_a_wrong_tool_is_wrong_every_time() -> None:
    for _ in range(2):
        with pytest.raises(Fault, match=r"^tools\.1\.name: Field required"):
            request.decode(body(MESSAGES, tools=[*TOOLS, {"input_schema": {"type": "object"}}]))


def test_changes_in_one_conversation_do_not_reach_another() -> None:
    removal = {
        "role": "system",
        "content": [{"type": "tool_removal", "tool": {"type": "tool_reference", "name": "Read"}}],
    }
    assert request.decode(body(MESSAGES, tools=TOOLS)).tools
    assert not request.decode(body([*MESSAGES, removal], tools=TOOLS)).tools
    assert request.decode(body(MESSAGES, tools=TOOLS)).tools


def test_words_that_expire_do_so_after_known_messages_too() -> None:
    note = {"role": "system", "content": "only now", "clear_at": "next_user_message"}
    for _ in range(2):
        standing = request.decode(body([MESSAGES[0], note]))
        assert [turn.role for turn in standing.turns] == ["user", "system"]
        later = request.decode(body([MESSAGES[0], note, *MESSAGES[1:]]))
        assert [turn.role for turn in later.turns] == ["user", "assistant", "user"]


def test_what_is_kept_is_bounded() -> None:
    forget()
    long = {"role": "user", "content": "x" * history._KNOWN_SIZE}
    request.decode(body([long]))
    assert history._known.cache_info().currsize == 0
    limit = history._known.cache_info().maxsize
    assert limit is not None
    assert limit * history._KNOWN_SIZE <= 16 * 2**20
    lists = tools._known.cache_info().maxsize
    assert lists is not None
    assert lists * tools._KNOWN_SIZE <= 8 * 2**20
