"""The tokenizer of our own: Qwen's layout as its template writes it, its vocabulary, and whose count it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import pytest

from qiao.core.conversation import Conversation, Reasoning, Text, Tool, ToolCall, Turn
from qiao.core.openai import chatml, request
from qiao.core.openai.target import Target
from qiao.upstream.vocabulary import LocalTokenizer, knows, load
from tests.policies.test_history import assistant, result, user
from tests.upstream.test_counting import NAME, preparing, talk, upstream

TEMPLATE = Path(__file__).parent.parent / "live" / "vllm" / "engine" / "template.jinja"
TARGET = Target("qwen3-235b")
OFF = {"chat_template_kwargs": msgspec.Raw(b'{"enable_thinking":false}')}


def rendered(conversation: Conversation) -> str:
    """What the template of the live suite, Qwen3's layout, makes of the request."""
    environment = jinja2.Environment()
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    body: dict[str, Any] = json.loads(request.encode_tokenize(conversation, TARGET))
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    kwargs = body.get("chat_template_kwargs") or {}
    opening = body["add_generation_prompt"]
    return template.render(messages=body["messages"], tools=body.get("tools"), add_generation_prompt=opening, **kwargs)


@pytest.mark.parametrize(
    "conversation",
    [
        talk(0),
        talk(3),
        talk(3, tools=()),
        talk(2, system=()),
        talk(0, system=(), tools=()),
        talk(1, extras=OFF),
        talk(0, turns=(user("桥 is a bridge"), assistant("Yes."), user("naïve 🎉"))),
        talk(0, turns=(user("a"), Turn("system", (Text("Now."),)))),
        talk(
            0,
            turns=(
                user("a"),
                assistant("both", ToolCall("1", "Read", '{"path": "x"}'), ToolCall("2", "Read", '{"path": "y"}')),
                user(result("1", "b"), result("2", "c"), "and now"),
            ),
        ),
        talk(0, turns=(user("a"), assistant(Reasoning("Hm."), ToolCall("1", "Read", "{}")), user(result("1", "b")))),
        # A new question takes the reasoning before it away, what a tool says or the system does not.
        talk(
            0, turns=(user("a"), assistant(Reasoning("Old."), "b"), user("c"), assistant(Reasoning("\nNew. "), "\nd"))
        ),
        talk(
            0,
            turns=(
                user("a"),
                assistant(Reasoning("Old."), ToolCall("1", "Read", "{}")),
                user(result("1", "b"), "and now"),
                assistant(Reasoning("New."), ToolCall("2", "Read", "{}")),
                Turn("system", (Text("Rule."),)),
                user(result("2", "c")),
            ),
        ),
        talk(0, tools=(Tool("f", 'says "桥"', '{"type":"object","properties":{"a":{"enum":["é"]}}}'), Tool("g"))),
    ],
)
def test_the_layout_is_the_templates(conversation: Conversation) -> None:
    assert "".join(chatml.pieces(conversation, TARGET)) == rendered(conversation)


@pytest.fixture(scope="module")
def tokenizer() -> LocalTokenizer:
    found = load()
    assert found is not None, "requirements/test.txt holds the extra"
    return found


def test_known_counts(tokenizer: LocalTokenizer) -> None:
    """Three control tokens, two roles, a word and three line ends; without thinking two tags and two line ends more."""
    plain = Conversation(NAME, (user("Hi"),))
    assert tokenizer.count(plain, TARGET) == 9
    assert tokenizer.count(msgspec.structs.replace(plain, extras=OFF), TARGET) == 13


def test_a_grown_conversation_costs_the_new_part(tokenizer: LocalTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spy:
        seen = 0

        def encode(self, text: str, **options: Any) -> list[int]:
            self.seen += len(text)
            tokens: list[int] = tokenizer._encoding.encode(text, **options)
            return tokens

    spy = Spy()
    own = LocalTokenizer(spy)
    first = own.count(talk(20), TARGET)
    whole, spy.seen = spy.seen, 0
    assert own.count(talk(21), TARGET) > first
    assert 0 < spy.seen < whole / 10
    assert own.count(talk(21), TARGET) == tokenizer.count(talk(21), TARGET)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("qwen3-235b", True),
        ("Qwen/Qwen3-Coder-30B", True),
        ("Qwen2.5-7B", True),
        ("qwen2-7b", True),
        ("qwen3.5-27b", False),
        ("qwen3.6-27b", False),
        ("llama-3.3-70b", False),
    ],
)
def test_whose_vocabulary_it_is(model: str, expected: bool) -> None:
    assert knows(model) is expected


async def test_an_engine_that_does_not_count_gets_its_count_here(tokenizer: LocalTokenizer) -> None:
    async with upstream(server="ray") as (_, asked, served):
        found = await asked.count(preparing(talk(5)), served)
        assert (found.is_exact, found.by) == (False, "tokenizer")
        assert found.tokens == tokenizer.count(talk(5), TARGET)


async def test_reasoning_that_the_template_drops_counts_nothing(tokenizer: LocalTokenizer) -> None:
    def turns(*thought: Reasoning) -> tuple[Turn, ...]:
        return (user("a"), assistant(*thought, "b"), user("c"))

    long = Reasoning("word " * 9000)
    assert tokenizer.count(talk(0, turns=turns(long)), TARGET) == tokenizer.count(talk(0, turns=turns()), TARGET)
