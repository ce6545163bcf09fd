"""The search for inputs that break a law: `python -m tests.fuzz.search [--seconds N]`, run by `make fuzz`.

Coverage of `qiao.core` guides it (atheris, libFuzzer). A broken law is printed once with its input, which is kept, and
the search goes on. At the end the corpus is reduced to the inputs that reach something of their own and packed into
`corpus/`; exit status 1 if a law was broken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.core.dialects.answers import read_case
from tests.fuzz.corpus import CRASHERS, FOUND, load, save
from tests.fuzz.fuzzer import LONGEST

GOLDEN = Path(__file__).parent.parent / "golden"


def words() -> list[bytes]:
    """What dialects, events and chunks consist of: a fuzzer would need days to invent these."""
    tags = (
        *("<tool_call>\n", "\n</tool_call>", "<function=f>", "</function>", "<parameter=a>\n", "\n</parameter>"),
        *("<tool_response>", "<think>", "</think>", "<arg_key>a</arg_key>", "<arg_value>", "</arg_value>"),
        *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "[f(", ")]", "```json\n", "\n```\n"),
        *(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ),
        *("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "functions.f:0", "<|tool_call_argument_begin|>"),
        *("<|tool_call_end|>", "<|tool_calls_section_end|>", "<|python_start|>", "<|python_end|>"),
        *('{"name": "f", "arguments": {', '"arguments"', '"parameters"', '"name"', '"a"', '"n"', "True", "None"),
        *('\\"', "\\u00e9", "\\ud83c", "\u2028", "🎉", "data: ", "\n\n", "data: [DONE]\n\n", "\r\n", "event: "),
        *("t:", "a:", "r:", "c:f", "f:stop", "f:length", '{"choices":[{"index":0,"delta":{"content":"'),
    )
    return [tag.encode() for tag in tags]


def dictionary(path: Path) -> None:
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in words())
    path.write_text("".join(f'"{word}"\n' for word in quoted), "ascii")


def seeds() -> list[bytes]:
    """The golden cases as inputs of every law, so that a search begins where the table ends."""
    found = []
    cases = sorted([*(GOLDEN / "tool_call_texts").glob("*.case"), *(GOLDEN / "dialects").glob("*.case")])
    for number, path in enumerate(cases):
        text = read_case(path).text.encode("utf-8", "replace")
        found += [bytes([law, number % 251, number % 32, 3, 17, 40, 90]) + text for law in range(3)]
        delta = json.dumps({"choices": [{"index": 0, "delta": {"content": text.decode()}}]}).encode()
        found.append(bytes([4, number % 10, 0, 3, 17, 40, 90]) + b"t:" + text.replace(b"\n", b"\nt:\n") + b"\nf:stop")
        found.append(bytes([3, 0, 0, 3, 17, 40, 90]) + b"event: x\ndata: " + delta + b"\r\n\ndata: [DONE]\n\n")
    return [data for data in found if len(data) <= LONGEST]


def starter(folder: Path) -> Path:
    """The fuzzer as a program: reducing a corpus, libFuzzer starts itself again by name."""
    path = folder / "fuzzer"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz.fuzzer "$0" "$@"\n')
    path.chmod(0o700)
    return path


def search(seconds: int, folder: Path) -> None:
    """Fill the corpus in `folder` with what was found before and what is found now."""
    start, kept, small = folder / "start", folder / "kept", folder / "small"
    for made in (start, kept, small):
        made.mkdir()
    for number, data in enumerate([*load(FOUND), *load(CRASHERS), *seeds()]):
        (start / str(number)).write_bytes(data)
    dictionary(folder / "words")
    until = time.monotonic() + seconds
    program = starter(folder)

    def run(*arguments: str) -> None:
        subprocess.run([program, *limits, *arguments], check=False)

    limits = (f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=3000", f"-artifact_prefix={folder}/")
    while (left := round(until - time.monotonic())) > 0:
        run(f"-max_total_time={left}", f"-dict={folder / 'words'}", "-print_final_stats=1", str(kept), str(start))
    run("-merge=1", str(small), str(kept), str(start))
    found = sorted((path.read_bytes() for path in small.iterdir()), key=lambda data: (len(data), data))
    save(FOUND, found)
    for path in sorted(folder.glob("timeout-*")) + sorted(folder.glob("oom-*")) + sorted(folder.glob("crash-*")):
        print(f"{path.name}: {path.read_bytes()!r}", file=sys.stderr)
        save(CRASHERS, [*load(CRASHERS), path.read_bytes()])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.search", description=__doc__)
    parser.add_argument("--seconds", type=int, default=3600)
    options = parser.parse_args()
    before = len(load(CRASHERS))
    with tempfile.TemporaryDirectory() as folder:
        search(options.seconds, Path(folder))
    new = load(CRASHERS)[before:]
    print(f"{len(load(FOUND))} inputs kept, {len(new)} broke a law")
    return 1 if new else 0


if __name__ == "__main__":
    raise SystemExit(main())
