"""`qiao doctor` as a person runs it: exit status, JSON, and what --fix touches."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.support.background import Background
from tests.support.claude_code import PROGRAM
from tests.support.command import Person
from tests.support.gateway import Gateway, free_port, gateway

KEY = "sk-doctor-0ff1ce9b3d"
CLAUDE = ("--claude", str(PROGRAM))
LOGS = Path(__file__).parent.parent / "golden" / "log_hints"


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


@pytest.fixture(scope="module")
def somebody(tmp_path_factory: pytest.TempPathFactory) -> Person:
    folder = tmp_path_factory.mktemp("somebody")
    return Person(folder / "home", folder / "work", {"QIAO_PORT": str(free_port())})


@pytest.fixture(scope="module")
def engine(background: Background) -> str:
    return background.enter(serving(FakeEngine({"qwen3-235b": Behaviour(max_model_len=65_536)})))


@pytest.fixture(scope="module")
def running(engine: str, somebody: Person) -> Iterator[Gateway]:
    with gateway(engine, somebody.home, key=KEY) as started:
        yield started


def diagnosed(person: Person, *arguments: str, **extra: str) -> tuple[int, dict[str, Any]]:
    done = person.qiao("doctor", *arguments, "--json", **extra)
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def grades(found: dict[str, Any]) -> dict[str, str]:
    return {each["check"]: each["grade"] for each in found["findings"]}


def test_the_schema(running: Gateway, somebody: Person) -> None:
    status, found = diagnosed(somebody, "--url", running.url, "--key", KEY, *CLAUDE)
    assert status == 0, [each for each in found["findings"] if each["grade"] == "problem"]
    assert set(found) == {"schema_version", "qiao", "status", "counts", "findings", "score", "fixes"}
    assert (found["schema_version"], found["status"]) == (1, "well")
    assert all(set(each) == {"check", "grade", "about", "evidence", "mend"} for each in found["findings"])
    score = found["score"]
    assert score["passed"] == score["total"]
    assert score["passed"] + score["failed"] + score["skipped"] == len(score["points"])
    fields = {"name", "group", "about", "must", "verdict", "evidence", "seconds"}
    assert all(set(point) == fields for point in score["points"])
    assert KEY not in json.dumps(found)


def test_the_score_sheet_in_words(running: Gateway, somebody: Person) -> None:
    done = somebody.qiao("doctor", "--url", running.url, *CLAUDE, QIAO_API_KEY=KEY)
    assert done.returncode == 0
    assert "* first_request" in done.stdout
    assert "score: 38 of 38 points (1 not judged)" in done.stdout
    assert "problems: 0" in done.stdout


def test_nothing_named_finds_the_gateway_that_runs(running: Gateway, somebody: Person) -> None:
    status, found = diagnosed(somebody, *CLAUDE)
    assert status == 0
    assert found["score"] is None
    assert {"server_down", "parser_missing", "port_in_use", "claude_missing", "disk", "clock"} <= set(grades(found))
    assert running.url in json.dumps(found)
    # The engine behind it was asked as well.
    assert {"prefix_caching_off", "token_details_off", "tool_reading"} <= set(grades(found))


def test_a_fault_of_the_engine_is_found_through_the_gateway(background: Background, tmp_path: Path) -> None:
    person = Person(tmp_path / "home", tmp_path / "work", {"QIAO_PORT": str(free_port())})
    url = background.enter(serving(FakeEngine({"m": Behaviour(max_model_len=65_536, prefix_caching=False)})))
    with gateway(url, person.home, key=KEY):
        status, found = diagnosed(person, *CLAUDE)
    assert status == 1
    assert grades(found)["prefix_caching_off"] == "problem"


def test_nothing_named_and_nothing_there(tmp_path: Path) -> None:
    person = Person(tmp_path / "home", tmp_path / "work")
    status, found = diagnosed(person, *CLAUDE, QIAO_PORT=str(free_port()))
    assert status == 0
    assert grades(found)["gateway_running"] == "note"


def test_a_gateway_whose_engine_died(background: Background, tmp_path: Path) -> None:
    person = Person(tmp_path / "home", tmp_path / "work", {"QIAO_PORT": str(free_port())})
    with Background() as own:
        url = own.enter(serving(FakeEngine({"m": Behaviour()})))
        started = gateway(url, person.home, key=KEY)
        front = started.__enter__()
    try:
        time.sleep(2.1)  # the gateway asks an engine for its facts at most every two seconds
        status, found = diagnosed(person, *CLAUDE)
    finally:
        started.__exit__(None, None, None)
    assert front.url
    assert status == 1
    assert grades(found)["upstream_down"] == "problem"


@pytest.mark.parametrize(
    ("behaviour", "check"),
    [({"tool_parser": False}, "parser_missing"), ({"system_anywhere": False}, "system_in_the_middle")],
)
def test_an_engine_with_a_fault(
    background: Background, somebody: Person, behaviour: dict[str, bool], check: str
) -> None:
    url = background.enter(serving(FakeEngine({"m": Behaviour(max_model_len=65_536, **behaviour)})))  # type: ignore[arg-type]
    status, found = diagnosed(somebody, "--upstream", url, *CLAUDE)
    assert status == 1
    assert {name for name, grade in grades(found).items() if grade == "problem"} == {check}


def test_wrong_key_and_wrong_url(running: Gateway, somebody: Person) -> None:
    for arguments, check in (
        (("--url", running.url, "--key", "sk-no"), "wrong_key"),
        (("--url", f"{running.url}/v1", "--key", KEY), "wrong_url"),
        (("--url", f"http://127.0.0.1:{free_port()}"), "server_down"),
    ):
        status, found = diagnosed(somebody, *arguments, *CLAUDE)
        assert status == 1
        assert grades(found)[check] == "problem"
        assert "sk-no" not in json.dumps(found)


def test_fighting_variables(running: Gateway, somebody: Person) -> None:
    extra = {"ANTHROPIC_BASE_URL": f"{running.url}/v1", "ANTHROPIC_API_KEY": "sk-x", "ANTHROPIC_AUTH_TOKEN": "sk-y"}
    status, found = diagnosed(somebody, *CLAUDE, **extra)
    assert status == 1
    assert (grades(found)["base_url"], grades(found)["two_keys"]) == ("problem", "problem")


def test_a_log_alone(somebody: Person) -> None:
    status, found = diagnosed(somebody, "--log", str(LOGS / "vllm_out_of_memory.log"))
    assert status == 1
    assert found["findings"][0]["check"] == "log_line.out_of_memory"
    assert found["findings"][0]["about"].endswith("vllm_out_of_memory.log:8")
    assert not {"disk", "port_in_use"} & set(grades(found))


def test_a_log_through_a_pipe(somebody: Person) -> None:
    done = somebody.qiao("doctor", "--log", "-", stdin="OSError: [Errno 98] Address already in use\n")
    assert done.returncode == 1
    assert "log_line.port_in_use (stdin:1)" in done.stdout


def test_a_log_that_is_not_there(somebody: Person) -> None:
    done = somebody.qiao("doctor", "--log", "nowhere.log")
    assert done.returncode == 2
    assert "nowhere.log" in done.stderr


def test_litellm_configurations_in_the_folder_are_read(tmp_path: Path) -> None:
    person = Person(tmp_path / "home", tmp_path / "work")
    (person.work / "config").mkdir()
    text = (LOGS / "guide_litellm_config.yaml").read_text("utf-8")
    (person.work / "config/litellm_config.yaml").write_text(text, "utf-8")
    status, found = diagnosed(person, *CLAUDE, QIAO_PORT=str(free_port()))
    assert status == 1
    assert {"litellm_config.sample_key", "litellm_config.openai_prefix"} <= set(grades(found))


# --fix


def spoil(person: Person, *, settings: bool = True) -> dict[str, Path]:
    """A home in which everything that --fix knows is wrong."""
    assert person.qiao("key").returncode == 0
    key = person.home / ".local/state/qiao/key"
    key.chmod(0o644)
    torn = key.parent / ".key.0123456789ab"
    torn.write_text("half")
    download = person.home / ".cache/qiao/models/.download-abc"
    download.mkdir(parents=True)
    (download / "part").write_bytes(b"x" * 2**20)
    long_ago = time.time() - 7_200
    for path in (torn, download / "part", download):
        os.utime(path, (long_ago, long_ago))
    claude = person.home / ".claude/settings.json"
    if settings:
        claude.parent.mkdir()
        claude.write_text('{"model": "opus", "env": {"ANTHROPIC_BASE_URL": "https://old.test", "KEEP": "1"}}', "utf-8")
    return {"key": key, "torn": torn, "download": download, "claude": claude}


@pytest.fixture
def patient(tmp_path: Path) -> Person:
    extra = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:4000", "QIAO_PORT": str(free_port())}
    return Person(tmp_path / "home", tmp_path / "work", extra)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_fix_nothing_is_touched(patient: Person) -> None:
    paths = spoil(patient)
    before = paths["claude"].read_bytes()
    done = patient.qiao("doctor", *CLAUDE)
    assert "`qiao doctor --fix` would mend:" in done.stdout
    for name in ("torn", "download"):
        assert str(paths[name]) in done.stdout
        assert paths[name].exists()
    assert str(paths["key"]) in done.stdout
    assert mode(paths["key"]) == 0o644
    assert paths["claude"].read_bytes() == before


def test_fix_mends_what_is_ours_and_says_what_is_not(patient: Person) -> None:
    paths = spoil(patient)
    before = paths["claude"].read_bytes()
    done = patient.qiao("doctor", "--fix", *CLAUDE)
    assert mode(paths["key"]) == 0o600
    assert not paths["torn"].exists()
    assert not paths["download"].exists()
    assert paths["claude"].read_bytes() == before
    assert "not qiao's" in done.stdout + done.stderr
    again, found = diagnosed(patient, "--fix", *CLAUDE)
    assert again == 1  # the settings still send the session elsewhere
    assert [(each["name"], each["done"]) for each in found["fixes"]] == [("claude_settings", False)]


def test_fix_with_yes_changes_the_settings_and_keeps_a_copy(patient: Person) -> None:
    paths = spoil(patient)
    before = paths["claude"].read_bytes()
    paths["claude"].chmod(0o640)
    _, found = diagnosed(patient, "--fix", "--yes", *CLAUDE)
    assert all(each["done"] for each in found["fixes"])
    assert json.loads(paths["claude"].read_bytes()) == {"model": "opus", "env": {"KEEP": "1"}}
    assert mode(paths["claude"]) == 0o640
    assert paths["claude"].with_name("settings.json.before-qiao").read_bytes() == before
    status, found = diagnosed(patient, *CLAUDE)
    assert (status, found["fixes"]) == (0, [])


def test_a_download_that_runs_is_left_alone(patient: Person) -> None:
    paths = spoil(patient, settings=False)
    (paths["download"] / "part").write_bytes(b"still coming")
    patient.qiao("doctor", "--fix", *CLAUDE)
    assert paths["download"].exists()


def test_yes_goes_with_fix(patient: Person) -> None:
    assert patient.qiao("doctor", "--yes").returncode == 2
