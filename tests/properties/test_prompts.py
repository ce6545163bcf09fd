"""Law 6 with the chat templates that Qwen published: turn n+1's prompt begins with turn n's prompt and its answer.

Random sessions as Claude Code has them (tools found, tools that arrive late or go, parallel calls, side text, system
turns, interruptions) go through the policies and the encoder into the real templates. The answer is compared as the
model itself wrote it, so that the blocks which the engine made of its own words are found again too.
"""

from __future__ import annotations

import itertools
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qiao.core.conversation import (
    Conversation,
    Image,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from qiao.core.openai.request import encode
from qiao.policies import Switches, prepare
from qiao.policies.tool_history import ToolHistory, follow
from qiao.profiles import find
from qiao.profiles.engines import target_for
from tests.properties.test_policies import call_ids, replies, sent_tools
from tests.support import chat_templates

pytestmark = pytest.mark.skipif(chat_templates.absence() is not None, reason=str(chat_templates.absence()))


class Setting(NamedTuple):
    """A published template with the model that it belongs to. `opening`: how the answer begins in the prompt."""

    template: str
    model: str
    reasoning: str | None = None
    thinking: str = "default"


KEEPS_ANSWERS = [
    Setting("qwen3_instruct_2507", "Qwen3-235B-A22B-Instruct-2507"),
    Setting("qwen3_6", "Qwen3.6-27B"),
    Setting("qwen3_6", "Qwen3.6-27B", "keep", "on"),
    Setting("qwen3_8", "Qwen3.8-27B"),
]
KEEPS_PROMPTS = [
    *KEEPS_ANSWERS,
    Setting("qwen3", "Qwen3-235B-A22B"),
    Setting("qwen3", "qwen3-235b", "drop", "on"),
    Setting("qwen3_8", "Qwen3.8-27B", "drop"),
]
# These take old reasoning out, or its empty tags, when a person speaks again.
KEEPS_LOOPS = [
    Setting("qwen3", "Qwen3-235B-A22B", "send", "on"),
    Setting("qwen3_5_think", "Qwen3.5-27B"),
    Setting("qwen3_5_think", "Qwen3.5-27B", "send", "on"),
    Setting("qwen3_6", "Qwen3.6-27B", "drop"),
]

MODEL_TEXT = ["Let me look.", "ok", "ünï 汉", "a <b> & 'c'"]
LATE = (Tool("mcp__late__one", "Late.", '{"type": "object",  "properties": {}}'), Tool("mcp__late__two"))
Session = list[tuple[tuple[Turn, ...], tuple[Tool, ...]]]


@st.composite
def answers(draw: st.DrawFn) -> Turn:
    """What a model says, in the order and form in which its template writes it down again."""
    parts: list[Part] = []
    if draw(st.booleans()):
        parts.append(Reasoning(draw(st.sampled_from(["Hm.", "I see\nnow."]))))
    has_text = draw(st.booleans())
    calls = draw(st.integers(0 if has_text else 1, 3))
    if has_text:
        parts.append(Text(draw(st.sampled_from(MODEL_TEXT))))
    for _ in range(calls):
        name = draw(st.sampled_from(["Bash", "Read", "ToolSearch"]))
        parts.append(ToolCall(draw(call_ids), name, draw(st.sampled_from(["{}", '{"b": "x", "a": "y z"}']))))
    return Turn("assistant", tuple(parts))


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Every request of a session: its history, and the tools that came or went so far."""
    history: list[Turn] = [Turn("user", (Text("<system-reminder>ctx</system-reminder>"), Text("Say hi")))]
    if draw(st.booleans()):
        history.append(Turn("system", (Text("Environment: /src"),)))
    late: tuple[Tool, ...] = ()
    requests: Session = [(tuple(history), late)]
    for _ in range(draw(st.integers(1, 5))):
        answer = draw(answers())
        history += [answer, *draw(replies(answer))]
        late = draw(st.sampled_from([late, late, late, LATE[:1], LATE, LATE[1:], ()]))
        requests.append((tuple(history), late))
    return requests


def prompts(requests: Session, setting: Setting) -> list[str]:
    """The prompt of every request, as the engine makes it."""
    profile, target = find(setting.model), target_for("vllm", "0.32.0", setting.model)
    chosen = Switches(reasoning=setting.reasoning)  # type: ignore[arg-type]
    known: ToolHistory | None = None
    made = []
    for history, late in requests:
        conversation = Conversation(
            model="m",
            turns=history,
            system=("You are.", "And more."),
            tools=(*sent_tools(history), *late),
            max_tokens=32_000,
            session="s",
            thinking=Thinking(setting.thinking),  # type: ignore[arg-type]
        )
        known = follow(known, conversation)
        ready = prepare(conversation, profile, target=target, switches=chosen, tool_history=known).conversation
        body: dict[str, Any] = json.loads(encode(ready, target))
        made.append(chat_templates.prompt(setting.template, body))
    return made


def written(answer: Turn, setting: Setting) -> str:
    """The answer as the model wrote it behind its prompt, up to the end of the turn."""
    thoughts = "".join(part.text for part in answer.parts if isinstance(part, Reasoning))
    text = "".join(part.text for part in answer.parts if isinstance(part, Text))
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    if setting.template == "qwen3_instruct_2507":
        blocks = [
            f'<tool_call>\n{{"name": "{call.name}", "arguments": {call.arguments}}}\n</tool_call>' for call in calls
        ]
        return "\n".join([*([text] if text else []), *blocks]) + "<|im_end|>\n"
    blocks = ["".join(["<tool_call>\n", _function(call), "</tool_call>"]) for call in calls]
    said = "\n\n".join([*([text] if text else []), *(["\n".join(blocks)] if blocks else [])])
    return f"{thoughts}\n</think>\n\n{said}<|im_end|>\n"


def _function(call: ToolCall) -> str:
    values = "".join(
        f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in json.loads(call.arguments).items()
    )
    return f"<function={call.name}>\n{values}</function>\n"


def _spoken_again(history: tuple[Turn, ...], before: tuple[Turn, ...]) -> bool:
    """Whether a person (or what passes for one: a picture behind a result) spoke since `before`."""
    return any(
        not isinstance(part, ToolResult) or any(isinstance(block, Image) for block in part.parts)
        for turn in history[len(before) :]
        if turn.role != "assistant"
        for part in turn.parts
    )


LONG = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@LONG
@given(sessions(), st.sampled_from(KEEPS_PROMPTS))
def test_the_next_prompt_begins_with_this_one(requests: Session, setting: Setting) -> None:
    made = prompts(requests, setting)
    for before, after in itertools.pairwise(made):
        assert after.startswith(before), setting


@LONG
@given(sessions(), st.sampled_from(KEEPS_ANSWERS))
def test_and_with_its_answer(requests: Session, setting: Setting) -> None:
    made = prompts(requests, setting)
    for (history, _), (later, _), before, after in zip(requests, requests[1:], made, made[1:], strict=False):
        answer = written(later[len(history)], setting)
        assert after[len(before) :].startswith(answer), setting


@LONG
@given(sessions(), st.sampled_from(KEEPS_LOOPS))
def test_where_the_template_takes_reasoning_out_a_loop_of_calls_is_kept(requests: Session, setting: Setting) -> None:
    made = prompts(requests, setting)
    for (history, _), (later, _), before, after in zip(requests, requests[1:], made, made[1:], strict=False):
        if not _spoken_again(later, history):
            assert after.startswith(before), setting


@LONG
@given(sessions(), st.sampled_from(KEEPS_PROMPTS + KEEPS_LOOPS))
def test_the_head_never_changes(requests: Session, setting: Setting) -> None:
    """Tools and system stand before the first thing that was said."""
    heads = {made.partition("<|im_end|>")[0] for made in prompts(requests, setting)}
    assert len(heads) == 1
