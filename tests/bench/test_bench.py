"""The benchmark runs: a measurement that nobody can repeat is none."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.__main__ import INTRODUCTION, facts, with_section

from bench import dialects, embedded, engine, load, tool_calls
from qiao.policies.shorten import estimate, shorten
from tests.live.tricky_texts import Heard, all_cases, judged

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="processor time is read from Linux' /proc")
def test_the_gateway_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "gateway", "--quick", "--markdown", str(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = {row[0].strip(): row[1].split() for row in lines[1:]}
    assert len(rows) == 9
    for name, (number, unit) in rows.items():
        assert unit in ("µs", "ms", "s", "MB")
        # A difference of two latencies may be anything in so short a run.
        assert float(number) > 0 or name.startswith("added")
    assert page.read_text().startswith(INTRODUCTION.splitlines()[0])
    assert done.stdout.strip() in page.read_text()


def test_the_embedded_engine_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "embedded", "--quick"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in lines[1:]}
    assert len(rows) == 7
    prompt, cached, first, *_ = rows["200 tokens, cold"]
    assert (int(cached), int(prompt) > 200, float(first) > 0) == (0, True, True)
    # A busy machine may leave no time for the rest, which is said then.
    again = rows["200 tokens, the same again"]
    assert again[0].startswith("not measured") or int(again[1]) == int(again[0]) - 1


def test_what_time_did_not_suffice_for_is_said() -> None:
    assert embedded.row("6k tokens, cold", None) == "| 6k tokens, cold | not measured: no time was left | | | | |"
    found = embedded.Measured(prompt=1000, cached=0, first=5.0, written=32, writing=1.0)
    assert embedded.row("1k", found) == "| 1k | 1000 | 0 | 5.00 | 200 | 31 |"


def test_the_agents_session_is_longer_than_any_target() -> None:
    found = shorten(embedded.agent_session())
    assert "turns" in found.note
    assert 1200 < sum(estimate(str(turn.parts)) for turn in found.conversation.turns) < 2600


def test_a_page_keeps_what_was_not_measured() -> None:
    page = with_section(INTRODUCTION, "gateway", "## The gateway\n\nfirst\n")
    page = with_section(page, "embedded", "## The embedded engine\n\nother\n")
    page = with_section(page, "gateway", "## The gateway\n\nsecond \\1 run\n")
    assert "first" not in page
    assert "second \\1 run" in page
    assert "other" in page
    assert page.count("<!-- bench:gateway -->") == 1


def test_the_facts_name_no_machine() -> None:
    said = facts(quick=True)
    assert "cores" in said
    assert "not for comparing" in said
    assert "/" not in said.replace("x86_64", "")


def test_the_agent_request_has_its_size() -> None:
    body = load.agent(model="m", max_tokens=3)
    assert 70_000 <= len(body) < 75_000
    read = json.loads(body)
    assert len(read["tools"]) == 24
    assert read["messages"][-1]["role"] == "user"


def test_a_session_grows_as_an_agents_does() -> None:
    bodies = list(itertools.islice(load.session(model="m", max_tokens=3, number=7), 22))
    assert len(bodies[0]) >= 70_000
    assert len(bodies[-1]) < 90_000
    read = [json.loads(body) for body in bodies]
    for before, after in itertools.pairwise(read):
        last = before["messages"][-1]["content"][0]
        assert last.pop("cache_control")
        assert after["messages"][:-2] == before["messages"]
        assert {**after, "messages": None} == {**before, "messages": None}
    other = json.loads(next(load.session(model="m", max_tokens=3)))
    assert all(mine != theirs for mine, theirs in zip(read[0]["messages"], other["messages"], strict=False))


@pytest.mark.parametrize(
    ("body", "tokens"),
    [(b'{"max_tokens":7}', 7), (b'{"max_completion_tokens": 8}', 8), (b"{}", 3), (b'{"max_tokens":null}', 3)],
)
def test_the_bare_engine_reads_its_limit(body: bytes, tokens: int) -> None:
    assert engine.asked_tokens(body) == tokens


def test_the_bare_engine_writes_chunks_as_an_engine_does() -> None:
    data = engine.chunk(3, with_usage=True)
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    read = json.loads(data[6:])
    assert read["choices"][0]["delta"] == {"content": " word3"}
    assert read["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("name", list(dialects.texts(10_000)))
@pytest.mark.parametrize("piece", [4, 1 << 30], ids=["in pieces", "at once"])
def test_reading_calls_costs_the_same_for_every_character(name: str, piece: int) -> None:
    """A quadratic reader would cost ten times as much; the bar is wide because the machine has neighbours."""
    assert dialects.growth(name, piece, short=10_000, long=100_000, rounds=2) < 2.5


def test_a_call_goes_out_while_it_is_written() -> None:
    dialect, text = dialects.texts(100_000)["hermes, a file"]
    _, first = dialects.measure(dialect, text, 4)
    assert 0 < first < 100


def test_every_text_is_asked_on_servers_that_fit() -> None:
    cases = all_cases()
    found = tool_calls.groups(cases)
    assert sorted(name for group in found for name in group.cases) == sorted(cases)
    assert [group.parser for group in found if "B47" in group.cases] == ["qwen3_coder"]


def test_the_judge_knows_right_from_wrong() -> None:
    case = all_cases()["A2"]
    right = Heard("I will look.", "Let me see.", [("get_weather", {"city": "Paris", "days": 2})], 0, "tool_use")
    assert judged(case, right, thinking=True, stream=True) == "right"
    assert judged(case, right, thinking=False, stream=True) == "words lost or added"
    for change, verdict in (
        ({"calls": []}, "wrong calls"),
        ({"calls": [("get_weather", {"city": "Paris", "days": "2"})]}, "wrong calls"),
        ({"cut": 1}, "wrong calls"),
        ({"text": "I will"}, "words lost or added"),
        ({"text": "I will look.<tool_call>"}, "words lost or added"),
        ({"stop_reason": "end_turn"}, "wrong stop reason"),
        ({"failure": "500"}, "refused or broken"),
    ):
        assert judged(case, Heard(**{**vars(right), **change}), thinking=True, stream=True) == verdict
    cut = all_cases()["B37"]
    assert judged(cut, Heard(cut=1, stop_reason="max_tokens"), thinking=False, stream=True) == "right"
    assert judged(cut, Heard(cut=1, stop_reason="tool_use"), thinking=False, stream=True) == "wrong stop reason"


def test_the_comparison_counts_and_names() -> None:
    results: tool_calls.Results = {
        (candidate, name, stream): "wrong calls" if candidate == tool_calls.OWN and stream and name == "A2" else "right"
        for candidate in tool_calls.CANDIDATES
        for name in ("A1", "A2")
        for stream in (False, True)
    }
    table = tool_calls.table(results)
    assert f"| {tool_calls.OWN} | 2 | 1 | 1 | 0 | 0 | 0 |" in table
    assert f"* {tool_calls.OWN}: A2 s." in table
    assert f"* {tool_calls.RESTARTED}: none." in table
