"""What engines understand, by family, version and model."""

from __future__ import annotations

import pytest

from qiao.profiles.engines import ALL_EFFORTS, THREE_EFFORTS, target_for, version_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.32.0", (0, 32, 0)),
        ("0.32.0+cpu", (0, 32, 0)),
        ("v0.9.2rc1", (0, 9, 2)),
        ("1.0.dev7", (1, 0)),
        ("main", None),
        ("", None),
        (None, None),
    ],
)
def test_version_of(text: str | None, expected: tuple[int, ...] | None) -> None:
    assert version_of(text) == expected


@pytest.mark.parametrize(
    ("version", "model", "efforts", "field"),
    [
        ("0.32.0", "qwen3-235b", ALL_EFFORTS, "reasoning"),
        ("0.31.9", "qwen3-235b", THREE_EFFORTS, "reasoning"),
        (None, "qwen3-235b", THREE_EFFORTS, "reasoning"),
        ("0.16.0", "m", THREE_EFFORTS, "reasoning"),
        ("0.15.1", "m", THREE_EFFORTS, "reasoning_content"),
        ("0.33.0", "gpt-oss-120b", ("low", "medium", "high"), "reasoning"),
        ("0.33.0", "Qwen3.8-27B", ("low", "medium", "xhigh"), "reasoning"),
        ("0.20.0", "Qwen3.8-27B", ("low", "medium"), "reasoning"),
        ("0.33.0", "Qwen3-235B-A22B-Instruct-2507", (), "reasoning"),
        ("0.33.0", "acme/unknown-7b", ALL_EFFORTS, "reasoning"),
    ],
)
def test_vllm(version: str | None, model: str, efforts: tuple[str, ...], field: str) -> None:
    target = target_for("vllm", version, model)
    assert (target.model, target.flavor, target.stop_limit) == (model, "vllm", 4)
    assert target.effort_values == efforts
    assert target.reasoning_field == field
    assert target.continuous_usage
    assert target.prefill == "flags"
    assert target.thinking_budget, "a server without a reasoning parser refuses it, and that is healed"


def test_a_served_name_hides_the_model_its_root_tells() -> None:
    assert target_for("vllm", "0.33.0", "main").effort_values == ALL_EFFORTS
    known = target_for("vllm", "0.33.0", "main", root="/models/Qwen3.8-27B")
    assert known.effort_values == ("low", "medium", "xhigh")
    assert known.model == "main"


def test_sglang() -> None:
    target = target_for("sglang", "0.5.23", "openai/gpt-oss-20b")
    assert target.stop_limit is None
    assert target.reasoning_field == "reasoning_content"
    assert target.effort_values == ("low", "medium", "high")
    assert target.usage_in_stream
    assert not target.continuous_usage


def test_llamacpp() -> None:
    target = target_for("llamacpp", None, "m.gguf")
    assert target.max_tokens_field == "max_tokens"
    assert target.prefill == "implicit"
    assert target.effort_values == ()
    assert target.template_kwargs


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("gpt-5", True),
        ("gpt-5.4-mini", True),
        ("o3", True),
        ("openai/gpt-oss-120b", True),
        ("gpt-4o", False),
        ("x", False),
    ],
)
def test_openai_takes_nothing_that_it_does_not_know(model: str, reasons: bool) -> None:
    target = target_for("openai", None, model)
    assert bool(target.effort_values) == reasons
    assert not target.template_kwargs
    assert not target.continuous_usage
    assert target.reasoning_field is None
    assert target.prefill == "none"
    assert target.extras is not None
    assert "top_k" not in target.extras


def test_efforts_are_ordered_weakest_first() -> None:
    assert ALL_EFFORTS == ("none", "minimal", "low", "medium", "high", "xhigh", "max")
