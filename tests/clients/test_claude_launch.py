"""Settings files that would overrule us, and how a run is put together."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import msgspec

from qiao.clients.claude_code import variables
from qiao.clients.claude_launch import final_arguments, plan
from qiao.clients.claude_settings import Conflict, conflicts, settings_files
from tests.clients.connections import connection

DENIED = {"permissions": {"deny": ["WebSearch"]}}
OURS = {"permissions": {"deny": ["WebSearch"], "disableAutoMode": "disable"}}


def settings(folder: Path, **environment: object) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps({"env": environment}), "utf-8")
    return path


def test_where_claude_code_looks(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    project = [work / ".claude/settings.json", work / ".claude/settings.local.json"]
    assert settings_files({}, home, work) == [home / ".claude/settings.json", *project]
    own = {"CLAUDE_CONFIG_DIR": str(tmp_path / "own")}
    assert settings_files(own, home, work) == [tmp_path / "own/settings.json", *project]


def test_conflicts(tmp_path: Path) -> None:
    path = settings(
        tmp_path,
        ANTHROPIC_BASE_URL="http://old",
        ANTHROPIC_MODEL="qwen3-235b",
        ANTHROPIC_API_KEY="sk-ant",
        API_TIMEOUT_MS="1",
        OTHER="x",
        CLAUDE_CODE_USE_VERTEX=1,
        ANTHROPIC_SMALL_FAST_MODEL=["?"],
    )
    found = conflicts([tmp_path / "missing.json", path], variables(connection()))
    assert found == [
        Conflict("ANTHROPIC_BASE_URL", path, "http://old"),
        Conflict("ANTHROPIC_API_KEY", path, "sk-ant"),
        Conflict("CLAUDE_CODE_USE_VERTEX", path, "1"),
    ], "what agrees, what only tunes, and what is not ours is no conflict"


def test_broken_settings_are_claude_codes_affair(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b'{"env": []}', b"\xff"):
        (tmp_path / "settings.json").write_bytes(content)
        assert conflicts([tmp_path / "settings.json"], variables(connection())) == []


def test_a_plain_run(tmp_path: Path) -> None:
    launch = plan(connection(), ["-p", "hi"], {"PATH": "/bin"}, [])
    assert launch.notices == ()
    arguments = final_arguments(launch, tmp_path)
    assert arguments[0] == "--settings"
    assert json.loads(arguments[1]) == OURS
    assert arguments[2:] == ("-p", "hi")
    assert list(tmp_path.iterdir()) == []


def test_what_lists_its_models_as_an_engine_does_is_doubted() -> None:
    engine = msgspec.structs.replace(connection(), is_anthropic=False)
    (notice,) = plan(engine, ("-p", "hi"), {}, []).notices
    assert notice.startswith("http://127.0.0.1:4000 lists its models as OpenAI's API does.")


def test_a_users_own_choices_are_left_alone(tmp_path: Path) -> None:
    assert final_arguments(plan(connection(), ["--settings", "{}"], {}, []), tmp_path) == ("--settings", "{}")
    for own in (["--permission-mode", "plan"], ["--dangerously-skip-permissions", "-p", "x"]):
        arguments = final_arguments(plan(connection(), own, {}, []), tmp_path)
        assert (json.loads(arguments[1]), arguments[2:]) == (DENIED, tuple(own))


def test_claude_codes_own_commands_are_untouched(tmp_path: Path) -> None:
    base = {"ANTHROPIC_API_KEY": "sk-ant"}
    launch = plan(connection(window=8192), ["mcp", "list"], base, [settings(tmp_path, ANTHROPIC_BASE_URL="http://old")])
    assert (launch.arguments, launch.environment, launch.settings) == (("mcp", "list"), base, {})


def test_settings_that_contradict_are_overruled(tmp_path: Path) -> None:
    path = settings(tmp_path, ANTHROPIC_BASE_URL="http://old", CLAUDE_CODE_USE_BEDROCK="1")
    launch = plan(connection(window=8192), ["-p", "hi"], {}, [path])
    assert launch.settings == {
        **OURS,
        "env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:4000", "CLAUDE_CODE_USE_BEDROCK": ""},
    }
    assert launch.arguments == ("--bare", "-p", "hi")
    assert f"{path} sets ANTHROPIC_BASE_URL otherwise: it is overruled here." in launch.notices
    assert "http://old" not in "".join(launch.notices)


def test_a_key_goes_through_a_private_file(tmp_path: Path) -> None:
    path = settings(tmp_path, ANTHROPIC_AUTH_TOKEN="sk-theirs")
    arguments = final_arguments(plan(connection(), ["-p", "hi"], {}, [path]), tmp_path / "state")
    assert "sk-k" not in " ".join(arguments), "other users read command lines"
    written = Path(arguments[1])
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert json.loads(written.read_text("utf-8"))["env"] == {"ANTHROPIC_AUTH_TOKEN": "sk-k"}


def test_own_settings_are_kept_and_the_conflict_is_said(tmp_path: Path) -> None:
    path = settings(tmp_path, ANTHROPIC_BASE_URL="http://old")
    launch = plan(connection(), ["--settings", "own.json"], {}, [path])
    assert launch.settings == {}
    assert any("your --settings is kept" in notice for notice in launch.notices)
