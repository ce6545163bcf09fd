"""Requests of OpenAI clients, as cases in files: `tests/golden/openai_ingress/*.case`.

First line: what the case shows. Then the body of `/v1/chat/completions`, ten dashes, and what becomes of it: the
request as it is understood, or status and body of the refusal. `GOLDEN_ACCEPT=1` writes the outcome into the files; a
person reads the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qiao.core.fault import Fault
from qiao.core.openai import errors
from qiao.core.openai.decode import decode
from tests.core.anthropic.conversations import render

FOLDER = Path(__file__).parents[2] / "golden" / "openai_ingress"
CASES = sorted(FOLDER.glob("*.case"))
DASHES = b"\n----------\n"


def outcome(body: bytes) -> str:
    try:
        return render(decode(body))
    except Fault as fault:
        refusal = {"status": errors.status(fault), **json.loads(errors.body(fault))}
        return json.dumps(refusal, indent=2, ensure_ascii=False)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    given, dashes, expected = path.read_bytes().partition(DASHES)
    comment, _, body = given.partition(b"\n")
    assert comment.startswith(b"# "), "the first line says what the case shows"
    actual = outcome(body)
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_bytes(given + DASHES + actual.encode() + b"\n")
        return
    assert dashes, "no line of ten dashes"
    assert actual == expected.decode().rstrip("\n")


def test_there_are_cases() -> None:
    assert len(CASES) > 80
