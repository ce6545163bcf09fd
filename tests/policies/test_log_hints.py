"""Lines of logs and what they mean. The cases stand in tests/golden/log_hints/."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.policies.log_hints import MAX_LINE, TABLE, hint
from qiao.policies.log_rule import LogRule
from tests.support.troubleshooting import examples, lines

FOLDER = Path(__file__).parent.parent / "golden" / "log_hints"
CASES = lines()
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


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.hint.name)
def test_every_wording_has_a_case(rule: LogRule) -> None:
    assert [pattern for pattern in rule.patterns if not examples(rule.hint.name, pattern)] == []


@pytest.mark.parametrize(
    "line",
    [
        "WARNING 11-22 10:00:00 [fp8.py:130] CUTLASS FP8 block-scaled GEMM not supported here, falling back to Triton",
        "(APIServer pid=1) WARNING 11-22 10:00:00 [usage_lib.py:212] PermissionError: [Errno 13] Permission denied",
        "(MaxRetryError(\"host='huggingface.co'\")) thrown while requesting HEAD https://huggingface.co/x",
        "gpu1:149:149 [0] misc/socket.cc:484 NCCL WARN socketStartConnect: Connect to 10.0.0.2<51423> failed",
    ],
)
def test_what_is_said_in_passing_ends_nothing(line: str) -> None:
    found = hint(line)
    assert found is not None
    assert found.severity == "warning"


def test_nccl_takes_sockets_where_no_infiniband_is() -> None:
    assert hint("gpu1:149:149 [0] transport/net_ib.cc:198 NCCL WARN NET/IB : No device found.") is None


def test_a_healthy_start_says_nothing() -> None:
    assert {line: found.name for line in QUIET if (found := hint(line))} == {}


def test_the_numbers_of_the_line_are_told() -> None:
    found = hint(
        "ValueError: Weight output_partition_size = 192 is not divisible by weight quantization block_n = 128."
    )
    assert found is not None
    assert "192 is no multiple of 128" in found.cause


@pytest.mark.parametrize("rule", TABLE, ids=lambda rule: rule.hint.name)
def test_rules_are_written_for_people(rule: LogRule) -> None:
    known = rule.hint
    for text in (known.cause, known.mend):
        assert text[0].isupper() or text[0] in "`/-{1234567890" or text.startswith(("qiao", "hermes"))
        assert text.endswith((".", ")", "…"))


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    found = hint(text)
    assert found is None or "{" not in found.cause


def test_long_lines_cost_little() -> None:
    assert hint("x" * MAX_LINE + "CUDA out of memory") is None
