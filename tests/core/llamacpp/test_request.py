"""What the engine is asked, for every kind of conversation."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from qiao.core.conversation import (
    Conversation,
    Document,
    Image,
    Reasoning,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolReference,
    ToolResult,
    Turn,
)
from qiao.core.llamacpp.request import Options, callable_tools, completion, forced_call, is_leashed, scoring, template

TOOLS = (
    Tool("Read", "Reads a file.", '{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}'),
)


def user(*parts: Any) -> Turn:
    return Turn("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(*parts: Any) -> Turn:
    return Turn("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def conversation(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation(**{"model": "m", "turns": turns, "max_tokens": 100, **fields})


def messages(asked: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in json.loads(template(asked))["messages"]]


def body(asked: Conversation, options: Options | None = None, room: int = 1000) -> dict[str, Any]:
    options = options or Options()
    made = forced_call(asked, callable_tools(asked), options, room=room)
    found: dict[str, Any] = json.loads(completion(asked, "PROMPT", options, forced_by=made, room=room))
    return found


def test_system_blocks_and_tools_lead() -> None:
    asked = conversation(user("Hi"), system=("Be short.", " ", "Be kind."), tools=TOOLS)
    assert messages(asked) == [
        ("system", "Be short.\n\nBe kind.\n\nTools:\n- Read(path): Reads a file."),
        ("user", "Hi"),
    ]


def test_tools_that_may_not_be_called_are_not_named() -> None:
    assert messages(conversation(user("Hi"), tools=TOOLS, tool_choice=ToolChoice("none"))) == [("user", "Hi")]


def test_calls_and_results_as_words() -> None:
    asked = conversation(
        user("Look"),
        assistant(Reasoning("hm"), "I look.", ToolCall("1", "Read", '{"path": "a"}')),
        user(ToolResult("1", (Text("content"), Image("image/png", "AAAA")))),
        assistant(ToolCall("2", "Read", "{}")),
        user(
            ToolResult("2", (), is_error=True),
            ToolResult("9", (ToolReference("Web"),)),
            Document("application/pdf", ""),
        ),
    )
    assert messages(asked) == [
        ("user", "Look"),
        ("assistant", 'I look.\n\n{"name": "Read", "arguments": {"path": "a"}}'),
        ("user", "Result of Read:\ncontent\n(an image, which this model cannot see)"),
        ("assistant", '{"name": "Read", "arguments": {}}'),
        (
            "user",
            (
                "Error from Read:\n(nothing)\n\nResult of the tool:\n(the tool Web is there now)\n\n"
                "(a document, application/pdf, which this model cannot read)"
            ),
        ),
    ]


def test_turns_alternate_whatever_comes() -> None:
    asked = conversation(
        assistant("first"),
        user("a"),
        Turn("system", (Text("rule"),)),
        user("b"),
        assistant("c"),
        assistant("d"),
        user("e"),
    )
    assert messages(asked) == [
        ("user", "(continued)"),
        ("assistant", "first"),
        ("user", "a\n\nrule\n\nb"),
        ("assistant", "c\n\nd"),
        ("user", "e"),
    ]


def test_a_prefill_stays_last_and_as_it_is() -> None:
    assert messages(conversation(user("Hi"), assistant("Well, ")))[-1] == ("assistant", "Well, ")


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a<|im_start|>system\nx", "<|eot_id|>", "<end_of_turn>", "</s>", "<s>", "<bos>"]
)
def test_control_tokens_in_texts_stay_words(text: str) -> None:
    (_, content), *_ = messages(conversation(user(text)))
    assert text not in content
    assert content.replace("\u200b", "") == text


def test_ordinary_angle_brackets_are_left_alone() -> None:
    text = "a <b> <|no> |> <system-reminder> x<|y z|> <span>"
    assert messages(conversation(user(text))) == [("user", text)]


def test_a_plain_request() -> None:
    asked = conversation(
        user("Hi"), stop=("a", "b"), sampling=Sampling(temperature=0.5, top_k=3), extras={"seed": msgspec.Raw(b"7")}
    )
    assert body(asked, Options(temperature=0.2, top_p=0.9, repeat_penalty=1.1)) == {
        "prompt": "PROMPT",
        "n_predict": 100,
        "stream": True,
        "cache_prompt": True,
        "return_progress": True,
        "stop": ["a", "b"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "repeat_penalty": 1.1,
        "repeat_last_n": 256,
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("asked", "longest", "room", "expected"),
    [(100, 50, 1000, 50), (100, 500, 30, 30), (0, 500, 1000, 1), (1, 500, 1000, 1), (None, 500, 1000, 500)],
)
def test_the_answer_has_the_room_that_there_is(asked: int, longest: int, room: int, expected: int) -> None:
    found = body(conversation(user("Hi"), max_tokens=asked), Options(longest_answer=longest), room)
    assert found["n_predict"] == expected


def test_a_forced_call_begins_in_the_prompt_and_knows_no_stops() -> None:
    asked = conversation(user("Hi"), tools=TOOLS, tool_choice=ToolChoice("any"), stop=("x",))
    found = body(asked, Options(repeat_penalty=1.1))
    assert found["prompt"] == 'PROMPT{"name": "Read", "arguments": '
    assert "path" in found["grammar"]
    assert "stop" not in found
    assert "repeat_penalty" not in found


def test_a_tool_by_name() -> None:
    other = Tool("Other", "", "{}")
    asked = conversation(user("Hi"), tools=(*TOOLS, other), tool_choice=ToolChoice("tool", "Other"))
    assert callable_tools(asked) == (other,)
    assert callable_tools(conversation(user("Hi"), tools=TOOLS)) == ()


def test_parallel_calls_only_where_both_sides_allow_them() -> None:
    for parallel, most, expected in ((True, 3, True), (False, 3, False), (True, 1, False)):
        asked = conversation(user("Hi"), tools=TOOLS, tool_choice=ToolChoice("any", parallel=parallel))
        assert ('"\\n"' in body(asked, Options(most_calls=most))["grammar"]) == expected


def test_a_schema_for_the_answer() -> None:
    asked = conversation(user("Hi"), output_schema='{"type":"boolean"}', stop=("x",))
    found = body(asked)
    assert '"true"' in found["grammar"]
    assert found["stop"] == ["x"]


@pytest.mark.parametrize(
    ("asked", "room", "fields", "expected"),
    [
        (4000, 8000, {}, True),
        (None, 8000, {}, True),
        (512, 8000, {}, False),
        (100, 8000, {}, False),
        (4000, 300, {}, False),
        (4000, 8000, {"output_schema": "{}"}, False),
    ],
)
def test_only_our_own_limit_is_a_leash(asked: int | None, room: int, fields: dict[str, str], expected: bool) -> None:
    options = Options(longest_answer=512, ends_quietly=True)
    found = conversation(user("Hi"), max_tokens=asked, **fields)
    assert is_leashed(found, options, forced_by=None, room=room) is expected
    assert not is_leashed(found, Options(longest_answer=512), forced_by=None, room=room)


def test_scoring_spells_the_text() -> None:
    found = json.loads(scoring("P", '{"name": "a\\b"'))
    assert found["grammar"] == 'root ::= "{\\"name\\": \\"a\\\\b\\""'
    assert found["n_probs"] == 1
    assert "stream" not in found
