"""Number ranges: every number of the range, and no other."""

from __future__ import annotations

import random
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.core.llamacpp.numbers import integer, number
from qiao.core.llamacpp.rules import Rules
from tests.core.llamacpp.sentences import Sentences


def _as_regex(text: str, rules: dict[str, str]) -> str:
    """The grammars of whole numbers use so little of GBNF that a regular expression says the same."""
    text = rules.get(text, text)
    text = re.sub(r'"([^"]*)"', r"\1", text)
    return text.replace(" ", "")


@settings(deadline=None)
@given(st.integers(-3000, 3000), st.integers(0, 2500))
def test_whole_numbers_of_a_range(low: int, width: int) -> None:
    high = low + width
    rules = Rules()
    node = integer(rules, low, high)
    assert node is not None
    lines = dict(line.split(" ::= ") for line in rules.written(node).splitlines())
    pattern = re.compile(_as_regex(node.text, lines))
    border = {low - 1, low, low + 1, high - 1, high, high + 1, -1, 0, 1, (low + high) // 2, 10 * low, 10 * high}
    for value in border:
        assert bool(pattern.fullmatch(str(value))) == (low <= value <= high), value
    assert not pattern.fullmatch("0" + str(high)) or high < 0


@settings(deadline=None)
@given(
    st.one_of(st.none(), st.floats(-1e6, 1e6)),
    st.one_of(st.none(), st.floats(0, 1e4)),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_numbers_stay_in_their_range(low: float | None, width: float | None, is_open: bool, seed: int) -> None:
    high = None if width is None else (low or 0) + width
    rules = Rules()
    node = number(rules, None, None, above=low, below=high) if is_open else number(rules, low, high)
    if node is None:
        assert is_open, "a closed range holds its ends"
        assert low is not None
        assert high is not None
        return
    reader = Sentences(rules.written(node))
    generator = random.Random(seed)
    for _ in range(20):
        value = float(reader.draw(generator, 0.8))
        assert low is None or (value > low if is_open else value >= low)
        assert high is None or (value < high if is_open else value <= high)


def test_an_empty_range_has_no_number() -> None:
    assert integer(Rules(), 3, 2) is None
    assert integer(Rules(), 1, 9, multiple=10) is None
    assert number(Rules(), 2, 1) is None
