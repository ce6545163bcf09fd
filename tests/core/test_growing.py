"""A request that comes again, a little longer, is read as if it came for the first time; only what is new is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.body import fields_of
from qiao.core.fault import Fault
from qiao.core.growing import Growing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 300) | st.text('a"\\,[]{} \u2028é', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "]", "list"]), inner, max_size=2),
    max_leaves=5,
)
# Few elements, and numbers that begin alike: lists that share a beginning, or seem to.
LISTS = st.lists(st.sampled_from([1, 12, 123, "a", {"a": 1}, {"a": 12}, [], None]) | JSON, max_size=6)
RESTS = st.sampled_from([{}, {"model": "m"}, {"model": "n"}, {"tools": [[1], {"list": []}]}, {'"': "]}"}, {"list ": 1}])
WAYS: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}]


def fields(rest: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {name: bytes(raw) for name, raw in rest.items()}


def written(before: dict[str, Any], listed: Any, after: dict[str, Any], way: dict[str, Any]) -> bytes:
    return json.dumps({**before, "list": listed, **after}, **way).encode()


def read_anew(body: bytes) -> tuple[dict[str, bytes], tuple[bytes, ...] | None]:
    found = {name: bytes(raw) for name, raw in fields_of(body).items()}
    listed = found.pop("list", b"null")
    if listed == b"null":
        return found, None
    return found, tuple(map(bytes, msgspec.json.decode(listed, type=list[msgspec.Raw])))


@given(
    asked=st.lists(st.tuples(RESTS, LISTS | st.none(), RESTS, st.sampled_from(WAYS)), max_size=12),
    most=st.integers(1, 3),
    most_bytes=st.sampled_from([8, 600, 1 << 20]),
)
def test_what_was_asked_before_changes_nothing(asked: list[Any], most: int, most_bytes: int) -> None:
    growing = Growing("list", fields, bytes, most=most, most_bytes=most_bytes)
    for case in asked:
        body = written(*case)
        for _ in range(2):
            assert growing.of(body) == read_anew(body)
        assert len(growing) <= most


@given(
    listed=st.lists(JSON, min_size=1, max_size=8),
    more=st.lists(JSON, max_size=3),
    place=st.integers(0, 7),
    rests=st.tuples(RESTS, RESTS),
    way=st.sampled_from(WAYS),
)
def test_a_longer_or_changed_one_is_right_too(
    listed: list[Any], more: list[Any], place: int, rests: tuple[dict[str, Any], dict[str, Any]], way: dict[str, Any]
) -> None:
    growing = Growing("list", fields, bytes)
    growing.of(written(rests[0], listed, rests[1], way))
    changed = [*listed[:place], {"changed": 1}, *listed[place + 1 :], *more]
    for again in ([*listed, *more], changed, listed):
        body = written(rests[0], again, rests[1], way)
        assert growing.of(body) == read_anew(body)


def answer(of: Callable[[bytes], Any], body: bytes) -> Any:
    """What comes of `body`, or why nothing does."""
    try:
        return of(body)
    except (Fault, UnicodeDecodeError) as error:
        return repr(error)


@given(
    known=st.sampled_from([b'{"list":[1,{"a":[]}],"b":"]"}', b'{"list": [ {} , "\\"]" ] }', b'{"b":[],"list":[[[]]]}']),
    place=st.integers(0, 30),
    length=st.integers(0, 3),
    new=st.binary(max_size=3) | st.text('{}[]",:\\1 eu', max_size=4).map(str.encode),
)
def test_what_is_no_json_or_means_something_else_is_noticed(known: bytes, place: int, length: int, new: bytes) -> None:
    """A piece of a known text is exchanged for anything."""
    growing = Growing("list", fields, bytes)
    growing.of(known)
    body = known[:place] + new + known[place + length :]
    assert answer(growing.of, body) == answer(Growing("list", fields, bytes).of, body)


TALK = [{"said": number} for number in range(40)]
REST: dict[str, Any] = {"tools": [{"name": "Read"}], "stream": True}


@pytest.mark.parametrize(
    ("after", "same"),
    [
        (TALK, 40),
        (TALK[:17], 17),
        ([*TALK, "more", {}], 40),
        ([*TALK[:39], {"said": "other"}], 39),
        ([*TALK[:20], 7, *TALK[21:23]], 20),
    ],
    ids=["the same", "taken back", "longer", "another end", "changed in the middle"],
)
@pytest.mark.parametrize("before", [{}, {"model": "m", "system": "s"}], ids=["first", "behind others"])
def test_only_what_is_new_is_read(before: dict[str, Any], after: list[Any], same: int) -> None:
    read: list[dict[str, msgspec.Raw]] = []

    def read_rest(rest: dict[str, msgspec.Raw]) -> int:
        read.append(rest)
        return len(read)

    growing = Growing("list", read_rest, bytes)
    _, known = growing.of(written(before, TALK, REST, {}))
    rest, again = growing.of(written(before, after, REST, {}))
    assert rest == len(read) == 1
    assert known is not None
    assert again is not None
    assert all(again[place] is known[place] for place in range(same))
    assert [json.loads(element) for element in again] == after


@pytest.mark.parametrize(
    ("before", "after"),
    [({"model": "m"}, {"model": "o"}), ({"model": "o"}, {"model": "n"}), ({"model": "mm"}, {"model": "n"})],
)
def test_what_stands_beside_the_list_is_read_when_it_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    growing = Growing("list", fields, bytes)
    renamed = {"other": after["model"]}
    for rest in ({"model": "m"}, {"other": "n"}), (before, renamed), ({"model": "m"}, {"other": "n"}):
        body = written(rest[0], TALK, rest[1], {})
        assert growing.of(body) == read_anew(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"list":[1],"list":[2]}',
        b'{"list":[1],"list":[1]}',
        b'{"list":[1],"a":1,"a":1}',
        b'{"list":[1],"model":"a","list":[2]}',
        b'{"l\\u0069st":[1]}',
        b'{"other\\n":1,"list":[1]}',
        b'\xef\xbb\xbf{"list":[1]}',
        b'{"list":["\\ud800"]}',
        b'{"list":[]}',
        b'{"list":null}',
        b"{}",
    ],
)
def test_what_does_not_stand_where_it_is_read_is_not_kept(body: bytes) -> None:
    growing = Growing("list", fields, bytes)
    first = growing.of(body)
    assert growing.of(body) == first
    assert len(growing) == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"list":[1,]}',
        b'{"list":[1 , ]}',
        b'{"list":[1\x0c]}',
        b'{"list":[1\x0b,2]}',
        b'{"list":[1,2,]}',
        b'{"list":[1]]}',
        b'{"list":[1}',
        b'{"list":[1,2}]}',
        b'{"list":[1]\x0c}',
    ],
)
def test_what_is_no_json_is_none_behind_what_is_known(body: bytes) -> None:
    growing = Growing("list", fields, bytes)
    growing.of(b'{"list":[1]}')
    with pytest.raises(Fault, match="not valid JSON"):
        growing.of(body)


def test_too_many_are_too_many_however_they_come() -> None:
    growing = Growing("list", fields, bytes, most_elements=3)
    growing.of(b'{"list":[1,2,3]}')
    for listed in ([1, 2, 3, 4], [1] * 5, [7] * 4):
        with pytest.raises(Fault, match=f"^list: at most 3 list are allowed, got {len(listed)}$"):
            growing.of(written({}, listed, {}, {}))


def test_many_small_elements_are_not_kept_for_their_few_bytes() -> None:
    growing = Growing("list", fields, bytes, most_bytes=40_000)
    growing.of(written({}, [1] * 50, {}, {}))
    growing.of(written({}, [2] * 100, {}, {}))
    assert len(growing) == 1
    growing.of(written({}, [1] * 100, {}, {}))
    assert len(growing) == 0


def test_an_object_of_many_fields_is_not_kept() -> None:
    growing = Growing("list", fields, bytes)
    growing.of(written({}, [1], {f"field {number}": 1 for number in range(100)}, {}))
    assert len(growing) == 0


def test_half_a_character_is_mended_wherever_it_comes() -> None:
    growing = Growing("list", fields, bytes)
    growing.of(b'{"list":["a"],"b":1}')
    for body in (b'{"list":["a","\\ud800"],"b":1}', b'{"list":["a"],"b":1,"c":"\\ud800"}'):
        assert growing.of(body) == read_anew(body)


def test_a_list_that_is_none_is_named() -> None:
    growing = Growing("list", fields, bytes)
    for _ in range(2):
        with pytest.raises(Fault, match=r"^list: expected array"):
            growing.of(b'{"list":{"a":1}}')
    assert len(growing) == 0


def test_conversations_that_take_turns_are_all_known() -> None:
    growing = Growing("list", fields, bytes, most=3)
    talks = [[{"begins": talk}, *TALK] for talk in range(3)]
    known = [growing.of(written({}, talk, REST, {}))[1] for talk in talks]
    for talk, before in zip(talks, known, strict=True):
        again = growing.of(written({}, [*talk, "more"], REST, {}))[1]
        assert again is not None
        assert before is not None
        assert again[5] is before[5]
    growing.of(written({}, [{"begins": "another"}], REST, {}))
    assert len(growing) == 3
