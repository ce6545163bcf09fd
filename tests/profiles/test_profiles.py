"""Families: which name belongs to which, and that every fact has a reason."""

from __future__ import annotations

import re

import msgspec
import pytest

from qiao.profiles import FAMILIES, UNKNOWN, Profile, find


@pytest.mark.parametrize(
    ("name", "family", "plain_id"),
    [
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen3 Instruct 2507", "qwen3-235b"),
        ("Qwen/Qwen3-235B-A22B-Thinking-2507", "Qwen3 Thinking 2507", "qwen3-235b"),
        ("Qwen/Qwen3-235B-A22B", "Qwen3", "qwen3-235b"),
        ("qwen3-235b", "Qwen3", "qwen3-235b"),
        ("/models/Qwen3-30B-A3B-Instruct-2507/", "Qwen3 Instruct 2507", "qwen3-30b"),
        (r"C:\models\Qwen3-0.6B-Q8_0.gguf", "Qwen3", "qwen3-0.6b"),
        ("/hub/models--Qwen--Qwen3-30B-A3B-Instruct-2507/snapshots/0d7cf239", "Qwen3 Instruct 2507", "qwen3-30b"),
        ("/hub/models--Qwen--Qwen3-8B-GGUF/snapshots/7c41/Qwen3-8B-Q4_K_M.gguf", "Qwen3", "qwen3-8b"),
        ("/hub/models--acme-7b/snapshots/main", "unknown", "acme-7b"),
        ("/modelscope/hub/models/Qwen/Qwen3___5-35B-A3B", "Qwen3.5", "qwen3.5-35b"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "Qwen3 Instruct 2507", "qwen3-next-80b"),
        ("Qwen/Qwen3-Next-80B-A3B-Thinking", "Qwen3 Thinking 2507", "qwen3-next-80b"),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", "Qwen3-Coder", "qwen3-coder-480b"),
        ("Qwen/Qwen3-Coder-Next", "Qwen3-Coder", "qwen3-coder-next"),
        ("qwen3-coder", "Qwen3-Coder", "qwen3-coder"),
        ("Qwen/Qwen3-VL-235B-A22B-Thinking", "Qwen3-VL Thinking", "qwen3-vl-235b"),
        ("Qwen/Qwen3-VL-8B-Instruct", "Qwen3-VL", "qwen3-vl-8b"),
        ("Qwen/Qwen3.5-397B-A17B", "Qwen3.5", "qwen3.5-397b"),
        ("Qwen/Qwen3.6-35B-A3B-FP8", "Qwen3.6", "qwen3.6-35b"),
        ("Qwen/Qwen3.8-27B-AWQ-INT4", "Qwen3.8", "qwen3.8-27b"),
        ("Qwen/Qwen3.8-2.4T-A95B", "Qwen3.8", "qwen3.8-2.4t"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL", "qwen2.5-vl-7b"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", "Qwen2.5", "qwen2.5-coder-32b"),
        ("Qwen/Qwen2.5-72B-Instruct", "Qwen2.5", "qwen2.5-72b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "Llama 3.1 and later", "llama-3.3-70b"),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", "Llama 3.2 Vision", "llama-3.2-11b-vision"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "Llama 3", "llama-3-8b"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "Llama 4", "llama-4-scout"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "Hermes", "hermes-3-llama-3.1-8b"),
        ("NousResearch/Hermes-2-Pro-Mistral-7B", "Hermes", "hermes-2-pro-mistral-7b"),
        ("NousResearch/Hermes-4-70B-FP8", "Hermes 4", "hermes-4-70b"),
        ("mistralai/Devstral-Small-2507", "Mistral", "devstral-small-2507"),
        ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek-R1", "deepseek-r1-0528"),
        ("deepseek-ai/DeepSeek-V3-0324", "DeepSeek-V3", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "DeepSeek-V3.1", "deepseek-v3.2"),
        ("zai-org/GLM-4.5-Air-FP8", "GLM-4.5", "glm-4.5-air"),
        ("zai-org/GLM-4.5V", "GLM vision", "glm-4.5v"),
        ("zai-org/GLM-4.7", "GLM-4.7 and later", "glm-4.7"),
        ("moonshotai/Kimi-K2-Instruct-0905", "Kimi-K2", "kimi-k2"),
        ("moonshotai/Kimi-K2-Thinking", "Kimi-K2 Thinking", "kimi-k2-thinking"),
        ("moonshotai/Kimi-K2.5", "Kimi-K2.5", "kimi-k2.5"),
        ("openai/gpt-oss-120b", "gpt-oss", "gpt-oss-120b"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2", "smollm2-135m"),
        ("acme/Thing-7B-GPTQ-Int4:latest", "unknown", "thing-7b"),
        ("", "unknown", "model"),
    ],
)
def test_find(name: str, family: str, plain_id: str) -> None:
    found = find(name)
    assert (found.family, found.plain_id) == (family, plain_id)


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes"),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "pythonic"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json"),
    ],
)
def test_how_calls_are_written(name: str, dialect: str) -> None:
    assert find(name).dialect == dialect


def test_the_first_known_of_several_names_decides() -> None:
    assert find("/models/Qwen3.8-27B", "main").family == "Qwen3.8"
    assert find("/data/weights", "qwen3-235b").family == "Qwen3"
    assert find(None, "acme-7b").plain_id == "acme-7b"
    assert find("/data/weights", "acme-7b").plain_id == "acme-7b"
    assert find().family == "unknown"


def test_no_plain_id_looks_like_claude() -> None:
    """Claude Code believes a window limit for names only that it does not know."""
    assert find("someone/claude-distill-7b").plain_id == "open-claude-distill-7b"
    assert not any("claude" in family.plain_id for family in FAMILIES)


@pytest.mark.parametrize("profile", [*FAMILIES, UNKNOWN], ids=lambda profile: profile.family)
def test_every_fact_has_a_reason(profile: Profile) -> None:
    facts = set(profile.__struct_fields__) - {"family", "pattern", "plain_id", "why"}
    defaults = {field.name: field.default for field in msgspec.structs.fields(Profile)}
    set_here = {name for name in facts if getattr(profile, name) != defaults[name]}
    # What decides whether a request is refused is stated even where it is the default.
    stated = set_here | {"system_in_place", "images", "reasoning"}
    assert stated <= set(profile.why), f"no reason for {sorted(stated - set(profile.why))}"
    assert set(profile.why) <= facts, f"reasons for no fact: {sorted(set(profile.why) - facts)}"
    assert all(len(reason) > 8 for reason in profile.why.values())


@pytest.mark.parametrize("profile", FAMILIES, ids=lambda profile: profile.family)
def test_a_family_makes_sense(profile: Profile) -> None:
    assert (profile.thinking_kwarg is not None) == (profile.reasoning == "hybrid")
    assert (profile.keep_kwarg is not None) == (profile.resend == "keep")
    assert profile.reasoning != "none" or profile.resend == "drop"
    groups = set(re.compile(profile.pattern).groupindex)
    assert set(re.findall(r"{(\w+)}", profile.plain_id)) <= groups


def test_families_have_names_of_their_own() -> None:
    assert len({family.family for family in FAMILIES}) == len(FAMILIES)


def test_an_unknown_model_is_treated_carefully() -> None:
    """Pictures and system turns go on, since an engine's refusal is healed; no effort, since a template may raise."""
    assert UNKNOWN.images is None
    assert UNKNOWN.system_in_place
    assert UNKNOWN.effort == ()
    assert UNKNOWN.max_output is None
