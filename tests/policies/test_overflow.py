"""Lengths in refusals: what is left for an answer, and the sentence for a prompt that does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.policies.overflow import LEAST_ANSWER, WORDINGS, Excess, find_excess, room, too_long, within

AT_LEAST = (
    "This model's maximum context length is 16384 tokens. However, you requested 8192 output tokens and your prompt "
    "contains at least 8193 input tokens, for a total of at least 16385 tokens."
)


def test_numbers_are_read() -> None:
    assert find_excess(AT_LEAST) == Excess(window=16384, prompt=8193, answer=8192, exact=False)
    assert find_excess("Message: " + AT_LEAST + " (Request ID: 1), Internal exception: x") == find_excess(AT_LEAST)
    assert find_excess("request (24,071 tokens) exceeds the available context size (8,192 tokens)") == Excess(
        window=8192, prompt=24071
    )
    assert find_excess("the weather is fine, 40960 tokens of it") is None
    assert find_excess("") is None


def passed(what: str, answer: int, window: int, bound: str) -> str:
    return (
        f"You passed {what} and requested {answer} output tokens. However, the model's context length is only {window} "
        f"tokens, resulting in a maximum input length of {bound}. Please reduce the length of the input prompt."
    )


@pytest.mark.parametrize(
    ("text", "excess", "left"),
    [
        (
            passed("99073 input tokens", 32000, 131072, "99072 tokens"),
            Excess(window=131072, prompt=99073, answer=32000, exact=False),
            16000,
        ),
        (
            passed("131073 input tokens", 0, 131072, "131072 tokens"),
            Excess(window=131072, prompt=131073, answer=0, exact=False),
            None,
        ),
        (
            passed("74655 input characters", 32000, 32000, "0 tokens (at most 0 characters)"),
            Excess(window=32000, prompt=18664, answer=32000, exact=False),
            13335,
        ),
    ],
    ids=["prompt and answer", "the prompt alone", "characters"],
)
def test_who_stops_counting_tells_a_lower_bound(text: str, excess: Excess, left: int | None) -> None:
    """vLLM between 0.16 and 0.18 counts up to the longest prompt that would fit."""
    assert find_excess(text) == excess
    assert find_excess(f"Message: {text} (Request ID: 1), Internal exception: x") == excess
    assert room(excess) == left


def test_a_digit_flood_is_no_crash() -> None:
    found = find_excess(f"request ({'9' * 9000} tokens) exceeds the available context size (8192 tokens)")
    assert found is not None
    assert found.prompt == 999999999999999


@pytest.mark.parametrize(
    ("excess", "true_count", "left"),
    [
        (Excess(window=1000, prompt=400, answer=900), None, 599),
        (Excess(window=1000, prompt=1400, answer=900), None, None),
        (Excess(window=1000, prompt=999, answer=900), None, None),
        (Excess(window=16384, prompt=8193, answer=8192, exact=False), None, 4096),
        (Excess(window=16384, prompt=8193, answer=8192, exact=False), 9000, 7383),
        (Excess(window=16384, prompt=8193, answer=8192, exact=False), 20000, None),
        # The engine saw more than its tokenizer was shown (pictures): its own exact number is the true one.
        (Excess(window=32768, prompt=20000, answer=32000), 15000, 12767),
        (Excess(window=32768, prompt=15000, answer=32000), 20000, 12767),
        (Excess(window=1000, prompt=400), None, None),
        (Excess(prompt=400, answer=9), None, None),
    ],
)
def test_room(excess: Excess, true_count: int | None, left: int | None) -> None:
    assert room(excess, true_count) == left


@given(
    window=st.integers(1, 10**6),
    prompt=st.integers(0, 2 * 10**6),
    answer=st.integers(1, 10**6),
    exact=st.booleans(),
    true_count=st.none() | st.integers(0, 2 * 10**6),
)
def test_room_always_fits(window: int, prompt: int, answer: int, exact: bool, true_count: int | None) -> None:
    left = room(Excess(window, prompt, answer, exact), true_count)
    if left is not None:
        assert left >= LEAST_ANSWER
        assert (prompt if true_count is None else true_count) + left < window
        assert not exact or prompt + left < window


@given(
    window=st.none() | st.integers(1, 10**6),
    prompt=st.none() | st.integers(0, 2 * 10**6),
    true_count=st.none() | st.integers(0, 2 * 10**6),
)
def test_the_sentence_always_says_more_than_the_window(
    window: int | None, prompt: int | None, true_count: int | None
) -> None:
    said = too_long(Excess(window=window, prompt=prompt), true_count)
    assert said.startswith("prompt is too long")
    if window is not None:
        shown, maximum = (int(word) for word in said.split() if word.isdecimal())
        assert maximum == window < shown
        if true_count is not None and true_count > window:
            assert shown == max(true_count, prompt or 0)


@pytest.mark.parametrize(
    ("excess", "window", "true_count", "said"),
    [
        (Excess(exact=False), 8192, 9000, "prompt is too long: 9000 tokens > 8192 maximum"),
        (Excess(exact=False), 8192, 8100, "prompt is too long: 8193 tokens > 8192 maximum"),
        (Excess(exact=False), 8192, None, "prompt is too long: 8193 tokens > 8192 maximum"),
        (Excess(window=4096, exact=False), 8192, 9000, "prompt is too long: 9000 tokens > 4096 maximum"),
        # The window that was exceeded is not the listed one.
        (Excess(exact=False), 131_072, 9000, "prompt is too long: 9000 tokens"),
        (Excess(exact=False), None, 9000, "prompt is too long: 9000 tokens"),
        (Excess(exact=False), None, None, "prompt is too long"),
    ],
)
def test_a_refusal_without_a_window(excess: Excess, window: int | None, true_count: int | None, said: str) -> None:
    assert too_long(within(excess, window, true_count), true_count) == said


def test_each_wording_is_one_of_a_kind() -> None:
    names = [who for who, _ in WORDINGS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "words",
    [
        # What Claude Code itself takes for an overflow (2.1.330): none of it may reach it untranslated.
        *("prompt is too long", "Input is too long.", "maximum context length", "context_length_exceeded"),
        *("exceeds the context window", "ContextWindowExceededError", "longer than the maximum model length"),
        *("longer than the model's context length", "exceeds the available context size"),
        *("exceeds the maximum number of tokens allowed", "exceeded model token limit", "input token length too long"),
        *("input tokens exceed the configured limit", "maximum context limit", "maximum prompt length"),
        *("prompt exceeds max length", "tokens in request more than max tokens allowed"),
        *("range of input length should be", "context window exceeds limit", "but model only supports up to"),
        *("reduce the length of the messages", "`inputs` tokens + `max_new_tokens` must be"),
        "context exceeds your deployment",
        # SGLang, whose numbers come in another order.
        "Requested token count exceeds the model's maximum context length of 8192 tokens.",
    ],
)
def test_every_word_for_an_overflow_is_known(words: str) -> None:
    for text in (words, words.upper(), f"Message: Error, {words} (Request ID: 1), Internal exception: x"):
        found = find_excess(text)
        assert found is not None
        assert too_long(found, 9000).startswith("prompt is too long: ")
