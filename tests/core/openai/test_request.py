"""The request encoder: the bytes that matter to a prefix cache, and the fields that engines refuse."""

from __future__ import annotations

import json
import time
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
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolReference,
    ToolResult,
    Turn,
)
from qiao.core.fault import Fault
from qiao.core.openai.request import encode, encode_tokenize, messages
from qiao.core.openai.target import Target

VLLM = Target(model="qwen3-235b")
PLAIN = Target(
    model="gpt-5",
    flavor="openai",
    template_kwargs=False,
    reasoning_field=None,
    prefill="none",
    extras=frozenset({"seed"}),
)
HI = Turn("user", (Text("Hi"),))


def conversation(*turns: Turn, **fields: Any) -> Conversation:
    return Conversation(model="claude-x", turns=turns or (HI,), **{"max_tokens": 10, **fields})


def body(asked: Conversation, target: Target = VLLM) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encode(asked, target))
    return decoded


def test_the_smallest_request_is_these_bytes() -> None:
    expected = b'{"model":"qwen3-235b","messages":[{"role":"user","content":"Hi"}],"max_completion_tokens":10}'
    assert encode(conversation(), VLLM) == expected


def test_arguments_and_schemas_keep_their_bytes() -> None:
    arguments = '{"b" : 1,\t"a":[1.0, 2e3],"c":"\\u00fc\\/"}'
    schema = '{"type" :"object",  "properties":{"z":{},"a":{}}}'
    asked = conversation(
        HI,
        Turn("assistant", (ToolCall("1", "f", arguments),)),
        Turn("user", (ToolResult("1", (Text("ok"),)),)),
        tools=(Tool("f", parameters=schema),),
        output_schema=schema,
    )
    sent = encode(asked, VLLM)
    assert json.loads(sent)["messages"][1]["tool_calls"][0]["function"]["arguments"] == arguments
    assert sent.count(schema.encode()) == 2


def test_equal_turns_give_equal_bytes_whatever_follows() -> None:
    turns = (HI, Turn("assistant", (Text("Hello"),)), Turn("user", (Text("a"), Text("b"))))
    short = msgspec.json.encode(messages(conversation(*turns), VLLM))
    long = msgspec.json.encode(messages(conversation(*turns, Turn("assistant", (Text("c"),)), HI), VLLM))
    assert long.startswith(short[:-1])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (Turn("user", (Text("a"), Text("b"))), [{"role": "user", "content": "a\n\nb"}]),
        (Turn("system", (Text("a"), Text("b"))), [{"role": "system", "content": "a\n\nb"}]),
        (Turn("assistant", (Text("a"), Text("b"))), [{"role": "assistant", "content": "ab"}]),
        (
            Turn("assistant", (Reasoning("r"), Reasoning("s"))),
            [{"role": "assistant", "content": "", "reasoning": "rs"}],
        ),
        (
            Turn("user", (Text("a"), Image("image/gif", "AA"), Image(url="http://h/x"))),
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,AA"}},
                        {"type": "image_url", "image_url": {"url": "http://h/x"}},
                    ],
                }
            ],
        ),
        (
            Turn("user", (Text("before"), ToolResult("1", (Text("x"), Text("y"))), ToolResult("2"), Text("after"))),
            [
                {"role": "tool", "tool_call_id": "1", "content": "x\n\ny"},
                {"role": "tool", "tool_call_id": "2", "content": ""},
                {"role": "user", "content": "before\n\nafter"},
            ],
        ),
    ],
)
def test_turns(turn: Turn, expected: list[dict[str, Any]]) -> None:
    assert json.loads(msgspec.json.encode(messages(conversation(turn), VLLM))) == expected


def test_what_was_not_prepared_is_written_rather_than_lost() -> None:
    turn = Turn(
        "user",
        (
            Document("application/pdf", "AA", title="a.pdf"),
            ToolResult("1", (ToolReference("Read"), Image("image/png", "AA"))),
        ),
    )
    sent = body(conversation(turn))["messages"]
    assert sent[0] == {"role": "tool", "tool_call_id": "1", "content": "[tool: Read]"}
    assert [part["type"] for part in sent[1]["content"]] == ["text", "image_url"]
    assert sent[1]["content"][0]["text"] == "[document: a.pdf]"


