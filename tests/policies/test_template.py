"""In which dialect a rendered prompt asks for calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from qiao.core.conversation import Conversation, ToolCall
from qiao.policies.template import TOOL, dialect_of_prompt, plain, shown
from qiao.profiles import find

RENDERED = sorted((Path(__file__).parents[1] / "golden/text_tools").glob("*_history.case"))


@pytest.mark.parametrize(
    ("prompt", "dialect"),
    [
        ('<tool_call>\n{"name": "noop", "arguments": {"word": "Hi"}}\n</tool_call>', "hermes"),
        ("<tool_call>\n<function=noop>\n<parameter=word>\nHi\n</parameter>\n</function>\n</tool_call>", "qwen3_coder"),
        ("<tool_call>noop\n<arg_key>word</arg_key>\n<arg_value>Hi</arg_value>\n</tool_call>", "glm45"),
        ('[AVAILABLE_TOOLS][{"type": "function"}][/AVAILABLE_TOOLS][INST]Hi[/INST]', "mistral"),
        ('[TOOL_CALLS]noop[ARGS]{"word": "Hi"}</s>', "mistral"),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>noop<｜tool▁sep｜>{}<｜tool▁call▁end｜>", "deepseek_v31"),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>noop\n```json\n{}", "deepseek_v3"),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.noop:0", "kimi_k2"),
        ('<|python_start|>[noop(word="Hi")]<|python_end|>', "pythonic"),
        ('<|start_header_id|>assistant\n\n{"name": "noop", "parameters": {"word": "Hi"}}<|eot_id|>', "llama3_json"),
        ('{"name": "noop", "description": "Does nothing.", "parameters": {"type": "object"}}', None),
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", None),
    ],
)
def test_marks(prompt: str, dialect: str | None) -> None:
    assert dialect_of_prompt(prompt) == dialect


@pytest.mark.parametrize("case", RENDERED, ids=lambda case: case.stem)
def test_what_published_templates_render(case: Path) -> None:
    """Recorded prompts with calls in them; theirs is another tool, so what is known by its name is left out."""
    head, _, prompt = case.read_text("utf-8").rpartition("\n----------\n")
    family = find(head.split("# with model=", 1)[1].split()[0])
    if family.dialect != "llama3_json":
        assert dialect_of_prompt(prompt) == family.dialect


def test_vocabularies_that_write_blanks_otherwise() -> None:
    pieces = ["<tool_call>", "Ċ", '{"', "name", '":', 'Ġ"', "noop"]
    assert plain(pieces) == '<tool_call>\n{"name": "noop'
    assert dialect_of_prompt(plain(pieces)) == "hermes"
    assert dialect_of_prompt("".join(["<tool_call>", "▁", '{"name":'])) == "hermes"


def test_what_is_shown() -> None:
    """A call with an argument, under an id that every template takes; or the tool alone."""
    whole = shown(Conversation(model="m", turns=()))
    (call,) = whole.turns[1].parts
    assert isinstance(call, ToolCall)
    assert (call.name, len(call.id), call.id.isalnum(), whole.tools) == (TOOL.name, 9, True, (TOOL,))
    assert len(shown(whole, history=False).turns) == 1
