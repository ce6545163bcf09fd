"""Finding Claude Code, and asking its version, with programs that are really there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qiao.clients.claude_program import Program, find, version, version_notice
from qiao.errors import ClientMissingError


def program(path: Path, says: str = "2.1.330 (Claude Code)") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n", "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where claude-agent-sdk is not installed."""
    monkeypatch.setitem(sys.modules, "claude_agent_sdk", None)


def test_the_order_of_places(tmp_path: Path, no_bundle: None) -> None:
    home, variables = tmp_path / "home", {"PATH": str(tmp_path / "bin")}
    with pytest.raises(ClientMissingError) as raised:
        find(None, "", variables, home)
    assert raised.value.message == "Claude Code is not installed."
    assert "npm install -g @anthropic-ai/claude-code@2.1.330" in (raised.value.hint or "")
    assert "2.1.197" in (raised.value.hint or ""), "the trap of older Node"
    assert raised.value.exit_status == 1
    local = program(home / ".local/bin/claude")
    assert find(None, "", variables, home).path == local
    on_path = program(tmp_path / "bin/claude")
    assert find(None, "", variables, home) == Program(on_path, "PATH")
    chosen = program(tmp_path / "own/claude")
    assert find(chosen, "--claude", variables, home) == Program(chosen, "--claude")


def test_the_one_inside_the_agent_sdk_comes_last(tmp_path: Path) -> None:
    found = find(None, "", {"PATH": str(tmp_path)}, tmp_path)
    assert found.source == "claude-agent-sdk"
    assert found.path.is_file()


def test_a_chosen_program_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ClientMissingError, match="QIAO_CLAUDE names /nowhere/claude"):
        find(Path("/nowhere/claude"), "QIAO_CLAUDE", {"PATH": ""}, tmp_path)
    plain = tmp_path / "plain"
    plain.write_text("not a program", "utf-8")
    with pytest.raises(ClientMissingError):
        find(plain, "--claude", {"PATH": ""}, tmp_path)


@pytest.mark.parametrize(
    ("says", "expected"), [("2.1.330 (Claude Code)", "2.1.330"), ("1.0.44", "1.0.44"), ("no number", None)]
)
def test_versions(tmp_path: Path, says: str, expected: str | None) -> None:
    found = Program(program(tmp_path / "claude", says), "PATH")
    assert version(found, {"PATH": "/bin:/usr/bin"}) == expected


def test_a_program_that_cannot_run_has_no_version(tmp_path: Path) -> None:
    broken = tmp_path / "claude"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    assert version(Program(broken, "PATH"), {}) is None


def test_only_old_versions_are_worth_a_word() -> None:
    assert version_notice("2.1.330") is None
    assert version_notice("2.2.0") is None
    assert version_notice(None) is None
    assert "2.1.197" in (version_notice("2.1.197") or "")
