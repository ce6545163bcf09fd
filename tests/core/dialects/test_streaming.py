"""Calls go out while they are written: early, with little held back, at a cost that does not grow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from qiao.core.dialects import DIALECTS, text_tools
from qiao.core.dialects.stage import TextTools
from qiao.core.events import Event, Finished, TextAdded, ToolArgumentsAdded, ToolCallStarted
from qiao.core.sequence import Sequencer
from tests.core.dialects.answers import STRING, tool

TOOLS = (tool("Write", {"path": STRING, "content": STRING, "mode": {"type": "integer"}}, required=["path"]),)


def as_written(name: str, content: str) -> str:
    inner = json.dumps({"path": "a.txt", "content": content, "mode": 420}, ensure_ascii=False)
    match name:
        case "hermes":
            return f'<tool_call>\n{{"name": "Write", "arguments": {inner}}}\n</tool_call>'
        case "qwen3_coder":
            return (
                "<tool_call>\n<function=Write>\n<parameter=path>\na.txt\n</parameter>\n<parameter=content>\n"
                f"{content}\n</parameter>\n<parameter=mode>\n420\n</parameter>\n</function>\n</tool_call>"
            )
        case "glm45":
            return (
                "<tool_call>Write\n<arg_key>path</arg_key>\n<arg_value>a.txt</arg_value>\n<arg_key>content</arg_key>\n"
                f"<arg_value>{content}</arg_value>\n<arg_key>mode</arg_key>\n<arg_value>420</arg_value>\n</tool_call>"
            )
        case "mistral":
            return f"[TOOL_CALLS]Write{inner}"
        case "deepseek_v3" | "deepseek_v31":
            opening = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>Write\n```json\n"
            return f"{opening}{inner}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        case "kimi_k2":
            opening = "<|tool_calls_section_begin|><|tool_call_begin|>functions.Write:0<|tool_call_argument_begin|>"
            return f"{opening}{inner}<|tool_call_end|><|tool_calls_section_end|>"
        case "pythonic":
            return f'[Write(path="a.txt", content={json.dumps(content)}, mode=420)]'
        case _:
            return f'{{"name": "Write", "arguments": {inner}}}'


class Pipeline:
    """Text in, sequenced events out, with the arguments that have been sent so far."""

    def __init__(self, name: str) -> None:
        self._stage: TextTools = text_tools(name, TOOLS)
        self._sequencer = Sequencer(id_prefix="toolu", tools=TOOLS)
        self.sent = ""
        self.has_started = False

    def feed(self, event: Event) -> None:
        for out in self._sequencer.feed(self._stage.feed([event])):
            self.has_started |= isinstance(out, ToolCallStarted)
            if isinstance(out, ToolArgumentsAdded):
                self.sent += out.text


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_arguments_go_out_while_they_are_written(name: str) -> None:
    content = "All work and no play makes Jack a dull boy. " * 20
    text = as_written(name, content)
    first, last = text.index("All work"), text.rindex("boy.")
    pipeline = Pipeline(name)
    start = 0
    for place, character in enumerate(text):
        pipeline.feed(TextAdded(character))
        if place == first:
            assert pipeline.has_started
            assert "a.txt" in pipeline.sent
            start = len(pipeline.sent) - 1
        if first <= place < last:
            assert pipeline.sent[start:] == text[first : place + 1]
    pipeline.feed(Finished("stop"))
    assert json.loads(pipeline.sent) == {"path": "a.txt", "content": content, "mode": 420}


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_text_is_held_back_no_longer_than_it_may_be_a_tag(name: str) -> None:
    stage = text_tools(name, TOOLS)
    said = ""
    for character in "a < b, a[0] {x} `y` <b>bold</b> and <tool shed> or [TOOL box]. ":
        said += "".join(event.text for event in stage.feed([TextAdded(character)]) if isinstance(event, TextAdded))
        if character.isalnum() and not said.endswith(character):
            assert character in "tolTOL_"  # inside the beginning of a tag
    assert said == "a < b, a[0] {x} `y` <b>bold</b> and <tool shed> or [TOOL box]."


def seconds(work: Callable[[], None], *, times: int = 1) -> float:
    """Processor time; the least of several, because a busy machine only adds."""
    found = []
    for _ in range(times):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found)


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("size", [16, 10**9], ids=["in chunks", "at once"])
def test_the_cost_of_a_call_is_proportional_to_its_length(name: str, size: int) -> None:
    line = "def f(x): return {'a': \"b\", 'c': [1, 2]}  # say </tool_cal\n"

    def work(characters: int) -> None:
        text = as_written(name, line * (characters // len(line)))
        pipeline = Pipeline(name)
        for start in range(0, len(text), size):
            pipeline.feed(TextAdded(text[start : start + size]))
            pipeline.sent = ""
        pipeline.feed(Finished("stop"))

    short, long = (8_000, 128_000) if size == 16 else (65_000, 1_040_000)
    # Sixteen times the text, at most sixty times the time: quadratic work would take 256 times.
    assert seconds(lambda: work(long)) < 60 * seconds(lambda: work(short), times=3) + 0.05


HELD = (
    "<",
    "<tool_call>",
    '{"name": ',
    "[",
    "`",
    " ",
    "\n",
    '"',
    "{",
    '<tool_call>{"name": "Write", "arguments": {"a": "',
)
INSIDE = ('"a", ', '", "', '"a", "b\\', '"""', '" + ', "}}{", '"a" "b", ', "\\")


@pytest.mark.parametrize("name", ["hermes", "qwen3_coder", "glm45", "mistral", "kimi_k2", "json", "pythonic"])
@pytest.mark.parametrize("unit", HELD)
def test_text_made_to_be_held_back_costs_no_more(name: str, unit: str) -> None:
    def work(characters: int) -> None:
        pipeline = Pipeline(name)
        for character in unit * (characters // len(unit)):
            pipeline.feed(TextAdded(character))
        pipeline.feed(Finished("stop"))

    assert seconds(lambda: work(16_000)) < 60 * seconds(lambda: work(1_000), times=3) + 0.05


@pytest.mark.parametrize("unit", INSIDE)
@pytest.mark.parametrize("opening", ['{"content": "x', '{"path": "a"}{"content": "x'])
def test_a_string_made_to_be_doubted_costs_no_more(opening: str, unit: str) -> None:
    def work(characters: int) -> None:
        pipeline = Pipeline("hermes")
        for character in f'<tool_call>{{"name": "Write", "arguments": {opening}' + unit * (characters // len(unit)):
            pipeline.feed(TextAdded(character))
        pipeline.feed(Finished("stop"))

    assert seconds(lambda: work(16_000)) < 60 * seconds(lambda: work(1_000), times=3) + 0.05
