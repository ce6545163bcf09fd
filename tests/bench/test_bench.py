"""The benchmark runs: a measurement that nobody can repeat is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.__main__ import INTRODUCTION, facts, with_section

from bench import engine, load

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
    assert len(rows) == 8
    for name, (number, unit) in rows.items():
        assert unit in ("µs", "ms", "s", "MB")
        # A difference of two latencies may be anything in so short a run.
        assert float(number) > 0 or name.startswith("added")
    assert page.read_text().startswith(INTRODUCTION.splitlines()[0])
    assert done.stdout.strip() in page.read_text()


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
