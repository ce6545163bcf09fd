"""Every row of the API's tables, as a case in a file: `tests/golden/anthropic_request/*.case`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qiao.core.anthropic.request import decode, decode_count
from qiao.core.fault import Fault
from tests.core.anthropic.conversations import render

FOLDER = Path(__file__).parents[2] / "golden" / "anthropic_request"
CASES = sorted(FOLDER.glob("*.case"))
DASHES = b"\n----------\n"


def outcome(path: Path, body: bytes) -> str:
    """What the body becomes: a case named `count_…` is a request of count_tokens."""
    read = decode_count if path.name.startswith("count_") else decode
    try:
        return render(read(body))
    except Fault as fault:
        return render(fault)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    given, dashes, expected = path.read_bytes().partition(DASHES)
    comment, _, body = given.partition(b"\n")
    assert comment.startswith(b"# "), "the first line says what the case shows"
    actual = outcome(path, body)
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_bytes(given + DASHES + actual.encode() + b"\n")
        return
    assert dashes, "no line of ten dashes"
    assert actual == expected.decode().rstrip("\n")


def test_there_are_cases() -> None:
    assert len(CASES) > 100