def test_texts_that_a_call_parted_are_not_glued_together() -> None:
    call = ToolCall("1", "Read", "{}")
    for parts, words in (
        ((Text("Let me look."), call, Text("Now waiting.")), "Let me look.\n\nNow waiting."),
        ((Text("One. "), Text("Two."), call), "One. Two."),
        ((call, Text("After.")), "After."),
        ((Text("a"), call, call, Text(""), Text("b"), Text("c")), "a\n\nbc"),
    ):
        sent = encode(Conversation("m", (Turn("user", (Text("?"),)), Turn("assistant", parts))), Target("m"))
        assert json.loads(sent)["messages"][1]["content"] == words


def test_the_head_is_one_message_without_blank_blocks() -> None:
    assert body(conversation(system=("a", " ", "b")))["messages"][0] == {"role": "system", "content": "a\n\nb"}
    assert [message["role"] for message in body(conversation(system=("", "\n")))["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (VLLM, {"include_usage": True, "continuous_usage_stats": True}),
        (msgspec.structs.replace(VLLM, continuous_usage=False), {"include_usage": True}),
        (msgspec.structs.replace(VLLM, usage_in_stream=False), None),
    ],
)
def test_stream_options_only_with_stream(target: Target, expected: dict[str, bool] | None) -> None:
    streamed = body(conversation(stream=True), target)
    assert streamed["stream"] is True
    assert streamed.get("stream_options") == expected
    assert not {"stream", "stream_options"} & set(body(conversation(), target))


def test_the_limit_goes_under_the_name_that_the_engine_knows() -> None:
    older = msgspec.structs.replace(VLLM, max_tokens_field="max_tokens")
    assert body(conversation(), older)["max_tokens"] == 10
    assert "max_completion_tokens" not in body(conversation(), older)
    assert "max_completion_tokens" not in body(conversation(max_tokens=0))


def test_no_more_stop_strings_than_the_engine_takes() -> None:
    asked = conversation(stop=tuple("abcdef"))
    assert body(asked)["stop"] == ["a", "b", "c", "d"]
    assert body(asked, msgspec.structs.replace(VLLM, stop_limit=None))["stop"] == list("abcdef")


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        (ToolChoice(), "auto", None),
        (ToolChoice("any"), "required", None),
        (ToolChoice("none", parallel=False), "none", None),
        (ToolChoice("tool", "f"), {"type": "function", "function": {"name": "f"}}, None),
        (ToolChoice(parallel=False), "auto", False),
    ],
)
def test_tool_choice(choice: ToolChoice, expected: object, parallel: bool | None) -> None:
    sent = body(conversation(tools=(Tool("f"),), tool_choice=choice))
    assert sent["tool_choice"] == expected
    assert sent.get("parallel_tool_calls") is parallel
    without = body(conversation(tool_choice=choice))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(without)


def test_strict_only_when_asked() -> None:
    sent = body(conversation(tools=(Tool("a"), Tool("b", strict=True), Tool("c", "words", strict=False))))
    functions = [tool["function"] for tool in sent["tools"]]
    parameters = {"type": "object", "properties": {}}
    assert functions == [
        {"name": "a", "parameters": parameters},
        {"name": "b", "parameters": parameters, "strict": True},
        {"name": "c", "description": "words", "parameters": parameters, "strict": False},
    ]


def test_sampling_is_sent_only_when_asked_and_top_k_only_where_it_is_known() -> None:
    asked = conversation(sampling=Sampling(temperature=0.0, top_p=0.9, top_k=5))
    assert {"temperature", "top_p", "top_k"} <= set(body(asked))
    assert body(asked)["temperature"] == 0
    assert "top_k" not in body(asked, PLAIN)
    assert not {"temperature", "top_p", "top_k"} & set(body(conversation()))


def test_extras_never_replace_the_conversation() -> None:
    extras = {
        name: msgspec.Raw(b"7")
        for name in ("messages", "model", "stream", "tools", "n", "seed", "min_p", "max_completion_tokens")
    }
    sent = body(conversation(extras=extras))
    assert sent["messages"] == [{"role": "user", "content": "Hi"}]
    assert sent["model"] == "qwen3-235b"
    assert not {"stream", "tools", "n"} & set(sent)
    assert (sent["seed"], sent["min_p"], sent["max_completion_tokens"]) == (7, 7, 7)
    plain = body(conversation(extras=extras), PLAIN)
    assert "seed" in plain
    assert "min_p" not in plain


