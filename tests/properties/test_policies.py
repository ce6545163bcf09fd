"""Laws of the way from a conversation to the engine's bytes, over random conversations.

* Law 6: the messages of turn n+1 begin with those of turn n and its answer, byte for byte, and the tools never change.
* Whatever a client sent, the engine gets paired calls and results, no empty text, and arguments that are objects.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qiao.core.conversation import (
    ClearThinking,
    ClearToolUses,
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
    ResultPart,
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
from qiao.core.openai.request import encode, encode_tokenize
from qiao.core.openai.target import Target
from qiao.policies import Prepared, Switches, document_key, documents_needed, prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import FAMILIES, UNKNOWN, Profile, find
from qiao.profiles.engines import target_for
from tests.fakes import hygiene, validation
from tests.fakes.behaviour import Behaviour

TARGETS = [
    target_for("vllm", "0.32.0", "qwen3-235b"),
    target_for("vllm", None, "Qwen3.8-27B"),
    target_for("vllm", "0.11.2", "openai/gpt-oss-120b"),
    target_for("sglang", None, "x"),
    target_for("llamacpp", None, "x"),
    # A conversation may end with an assistant turn, which plain OpenAI refuses; that has a test of its own.
    msgspec.structs.replace(target_for("openai", None, "gpt-5"), prefill="implicit"),
]

# Few ids and names, so that they collide; texts that are blank, and some that look like what we write ourselves.
ids = st.sampled_from(["", "a", "b", "a_2", "call_1", "toolu_01"])
names = st.sampled_from(["Bash", "Read", "ToolSearch", "WebFetch", "mcp__a__b", "", "nobody"])
texts = st.one_of(
    st.sampled_from(["", " ", "\n\n", "hi", "<system-reminder>x</system-reminder>", "(no content)", "Error: 1"]),
    st.text(max_size=12),
)
arguments = st.one_of(
    st.sampled_from(
        ["{}", '{"a": 1,  "b":[2]}', "", " ", "[1]", "null", '"x"', '{"a":', "not json", "{}{}", "\ufeff{}"]
    ),
    st.text(max_size=8),
)
images = st.builds(
    Image,
    media_type=st.sampled_from([None, "image/png"]),
    data=st.sampled_from([None, "AAAA"]),
    url=st.sampled_from([None, "http://127.0.0.1/x.png"]),
)
documents = st.builds(
    Document,
    media_type=st.just("application/pdf"),
    data=st.sampled_from(["", "JVBE", "AAAA"]),
    title=st.sampled_from([None, 'a "b"']),
    context=st.sampled_from([None, "c"]),
)
blocks: st.SearchStrategy[ResultPart] = st.one_of(
    st.builds(Text, texts), images, documents, st.builds(ToolReference, names)
)
results = st.builds(
    ToolResult, ids, st.lists(blocks, max_size=3).map(lambda parts: tuple[ResultPart, ...](parts)), st.booleans()
)
calls = st.builds(ToolCall, ids, names, arguments)
parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, texts), images, documents, st.builds(Reasoning, texts, st.none()), calls, results
)
turns = st.builds(
    Turn,
    st.sampled_from(["system", "user", "assistant"]),
    st.lists(parts, max_size=4).map(lambda items: tuple[Part, ...](items)),
)
tools = st.builds(
    Tool,
    names,
    description=texts,
    strict=st.sampled_from([None, True, False]),
    deferred=st.booleans(),
    builtin=st.sampled_from([None, None, "bash_20250124", "tool_search_tool_bm25"]),
)
conversations = st.builds(
    Conversation,
    model=st.just("m"),
    turns=st.lists(turns, max_size=8).map(lambda items: tuple[Turn, ...](items)),
    system=st.lists(texts, max_size=3).map(lambda items: tuple[str, ...](items)),
    tools=st.lists(tools, max_size=4).map(lambda items: tuple[Tool, ...](items)),
    tool_choice=st.builds(
        ToolChoice, st.sampled_from(["auto", "any", "none", "tool"]), st.one_of(st.none(), names), st.booleans()
    ),
    max_tokens=st.sampled_from([0, 1, 64, 32_000, 128_000]),
    stop=st.lists(texts, max_size=6).map(lambda items: tuple[str, ...](items)),
    stream=st.booleans(),
    thinking=st.builds(
        Thinking,
        st.sampled_from(["default", "on", "off"]),
        st.sampled_from([None, 1024, 31_999]),
        st.sampled_from([None, "none", "low", "high", "max", "odd"]),
        st.booleans(),
    ),
    sampling=st.builds(
        Sampling,
        st.sampled_from([None, 0.0, 1.0, 5.0]),
        st.sampled_from([None, 0.0, 0.5, 2.0]),
        st.sampled_from([None, 0, 20, -7]),
    ),
    output_schema=st.sampled_from([None, '{"type":"object"}']),
    extras=st.dictionaries(
        st.sampled_from(["chat_template_kwargs", "seed", "messages", "stream", "n"]),
        st.sampled_from([msgspec.Raw(b'{"enable_thinking":false}'), msgspec.Raw(b"1"), msgspec.Raw(b"[]")]),
        max_size=3,
    ),
    edits=st.one_of(
        st.none(),
        st.lists(
            st.one_of(
                st.builds(ClearThinking, st.sampled_from([None, 0, 1])),
                st.builds(
                    ClearToolUses,
                    st.sampled_from(["input_tokens", "tool_uses"]),
                    trigger=st.sampled_from([0, 2]),
                    keep=st.sampled_from([0, 1, 3]),
                    clear_inputs=st.booleans(),
                ),
            ),
            max_size=2,
        ).map(tuple),
    ),
)
profiles = st.sampled_from([*FAMILIES, UNKNOWN])
switches = st.builds(
    Switches,
    side_text=st.sampled_from(["result", "reminders", "user"]),
    reasoning=st.sampled_from([None, "drop", "send", "keep"]),
)
quirks = st.builds(Quirks, fold_system=st.booleans(), no_images=st.booleans(), stop_limit=st.sampled_from([None, 1]))


def check_as_vllm(body: dict[str, Any], window: int | None, *, takes_system: bool, sees: bool) -> None:
    """Everything that a recorded vLLM 0.32 refuses, and what it takes although it makes no sense."""
    behaviour = Behaviour(system_anywhere=takes_system, multimodal=sees)
    validation.check_shape(body)
    validation.check_fields(body)
    validation.check_conversation(body, body["model"], behaviour)
    # A window of one token has no room for an answer; one is asked for all the same.
    validation.check_sampling(body, max(1, window or 10**9))
    # Random tools may share a name, which the decoder refuses; OpenAI has options of its own.
    strange = [text for text in hygiene.problems(body) if "same name" not in text and "no engine knows" not in text]
    assert not strange


def content_of(message: dict[str, Any]) -> list[str]:
    content = message["content"]
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part["type"] == "text"]


def check_messages(messages: list[dict[str, Any]]) -> None:
    """What every chat template may rely on."""
    seen: set[str] = set()
    waiting: list[str] = []
    for position, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            assert waiting, f"message {position}: a result without a call, or results out of order"
            assert message["tool_call_id"] == waiting.pop(0)
            assert message["content"].strip()
            continue
        assert not waiting, f"message {position}: {waiting} have no result"
        assert position == 0 or role == "system" or messages[position - 1]["role"] != role
        if role == "assistant":
            for call in message.get("tool_calls", []):
                assert call["id"], "a call without an id"
                assert call["id"] not in seen, "an id used twice"
                seen.add(call["id"])
                waiting.append(call["id"])
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert message["content"] or message.get("tool_calls") or "reasoning" in str(message.keys())
        else:
            assert content_of(message) or isinstance(message["content"], list)
            assert all(text.strip() for text in content_of(message)), f"message {position}: empty text"
    assert not waiting


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(conversations, profiles, st.sampled_from(TARGETS), switches, quirks, st.sampled_from([None, 1, 8192, 262_144]))
def test_whatever_was_sent_the_engine_gets_a_history_it_can_take(
    conversation: Conversation,
    profile: Profile,
    target: Target,
    chosen: Switches,
    learned: Quirks,
    window: int | None,
) -> None:
    texts_of = {document_key(document): "words" for document in documents_needed(conversation)[:1]}
    prepared = prepare(
        conversation, profile, target=target, window=window, documents=texts_of, switches=chosen, quirks=learned
    )
    ready = prepared.conversation
    folds = learned.fold_system or not profile.system_in_place
    body = json.loads(encode(ready, target))
    check_messages(body["messages"])
    check_options(prepared, body, target, learned)
    if target.flavor == "vllm":
        check_as_vllm(body, window, takes_system=not folds, sees=profile_sees(profile, learned))
    counted = json.loads(encode_tokenize(ready, target))
    assert counted["messages"] == body["messages"]
    assert counted.get("tools") == body.get("tools")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(conversations, profiles, switches, quirks)
def test_no_word_is_lost(conversation: Conversation, profile: Profile, chosen: Switches, learned: Quirks) -> None:
    """Every text that a client sent is in some message, unless a context edit of its own took it out."""
    conversation = msgspec.structs.replace(conversation, edits=None)
    ready = prepare(conversation, profile, target=TARGETS[0], switches=chosen, quirks=learned).conversation
    sent_words = "\n".join(
        text for message in json.loads(encode(ready, TARGETS[0]))["messages"] for text in content_of(message)
    )
    for turn in conversation.turns:
        for part in turn.parts:
            inner: tuple[Part | ToolReference, ...] = part.parts if isinstance(part, ToolResult) else (part,)
            for block in inner:
                if isinstance(block, Text) and block.text.strip():
                    assert block.text in sent_words
                elif isinstance(block, Image) and not profile_sees(profile, learned):
                    assert "[image" in sent_words


def profile_sees(profile: Profile, learned: Quirks) -> bool:
    return profile.images is not False and not learned.no_images


def check_options(prepared: Prepared, body: dict[str, Any], target: Target, learned: Quirks) -> None:
    """What engines answer with a 400 to."""
    assert body["model"] == target.model
    assert body.get("tools") != []
    assert ("tool_choice" in body) == ("tools" in body)
    if isinstance(body.get("tool_choice"), dict):
        offered = [tool["function"]["name"] for tool in body["tools"]]
        assert body["tool_choice"]["function"]["name"] in offered
    assert ("stream_options" in body) <= ("stream" in body)
    assert body[target.max_tokens_field] >= 1
    assert body.get("reasoning_effort") in (None, *target.effort_values)
    assert all(body.get("stop", ["x"]))
    limit = learned.stop_limit or target.stop_limit
    assert limit is None or len(body.get("stop", [])) <= limit
    asked = {stop for stop in prepared.conversation.stop if stop}
    assert asked <= set(body.get("stop", [])) | set(prepared.scan_stops)
    assert 0 < body.get("top_p", 1) <= 1
    assert 0 <= body.get("temperature", 1) <= 2
    assert body.get("continue_final_message", False) <= (body.get("add_generation_prompt") is False)
    assert "n" not in body


# --- law 6 ---------------------------------------------------------------------------------------------------------

BASE_TOOLS = (
    Tool("Bash", "Runs a command.", '{"type":"object","properties":{"command":{"type":"string"}}}'),
    Tool("Read", "Reads a file."),
    Tool("ToolSearch", "Loads tools."),
    Tool("DeferredToolPlaceholder", deferred=True),
)
LATER_TOOLS = {
    name: Tool(name, f"{name} does things.", '{"type": "object",  "properties": {"x": {}}}', deferred=True)
    for name in ("CronList", "NotebookEdit", "WebFetch", "mcp__a__b")
}

spoken = st.sampled_from(["ok", "Let me look.", "done\n", "  spaces  ", "ünï ‮ 汉"])
call_ids = st.sampled_from(["toolu_1", "toolu_2", "toolu_3", "chatcmpl-tool-9"])


@st.composite
def answers(draw: st.DrawFn) -> Turn:
    """What a model says: thoughts, text, calls, in any mixture, also nothing at all."""
    pieces: list[Part] = []
    if draw(st.booleans()):
        pieces.append(Reasoning(draw(spoken)))
    pieces.extend(Text(draw(spoken)) for _ in range(draw(st.integers(0, 2))))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        name = draw(st.sampled_from(["Bash", "Read", "ToolSearch", "WebFetch"]))
        pieces.append(ToolCall(draw(call_ids), name, draw(st.sampled_from(["{}", '{"x": 1,"a":2}']))))
        if draw(st.sampled_from([False, False, True])):
            pieces.append(Text(draw(spoken)))
    return Turn("assistant", tuple(pieces))


@st.composite
def replies(draw: st.DrawFn, answer: Turn) -> list[Turn]:
    """What Claude Code sends after an answer: results (some missing or swapped), side text, prompts, system turns."""
    made: list[Part] = []
    for part in answer.parts:
        if isinstance(part, ToolCall) and draw(st.sampled_from([True] * 9 + [False])):
            content: list[ResultPart] = []
            if part.name == "ToolSearch":
                content = [ToolReference(draw(st.sampled_from([*LATER_TOOLS, "Unknown"])))]
            elif draw(st.booleans()):
                content = [Text(draw(spoken))]
            if draw(st.sampled_from([False] * 5 + [True])):
                content.append(Image("image/png", "AAAA"))
            made.append(ToolResult(part.id, tuple(content), draw(st.booleans())))
    made = draw(st.permutations(made))
    has_prompt = not made or draw(st.booleans())
    if has_prompt:
        reminder = Text("<system-reminder>\nnested CLAUDE.md\n</system-reminder>")
        made.extend(draw(st.sampled_from([[reminder], [Text("next, please")], [reminder, Text("go on")]])))
    result = [Turn("user", tuple(made))]
    if draw(st.booleans()):
        result.append(Turn("system", (Text("The environment changed."),)))
    if draw(st.sampled_from([False, False, True])):
        result.append(Turn("user", (Text("[Request interrupted by user]"),)))
    return result


@st.composite
def sessions(draw: st.DrawFn) -> list[tuple[Turn, ...]]:
    """The history at every request of one session; each begins with the one before."""
    history: list[Turn] = [Turn("user", (Text("<system-reminder>ctx</system-reminder>"), Text("Say hi")))]
    if draw(st.booleans()):
        history.append(Turn("system", (Text("Environment: /src"),)))
    requests = [tuple(history)]
    for _ in range(draw(st.integers(1, 5))):
        answer = draw(answers())
        history.append(answer)
        history.extend(draw(replies(answer)))
        requests.append(tuple(history))
    return requests


def sent_tools(history: tuple[Turn, ...]) -> tuple[Tool, ...]:
    """Claude Code adds a tool that was found to its list, in alphabetical order."""
    found = {
        block.name
        for turn in history
        for part in turn.parts
        if isinstance(part, ToolResult)
        for block in part.parts
        if isinstance(block, ToolReference)
    }
    known = [tool for name, tool in LATER_TOOLS.items() if name in found]
    return tuple(sorted((*BASE_TOOLS, *known), key=lambda tool: tool.name))


def sent(history: tuple[Turn, ...], profile: Profile, target: Target, chosen: Switches) -> dict[str, Any]:
    conversation = Conversation(
        model="m", turns=history, system=("You are.",), tools=sent_tools(history), max_tokens=32_000, stream=True
    )
    prepared = prepare(conversation, profile, target=target, switches=chosen)
    body: dict[str, Any] = json.loads(encode(prepared.conversation, target))
    return body


def said_in(answer: Turn) -> str:
    """The words of an answer as one text: as they came, with an empty line in the place of a call between them."""
    runs = [""]
    for part in answer.parts:
        if isinstance(part, ToolCall):
            runs.append("")
        elif isinstance(part, Text) and part.text.strip():
            runs[-1] += part.text
    return "\n\n".join(run for run in runs if run)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(sessions(), profiles, switches)
@example(
    # Words on either side of a call stay two sentences.
    [
        (Turn("user", (Text("a"),)),),
        (
            Turn("user", (Text("a"),)),
            Turn("assistant", (Text("ok"), ToolCall("toolu_1", "Bash", "{}"), Text("ok"))),
            Turn("user", (ToolResult("toolu_1", ()),)),
        ),
    ],
    find("hermes-4"),
    Switches(),
)
@example(
    # A turn with nothing but thoughts must not vanish: its neighbours would become one message.
    [
        (Turn("user", (Text("a"),)),),
        (Turn("user", (Text("a"),)), Turn("assistant", (Reasoning("hm"),)), Turn("user", (Text("b"),))),
    ],
    find("qwen3-235b"),
    Switches(),
)
def test_the_next_prompt_begins_with_this_prompt_and_its_answer(
    requests: list[tuple[Turn, ...]], profile: Profile, chosen: Switches
) -> None:
    target = target_for("vllm", "0.32.0", "qwen3-235b")
    bodies = [sent(history, profile, target, chosen) for history in requests]
    for body in bodies:
        check_messages(body["messages"])
    for history, before, after in zip(requests[1:], bodies, bodies[1:], strict=False):
        earlier, later = before["messages"], after["messages"]
        assert later[: len(earlier)] == earlier
        assert later[len(earlier)]["role"] == "assistant"
        answer = next(turn for turn in reversed(history) if turn.role == "assistant")
        assert (later[len(earlier)]["content"] or "") in (said_in(answer), "(no content)")
        names_called = [part.name for part in answer.parts if isinstance(part, ToolCall)]
        assert [call["function"]["name"] for call in later[len(earlier)].get("tool_calls", [])] == names_called
        assert after["tools"] == before["tools"]
        assert after.get("chat_template_kwargs") == before.get("chat_template_kwargs")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(sessions(), profiles, switches)
def test_preparing_twice_changes_nothing(requests: list[tuple[Turn, ...]], profile: Profile, chosen: Switches) -> None:
    target = target_for("vllm", "0.32.0", "qwen3-235b")
    history = requests[-1]
    conversation = Conversation(model="m", turns=history, tools=sent_tools(history), max_tokens=100)
    once = prepare(conversation, profile, target=target, switches=chosen).conversation
    again = msgspec.structs.replace(chosen, side_text="user")
    twice = prepare(once, profile, target=target, switches=again).conversation
    assert encode(twice, target) == encode(once, target)
