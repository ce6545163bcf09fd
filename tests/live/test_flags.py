"""The flags of every plan, taken by the argument parser of the real vLLM: the newest for CPU and an older one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from qiao.planner import catalogue
from qiao.planner.plan import Plan
from tests.live.vllm.install import OLDER, VERSION, older_folder
from tests.live.vllm.server import ENVIRONMENT, absence
from tests.planner.cases import FOLDER, made

PLANNER = Path(__file__).parent.parent / "planner"
MACHINES = ("1xT4", "1xRTX-4090", "4xA100-80G", "8xA100-40G", "4xH20-96G", "8xH100", "8xH200", "8xB200", "8xB300")


def plans(version: str) -> list[list[str]]:
    """The words of every plan that fits: each family on each machine, each wish."""
    wishes = [{"gpus": machine, "model": family.name} for machine in MACHINES for family in catalogue.FAMILIES]
    wishes += [{"gpus": "4xH20-96G", "preference": preference} for preference in ("quality", "speed")]
    wishes += [
        {"nodes": "2x8xH100-80G", "model": "qwen3-coder-480b"},
        {"nodes": "2x8xA100-40G", "preference": "quality"},
    ]
    found = []
    for wish in wishes:
        outcome = made(vllm_version=version, **wish)
        if isinstance(outcome, Plan):
            found.append(list(outcome.arguments))
    return found


@pytest.mark.parametrize("version", [VERSION, OLDER])
def test_the_real_parser_takes_every_plan(version: str) -> None:
    reason = absence()
    if reason is not None:
        pytest.skip(reason)
    older = older_folder()
    if version == OLDER and not older.exists():
        pytest.skip(f"no vLLM {OLDER} in {older.name}: run `make live`, which unpacks it")
    asked = plans(version)
    assert len(asked) > 100
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", PLANNER / "record_flags.py", version, "--parse"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            **({"PYTHONPATH": str(older)} if version == OLDER else {}),
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"].startswith(version)
    assert told["parsed"] == len(asked)
    assert told["flags"] == (FOLDER / "flags" / f"{version}.txt").read_text("utf-8").splitlines()
