"""Every golden case, whole and cut in many ways: always the answer that is wanted.

`tool_call_texts` is the table of texts on which the rules were made (hermes); `dialects` holds the other dialects, and
more of hermes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from qiao.core.events import Finished
from tests.core.dialects.answers import Case, Outcome, read_case, run, tokens

GOLDEN = Path(__file__).parents[2] / "golden"
TABLE = {path.stem: read_case(path) for path in sorted((GOLDEN / "tool_call_texts").glob("*.case"))}
OTHERS = {path.stem: read_case(path) for path in sorted((GOLDEN / "dialects").glob("*.case"))}
CASES = {**TABLE, **OTHERS}


def expect(case: Case, outcome: Outcome) -> None:
    assert outcome.whole == list(case.wanted)
    if "repairs" in case.settings:
        assert [name for _, name in outcome.repairs] == case.settings["repairs"]
    if case.settings.get("in_stream") == "cut":
        assert outcome.cut
        # What has gone out may only look like an answer that was cut.
        cut_off = "stop_reason max_tokens" if case.end == Finished("stop") else case.wanted[-1]
        assert outcome.streamed[-1] == cut_off
    else:
        assert not outcome.cut
        assert outcome.streamed == list(case.wanted)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["whole", "characters", "tokens", "sevens"])
def test_case(name: str, way: str) -> None:
    case = CASES[name]
    expect(case, run(case, cut(case.text, way)))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dialect", ["qwen3_coder", "glm45"])
def test_dialects_of_the_same_tag_read_the_same(name: str, dialect: str) -> None:
    case = TABLE[name]
    expect(case, run(case, list(case.text), dialect=dialect))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.settings.get("stopped")])
def test_a_stop_string_that_we_watch_cuts_like_one_that_the_engine_watches(name: str) -> None:
    case = CASES[name]
    stop = case.settings["stop"]
    pieces = list(case.text + stop + '"}}\n</tool_call>\nmore')
    outcome = run(case, pieces, stops=[stop])
    assert outcome.whole == list(case.wanted)


def test_the_whole_table_is_there() -> None:
    assert len(TABLE) == 126


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
