"""`qiao env` beside a gateway that runs: what it prints works as it is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.command import Person
from tests.support.gateway import Gateway


def test_for_bash(running: Gateway, somebody: Person) -> None:
    done = somebody.qiao("env", "--shell", "bash")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"export ANTHROPIC_BASE_URL={running.url}\n" in done.stdout
    assert "export ANTHROPIC_MODEL=qwen3-235b\n" in done.stdout
    assert "export CLAUDE_CODE_MAX_CONTEXT_TOKENS=131072\n" in done.stdout
    assert "export ANTHROPIC_SMALL_FAST_MODEL=small-window\n" in done.stdout
    key = (somebody.home / ".local/state/qiao/key").read_text("utf-8").strip()
    assert f"export ANTHROPIC_AUTH_TOKEN={key}\n" in done.stdout


def test_the_default_is_the_persons_shell(running: Gateway, somebody: Person) -> None:
    assert somebody.qiao("env", SHELL="/usr/bin/fish").stdout == somebody.qiao("env", "--shell", "fish").stdout
    assert somebody.qiao("env").stdout == somebody.qiao("env", "--shell", "bash").stdout


def test_as_json(running: Gateway, somebody: Person) -> None:
    printed = json.loads(somebody.qiao("env", "--shell", "json").stdout)
    assert printed["env"]["ANTHROPIC_BASE_URL"] == running.url
    assert printed["env"]["ANTHROPIC_API_KEY"] == ""


def test_curl_is_answered(running: Gateway, somebody: Person) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", somebody.qiao("env", "--client", "curl").stdout],
        env=somebody.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer["content"][0]["type"] == "text"


def test_the_python_sdk_is_answered(running: Gateway, somebody: Person) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=somebody.qiao("env", "--client", "sdk-python").stdout,
        env=somebody.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("client", ["vscode", "cursor", "cline", "continue", "roo", "sdk-typescript"])
def test_every_client_is_told_address_and_key(running: Gateway, somebody: Person, client: str) -> None:
    printed = somebody.qiao("env", "--client", client).stdout
    assert running.url in printed
    assert (somebody.home / ".local/state/qiao/key").read_text("utf-8").strip() in printed


def test_a_wrong_key_is_said(running: Gateway, somebody: Person) -> None:
    done = somebody.qiao("env", "--api-key", "wrong")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: The gateway at {running.url} refuses this key.\n"
        "hint: Set QIAO_API_KEY (or --api-key) to the gateway's key; on its machine `qiao key` prints it.\n"
    )


def test_a_folder_of_others_decides_nothing(running: Gateway, somebody: Person) -> None:
    hostile = somebody.work / "qiao.toml"
    hostile.write_text('[client]\nurl = "http://127.0.0.1:9"\nclaude = "./evil"\n', "utf-8")
    try:
        assert f"ANTHROPIC_BASE_URL={running.url}\n" in somebody.qiao("env").stdout
    finally:
        hostile.unlink()
