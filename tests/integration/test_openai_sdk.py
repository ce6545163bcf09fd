"""The official OpenAI SDK against the gateway: the same answers streamed and whole, and what it sends arrives.

Every streamed answer is also judged byte by byte by `qiao.core.openai.grammar`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

from qiao.core.openai.grammar import Checker
from tests.fakes.script import Break, Call, Part, Pause, Step, Think, call, marker, refusal, step
from tests.integration.conftest import MODEL, Stage, Stages
from tests.integration.test_gateway_http import is_anthropic_error
from tests.integration.test_gateway_streams import BROKEN
from tests.integration.test_sdk_errors import OVERFLOW
from tests.support.plain_http import Reply, ask, leave

pytestmark = pytest.mark.timeout(60)

PATH = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def client(stage: Stage) -> Iterator[openai.OpenAI]:
    with connected(stage) as connection:
        yield connection


def connected(stage: Stage, base: str = "/v1", key: str | None = None) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=stage.gateway.url + base, api_key=stage.key if key is None else key, max_retries=0, timeout=30
    )


def asked(*steps: Step | Part | str, **fields: Any) -> dict[str, Any]:
    """The fields of a request that carries a script."""
    return {"model": MODEL, "messages": [{"role": "user", "content": f"Go on. {marker(*steps)}"}], **fields}


def post(stage: Stage, body: Any, path: str = PATH, **headers: str) -> Reply:
    return ask(stage.gateway.url, "POST", path, body, headers={"Authorization": f"Bearer {stage.key}"} | headers)


def judged(stage: Stage, body: dict[str, Any]) -> Checker:
    """A stream, held against the strict grammar."""
    wants = body.get("stream_options", {}).get("include_usage", False)
    reply = post(stage, {**body, "stream": True})
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/event-stream")
    checker = Checker(usage=wants)
    checker.feed(reply.body)
    checker.close()
    return checker


def essence(message: Any, finish_reason: str | None) -> dict[str, Any]:
    """What two answers to the same script have in common: all but ids."""
    plain = message if isinstance(message, dict) else message.to_dict()
    calls = [
        (entry["type"], entry["function"]["name"], json.loads(entry["function"]["arguments"]))
        for entry in plain.get("tool_calls") or ()
    ]
    return {
        "content": plain.get("content") or "",
        "reasoning": plain.get("reasoning_content"),
        "calls": calls,
        "finish": finish_reason,
    }


def streamed(client: openai.OpenAI, **params: Any) -> tuple[dict[str, Any], Any]:
    """A stream read by the SDK's accumulating helper: what it holds at the end, and the usage."""
    with client.chat.completions.stream(**params) as opened:
        for _ in opened:
            pass
        final = opened.get_final_completion()
    return essence(final.choices[0].message, final.choices[0].finish_reason), final.usage


