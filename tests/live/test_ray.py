"""The exported Ray Serve application, run for real on a CPU, with the gateway in front (see `ray_inside`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from qiao.app.planning import request_of
from qiao.exports import Settings, render
from qiao.planner.choose import plan
from qiao.planner.plan import Plan
from tests.live.vllm.install import MODEL, ROOT, ray_folder
from tests.live.vllm.server import ENVIRONMENT, absence

RAY = ray_folder()
ISOLATED = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
NAME = "Qwen3-235B-A22B-Instruct-2507"
CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}


def _absence() -> str | None:
    if (reason := absence()) is not None:
        return reason
    if not (RAY / "bin" / "serve").exists():
        return f"no Ray in {RAY.name}: run `make live`, which installs it"
    if shutil.which("unshare") is None or subprocess.run([*ISOLATED, "true"], capture_output=True).returncode != 0:
        return "Ray opens ports to the outside, and this machine allows no network namespace (unshare) to keep it in"
    return None


def for_cpu(text: str) -> str:
    """The exported file with what a CPU has in the place of GPUs; all else stays as it was written."""
    found: dict[str, Any] = yaml.safe_load(text)
    (config,) = found["applications"][0]["args"]["llm_configs"]
    config["placement_group_config"]["bundles"] = [{"CPU": 0.5} for _ in config["placement_group_config"]["bundles"]]
    config["deployment_config"]["ray_actor_options"] = {"num_cpus": 0.1}
    config["engine_kwargs"].update(dtype="bfloat16", enforce_eager=True, distributed_executor_backend="mp")
    config["runtime_env"]["env_vars"].update(CPU)
    return yaml.safe_dump(found)


def test_the_gateway_serves_ray(tmp_path: Path) -> None:
    reason = _absence()
    if reason is not None:
        pytest.skip(reason)
    model = tmp_path / NAME
    model.mkdir()
    for file in (ENVIRONMENT / MODEL).iterdir():
        (model / file.name).symlink_to(file)
    made = plan(request_of(model=str(model), gpus="1xRTX-4090"))
    assert isinstance(made, Plan)
    for name, text in render(made, "ray", Settings()).items():
        (tmp_path / name).write_text(for_cpu(text) if name == "serve_config.yaml" else text)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "qiao").write_text(f'#!/bin/sh\nexec {sys.executable} -m qiao "$@"\n')
    (tools / "qiao").chmod(0o755)
    done = subprocess.run(
        [*ISOLATED, sys.executable, "-m", "tests.live.ray_inside", str(tmp_path)],
        cwd=ROOT,
        env={
            "PATH": f"{tools}:{RAY / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": "/tmp/ray-live",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            **CPU,
        },
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    told = json.loads(done.stdout.splitlines()[-1])
    (served,) = told["models"]["data"]
    assert served["id"] == "qwen3-235b"
    assert served["max_input_tokens"] == 40_960
    for kind in ("text", "tools"):
        status, body = told[kind]
        assert status == 200, body
        assert json.loads(body)["type"] == "message"
    status, body = told["stream"]
    assert status == 200
    assert body.rstrip().endswith('data: {"type":"message_stop"}')
    status, body = told["long"]
    assert status == 400
    assert "prompt is too long" in body
