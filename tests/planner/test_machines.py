"""Whole plans for described machines: tests/golden/plans/machines/*.case.

`GOLDEN_ACCEPT=1` writes what comes out; a person reads the difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qiao.planner.explain import as_json, explain
from qiao.planner.plan import Outcome
from tests.planner.cases import Case, cases, made


def summary(outcome: Outcome) -> dict[str, Any]:
    """What matters of a plan, in few lines."""
    found = as_json(outcome)
    if not found["fits"]:
        return {
            "fits": False,
            "message": found["message"],
            "nearest": [f"{each['text']} | {each['command']}" for each in found["nearest"]],
            "reasons": [each["text"] for each in found["reasons"]],
        }
    tightest = min(found["memory"]["per_gpu"], key=lambda each: each["kv_cache_bytes"])
    return {
        "fits": True,
        "parallel": found["parallel"],
        "window": found["window"],
        "concurrency": found["concurrency"],
        "args": " ".join(found["args"]),
        "env": found["env"],
        "gpu_gib": {
            key: round(value / 2**30, 2) for key, value in tightest.items() if key.endswith("_bytes") and value
        },
        "warnings": [each["text"] for each in found["warnings"]],
    }


@pytest.mark.parametrize("path", cases("machines"), ids=lambda path: path.stem)
def test_machine(path: Path) -> None:
    case = Case(path)
    asked = dict(case.given)
    outcome = made(vllm_version=asked.pop("vllm", None), **asked)
    found = summary(outcome)
    if case.accept(found):
        return
    assert json.dumps(found, indent=1, ensure_ascii=False) == json.dumps(case.expected, indent=1, ensure_ascii=False)
    assert explain(outcome)