ANSWERS: dict[str, tuple[Step, dict[str, Any]]] = {
    "text": (step("Hello – 你好."), {"content": "Hello – 你好."}),
    "line separators": (
        step("one\u2028two\u2029three\x85four\r\nfive", split="char"),
        {"content": "one\u2028two\u2029three\x85four\r\nfive"},
    ),
    "reasoning": (step(Think("Let me see."), "Yes."), {"reasoning": "Let me see.", "content": "Yes."}),
    "a call": (
        step(Think("hm"), "I look.", call("get_weather", city="Paris", days=2)),
        {
            "reasoning": "hm",
            "content": "I look.",
            "calls": [("function", "get_weather", {"city": "Paris", "days": 2})],
            "finish": "tool_calls",
        },
    ),
    "parallel calls": (
        step(call("get_weather", city="東京"), call("get_weather", city='a "quoted" \\ city'), split="char"),
        {
            "calls": [
                ("function", "get_weather", {"city": "東京"}),
                ("function", "get_weather", {"city": 'a "quoted" \\ city'}),
            ],
            "finish": "tool_calls",
        },
    ),
    "a call without arguments": (
        step(Call("get_weather", "")),
        {"calls": [("function", "get_weather", {})], "finish": "tool_calls"},
    ),
    "every packet a byte": (
        step(Think("a桥"), "b桥", call("get_weather", city="桥"), packet=1, newline="\r\n", comments=True),
        {
            "reasoning": "a桥",
            "content": "b桥",
            "calls": [("function", "get_weather", {"city": "桥"})],
            "finish": "tool_calls",
        },
    ),
    "all in one packet": (
        step("one two three", call("get_weather", city="Rom"), packet="all"),
        {
            "content": "one two three",
            "calls": [("function", "get_weather", {"city": "Rom"})],
            "finish": "tool_calls",
        },
    ),
    "a filter": (step("I can", finish="content_filter"), {"content": "I can", "finish": "content_filter"}),
    "finish says stop in spite of a call": (
        step(call("get_weather", city="Oslo"), finish="stop"),
        {"calls": [("function", "get_weather", {"city": "Oslo"})], "finish": "tool_calls"},
    ),
    "nothing": (step(), {}),
    "no end mark": (step("fine", done=False), {"content": "fine"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_streamed_and_whole_answers_are_the_same(client: openai.OpenAI, stage: Stage, name: str) -> None:
    said, found = ANSWERS[name]
    wanted = {"content": "", "reasoning": None, "calls": [], "finish": "stop"} | found
    params = asked(said, tools=[WEATHER], reasoning_effort="medium")
    whole = client.chat.completions.create(**params)
    assert essence(whole.choices[0].message, whole.choices[0].finish_reason) == wanted
    assert whole.model == MODEL
    assert whole.id.startswith("chatcmpl-")
    assert abs(whole.created - time.time()) < 60
    checker = judged(stage, params)
    assert essence(checker.message, checker.finish_reason) == wanted
    if wanted["finish"] == "content_filter":
        with pytest.raises(openai.ContentFilterFinishReasonError):
            streamed(client, **params)
    else:
        assert streamed(client, **params)[0] == wanted


def test_reasoning_comes_under_both_names(client: openai.OpenAI, stage: Stage) -> None:
    params = asked(step(Think("Let me see."), "Yes."))
    message = client.chat.completions.create(**params).choices[0].message
    assert getattr(message, "reasoning", None) == getattr(message, "reasoning_content", None) == "Let me see."
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(**params, stream=True)]
    for name in ("reasoning", "reasoning_content"):
        assert "".join(getattr(delta, name, None) or "" for delta in deltas) == "Let me see."
    silent = asked(step(Think("Let me see."), "Yes."), include_reasoning=False)
    assert "reasoning" not in judged(stage, silent).message


def test_chunks_come_in_the_order_of_vllm(client: openai.OpenAI, stage: Stage) -> None:
    said = step(Think("hm"), "I look.", call("get_weather", city="A"), call("get_weather", city="B"))
    params = asked(said, tools=[WEATHER], stream=True, stream_options={"include_usage": True})
    kinds: list[str] = []
    for chunk in client.chat.completions.create(**params):
        if not chunk.choices:
            kinds.append("usage")
            continue
        choice = chunk.choices[0]
        delta = choice.delta
        entry = delta.tool_calls[0] if delta.tool_calls else None
        if delta.role:
            kinds.append("role")
        elif entry is not None:
            kinds.append(f"{'call' if entry.id else 'arguments'} {entry.index}")
        elif choice.finish_reason:
            kinds.append(choice.finish_reason)
        else:
            kinds.append("content" if delta.content else "reasoning")
    once = [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]
    assert once == [
        *("role", "reasoning", "content", "call 0", "arguments 0", "call 1", "arguments 1", "tool_calls", "usage")
    ]


def test_a_tool_round_trip(client: openai.OpenAI, stage: Stage) -> None:
    calls = step(Think("hm"), "I look.", call("get_weather", city="Paris"), call("get_weather", city="Rom"))
    params = asked(calls, "18 and 25 degrees.", tools=[WEATHER], reasoning_effort="high")
    with client.chat.completions.stream(**params) as opened:
        first = opened.until_done().get_final_completion().choices[0].message
    assert first.tool_calls is not None
    # As an agent keeps it: the message as it was, then a message for every result.
    turns = [*params["messages"], first.to_dict()]
    turns += [{"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "18"}]
    turns += [{"role": "tool", "tool_call_id": first.tool_calls[1].id, "content": [{"type": "text", "text": "25"}]}]
    second, usage = streamed(client, **{**params, "messages": turns, "stream_options": {"include_usage": True}})
    assert (second["content"], second["finish"]) == ("18 and 25 degrees.", "stop")
    sent = stage.engine.chats[-1]
    assert [message["role"] for message in sent.messages] == ["user", "assistant", "tool", "tool"]
    assert [message["content"] for message in sent.messages[2:]] == ["18", "25"]
    assert json.loads(sent.messages[1]["tool_calls"][1]["function"]["arguments"]) == {"city": "Rom"}
    # The engine's prefix cache needs the second prompt to go on where the first one ended.
    assert sent.prompt.startswith(stage.engine.chats[0].prompt)
    assert usage.prompt_tokens_details.cached_tokens > 0


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        ({"type": "function", "function": {"name": "get_weather"}},) * 2,
    ],
)
def test_tool_choices_arrive(client: openai.OpenAI, stage: Stage, choice: Any, wanted: Any) -> None:
    said = "no call" if choice in ("auto", "none") else call("get_weather", city="Bonn")
    answer = client.chat.completions.create(**asked(said, tools=[WEATHER], tool_choice=choice))
    assert stage.engine.chats[-1].body.get("tool_choice", "auto") == wanted
    assert answer.choices[0].finish_reason == ("stop" if isinstance(said, str) else "tool_calls")


def test_one_call_at_a_time_when_asked(client: openai.OpenAI, stage: Stage) -> None:
    both = step(call("get_weather", city="A"), call("get_weather", city="B"))
    params = asked(both, tools=[WEATHER], parallel_tool_calls=False)
    whole = client.chat.completions.create(**params).choices[0].message
    assert [json.loads(entry.function.arguments) for entry in whole.tool_calls or ()] == [{"city": "A"}]
    assert streamed(client, **params)[0]["calls"] == [("function", "get_weather", {"city": "A"})]


def test_no_tools_as_an_empty_list(client: openai.OpenAI, stage: Stage) -> None:
    client.chat.completions.create(**asked("yes", tools=[], tool_choice="auto"))
    assert not {"tools", "tool_choice"} & set(stage.engine.chats[-1].body)


@pytest.mark.parametrize("split", ["token", "char", "whole"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_arguments_are_repaired_or_handed_back(stage: Stage, name: str, split: str) -> None:
    raw = BROKEN[name]
    said = Step(parts=step("Look:", Call("get_weather", raw)).parts, split=split)  # type: ignore[arg-type]
    body = asked(said, tools=[WEATHER])
    choice = post(stage, body).json["choices"][0]
    whole = essence(choice["message"], choice["finish_reason"])
    checker = judged(stage, body)
    assert essence(checker.message, checker.finish_reason) == whole
    # Either it became a call, or every character of it is there for the reader; never neither.
    assert whole["calls"] or raw.strip() in whole["content"]
    if "Paris" in raw:
        assert "Paris" in json.dumps(whole["calls"]) + whole["content"]


def test_a_call_that_the_limit_cut_is_not_executed(stage: Stage) -> None:
    body = asked(call("get_weather", city="a very long name of a city that never ends"), tools=[WEATHER], max_tokens=8)
    assert judged(stage, body).finish_reason == "length"
    choice = post(stage, body).json["choices"][0]
    assert choice["finish_reason"] == "length"
    assert "tool_calls" not in choice["message"]
    assert "get_weather" in choice["message"]["content"]


def test_usage_is_told_when_it_is_asked_for(client: openai.OpenAI, stage: Stage) -> None:
    said = step(
        "one two three",
        usage={"prompt_tokens": 1000, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 640}},
    )
    whole = client.chat.completions.create(**asked(said)).usage
    assert whole is not None
    assert (whole.prompt_tokens, whole.completion_tokens, whole.total_tokens) == (1000, 3, 1003)
    assert whole.prompt_tokens_details is not None
    assert whole.prompt_tokens_details.cached_tokens == 640
    assert judged(stage, asked(said)).usage is None
    assert judged(stage, asked(said, stream_options={"include_usage": True})).usage == whole.to_dict()


def test_an_engine_that_tells_no_usage(stage: Stage) -> None:
    body = asked(step("one two", usage="never"))
    usage = judged(stage, {**body, "stream_options": {"include_usage": True}}).usage
    assert usage is not None
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert post(stage, body).json["usage"]["prompt_tokens"] > 0


def test_stop_strings(client: openai.OpenAI, stage: Stage) -> None:
    answer = client.chat.completions.create(**asked("one END two", stop="END"))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one ", "stop")
    stops = ["@1", "@2", "@3", "@4", "@5", "@6"]
    checker = judged(stage, asked(step("text up to @6 and on", split="char"), stop=stops))
    assert (checker.message["content"], checker.finish_reason, checker.stop_reason) == ("text up to ", "stop", "@6")


def test_the_limit_is_passed_on_and_told(client: openai.OpenAI, stage: Stage) -> None:
    answer = client.chat.completions.create(**asked("one two three four five", max_completion_tokens=3))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one two three", "length")
    client.chat.completions.create(**asked("one two three four five"))
    assert not {"max_tokens", "max_completion_tokens"} & set(stage.engine.chats[-1].body)


def test_structured_outputs(client: openai.OpenAI, stage: Stage) -> None:
    class Sum(BaseModel):
        sum: int

    answer = client.chat.completions.parse(**asked('{"sum": 5}'), response_format=Sum)
    assert answer.choices[0].message.parsed == Sum(sum=5)
    form = stage.engine.chats[-1].body["response_format"]
    assert form["json_schema"]["schema"]["required"] == ["sum"]


def test_an_answer_of_its_own_after_an_assistant(client: openai.OpenAI, stage: Stage) -> None:
    params = asked("yes", " is four.")
    params["messages"].append({"role": "assistant", "content": "Two and two"})
    client.chat.completions.create(**params)
    assert "continue_final_message" not in stage.engine.chats[-1].body
    client.chat.completions.create(**params, extra_body={"continue_final_message": True})
    assert stage.engine.chats[-1].body["continue_final_message"] is True
    assert stage.engine.chats[-1].prompt.endswith("Two and two")


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "anthropic/claude-3-5-haiku-20241022", "QWEN3-235B"])
def test_names_reach_the_model_and_are_echoed(client: openai.OpenAI, stage: Stage, name: str) -> None:
    assert client.chat.completions.create(**asked("yes") | {"model": name}).model == name
    assert stage.engine.chats[-1].body["model"] == MODEL


@pytest.mark.parametrize("base", ["", "/v1/", "/v1/v1"])
def test_base_urls_as_people_write_them(stage: Stage, base: str) -> None:
    with connected(stage, base) as client:
        assert client.chat.completions.create(**asked("yes")).choices[0].message.content == "yes"
        assert MODEL in [model.id for model in client.models.list()]


def test_models_in_a_shape_that_both_sides_take(client: openai.OpenAI, stage: Stage) -> None:
    listed = client.models.list()
    assert listed.object == "list"
    found = client.models.retrieve(MODEL)
    assert found == next(model for model in listed if model.id == MODEL)
    assert (found.object, found.owned_by) == ("model", "qiao")
    assert found.created > 1_700_000_000
    assert found.to_dict()["max_model_len"] == 131072
    with Anthropic(base_url=stage.gateway.url, api_key=stage.key, max_retries=0) as other:
        theirs = other.models.retrieve(MODEL)
        assert (theirs.type, theirs.max_input_tokens) == ("model", 131072)
        assert [model.id for model in other.models.list()] == [model.id for model in listed]


# Cursor, which sends three forms of conversations to this one route


APPLY_PATCH = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin hunk+ end"},
}
READ_FILE = {"type": "function", "name": "read_file", "parameters": {"type": "object"}}
PATCH = '*** Begin Patch\n+"x"\n*** End Patch'


