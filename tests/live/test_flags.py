"""The flags of every plan, taken by the argument parser of the real vLLM: the newest for CPU and an older one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qiao.planner import catalogue
from qiao.planner.plan import Plan
from tests.live.vllm.install import MODEL, OLDER, VERSION, older_folder
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
        {"gpus": "8xH100", "model": "qwen3-32b", "window": 131_072},
    ]
    found = []
    for wish in wishes:
        outcome = made(vllm_version=version, **wish)
        if isinstance(outcome, Plan):
            found.append(list(outcome.arguments))
    return found


# The configuration that the engine makes of its arguments, for the model of this suite.
CONFIGURED = """
import json, sys
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser
asked = EngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(sys.argv[1:])
made = EngineArgs.from_cli_args(asked).create_model_config()
print(json.dumps({"window": made.max_model_len, **made.hf_config.rope_parameters}))
"""


@pytest.fixture(params=[VERSION, OLDER])
def version(request: pytest.FixtureRequest) -> str:
    """Each vLLM whose flags are kept, where it is installed."""
    reason = absence()
    if reason is not None:
        pytest.skip(reason)
    if request.param == OLDER and not older_folder().exists():
        pytest.skip(f"no vLLM {OLDER} in {older_folder().name}: run `make live`, which unpacks it")
    return str(request.param)


def run(version: str, words: list[str | Path], home: Path, **more: Any) -> dict[str, Any]:
    """What Python with that vLLM prints as its last line, which is JSON."""
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            **({"PYTHONPATH": str(older_folder())} if version == OLDER else {}),
        },
        **more,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_real_parser_takes_every_plan(version: str, tmp_path: Path) -> None:
    asked = plans(version)
    assert len(asked) > 100
    told = run(version, [PLANNER / "record_flags.py", version, "--parse"], tmp_path, input=json.dumps(asked))
    assert told["version"].startswith(version)
    assert told["parsed"] == len(asked)
    assert told["flags"] == (FOLDER / "flags" / f"{version}.txt").read_text("utf-8").splitlines()


def test_the_real_configuration_is_stretched(version: str, tmp_path: Path) -> None:
    """By the fields that a plan gives, one by one; the suite's model has the window of Qwen3."""
    plan = made(gpus="8xH100", model="qwen3-32b", window=131_072, vllm_version=version)
    assert isinstance(plan, Plan)
    words = list(plan.arguments)
    stretching = [
        word for at, name in enumerate(words) if name.startswith("--hf-overrides.") for word in words[at : at + 2]
    ]
    assert len(stretching) == 10
    window = ["--max-model-len", str(plan.window)]
    told = run(version, ["-c", CONFIGURED, "--model", ENVIRONMENT / MODEL, *window, *stretching], tmp_path)
    assert told == {
        "window": 131_072,
        "rope_type": "yarn",
        "rope_theta": 1_000_000,
        "factor": 4.0,
        "original_max_position_embeddings": 32_768,
    }
