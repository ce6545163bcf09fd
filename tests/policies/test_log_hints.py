"""Lines of logs and what they mean. The cases stand in tests/golden/log_hints/."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.policies.log_hints import MAX_LINE, TABLE, hint

FOLDER = Path(__file__).parent.parent / "golden" / "log_hints"
CASES = [
    tuple(line.split("\t", 1))
    for line in (FOLDER / "lines.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
QUIET = (FOLDER / "quiet_vllm.log").read_text("utf-8").splitlines()


@pytest.mark.parametrize(("name", "line"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_a_line_is_known(name: str, line: str) -> None:
    found = hint(line)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(("name", "line"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_what_logs_put_before_a_line_does_not_hide_it(name: str, line: str) -> None:
    found = hint(f"(EngineCore_DP0 pid=123) ERROR 11-22 10:00:00 [core.py:700] {line}")
    assert found is not None
    assert found.name == name


def test_every_rule_has_a_case() -> None:
    assert {rule.hint.name for rule in TABLE} <= {name for name, _ in CASES}


def test_a_healthy_start_says_nothing() -> None:
    assert {line: found.name for line in QUIET if (found := hint(line))} == {}


def test_the_numbers_of_the_line_are_told() -> None:
    found = hint(
        "ValueError: Weight output_partition_size = 192 is not divisible by weight quantization block_n = 128."
    )
    assert found is not None
    assert "192 is no multiple of 128" in found.cause


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.hint.name)
def test_rules_are_written_for_people(rule: object) -> None:
    known = rule.hint  # type: ignore[attr-defined]
    for text in (known.cause, known.mend):
        assert text[0].isupper() or text[0] in "`/-{1234567890" or text.startswith(("qiao", "hermes"))
        assert text.endswith((".", ")", "…"))


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    found = hint(text)
    assert found is None or "{" not in found.cause


def test_long_lines_cost_little() -> None:
    assert hint("x" * MAX_LINE + "CUDA out of memory") is None
