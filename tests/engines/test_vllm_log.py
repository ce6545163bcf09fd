"""vLLM's start-up lines to progress: captured logs in, what a person is told out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.engines.vllm_log import bare, cause_of, is_progress_bar, step_of

GOLDEN = Path(__file__).parent.parent / "golden"
FOLDER = GOLDEN / "engine_logs"
FAILURES = GOLDEN / "engine_failures"
SEPARATOR = "----------\n"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.case")), ids=lambda path: path.stem)
def test_captured_logs(path: Path) -> None:
    head, _, expected = path.read_text("utf-8").partition(SEPARATOR)
    told = []
    for line in head.splitlines()[1:]:
        step = step_of(line)
        if step is not None:
            told.append(f"{step.message}{f' {step.fraction:.0%}' if step.fraction is not None else ''}")
    text = "".join(f"{each}\n" for each in told)
    if os.environ.get("GOLDEN_ACCEPT") == "1":
        path.write_text(f"{head}{SEPARATOR}{text}", "utf-8")
        return
    assert text == expected


@pytest.mark.parametrize("path", sorted(FAILURES.glob("*.case")), ids=lambda path: path.stem)
def test_captured_failures(path: Path) -> None:
    head, _, expected = path.read_text("utf-8").partition(SEPARATOR)
    cause = cause_of([line for line in head.splitlines()[1:] if not is_progress_bar(line)])
    text = "unknown\n"
    if cause is not None:
        text = f"{cause.text}\n{cause.hint or 'no mend is known'}\n{'final' if cause.is_final else 'tried again'}\n"
    if os.environ.get("GOLDEN_ACCEPT") == "1":
        path.write_text(f"{head}{SEPARATOR}{text}", "utf-8")
        return
    assert text == expected


def test_who_says_it_and_when_is_left_out() -> None:
    assert bare("(EngineCore_DP0 pid=284) INFO 05-30 07:47:01 [core.py:1] init took 1 s") == "init took 1 s"
    assert bare("(Worker_TP0 pid=34322)") == ""
    assert bare("ValueError: (not a speaker) text") == "ValueError: (not a speaker) text"


def test_bars_are_told_from_words() -> None:
    assert is_progress_bar("Loading safetensors checkpoint shards:  56% Completed | 5/9 [00:13<00:11,  2.87s/it]")
    assert is_progress_bar("Fetching 24 files:  12%|x         | 3/24 [00:10<01:12,  3.45s/it]")
    assert not is_progress_bar("(EngineCore pid=1) INFO 05-30 07:47:01 [x.py:1] 90% of the memory is used")


@given(st.text(max_size=200))
def test_any_line_can_be_read(line: str) -> None:
    step = step_of(line)
    assert step is None or step.fraction is None or 0 <= step.fraction <= 1
    bare(line)
    is_progress_bar(line)
