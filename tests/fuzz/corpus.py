"""The inputs that a search kept, one line each: bytes as a JSON string, one character a byte."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
FOUND = HERE / "inputs" / "found.jsonl"
CRASHERS = HERE / "inputs" / "crashers.jsonl"


def load(path: Path) -> list[bytes]:
    """The inputs of a file; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line).encode("latin-1") for line in path.read_text("ascii").splitlines()]


def save(path: Path, inputs: Iterable[bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(data.decode("latin-1")) + "\n" for data in inputs), "ascii")
