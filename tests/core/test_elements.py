"""An array that comes again is cut up as if it came for the first time; only what is new in it is looked through."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.elements import Elements

_cut = msgspec.json.Decoder(list[msgspec.Raw]).decode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 300) | st.text('a"\\,[]{} \u2028é', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab,]"), inner, max_size=2),
    max_leaves=5,
)
# Few first elements and numbers that begin alike: arrays that share a beginning, or seem to.
ARRAYS = st.lists(st.sampled_from([1, 12, 123, "a", {"a": 1}, {"a": 12}, [], None]) | JSON, max_size=6)
WAYS: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}]


@given(
    asked=st.lists(st.tuples(ARRAYS, st.sampled_from(WAYS)), max_size=12),
    most=st.integers(1, 3),
    most_bytes=st.sampled_from([8, 400, 1 << 20]),
)
def test_what_was_asked_before_changes_nothing(
    asked: list[tuple[list[Any], dict[str, Any]]], most: int, most_bytes: int
) -> None:
    elements = Elements(_cut, most=most, most_bytes=most_bytes)
    for array, way in asked:
        raw = json.dumps(array, **way).encode()
        for _ in range(2):
            assert elements.of(raw) == tuple(map(bytes, _cut(raw)))
        assert len(elements) <= most


@given(
    array=st.lists(JSON, min_size=1, max_size=8),
    more=st.lists(JSON, max_size=3),
    place=st.integers(0, 7),
    way=st.sampled_from(WAYS),
)
def test_a_longer_or_changed_one_is_right_too(
    array: list[Any], more: list[Any], place: int, way: dict[str, Any]
) -> None:
    elements = Elements(_cut)
    elements.of(json.dumps(array, **way).encode())
    changed = [*array[:place], {"changed": 1}, *array[place + 1 :], *more]
    for again in ([*array, *more], changed, array):
        raw = json.dumps(again, **way).encode()
        assert [json.loads(element) for element in elements.of(raw)] == again


def looked_through(before: list[Any], after: list[Any]) -> tuple[list[bytes], tuple[bytes, ...], tuple[bytes, ...]]:
    """What of `after` was looked through, and the elements of both."""
    read: list[bytes] = []

    def cut(raw: msgspec.Raw) -> list[msgspec.Raw]:
        read.append(bytes(raw))
        return _cut(raw)

    elements = Elements(cut)
    first = elements.of(json.dumps(before).encode())
    read.clear()
    return read, first, elements.of(json.dumps(after).encode())


TALK = [{"said": number} for number in range(40)]


@pytest.mark.parametrize(
    ("after", "new"),
    [
        (TALK, []),
        (TALK[:17], []),
        ([*TALK, "more", {}], [b'[ "more", {}]']),
        ([*TALK[:39], {"said": "other"}], [b'[ {"said": "other"}]']),
        ([*TALK[:20], 7, *TALK[21:23]], [b'[ 7, {"said": 21}, {"said": 22}]']),
    ],
    ids=["the same", "taken back", "longer", "another end", "changed in the middle"],
)
def test_only_what_is_new_is_looked_through(after: list[Any], new: list[bytes]) -> None:
    read, first, again = looked_through(TALK, after)
    assert read == new
    same = next((place for place, (a, b) in enumerate(zip(TALK, after, strict=False)) if a != b), min(40, len(after)))
    assert same >= 17
    assert all(again[place] is first[place] for place in range(same)), "hashes of what is known are known"


def test_what_an_array_is_not_is_said_by_who_reads() -> None:
    elements = Elements(_cut)
    for _ in range(2):
        with pytest.raises(msgspec.ValidationError):
            elements.of(b'{"a": 1}')
    assert elements.of(b"[]") == ()
    assert len(elements) == 0


def test_conversations_that_take_turns_are_all_known() -> None:
    elements = Elements(_cut, most=3)
    talks = [[{"begins": talk}, *TALK] for talk in range(3)]
    known = [elements.of(json.dumps(talk).encode()) for talk in talks]
    for talk, before in zip(talks, known, strict=True):
        assert elements.of(json.dumps([*talk, "more"]).encode())[5] is before[5]
    elements.of(json.dumps([{"begins": "another"}]).encode())
    assert len(elements) == 3
