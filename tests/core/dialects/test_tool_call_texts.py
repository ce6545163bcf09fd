"""Every text of the golden cases, whole and cut in many ways: always the answer that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.dialects.answers import read_case, run, tokens

FOLDER = Path(__file__).parents[2] / "golden" / "tool_call_texts"
CASES = {path.stem: read_case(path) for path in sorted(FOLDER.glob("*.case"))}

# Calls that were cut, or broke, after their first bytes had gone out: the stream keeps the open block, as the real API
# does, where the whole answer gives the text back.
CUT_IN_STREAM = {name for name, case in CASES.items() if name.startswith(("a24_", "b37_", "d06_"))}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["whole", "characters", "tokens", "sevens"])
def test_case(name: str, way: str) -> None:
    case = CASES[name]
    whole, streamed = run(case, cut(case.text, way))
    assert whole == list(case.wanted)
    if name not in CUT_IN_STREAM:
        assert streamed == list(case.wanted)


def cut(text: str, way: str) -> list[str]:
    match way:
        case "whole":
            return [text]
        case "characters":
            return list(text)
        case "tokens":
            return tokens(text)
        case _:
            return [text[start : start + 7] for start in range(0, len(text), 7)]
