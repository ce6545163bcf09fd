"""The official SDKs as processes: Python newest and 0.x, and TypeScript, all under the same orders."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON_DRIVER = Path(__file__).with_name("sdk_python.py")
OLD_PYTHON = ROOT / ".venv-anthropic-0" / "bin" / "python"
TYPESCRIPT = ROOT / "tests" / "integration" / "ts"
OLDEST_NODE = 20


class SdkError(Exception):
    """The SDK raised. `classes`: names of the error's class and its ancestors."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__(f"{found['classes'][0]}: {found['message']}")
        self.classes: list[str] = found["classes"]
        self.status: int | None = found["status"]
        self.type: str | None = found["type"]
        self.message: str = found["message"]
        self.request_id: str | None = found["request_id"]


@dataclass
class Sdk:
    """One SDK in its process, which serves one order at a time."""

    name: str
    process: subprocess.Popen[str]
    base_url: str = ""
    key: str = ""

    def do(self, order: str, *, retries: int = 0, timeout: float = 30.0, **params: Any) -> Any:
        """Carry out `order` and give back its value; what the SDK raises comes as `SdkError`."""
        client = {"base_url": self.base_url, "api_key": self.key, "max_retries": retries, "timeout": timeout}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"op": order, "client": client, "params": params}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the driver of {self.name} ended with status {self.process.wait(5)}")
        answer = json.loads(line)
        if "error" in answer:
            raise SdkError(answer["error"])
        return answer["value"]


def commands() -> dict[str, Sequence[str]]:
    """How each SDK's driver is started, by the SDK's name."""
    return {
        "python": [sys.executable, str(PYTHON_DRIVER)],
        "python-0": [str(OLD_PYTHON), str(PYTHON_DRIVER)],
        "typescript": ["node", str(TYPESCRIPT / "drive.mjs")],
    }


def absent(name: str) -> str | None:
    """Why this machine cannot run the SDK `name` at all; None if it can. What `make test` installs is no excuse."""
    if name != "typescript":
        return None
    node = shutil.which("node")
    if node is None:
        return "Node is not installed, so the TypeScript SDK is not tested"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < OLDEST_NODE:
        return f"Node {version.strip()} is too old for the TypeScript SDK, which needs {OLDEST_NODE}"
    return None


@contextlib.contextmanager
def driving(name: str) -> Iterator[Sdk]:
    """The SDK `name` in a process."""
    process = subprocess.Popen(commands()[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield Sdk(name, process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        process.stdout.close()