def test_thinking_goes_only_where_it_is_understood() -> None:
    asked = conversation(
        thinking=Thinking("on", budget=2048, effort="high"),
        extras={"chat_template_kwargs": msgspec.Raw(b'{"enable_thinking": true}')},
    )
    bare = body(asked)
    assert not {"reasoning_effort", "thinking_token_budget"} & set(bare)
    assert bare["chat_template_kwargs"] == {"enable_thinking": True}
    knowing = msgspec.structs.replace(VLLM, effort_values=("low", "high"), thinking_budget=True)
    assert body(asked, knowing)["reasoning_effort"] == "high"
    assert body(asked, knowing)["thinking_token_budget"] == 2048
    assert "chat_template_kwargs" not in body(asked, PLAIN)


def test_template_variables_that_are_no_object_are_the_client_s_fault() -> None:
    asked = conversation(extras={"chat_template_kwargs": msgspec.Raw(b"[1]")})
    with pytest.raises(Fault, match=r"^chat_template_kwargs: must be an object") as caught:
        encode(asked, VLLM)
    assert caught.value.party == "client"


PREFILL = conversation(HI, Turn("assistant", (Text("So"),)))


def test_prefill_by_flags_by_itself_or_refused() -> None:
    by_flags = body(PREFILL)
    assert by_flags["continue_final_message"] is True
    assert by_flags["add_generation_prompt"] is False
    implicit = body(PREFILL, msgspec.structs.replace(VLLM, prefill="implicit"))
    assert not {"continue_final_message", "add_generation_prompt"} & set(implicit)
    with pytest.raises(Fault, match="does not support assistant message prefill"):
        encode(PREFILL, PLAIN)


def test_what_is_counted_is_what_is_sent() -> None:
    asked = conversation(
        HI,
        Turn("assistant", (ToolCall("1", "f", "{}"),)),
        Turn("user", (ToolResult("1", (Text("ok"),)),)),
        system=("s",),
        tools=(Tool("f"),),
        stream=True,
        thinking=Thinking("on", effort="low"),
    )
    target = msgspec.structs.replace(VLLM, effort_values=("none", "low"))
    counted = json.loads(encode_tokenize(asked, target))
    sent = body(asked, target)
    assert counted == {
        "model": sent["model"],
        "messages": sent["messages"],
        "tools": sent["tools"],
        "add_generation_prompt": True,
        "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "low"},
    }
    off = msgspec.structs.replace(asked, thinking=Thinking("off", effort="none"))
    assert json.loads(encode_tokenize(off, target))["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_prefill_is_counted_as_it_is_sent() -> None:
    counted = json.loads(encode_tokenize(PREFILL, VLLM))
    assert counted["continue_final_message"] is True
    assert counted["add_generation_prompt"] is False


def test_an_agent_s_request_is_encoded_in_a_fraction_of_a_millisecond() -> None:
    """0.12 ms on a quiet core; the bound leaves room for a busy machine, and fails for anything quadratic."""
    turns = [HI, Turn("system", (Text("s" * 9000),))]
    for number in range(25):
        turns.append(Turn("assistant", (Text("ok"), ToolCall(f"t{number}", "Bash", '{"command":"' + "x" * 300 + '"}'))))
        turns.append(Turn("user", (ToolResult(f"t{number}", (Text('line "quoted"\n' * 80),)),)))
    properties = ",".join(f'"p{n}":{{"type":"string"}}' for n in range(30))
    schema = '{"type":"object","properties":{' + properties + "}}"
    asked = conversation(*turns, tools=tuple(Tool(f"Tool{n}", "d" * 1500, schema) for n in range(11)))
    assert len(encode(asked, VLLM)) > 70_000
    best = 1.0
    for _ in range(50):
        begun = time.perf_counter()
        encode(asked, VLLM)
        best = min(best, time.perf_counter() - begun)
    assert best < 0.001
