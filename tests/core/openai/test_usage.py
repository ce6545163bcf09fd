"""How much of a prompt an engine had in its cache, in every engine's own words, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qiao.core.events import UsageSeen
from qiao.core.openai.stream import Decoder

PROMPT = {"prompt_tokens": 1000, "completion_tokens": 5}


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({"usage": {**PROMPT, "prompt_tokens_details": {"cached_tokens": 640}}}, id="vllm, sglang, openai"),
        pytest.param(
            {"usage": {**PROMPT, "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 360}}, id="deepseek"
        ),
        pytest.param({"usage": {**PROMPT, "cached_tokens": 640}}, id="moonshot"),
        pytest.param({"usage": {**PROMPT, "num_cached_tokens": 640}}, id="mistral"),
        pytest.param({"usage": {**PROMPT, "cache_read_input_tokens": 640}}, id="a gateway"),
        pytest.param({"usage": PROMPT, "timings": {"cache_n": 640, "prompt_n": 360, "prompt_ms": 1.5}}, id="llama.cpp"),
        pytest.param(
            {"usage": {**PROMPT, "prompt_tokens_details": {"cached_tokens": 640}}, "timings": {"cache_n": 640}},
            id="newer llama.cpp",
        ),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_cached_tokens(told: dict[str, Any], whole: bool) -> None:
    assert cached(told, whole=whole) == 640


@pytest.mark.parametrize(
    "told",
    [
        {"usage": PROMPT},
        {"usage": {**PROMPT, "prompt_tokens_details": None}},
        {"usage": {**PROMPT, "prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": None}},
        {"usage": PROMPT, "timings": None},
        {"usage": {**PROMPT, "cached_tokens": -3}},
    ],
)
def test_who_does_not_tell_has_cached_nothing(told: dict[str, Any]) -> None:
    assert cached(told, whole=True) == 0


def cached(told: dict[str, Any], *, whole: bool) -> int:
    decoder = Decoder(whole=whole)
    if whole:
        answer = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], **told}
        events = [*decoder.feed(json.dumps(answer).encode()), *decoder.close()]
    else:
        chunks = [
            {"choices": [{"delta": {"content": "hi"}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], **told},
        ]
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        events = [*decoder.feed(lines.encode()), *decoder.close()]
    usage = [event.usage for event in events if isinstance(event, UsageSeen)][-1]
    assert usage.prompt == 1000
    return usage.cached