def test_cursor_sends_items_and_reads_chat_completions(stage: Stage) -> None:
    calls = step(Think("hm"), "I look.", call("read_file", path="a"), call("ApplyPatch", input=PATCH))
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": marker(calls, "Done.")}]}
    body: dict[str, Any] = {
        "model": MODEL,
        "instructions": "You are an agent.",
        "input": [said],
        "tools": [READ_FILE, APPLY_PATCH],
        "stream": True,
        "stream_options": {"include_usage": True},
        "reasoning": {"effort": "medium", "summary": "auto"},
    }
    checker = Checker(usage=True, free_text={"ApplyPatch"})
    checker.feed(post(stage, body).body)
    checker.close()
    first, second = checker.message["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"path": "a"}
    assert second["function"] == {"name": "ApplyPatch", "arguments": PATCH}
    body["input"] += [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": first["id"], "name": "read_file", "arguments": '{"path": "a"}'},
        {"type": "custom_tool_call", "call_id": second["id"], "name": "ApplyPatch", "input": PATCH},
        {"type": "function_call_output", "call_id": first["id"], "output": "text of a"},
        {"type": "custom_tool_call_output", "call_id": second["id"], "output": "Done."},
    ]
    again = Checker(usage=True)
    again.feed(post(stage, body).body)
    again.close()
    assert again.message["content"] == "Done."
    sent = stage.engine.chats[-1]
    assert [message["role"] for message in sent.messages] == ["system", "user", "assistant", "tool", "tool"]
    assert json.loads(sent.messages[2]["tool_calls"][1]["function"]["arguments"]) == {"input": PATCH}
    assert sent.prompt.startswith(stage.engine.chats[0].prompt)


def test_a_custom_tool_as_openai_writes_it(client: openai.OpenAI, stage: Stage) -> None:
    tool: Any = {"type": "custom", "custom": {"name": "code", "description": "Runs code."}}
    params = asked(call("code", input="print(1)"), "1", tools=[tool])
    message = client.chat.completions.create(**params).choices[0].message
    (made,) = message.tool_calls or ()
    assert made.type == "custom"
    assert (made.custom.name, made.custom.input) == ("code", "print(1)")
    result = {"role": "tool", "tool_call_id": made.id, "content": "1"}
    turns = [*params["messages"], message.to_dict(), result]
    assert client.chat.completions.create(**{**params, "messages": turns}).choices[0].message.content == "1"


def test_cursor_sends_blocks_for_a_model_called_claude(stage: Stage) -> None:
    tool = {"name": "read_file", "description": "Reads.", "input_schema": {"type": "object"}}
    body = asked(call("read_file", path="a"), "Done.", tools=[tool]) | {"model": "claude-sonnet-4-5"}
    made = judged(stage, body).message["tool_calls"][0]
    body["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": made["id"], "name": "read_file", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": made["id"], "content": "text of a"}]},
    ]
    assert judged(stage, body).message["content"] == "Done."
    assert [message["role"] for message in stage.engine.chats[-1].messages] == ["user", "assistant", "tool"]


# Failures


def failure(client: openai.OpenAI, **params: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(**params)
    return raised.value


EARLY: dict[str, tuple[Step, type[openai.APIStatusError], int, str | None, str]] = {
    "a refused field": (refusal(400, "Grammar error: zorg"), openai.BadRequestError, 400, None, "zorg"),
    "too long": (
        refusal(400, OVERFLOW),
        openai.BadRequestError,
        400,
        "context_length_exceeded",
        "maximum context length is 40960 tokens",
    ),
    "the upstream's key": (refusal(401, "Unauthorized"), openai.InternalServerError, 502, None, "upstream"),
    "too many requests": (
        refusal(429, "slow down", headers={"Retry-After": "1"}),
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        "slow down",
    ),
    "a crash": (refusal(500, "Internal server error"), openai.InternalServerError, 502, None, "Internal"),
    "a proxy's page": (Step(status=502, body="<html>Bad</html>"), openai.InternalServerError, 502, None, "upstream"),
    "overloaded": (refusal(503, "overloaded"), openai.InternalServerError, 503, "overloaded", "upstream"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", EARLY)
def test_an_early_failure_is_a_status(client: openai.OpenAI, stage: Stage, name: str, stream: bool) -> None:
    said, kind, status, code, words = EARLY[name]
    stage.refusals = True
    error = failure(client, **asked(said), stream=stream)
    assert type(error) is kind
    assert (error.status_code, error.code) == (status, code)
    assert words in error.message
    assert error.request_id is not None
    assert error.request_id.startswith("req_")


def test_wrong_requests_name_the_field(client: openai.OpenAI, stage: Stage) -> None:
    error = failure(client, model=MODEL, messages=[{"role": "user", "content": [{"type": "text"}]}])
    assert (error.status_code, error.type) == (400, "invalid_request_error")
    assert error.param == "messages[0].content[0].text"
    assert failure(client, **asked("yes"), n=2).param == "n"
    unknown = failure(client, **asked("yes") | {"model": "gpt-4o"})
    assert isinstance(unknown, openai.NotFoundError)
    assert (unknown.code, unknown.param) == ("model_not_found", "model")
    assert "gpt-4o" in unknown.message
    assert stage.engine.chats == []


def test_a_wrong_key(stage: Stage) -> None:
    with connected(stage, key="sk-other") as client:
        error = failure(client, **asked("yes"))
        assert isinstance(error, openai.AuthenticationError)
        assert error.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError) as listing:
            client.models.list()
        assert listing.value.code == "invalid_api_key"
    none = ask(stage.gateway.url, "POST", PATH, asked("yes"))
    assert (none.status, none.json["error"]["code"]) == (401, "invalid_api_key")


ABSENT = [
    *(("POST", path) for path in ("/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/chat/x", "/embeddings")),
    ("GET", "/v1/chat/completions"),
    ("GET", "/v1/models/nope"),
]


@pytest.mark.parametrize("key", ["bearer", "x-api-key"])
@pytest.mark.parametrize(("method", "path"), ABSENT)
def test_what_is_not_here_is_told_in_anthropics_shape(stage: Stage, method: str, path: str, key: str) -> None:
    headers = {"x-api-key": stage.key} if key == "x-api-key" else {"Authorization": f"Bearer {stage.key}"}
    reply = ask(stage.gateway.url, method, path, {} if method == "POST" else None, headers=headers)
    assert is_anthropic_error(reply, 404, "not_found_error")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/nope", "/v1/responses"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-other"}, {"x-api-key": "sk-other"}])
