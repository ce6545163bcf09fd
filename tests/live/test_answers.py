"""Answers of a real vLLM through the gateway, whole and streamed: words, thoughts, limits, forms."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.live.stage import WINDOW, Stage, prompt_tokens, text_of
from tests.live.vllm.script import marker, said
from tests.support.files import pdf, png

ADAPTIVE = {"type": "adaptive", "display": "updates"}


def test_words(stage: Stage) -> None:
    text = 'A bridge – 桥 – of "42 m"; \u2028\n\n  next\tline 🎉'
    message = stage.both("Say it. " + marker(said(text)))
    assert message["content"] == [{"type": "text", "text": text, "citations": None}]
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["id"].startswith("msg_")


def test_thoughts(stage: Stage) -> None:
    prompt = "Say it. " + marker(said("It is 42.", think="Let me see.\n\nSo."))
    message = stage.both(prompt, thinking=ADAPTIVE)
    thought, text = message["content"]
    assert (thought["type"], thought["thinking"].strip()) == ("thinking", "Let me see.\n\nSo.")
    assert (text["type"], text["text"]) == ("text", "It is 42.")
    assert message["usage"]["output_tokens_details"]["thinking_tokens"] > 0
    assert all(chat.asked["chat_template_kwargs"]["enable_thinking"] is True for chat in stage.chats())


def test_thoughts_that_are_not_shown(stage: Stage) -> None:
    prompt = "Say it. " + marker(said("It is 42.", think="Let me see."))
    message = stage.both(prompt, thinking={"type": "adaptive", "display": "omitted"})
    thought, text = message["content"]
    assert thought["thinking"] == ""
    assert thought["signature"]
    assert text["text"] == "It is 42."


def test_thinking_is_really_off(stage: Stage) -> None:
    """Claude Code's safety classifier asks like this: no thoughts, 64 tokens, one stop sequence."""
    prompt = "Judge. " + marker("<severity>1</severity> and more")
    message = stage.both(prompt, max_tokens=64, stop_sequences=["</severity>"])
    assert text_of(message) == "<severity>1"
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "</severity>")


@pytest.mark.parametrize(
    ("stops", "found"),
    [
        (["q!", "z!", "x!", "END"], "END"),
        (["q!", "z!", "x!", "y!", "w!", "END"], "END"),
        (["q!", "END", "beta"], "beta"),
    ],
    ids=["four", "six", "the one that comes first"],
)
def test_stop_sequences(stage: Stage, stops: list[str], found: str) -> None:
    message = stage.both("Say it. " + marker("alpha beta END omega"), stop_sequences=stops)
    assert text_of(message) == "alpha beta END omega".partition(found)[0]
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", found)


def test_a_stop_sequence_that_never_comes(stage: Stage) -> None:
    """vLLM holds text back for it; with thinking one delta straddles both."""
    prompt = "Say it. " + marker(said("It is 42.", think="Let me see."))
    message = stage.both(prompt, thinking=ADAPTIVE, stop_sequences=["never comes"])
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert text_of(message) == "It is 42."
    assert message["stop_reason"] == "end_turn"


def test_the_limit_is_reached(stage: Stage) -> None:
    message = stage.both("Say it. " + marker("one two three four five six seven"), max_tokens=3)
    assert text_of(message) == "one two three"
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 3


@pytest.mark.parametrize("limit", [WINDOW - 1, WINDOW, WINDOW + 1, 128_000, 2**53])
def test_a_limit_above_the_window(stage: Stage, limit: int) -> None:
    assert text_of(stage.both("Say it. " + marker("Yes."), max_tokens=limit)) == "Yes."
    assert all(chat.status == 200 for chat in stage.chats())


def test_only_the_cache_is_warmed(stage: Stage) -> None:
    message = stage.both("Say it. " + marker("Nobody hears this."), max_tokens=0)
    assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
    assert message["usage"]["output_tokens"] == 0
    assert prompt_tokens(message) > 0


