"""What fits, what is left for the answer, and when a count decides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.policies.overflow import LEAST_ANSWER, find_excess
from qiao.policies.window import answer_room, is_far, surely_too_long, too_long


@pytest.mark.parametrize(
    ("size", "asked", "window", "expected"),
    [
        (71_000, 32_000, 131_072, True),
        (200_000, 32_000, 131_072, False),
        (10**9, 32_000, None, True),
        (1_000, 32_000, 32_000, False),
        (400, None, 32_768, True),
        (100_000, None, 32_768, False),
    ],
)
def test_is_far(size: int, asked: int | None, window: int | None, expected: bool) -> None:
    assert is_far(size, asked, window) is expected


@pytest.mark.parametrize(
    ("asked", "prompt", "window", "expected"),
    [
        (32_000, 1_000, 131_072, 32_000),
        (32_000, 120_000, 131_072, 11_072),
        (32_000, 131_072 - 1024, 131_072, 1024),
        (32_000, 131_072 - 1023, 131_072, None),
        (32_000, 8192 - LEAST_ANSWER, 8192, LEAST_ANSWER),
        (32_000, 8192 - LEAST_ANSWER + 1, 8192, None),
        (64, 131_008, 131_072, 64),
        (65, 131_008, 131_072, None),
        (1, 131_071, 131_072, 1),
        (1, 131_072, 131_072, None),
        (None, 131_071, 131_072, 0),
        (None, 131_072, 131_072, None),
    ],
)
def test_answer_room(asked: int | None, prompt: int, window: int, expected: int | None) -> None:
    assert answer_room(asked, prompt, window) == expected


def test_room_in_reserve() -> None:
    assert answer_room(32_000, 120_000, 131_072, reserve=1) == 11_071
    assert answer_room(72, 131_000, 131_072, reserve=1) is None


@given(asked=st.integers(1, 200_000), prompt=st.integers(0, 300_000), window=st.integers(512, 300_000))
def test_room_always_fits(asked: int, prompt: int, window: int) -> None:
    room = answer_room(asked, prompt, window)
    if room is not None:
        assert 1 <= room <= asked
        assert prompt + room <= window


@given(prompt=st.integers(1, 300_000), window=st.integers(512, 300_000))
def test_the_refusal_always_says_more_than_the_maximum(prompt: int, window: int) -> None:
    if answer_room(32_000, prompt, window) is not None:
        return
    said = too_long(prompt, window)
    found = find_excess(said)
    assert found is not None
    assert found.prompt == prompt
    assert found.window is not None
    assert found.window < prompt
    if prompt > window:
        assert found.window == window


def test_a_count_of_our_own_refuses_only_what_is_surely_too_long() -> None:
    assert surely_too_long(32_769, 32_768, is_exact=True)
    assert not surely_too_long(32_769, 32_768, is_exact=False)
    assert surely_too_long(40_000, 32_768, is_exact=False)
