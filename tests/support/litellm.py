"""The real LiteLLM proxy as a process, from its own environment (`make live` installs it)."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.gateway import free_port

ENVIRONMENT = Path(__file__).parents[2] / ".venv-litellm"
PROGRAM = ENVIRONMENT / "bin" / "litellm"
KEY = "sk-litellm-own-key-c41f7a90d2"

START_LIMIT = 120.0
"""Seconds until it must answer; it takes 15 on two idle cores."""


@dataclass
class Proxy:
    """A running proxy. `log` grows while it runs."""

    url: str
    key: str
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")


class NotStarted(Exception):
    """It ended before it was ready, with these words."""


def absence() -> str | None:
    """Why this checkout cannot run it; None if it can."""
    absent = ENVIRONMENT / "ABSENT"
    if absent.exists():
        return absent.read_text("utf-8").strip()
    return None if PROGRAM.exists() else f"no LiteLLM in {ENVIRONMENT.name}: run `make live`, which installs it"


def version() -> str:
    """Its version, as installed."""
    (found,) = ENVIRONMENT.glob("lib/python3*/site-packages/litellm-*.dist-info")
    return found.name.removeprefix("litellm-").removesuffix(".dist-info")


def route(model: str, upstream: str, *, prefix: str = "hosted_vllm", **parameters: object) -> str:
    """A configuration with one model, as LiteLLM's own guides write it for a vLLM server (a base URL without /v1).

    `parameters`: further `litellm_params`.
    """
    parameters = {"model": f"{prefix}/{model}", "api_base": f"{upstream}/v1", "api_key": "none", **parameters}
    return json.dumps(
        {
            "model_list": [{"model_name": model, "litellm_params": parameters}],
            "litellm_settings": {"drop_params": True, "num_retries": 0},
            "general_settings": {"master_key": KEY},
        }
    )


@contextlib.contextmanager
def litellm(config: str, home: Path, *, key: str = KEY, **environment: str) -> Iterator[Proxy]:
    """The proxy with a configuration file's text; `key` is what its clients show. Raises `NotStarted`."""
    home.mkdir(parents=True, exist_ok=True)
    path, log, port = home / "litellm_config.yaml", home / "litellm.log", free_port()
    path.write_text(config, "utf-8")
    scrubbed = {
        "PATH": f"{PROGRAM.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        # Its price list comes from the network otherwise.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **environment,
    }
    command = [PROGRAM, "--config", path, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=scrubbed, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    proxy = Proxy(f"http://127.0.0.1:{port}", key, log)
    try:
        _await(process, proxy, port)
        yield proxy
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _await(process: subprocess.Popen[bytes], proxy: Proxy, port: int) -> None:
    limit = time.monotonic() + START_LIMIT
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise NotStarted(proxy.output[-6000:])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health/liveliness")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise NotStarted(f"LiteLLM did not answer within {START_LIMIT:g} s:\n{proxy.output[-4000:]}")
