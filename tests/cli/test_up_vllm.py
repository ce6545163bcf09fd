"""`qiao up --model NAME` as a process: planned, started, restarted, stopped. vLLM is played by the fake engine.

tests/live/test_launch.py does the same with the real one.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from tests.support.command import Person, until
from tests.support.embedded import is_alive

ROOT = Path(__file__).parents[2]
PLAYED = f"""#!{sys.executable}
import os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "runs").open("a") as runs:
    runs.write(repr((sys.argv[1:], os.environ.get("HF_HUB_OFFLINE"), bool(os.environ.get("VLLM_API_KEY")))) + "\\n")
(here / "pid").write_text(str(os.getpid()))
if "--refuse" in sys.argv:
    print("(EngineCore_DP0 pid=7) ERROR 10-10 20:29:02 [core.py:708] ValueError: No available memory for the cache "
          "blocks. Try increasing `gpu_memory_utilization` when initializing the engine.", flush=True)
    sys.exit(1)
for shard in range(1, 101):
    print(f"Loading safetensors checkpoint shards: {{shard:3}}% Completed | {{shard}}/100 [00:01<00:01, 1.0s/it]",
          end="\\r", flush=True)
name = sys.argv[sys.argv.index("--served-model-name") + 1]
port = sys.argv[sys.argv.index("--port") + 1]
os.chdir({str(ROOT)!r})
os.execv(sys.executable, [sys.executable, "-m", "tests.fakes.engine", "--port", port, "--model", name])
"""
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 262144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}


@pytest.fixture
def played(tmp_path: Path) -> Path:
    """A command `vllm`."""
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text(PLAYED)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, as far as the planner reads it."""
    folder = tmp_path / "Qwen3-30B-A3B-Instruct-2507"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def pid(played: Path) -> int:
    return int((played.parent / "pid").read_text())


def test_planned_shown_started_restarted_and_stopped(person: Person, played: Path, model: Path) -> None:
    with person.up("--model", str(model), "--gpus", "1xH100-80G", "--vllm-command", str(played)) as process:
        text = until(process, "Ctrl-C stops everything.\n")
        assert f"Starting vLLM with {model}.\n{model} on 1xH100-80G: tensor parallel 1\n" in text
        assert "--tool-call-parser hermes" in text
        shards = [line for line in text.splitlines() if line.startswith("Loading shard")]
        assert 2 <= len(shards) <= 6, "a line a quarter, not one a shard"
        for check in ("text", "stream", "tool call", "count"):
            assert f"  ok      {check}: " in text
        assert "serves qwen3-30b" in text
        first = pid(played)
        os.kill(first, signal.SIGKILL)
        told = until(process, "vLLM is ready.\n")
        assert "warning: The vLLM engine ended with status 137; starting it again in 2 s." in told
        assert pid(played) != first
        (one, two) = (played.parent / "runs").read_text().splitlines()
        assert one == two
        words, offline, has_key = eval(one)
        assert words[:2] == ["serve", str(model)]
        assert "--enable-prompt-tokens-details" in words
        assert (offline, has_key) == ("1", True)
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors.splitlines()[-1]) == (0, "note: Stopped.")
        assert time.monotonic() - before < 10
        assert not is_alive(pid(played))
    assert "Loading safetensors" in (person.home / ".local/state/qiao/vllm.log").read_text()


def test_what_it_cannot_start_is_named_with_the_mend(person: Person, played: Path, model: Path) -> None:
    done = person.qiao(
        *("up", "--port", "0", "--model", str(model), "--gpus", "1xH100-80G", "--vllm-command", str(played)),
        *("--vllm-arguments", "--refuse"),
    )
    assert done.returncode == 3, done.stderr
    assert "error: The vLLM engine could not start: " in done.stderr
    assert "cache" in done.stderr
    assert "hint: " in done.stderr
    assert "vllm.log" in done.stderr
    assert len((played.parent / "runs").read_text().splitlines()) == 1


def test_without_gpus_the_refusal_says_what_works(person: Person) -> None:
    done = person.qiao("up", "--model", "qwen3-235b")
    assert done.returncode == 1
    assert "needs GPUs, and this machine has none" in done.stdout
    assert "qiao up --upstream http://HOST:8000/v1" in done.stdout
    assert "Traceback" not in done.stderr


def test_what_is_near_on_this_machine_can_be_started_at_once(person: Person) -> None:
    """A machine with one small GPU, as nvidia-smi tells of it."""
    tool = person.home / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        "--query-gpu=*) echo '0, NVIDIA GeForce RTX 4090, 24564, 24110, 8.9, 570.124.06, [N/A]';;\n"
        "*) exit 1;;\nesac\n"
    )
    tool.chmod(0o755)
    done = person.qiao("up", "--model", "qwen3-235b", "--context", "65536", PATH=f"{tool.parent}:/usr/bin:/bin")
    assert done.returncode == 1, done.stderr
    commands = [line.strip() for line in done.stdout.splitlines() if line.startswith("      ")]
    assert any(command.startswith("qiao up --model ") and "--context 65536" in command for command in commands), (
        commands
    )
    assert not any("qiao up" in command and "--window" in command for command in commands)


def test_a_gguf_file_is_for_the_embedded_engine(person: Person) -> None:
    done = person.qiao("up", "--model", "./tiny.gguf", "--dry-run")
    assert done.returncode == 2
    assert "hint: Say so: qiao up --gguf ./tiny.gguf" in done.stderr


def test_a_dry_run_shows_the_plan_and_starts_nothing(person: Person, played: Path) -> None:
    done = person.qiao("up", "--model", "qwen3-235b", "--gpus", "4xH20-96G", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "would start vLLM with Qwen/Qwen3-235B-A22B-Instruct-2507-FP8" in done.stdout
    assert "vllm serve Qwen/Qwen3-235B-A22B-Instruct-2507-FP8" in done.stdout
    assert "vLLM is not installed here" in done.stderr
    assert not (played.parent / "runs").exists()


def test_without_vllm_the_mend_is_said(person: Person, model: Path) -> None:
    done = person.qiao("up", "--model", str(model), "--gpus", "1xH100-80G", "--port", "0")
    assert done.returncode == 3
    assert "vLLM is not installed here" in done.stderr
    assert "pip install vllm" in done.stderr


def test_arguments_that_no_shell_can_read(person: Person, model: Path) -> None:
    words = ("--model", str(model), "--gpus", "1xH100-80G", "--vllm-arguments", "--x 'open")
    done = person.qiao("up", *words, "--dry-run")
    assert done.returncode == 2
    assert "--vllm-arguments cannot be read" in done.stderr
