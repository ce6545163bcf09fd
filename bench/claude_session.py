"""One session of the real Claude Code, recorded: what a gateway is sent in a day's work, made anew when it is wanted.

    python -m bench.claude_session FILE

The program runs against qiao in front of a scripted engine, and a tap before the gateway keeps its requests. Session 0
is one conversation in three runs (`-p`, then twice `--continue`): parallel pairs of calls, commands that fail, two
loads by ToolSearch, an MCP server that comes up late, a background task, a CLAUDE.md in a subfolder, a git repository.
Session 1 is a new one in the same folder. What the model says is scripted here, so that a replay can make another
engine say the same.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes import script
from tests.fakes.behaviour import MODELS
from tests.fakes.engine import FakeEngine, serving
from tests.live.vllm import script as live
from tests.support import mcp_server
from tests.support.background import Background
from tests.support.claude_code import ClaudeCode
from tests.support.gateway import gateway
from tests.support.tap import Exchange, tapping

MODEL = "qwen3-235b"
KEY = "sk-bench-key-of-one-run"
GREET = "mcp__people__greet"

# Headers that belong to the connection and the key of the recording, not to the request.
_OWN_HEADERS = frozenset(
    {"host", "content-length", "content-type", "accept-encoding", "connection", "x-api-key", "authorization"}
)

# Where the machine is slow, the late server is waited for longer than Claude Code's own 30 s.
_ENVIRONMENT = {"CLAUDE_CODE_MAX_CONTEXT_TOKENS": "131072", "MCP_TIMEOUT": "120000"}

_WORDS = """
queue ledger sample window branch folder record number market signal packet column cursor handle vector bundle
the a of in to for from with every one value when it that this is was has been over under
""".split()  # noqa: SIM905 - a list literal is a page long


class Turn:
    """What the model says once: thoughts, words, and calls of tools."""

    def __init__(self, *calls: tuple[str, dict[str, Any]], text: str = "", think: str = "") -> None:
        self.calls = calls
        self.text = text
        self.think = think

    def for_fake(self) -> script.Step:
        """As the fake engine says it."""
        calls = [script.call(name, **arguments) for name, arguments in self.calls]
        thoughts = [script.Think(self.think)] if self.think else []
        return script.step(*thoughts, *([self.text] if self.text else []), *calls, packet="all", split="whole")

    def for_vllm(self) -> str:
        """As a scripted vLLM with a reasoning parser says it."""
        return live.said(
            self.text,
            think=self.think or None,
            calls=[live.call(name, **arguments) for name, arguments in self.calls],
        )


@dataclass(frozen=True)
class Request:
    """One recorded request. `session`: 0 or 1; `has_prompt`: it follows something that a person said."""

    session: int
    has_prompt: bool
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Recording:
    """All requests in their order. `markers`: the fake engine's markers in them, and vLLM's for the same words."""

    requests: tuple[Request, ...]
    markers: tuple[tuple[str, str], ...]

    def bodies(self, word: str, **fields: Any) -> Iterator[tuple[Request, bytes]]:
        """For a replay on vLLM, which shall write one token only: it is prompts that are measured.

        `word` goes into the head of every prompt, so that no replay meets another's cache; `fields` into every request.
        """
        for request in self.requests:
            body = request.body
            for fake, real in self.markers:
                body = body.replace(fake, real)
            whole = json.loads(body)
            whole |= {"max_tokens": 1, **fields}
            for block in whole["system"]:
                if not block["text"].startswith("x-anthropic-billing-header"):
                    block["text"] = f"{word}. {block['text']}"
                    break
            yield request, json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def record(folder: Path) -> Recording:
    """Run the session in `folder` on a scripted engine. Raises AssertionError where a run did not go as scripted."""
    said = [turns for _, turns in scripts(folder / "work")]
    markers = [(marker(turns, key=str(number)), vllm_marker(turns)) for number, turns in enumerate(said)]
    requests: list[Request] = []
    with Background() as background:
        engine = FakeEngine({MODEL: MODELS[MODEL]})
        url = background.enter(serving(engine))
        with gateway(url, folder / "gateway", key=KEY) as front:
            tap = background.enter(tapping(front.url))
            for number in drive(tap.url, KEY, folder, [fake for fake, _ in markers]):
                asked = [each for each in tap.exchanges if each.path == "/v1/messages"]
                assert {each.status for each in asked} == {200}
                # A task that ends in the background may be told in a request of its own.
                assert len(asked) >= len(said[number]), f"prompt {number}: only {len(asked)} requests"
                session = 1 if number == len(said) - 1 else 0
                requests += [request_of(each, session, has_prompt=place == 0) for place, each in enumerate(asked)]
                tap.forget()
    return Recording(tuple(requests), tuple(markers))


def drive(url: str, key: str, folder: Path, markers: Sequence[str], *, model: str = MODEL) -> Iterator[int]:
    """Claude Code works through the four prompts, whose answers `markers` name; yields each number when it is done."""
    work = folder / "work"
    lay_out(work)
    settings = folder / "mcp.json"
    server = [str(mcp_server.__file__), "--after", str(work / "people.ready")]
    settings.write_text(json.dumps({"mcpServers": {"people": {"command": sys.executable, "args": server}}}))
    claude = ClaudeCode(url, key, folder / "home", work, model=model, extra=_ENVIRONMENT)
    for number, (words, turns) in enumerate(scripts(work)):
        arguments = ["--continue"] if number in (1, 2) else []
        arguments += ["--mcp-config", str(settings), "--strict-mcp-config", "--max-turns", "60"]
        outcome = claude.run(f"{words} {markers[number]}", *arguments, limit=400)
        assert outcome.result["subtype"] == "success", outcome.result
        assert outcome.result["result"] == turns[-1].text, outcome.result
        yield number


def request_of(exchange: Exchange, session: int, *, has_prompt: bool) -> Request:
    headers = {name: value for name, value in exchange.request_headers.items() if name.lower() not in _OWN_HEADERS}
    return Request(session, has_prompt, headers, exchange.request.decode())


def marker(turns: Sequence[Turn], *, key: str) -> str:
    return script.marker(*(turn.for_fake() for turn in turns), key=key)


def vllm_marker(turns: Sequence[Turn]) -> str:
    return live.marker(*(turn.for_vllm() for turn in turns))


# --- what the model says --------------------------------------------------------------------------------------------


def scripts(work: Path) -> list[tuple[str, list[Turn]]]:
    """The four prompts and what the model says to each."""
    words = random.Random(4)

    def turn(*calls: tuple[str, dict[str, Any]], text: str = "", thoughts: int = 45) -> Turn:
        return Turn(*calls, text=text, think=prose(words, thoughts))

    def bash(command: str, **more: Any) -> tuple[str, dict[str, Any]]:
        return "Bash", {"command": command, "description": "Run it", **more}

    def read(name: str, **more: Any) -> tuple[str, dict[str, Any]]:
        return "Read", {"file_path": str(work / name), **more}

    first = [
        turn(bash("git status --short && git log --oneline | head -5"), text="I look at the repository first."),
        turn(read("src/one.py"), read("src/two.py")),
        turn(bash("python3 src/nothing.py")),
        turn(("ToolSearch", {"query": "select:NotebookEdit,WebFetch"})),
        turn(read("lib/core.py"), text="The core is in lib."),
        turn(bash("sleep 1; echo the long job is done", run_in_background=True)),
        turn(bash("grep -rn 'def ' src | head -60")),
        turn(bash("touch people.ready; sleep 3; ls")),
        turn(read("src/three.py")),
        turn(bash("false"), bash("ls -la src lib")),
        turn(("ToolSearch", {"query": f"select:{GREET}"})),
        turn((GREET, {"person": "Ada"})),
        turn(read("src/four.py")),
        turn(text="The repository is read: four modules and a core.", thoughts=80),
    ]
    second = [
        turn(("Edit", edit(work / "src/two.py", "two_3", "two_three"))),
        turn(bash("python3 -m compileall -q src && echo compiled")),
        turn(read("src/five.py"), read("lib/more.py")),
        turn(bash("grep -n two_three src/two.py")),
        turn(bash("python3 -c 'raise SystemExit(3)'")),
        turn(("Write", {"file_path": str(work / "notes.md"), "content": prose(words, 120) + "\n"})),
        turn(bash("wc -l src/*.py lib/*.py notes.md")),
        turn(read("src/six.py")),
        turn(bash("sed -n 1,80p src/five.py")),
        turn(bash("git diff --stat")),
        turn(text="The function has its new name, and the notes are written.", thoughts=80),
    ]
    third = [
        turn(read("src/seven.py")),
        turn(bash("git diff | head -60"), bash("cat notes.md")),
        turn(("Edit", edit(work / "src/one.py", "one_5", "one_five"))),
        turn(bash('python3 -c \'import ast,sys; ast.parse(open("src/one.py").read()); print("fine")\'')),
        turn((GREET, {"person": "Grace"})),
        turn(read("src/eight.py")),
        turn(bash("exit 2")),
        turn(bash("ls -R . | head -40")),
        turn(bash("git add -A && git commit -qm 'Rename' && git log --oneline | head -3")),
        turn(read("lib/core.py", offset=1, limit=60)),
        turn(text="All of it is committed.", thoughts=80),
    ]
    other = [
        turn(bash("git log --oneline | head -3"), text="Another look."),
        turn(read("src/nine.py")),
        turn(text="It is a module like the others."),
    ]
    return [
        ("Read this repository and tell me what is in it.", first),
        ("Rename two_3 to two_three and take notes.", second),
        ("Rename one_5 as well, then commit.", third),
        ("What is in src/nine.py?", other),
    ]


def edit(path: Path, old: str, new: str) -> dict[str, Any]:
    return {"file_path": str(path), "old_string": f"def {old}(", "new_string": f"def {new}("}


def prose(words: random.Random, count: int) -> str:
    """A sentence of `count` words that means nothing and costs about as many tokens as one that does."""
    return " ".join(words.choices(_WORDS, k=count)).capitalize() + "."


# --- the folder it works in -----------------------------------------------------------------------------------------


def lay_out(work: Path) -> None:
    """A git repository with some modules, and instructions at the top and in a subfolder."""
    words = random.Random(7)
    for name in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"):
        write(work / "src" / f"{name}.py", module(words, name, 14))
    for name in ("core", "more"):
        write(work / "lib" / f"{name}.py", module(words, name, 10))
    write(work / "CLAUDE.md", f"# Rules\n\n{prose(words, 120)}\n")
    write(work / "lib" / "CLAUDE.md", f"# Rules of the core\n\n{prose(words, 150)}\n")
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(work),
        **{
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "a"), ("EMAIL", "a@localhost"), ("DATE", "2026-01-01T00:00:00Z"))
        },
    }
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Begin"]):
        subprocess.run(["git", "-c", "init.defaultBranch=main", *arguments], cwd=work, env=environment, check=True)
    subprocess.run(["git", "config", "user.name", "a"], cwd=work, env=environment, check=True)
    subprocess.run(["git", "config", "user.email", "a@localhost"], cwd=work, env=environment, check=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def module(words: random.Random, name: str, functions: int) -> str:
    parts = [f'"""{prose(words, 30)}"""\n']
    for number in range(functions):
        parts.append(f"\n\ndef {name}_{number}(value, limit={number * 7}):\n")
        parts.append(f'    """{prose(words, 14)}"""\n')
        parts.append(f"    total = {words.randint(1, 999)}\n    for item in value[:limit]:\n        total += item\n")
        parts.append(f"    return total % {words.randint(3, 97)}\n")
    return "".join(parts)


def save(recording: Recording, path: Path) -> None:
    lines = [{"markers": recording.markers}, *(vars(request) for request in recording.requests)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")


def load(path: Path) -> Recording:
    head, *lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    markers = tuple((fake, real) for fake, real in head["markers"])
    return Recording(tuple(Request(**line) for line in lines), markers)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        recording = record(Path(folder))
    save(recording, Path(sys.argv[1]))
    sizes = [len(request.body) for request in recording.requests]
    print(f"{len(sizes)} requests, {sizes[0]} to {max(sizes)} bytes: {sys.argv[1]}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
