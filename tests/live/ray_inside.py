"""Runs an exported Ray Serve application and its gateway, asks them, and says as JSON what came.

    unshare --net --pid --fork --kill-child --mount-proc python -m tests.live.ray_inside FOLDER

Ray opens ports on all interfaces whatever it is told, so this runs where there is no interface but loopback; and all
that it starts ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ENGINE = "http://127.0.0.1:8000"
GATEWAY = "http://127.0.0.1:4000"
KEY = "sk-ray-live-throw-away"
READY = 500.0


def ask(url: str, body: dict[str, Any] | None = None, limit: float = 60.0) -> tuple[int, str]:
    headers = {"Content-Type": "application/json", "x-api-key": KEY}
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=limit) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


def wait_for(url: str, limit: float = READY) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            status, body = ask(url, limit=5)
            if status == 200 and '"id"' in body:
                return
        time.sleep(1)
    raise SystemExit(f"nothing at {url} within {limit} s")


def main() -> None:
    folder = Path(sys.argv[1])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    environment = {**os.environ, "HEAD_ADDRESS": "127.0.0.1", "QIAO_API_KEY": KEY}

    def script(*words: str) -> None:
        subprocess.run(["bash", str(folder / words[0]), *words[1:]], env=environment, check=True, timeout=200)

    script("start_ray.sh", "head")
    script("start_ray.sh", "deploy")
    wait_for(f"{ENGINE}/v1/models")
    gateway = subprocess.Popen(["bash", str(folder / "start_gateway.sh")], env=environment, cwd=folder)
    try:
        wait_for(f"{GATEWAY}/v1/models", 60)
        models = json.loads(ask(f"{GATEWAY}/v1/models")[1])
        question = {"model": models["data"][0]["id"], "max_tokens": 8}
        hello = [{"role": "user", "content": "Hello"}]
        tools = [{"name": "noop", "input_schema": {"type": "object", "properties": {}}}]
        told = {
            "models": models,
            "text": ask(f"{GATEWAY}/v1/messages", {**question, "messages": hello}),
            "stream": ask(f"{GATEWAY}/v1/messages", {**question, "messages": hello, "stream": True}),
            "tools": ask(f"{GATEWAY}/v1/messages", {**question, "messages": hello, "tools": tools}),
            "long": ask(
                f"{GATEWAY}/v1/messages", {**question, "messages": [{"role": "user", "content": "word " * 60_000}]}
            ),
        }
    finally:
        gateway.terminate()
        gateway.wait(20)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