def test_a_wrong_key_is_told_in_both_shapes(stage: Stage, path: str, headers: dict[str, str]) -> None:
    reply = ask(stage.gateway.url, "GET", path, headers=headers)
    if path == "/v1/responses":
        assert is_anthropic_error(reply, 404, "not_found_error")
    else:
        assert is_anthropic_error(reply, 401, "authentication_error")
        assert reply.json["error"]["code"] == "invalid_api_key"


def test_openais_sdk_understands_what_is_not_here(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("nope")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    assert "nope" in unknown.value.message
    with pytest.raises(openai.NotFoundError, match="chat/completions"):
        client.responses.create(model=MODEL, input="yes")
    with pytest.raises(openai.NotFoundError, match="Embeddings"):
        client.embeddings.create(model=MODEL, input="yes")


def test_a_body_over_the_limit(stages: Stages) -> None:
    stage = stages(MODEL, "--max-body", "10000")
    reply = post(stage, asked("yes " * 10_000))
    assert reply.status == 413
    assert reply.json["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("how", ["error", "eof", "reset"])
def test_a_failure_in_the_middle_is_told(client: openai.OpenAI, stage: Stage, how: Any) -> None:
    params = asked(step("one two", Break(how)))
    checker = judged(stage, params)
    assert checker.message["content"].startswith("one")
    assert checker.finish_reason is None
    assert checker.error is not None
    assert checker.error["type"] == "server_error"
    chunks = client.chat.completions.create(**params, stream=True)
    assert next(chunks).choices[0].delta.role == "assistant"
    assert next(chunks).choices[0].delta.content == "one"
    with pytest.raises(openai.APIError):
        list(chunks)


# Time


def test_comments_fill_the_silence(stages: Stages) -> None:
    stage = stages(MODEL, "--ping-interval", "0.2")
    said = step("one", Pause(0.9), "two", before_first=0.9)
    body = post(stage, {**asked(said), "stream": True}).body
    before, _, after = body.partition(b'"one"')
    assert 3 <= before.count(b": ping\n\n") <= 6
    assert 3 <= after.count(b": ping\n\n") <= 6
    with connected(stage) as client:
        assert streamed(client, **asked(said))[0]["content"] == "onetwo"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_engine_is_stopped_when_the_client_leaves(stage: Stage, stream: bool) -> None:
    body = {**asked(step("one two", Pause(20), "three")), "stream": stream}
    headers = {"Authorization": f"Bearer {stage.key}"}
    left = leave(stage.gateway.url, PATH, body, headers=headers, after=0.3, wait_for=b"two" if stream else b"")
    request = stage.engine.wait_until(lambda found: found.disconnected_at is not None)
    assert request.disconnected_at is not None
    assert request.disconnected_at - left < 0.2


def test_many_streams_at_once(stage: Stage) -> None:
    def one(number: int) -> str:
        text = f"stream {number} " * 50
        found: str = judged(stage, asked(step(text, between=0.001))).message["content"]
        return "right" if found == text else found

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(one, range(24))) == {"right"}
