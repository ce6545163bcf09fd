"""What the search for broken laws kept, replayed: what it found once stays mended, and what it reached stays right."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import CRASHERS, FOUND, load
from tests.fuzz.laws import LAWS, hold

PARTS = 8


def test_the_corpus_is_there_and_small() -> None:
    found = load(FOUND)
    assert {data[0] % len(LAWS) for data in found} == set(range(len(LAWS)))
    assert FOUND.stat().st_size + CRASHERS.stat().st_size < 600_000


@pytest.mark.parametrize("part", range(PARTS))
def test_what_was_reached_keeps_the_laws(part: int) -> None:
    for data in load(FOUND)[part::PARTS]:
        hold(data)


@pytest.mark.parametrize("data", load(CRASHERS), ids=lambda data: data[:24].hex())
def test_what_broke_a_law_keeps_it_now(data: bytes) -> None:
    hold(data)
