"""Claude Code and its variables, looked at in homes with real settings files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qiao.config import resolve
from qiao.doctor import look_local
from qiao.doctor.check_client import CHECKS
from qiao.doctor.finding import Finding, findings
from tests.support.claude_code import PROGRAM

GATEWAY = "http://127.0.0.1:4000"


def look(tmp_path: Path, variables: dict[str, str] | None = None, settings: Any = None) -> dict[str, Finding]:
    home = tmp_path / "home"
    (home / ".claude").mkdir(parents=True, exist_ok=True)
    if settings is not None:
        text = settings if isinstance(settings, str) else json.dumps(settings)
        (home / ".claude/settings.json").write_text(text, "utf-8")
    own = {"HOME": str(home), "PATH": "/usr/bin", **(variables or {})}
    config = resolve({"client.claude": str(PROGRAM)}, variables=own, folder=tmp_path)
    facts = look_local.client(config, own, tmp_path, GATEWAY)
    return {each.check: each for each in findings(CHECKS, facts)}


def bad(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.grade for name, finding in found.items() if finding.grade != "ok"}


def test_the_real_program_is_well(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert bad(found) == {}
    assert "2.1.330" in found["claude_missing"].evidence


def test_a_good_environment_is_well(tmp_path: Path) -> None:
    good = {"ANTHROPIC_BASE_URL": GATEWAY, "ANTHROPIC_AUTH_TOKEN": "sk-a", "ANTHROPIC_MODEL": "qwen3-235b"}
    good |= {"CLAUDE_CODE_MAX_CONTEXT_TOKENS": "131072", "HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost,127.0.0.1"}
    assert bad(look(tmp_path, good, {"env": {"ANTHROPIC_BASE_URL": GATEWAY}})) == {}


def test_no_program(tmp_path: Path) -> None:
    own = {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    config = resolve({"client.claude": str(tmp_path / "claude")}, variables=own, folder=tmp_path)
    facts = look_local.client(config, own, tmp_path, None)
    found = {each.check: each for each in findings(CHECKS, facts)}
    assert bad(found) == {"claude_missing": "warning"}
    assert "npm install" in (found["claude_missing"].mend or "")


def test_an_old_program(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    program.chmod(0o755)
    own = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    config = resolve({"client.claude": str(program)}, variables=own, folder=tmp_path)
    found = {each.check: each for each in findings(CHECKS, look_local.client(config, own, tmp_path, None))}
    assert bad(found) == {"claude_too_old": "warning"}
    assert "2.1.197" in found["claude_too_old"].evidence


@pytest.mark.parametrize(
    ("variables", "settings", "check", "grade", "words"),
    [
        ({"ANTHROPIC_BASE_URL": f"{GATEWAY}/v1"}, None, "base_url", "problem", f"ANTHROPIC_BASE_URL={GATEWAY}"),
        (
            {"ANTHROPIC_BASE_URL": GATEWAY},
            {"env": {"ANTHROPIC_BASE_URL": "https://elsewhere.example"}},
            "variables_overruled",
            "problem",
            "settings.json",
        ),
        ({"ANTHROPIC_BASE_URL": GATEWAY, "CLAUDE_CODE_USE_BEDROCK": "1"}, None, "rivals", "problem", "unset"),
        (
            {"ANTHROPIC_API_KEY": "sk-one", "ANTHROPIC_AUTH_TOKEN": "sk-two"},
            None,
            "two_keys",
            "problem",
            "unset ANTHROPIC_API_KEY",
        ),
        ({"ANTHROPIC_BASE_URL": GATEWAY, "HTTP_PROXY": "http://proxy:3128"}, None, "proxy", "warning", "NO_PROXY"),
        (
            {"ANTHROPIC_MODEL": "claude-sonnet-4-5", "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "32768"},
            None,
            "window_without_effect",
            "warning",
            "own name",
        ),
        ({}, "{broken", "settings_broken", "warning", "Mend"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else None,
)
def test_each_fight_is_found(
    tmp_path: Path, variables: dict[str, str], settings: Any, check: str, grade: str, words: str
) -> None:
    found = look(tmp_path, variables, settings)
    assert bad(found) == {check: grade}
    assert words in (found[check].mend or "")


def test_keys_are_never_shown(tmp_path: Path) -> None:
    found = look(
        tmp_path,
        {"ANTHROPIC_AUTH_TOKEN": "sk-first-secret", "ANTHROPIC_API_KEY": "sk-third-secret"},
        {"env": {"ANTHROPIC_AUTH_TOKEN": "sk-second-secret"}},
    )
    assert set(bad(found)) == {"variables_overruled", "two_keys"}
    assert "secret" not in repr(found)


def test_the_settings_win_over_the_environment(tmp_path: Path) -> None:
    """A key that only the environment sets twice is fought out there; a settings file that mends it is believed."""
    found = look(tmp_path, {"ANTHROPIC_BASE_URL": f"{GATEWAY}/v1"}, {"env": {"ANTHROPIC_BASE_URL": GATEWAY}})
    assert set(bad(found)) == {"variables_overruled"}
