"""`qiao up` as a process, attached to a fake engine: everything it says, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest

from qiao.cli.connecting import own_program
from tests.support.command import Person, until

OWN = f"{sys.executable} -m qiao"
"""How the tests start qiao, which is on no PATH here: so the lines to copy have to say it."""

EXPECTED = """\
Attaching to ENGINE/v1.
The gateway listens on GATEWAY.
  ok      text: "Hello from the fake engine." (N s)
  ok      stream: "Hello from the fake engine." (N s)
  ok      tool call: report_sum(1) (N s)
  ok      count: 23 tokens (N s)
qiao is up: GATEWAY serves qwen3-235b, window 131072 tokens.

Claude Code:
  qiao claude

Other programs in this shell (`qiao env` prints everything, with the model's limits):
  bash, zsh
    export ANTHROPIC_BASE_URL=GATEWAY ANTHROPIC_MODEL=qwen3-235b
    export ANTHROPIC_AUTH_TOKEN="$(qiao key)"; unset ANTHROPIC_API_KEY
  fish
    set -gx ANTHROPIC_BASE_URL GATEWAY; set -gx ANTHROPIC_MODEL qwen3-235b
    set -gx ANTHROPIC_AUTH_TOKEN (qiao key); set -e ANTHROPIC_API_KEY
  PowerShell
    $Env:ANTHROPIC_BASE_URL = 'GATEWAY'; $Env:ANTHROPIC_MODEL = 'qwen3-235b'
    $Env:ANTHROPIC_AUTH_TOKEN = (qiao key); Remove-Item Env:ANTHROPIC_API_KEY -ErrorAction SilentlyContinue

Cursor and VS Code:
  Base URL  GATEWAY (Cline, Roo Code); GATEWAY/v1/ (Continue)
  API key   what `qiao key` prints
  Model     qwen3-235b, or any claude-… name
  Provider  Anthropic
  `qiao env --client vscode` prints whole settings (or cursor, cline, roo, continue).

Ctrl-C stops everything.
"""


def test_everything_it_says(person: Person, engine_url: str) -> None:
    with person.up("--upstream", engine_url) as process:
        text = until(process, "Ctrl-C stops everything.\n")
        text = text.replace(engine_url, "ENGINE").replace(OWN, "qiao")
        text = re.sub(r"http://127\.0\.0\.1:\d+", "GATEWAY", text)
        assert re.sub(r"\(\d+\.\d s\)", "(N s)", text) == EXPECTED
        before = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output, errors) == (0, "", "note: Stopped.\n")
        assert time.monotonic() - before < 5


def test_the_lines_for_bash_work_as_they_are(person: Person, engine_url: str) -> None:
    with person.up("--upstream", engine_url) as process:
        text = until(process, "Ctrl-C stops everything.\n")
        lines = "\n".join(line for line in text.splitlines() if line.startswith("    export "))
        ask = 'curl -sS -o /dev/null -w "%{http_code}" -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" '
        done = subprocess.run(
            ["/bin/bash", "-c", f'{lines}\n{ask} "$ANTHROPIC_BASE_URL/v1/models/$ANTHROPIC_MODEL"'],
            env={**person.environment, "ANTHROPIC_API_KEY": "sk-theirs"},
            capture_output=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )
        assert done.stdout == "200", done.stderr


def test_another_state_folder_is_part_of_every_command(person: Person, engine_url: str) -> None:
    with person.up("--upstream", engine_url, "--state", f"{person.home}/own state") as process:
        text = until(process, "Ctrl-C stops everything.\n")
    assert f"  {OWN} claude --state '{person.home}/own state'\n" in text
    assert f"\"$({OWN} key --state '{person.home}/own state')\"" in text


@pytest.mark.parametrize("key", [[], ["--no-auth"]])
def test_no_key_is_printed(person: Person, engine_url: str, key: list[str]) -> None:
    with person.up("--upstream", engine_url, *key) as process:
        text = until(process, "Ctrl-C stops everything.\n")
    assert "sk-qiao-" not in text
    assert ("no-key-needed" in text) is bool(key)


def test_an_upstream_that_is_not_there_yet_is_waited_for(person: Person) -> None:
    with person.up("--upstream", "http://127.0.0.1:9") as process:
        text = until(process, "is the engine running?\n")
        assert re.fullmatch(r"Attaching to \S+\nThe gateway listens on \S+\nWaiting: nothing answers .*\n", text), text
        time.sleep(1.2)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[1] == "note: Stopped.\n", "asking again is not worth a line"
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("started_as", "on_path", "typed"),
    [
        ("/usr/local/bin/qiao", "/usr/local/bin/qiao", "qiao"),
        ("/home/a/p/.venv/bin/qiao", None, "/home/a/p/.venv/bin/qiao"),
        ("/home/a/p/.venv/bin/qiao", "/usr/local/bin/qiao", "/home/a/p/.venv/bin/qiao"),
        ("/home/a b/qiao", None, "'/home/a b/qiao'"),
        ("/lib/qiao/__main__.py", "/usr/local/bin/qiao", "qiao"),
        ("/lib/qiao/__main__.py", None, OWN),
    ],
)
def test_the_program_is_named_as_the_shell_finds_it(started_as: str, on_path: str | None, typed: str) -> None:
    assert own_program(started_as, on_path) == typed