def test_an_answer_that_has_begun(stage: Stage) -> None:
    messages = [
        {"role": "user", "content": "How long is it? " + marker(" 42 m long.")},
        {"role": "assistant", "content": "The bridge is"},
    ]
    for thinking in (None, ADAPTIVE, {"type": "disabled"}):
        assert text_of(stage.both(messages, thinking=thinking)) == " 42 m long."
    sent = stage.chats()[0].asked
    assert sent["messages"][-1] == {"role": "assistant", "content": "The bridge is"}
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)


def test_system_turns_stay_where_they_are(stage: Stage) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "One."},
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three. " + marker("Four.")},
        {"role": "system", "content": [{"type": "text", "text": "Now.", "cache_control": {"type": "ephemeral"}}]},
    ]
    assert text_of(stage.whole(messages, system="Head.")) == "Four."
    shown = [(message["role"], message["content"][:9]) for message in stage.sent()["messages"]]
    assert shown == [
        ("system", "Head."),
        ("user", "One."),
        ("system", "Be brief."),
        ("assistant", "Two."),
        ("user", "Three. @@"),
        ("system", "Now."),
    ]


def test_pictures_and_papers_for_a_model_that_reads_text(stage: Stage) -> None:
    image = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png()).decode()}
    paper = {
        "type": "base64",
        "media_type": "application/pdf",
        "data": base64.b64encode(pdf("The bridge is 42 m long")).decode(),
    }
    content = [
        {"type": "image", "source": image},
        {"type": "document", "source": paper},
        {"type": "text", "text": "Look. " + marker("I cannot see it.")},
    ]
    assert text_of(stage.both([{"role": "user", "content": content}])) == "I cannot see it."
    sent = json.dumps(stage.chats()[0].asked)
    assert "image_url" not in sent
    assert "The bridge is 42 m long" in sent
    assert all(chat.status == 200 for chat in stage.chats())


def test_the_form_of_the_answer(stage: Stage) -> None:
    """The engine's grammar holds: a script that it forbids would fail (also by white space after the thoughts)."""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "kind": {"enum": ["a", "b"]}},
        "required": ["title", "kind"],
        "additionalProperties": False,
    }
    text = '{"title": "A bridge", "kind": "b"}'
    config = {"format": {"type": "json_schema", "schema": schema}}
    message = stage.both("Title? " + marker(text), output_config=config, tools=[])
    assert json.loads(text_of(message)) == {"title": "A bridge", "kind": "b"}
    thoughtful = stage.both(
        "Title? " + marker("<think>\nHm.\n</think>" + text), output_config=config, thinking=ADAPTIVE
    )
    assert json.loads(text_of(thoughtful)) == {"title": "A bridge", "kind": "b"}


def test_a_form_that_no_grammar_takes_is_not_enforced(stage: Stage) -> None:
    config = {"format": {"type": "json_schema", "schema": {"type": "objectt"}}}
    assert text_of(stage.both("Title? " + marker("Anything."), output_config=config)) == "Anything."


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_every_effort(stage: Stage, effort: str) -> None:
    prompt = "Say it. " + marker(said("Yes.", think="Hm."))
    for thinking in (None, ADAPTIVE):
        message = stage.whole(prompt, thinking=thinking, output_config={"effort": effort})
        assert text_of(message).endswith("Yes.")
    assert all(chat.status == 200 for chat in stage.chats())


@pytest.mark.parametrize(
    "sampling",
    [{"temperature": 0}, {"temperature": 1.0, "top_p": 1, "top_k": 40}, {"top_p": 0.0}, {"top_k": 0}, {"top_k": 500}],
    ids=str,
)
def test_sampling(stage: Stage, sampling: dict[str, Any]) -> None:
    assert text_of(stage.both("Say it. " + marker("Yes."), **sampling)) == "Yes."
    assert all(chat.status == 200 for chat in stage.chats())
