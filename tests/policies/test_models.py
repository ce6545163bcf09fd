"""Which upstream model a name means."""

from __future__ import annotations

import pytest

from qiao.policies.models import Names, resolve

BIG = "Qwen/Qwen3-235B-A22B-Instruct-2507"
SMALL = "Qwen/Qwen3-4B"
SERVED = (BIG, SMALL)
PLAIN = {"qwen3-235b": BIG, "qwen3-4b": SMALL}


@pytest.mark.parametrize(
    "name", [BIG, BIG.lower(), f" {BIG} ", f"{BIG}[1m]", "qwen3-235b", "Qwen3-235B", "qwen3-235b[1m]"]
)
def test_own_names_and_plain_ids(name: str) -> None:
    assert resolve(name, SERVED, Names(plain=PLAIN)) == BIG


@pytest.mark.parametrize(
    "name",
    [
        "claude-sonnet-5",
        "claude-opus-4-1-20250805",
        "claude-sonnet-4-5[1m]",
        "Claude-Sonnet-5",
        "claude-3-5-sonnet-latest",
        "claude-haiku-4-5-20251001",
        "anthropic/claude-opus-5",
        "openrouter/anthropic/claude-opus-5",
        "us.anthropic.claude-opus-4-20250514-v1:0",
        "vertex_ai/claude-sonnet-4@20250514",
        "claude",
        "sonnet",
        "opus",
        "haiku",
        "default",
        "best",
        "opusplan",
        "sonnet[1m]",
    ],
)
def test_every_claude_name_reaches_the_main_model(name: str) -> None:
    assert resolve(name, SERVED, Names()) == BIG
    assert resolve(name, SERVED, Names(main="qwen3-4b", plain=PLAIN)) == SMALL


@pytest.mark.parametrize(
    "name", ["claude-haiku-4-5", "claude-3-5-haiku-latest", "haiku", "us.anthropic.claude-haiku-5-v1:0"]
)
def test_haiku_is_the_small_model(name: str) -> None:
    assert resolve(name, SERVED, Names(small=SMALL)) == SMALL
    assert resolve("claude-sonnet-5", SERVED, Names(small=SMALL)) == BIG


def test_a_sub_agent_s_claude_name_reaches_its_own_model() -> None:
    names = Names(main=BIG, small="tiny", subagent="qwen3-4b", plain=PLAIN)
    assert resolve("claude-sonnet-5", SERVED, names, is_subagent=True) == SMALL
    assert resolve("claude-haiku-5", SERVED, names, is_subagent=True) == SMALL
    assert resolve("claude-haiku-5", SERVED, names) == "tiny"
    assert resolve(BIG, SERVED, names, is_subagent=True) == BIG


def test_the_explicit_map_wins_over_everything() -> None:
    names = Names(main=BIG, exact={"claude-opus-5": "qwen3-4b", BIG: SMALL, "gpt-4o": "elsewhere"}, plain=PLAIN)
    assert resolve("claude-opus-5", SERVED, names) == SMALL
    assert resolve("Claude-Opus-5[1m]", SERVED, names) == SMALL
    assert resolve(BIG, SERVED, names) == SMALL
    assert resolve("gpt-4o", SERVED, names) == "elsewhere"


@pytest.mark.parametrize("name", ["", "gpt-4o", "qwen3", "claudette", "not-claude-like", "haikus", "[1m]"])
def test_other_names_mean_nothing(name: str) -> None:
    assert resolve(name, SERVED, Names(plain=PLAIN)) is None


def test_nothing_served_and_nothing_named() -> None:
    assert resolve("claude-opus-5", (), Names()) is None
    assert resolve("claude-opus-5", (), Names(main="later")) == "later"
