"""What Claude Code is told, and what wins where the user has said something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.clients.claude_code import (
    SMALL_WINDOW,
    environment,
    is_session,
    output_limit,
    trim,
    variables,
    wants_own_mode,
)
from qiao.clients.connection import NO_KEY, Connection
from tests.clients.connections import connection


def values(of: Connection) -> dict[str, str | None]:
    return {variable.name: variable.value for variable in variables(of)}


def test_a_large_model() -> None:
    found = values(connection())
    assert found == {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:4000",
        "ANTHROPIC_AUTH_TOKEN": "sk-k",
        "ANTHROPIC_MODEL": "qwen3-235b",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "qwen3-235b",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "qwen3-235b",
        "ANTHROPIC_DEFAULT_FABLE_MODEL": "qwen3-235b",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "small-model",
        "ANTHROPIC_SMALL_FAST_MODEL": "small-model",
        "CLAUDE_CODE_SUBAGENT_MODEL": "sub-model",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "131072",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "32000",
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": "131072",
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "API_TIMEOUT_MS": "1800000",
        "CLAUDE_STREAM_IDLE_TIMEOUT_MS": "1800000",
        "API_FORCE_IDLE_TIMEOUT": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "ANTHROPIC_API_KEY": None,
        "CLAUDE_CODE_OAUTH_TOKEN": None,
        "CLAUDE_CODE_USE_BEDROCK": None,
        "CLAUDE_CODE_USE_VERTEX": None,
        "CLAUDE_CODE_USE_FOUNDRY": None,
        "CLAUDE_CODE_USE_GATEWAY": None,
        "ANTHROPIC_CUSTOM_MODEL_OPTION": None,
    }


def test_a_small_window_leaves_the_decision_to_the_gateway() -> None:
    found = values(connection(window=8192, output_limit=4096))
    assert found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "8192"
    assert found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "1024"
    assert found["CLAUDE_CODE_DISABLE_UNKNOWN_MODEL_WINDOW_ENFORCEMENT"] == "1"
    assert "CLAUDE_CODE_AUTO_COMPACT_WINDOW" not in found, "below 100 000 it counts as 100 000"


@pytest.mark.parametrize(
    ("window", "told"), [(31_999, 31_999), (32_768, 45_768), (39_999, 52_999), (40_960, 40_960), (131_072, 131_072)]
)
def test_a_window_of_32k_is_used_to_its_end(window: int, told: int) -> None:
    """Claude Code keeps 13 000 tokens free beside the longest answer: of 32k it would use less than half."""
    found = values(connection(window=window))
    assert found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == str(told)
    compacts_at = told - int(found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] or 0) - 13_000
    if told != window:
        assert compacts_at + int(found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] or 0) == window


def test_an_unknown_window() -> None:
    found = values(connection(window=None, output_limit=None))
    assert found["CLAUDE_CODE_DISABLE_1M_CONTEXT"] == "1"
    assert "CLAUDE_CODE_MAX_CONTEXT_TOKENS" not in found


def test_no_key_is_still_something_to_show() -> None:
    assert values(connection(key=None))["ANTHROPIC_AUTH_TOKEN"] == NO_KEY


def test_every_variable_says_why_in_one_clause() -> None:
    for window in (None, 8192, 40960, 131072):
        found = variables(connection(window=window))
        assert len({variable.name for variable in found}) == len(found)
        for variable in found:
            assert variable.why[0].islower(), variable.name
            assert "\n" not in variable.why
            assert not variable.why.endswith("."), variable.name


@given(st.integers(512, 2_000_000), st.none() | st.integers(1, 200_000))
def test_the_output_limit_leaves_room_before_compaction(window: int, allowed: int | None) -> None:
    limit = output_limit(window, allowed)
    assert 0 < limit <= (allowed or 128_000)
    if window >= SMALL_WINDOW:
        # Measured: Claude Code compacts at window - min(limit, 20 000) - 13 000 tokens.
        assert window - min(limit, 20_000) - 13_000 >= 14_000


def test_the_environment_of_a_fresh_user() -> None:
    found = environment(connection(), {"PATH": "/bin", "HOME": "/h"})
    assert found.notices == ()
    assert found.values["PATH"] == "/bin"
    assert found.values["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4000"
    assert "ANTHROPIC_API_KEY" not in found.values


def test_what_would_lead_elsewhere_is_overruled_and_named() -> None:
    base = {
        "ANTHROPIC_BASE_URL": "http://old:8082",
        "ANTHROPIC_AUTH_TOKEN": "sk-their-secret",
        "ANTHROPIC_API_KEY": "sk-ant-their-secret",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "ANTHROPIC_MODEL": "qwen3-235b",
    }
    found = environment(connection(), base)
    assert found.values["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4000"
    assert found.values["ANTHROPIC_AUTH_TOKEN"] == "sk-k"
    assert "ANTHROPIC_API_KEY" not in found.values
    assert "CLAUDE_CODE_USE_BEDROCK" not in found.values
    why = "it would be sent beside the gateway's key, and asks for approval in the terminal"
    assert found.notices == (
        "ANTHROPIC_BASE_URL: http://127.0.0.1:4000 instead of http://old:8082.",
        "ANTHROPIC_AUTH_TOKEN: the gateway's key instead of your value.",
        f"ANTHROPIC_API_KEY is set and left out here: {why}.",
        "CLAUDE_CODE_USE_BEDROCK is set and left out here: it would send everything to AWS.",
    )
    assert "secret" not in "".join(found.notices)


def test_the_users_own_tuning_stays() -> None:
    found = environment(connection(), {"API_TIMEOUT_MS": "5000", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "1000"})
    assert found.values["API_TIMEOUT_MS"] == "5000"
    assert found.values["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "1000"
    assert found.notices == ()


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:3128"}, "127.0.0.1"),
        ({"https_proxy": "http://p:3128", "NO_PROXY": "example.com, ::1"}, "example.com,::1,127.0.0.1"),
        ({"HTTP_PROXY": "http://p:3128", "NO_PROXY": "a", "no_proxy": "b"}, "b,127.0.0.1"),
        ({"HTTP_PROXY": "http://p:3128", "no_proxy": "127.0.0.1"}, "127.0.0.1"),
        ({"HTTP_PROXY": "http://p:3128", "no_proxy": "*"}, "*"),
    ],
)
def test_the_way_to_the_gateway_leads_past_proxies(base: dict[str, str], expected: str | None) -> None:
    found = environment(connection(), base).values
    assert found.get("NO_PROXY") == expected
    assert found.get("no_proxy") == expected


@pytest.mark.parametrize(
    ("window", "arguments", "added"),
    [
        (8192, [], ("--bare",)),
        (8192, ["-p", "hi"], ("--bare",)),
        (31_999, ["--continue"], ("--bare",)),
        (32_768, ["-p", "hi"], ("--tools=Bash,Edit,Glob,Grep,Read,Write",)),
        (63_999, [], ("--tools=Bash,Edit,Glob,Grep,Read,Write",)),
        (64_000, [], ()),
        (None, [], ()),
        (8192, ["--bare", "-p", "hi"], ()),
        (8192, ["--tools", "Bash", "-p", "hi"], ()),
        (8192, ["--tools=", "-p", "hi"], ()),
        (8192, ["--system-prompt", "x"], ()),
        (8192, ["mcp", "list"], ()),
        (8192, ["--version"], ()),
    ],
)
def test_what_is_added_for_small_windows(window: int | None, arguments: list[str], added: tuple[str, ...]) -> None:
    found = trim(window, arguments)
    assert found.arguments == added
    assert (found.notice is not None) == bool(added)
    if found.notice:
        assert str(window) in found.notice


@pytest.mark.parametrize(
    ("arguments", "session"),
    [
        ([], True),
        (["-p", "hi"], True),
        (["fix the mcp server"], True),
        (["mcp", "list"], False),
        (["update"], False),
        (["-v"], False),
        (["-h"], False),
        (["-p", "mcp"], True),
        (["--", "--help"], True),
    ],
)
def test_sessions(arguments: list[str], session: bool) -> None:
    assert is_session(arguments) is session


def test_an_own_permission_mode_is_respected() -> None:
    assert not wants_own_mode(["-p", "hi"])
    assert wants_own_mode(["--permission-mode", "plan"])
    assert wants_own_mode(["--permission-mode=plan"])
    assert wants_own_mode(["--dangerously-skip-permissions"])
    assert wants_own_mode(["--settings", "x.json"])
    assert wants_own_mode(["mcp", "list"])
