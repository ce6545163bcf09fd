"""Histories that clients leave broken, and what is made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.core.conversation import Document, Image, Part, Reasoning, Role, Text, ToolCall, ToolResult, Turn
from qiao.policies import history
from qiao.policies.course import course
from qiao.policies.history import NO_CONTENT, NO_OUTPUT, NO_RESULT, heal
from qiao.policies.prefix import SideText


def user(*parts: Part | str) -> Turn:
    return turn("user", *parts)


def assistant(*parts: Part | str) -> Turn:
    return turn("assistant", *parts)


def system(*parts: Part | str) -> Turn:
    return turn("system", *parts)


def turn(role: Role, *parts: Part | str) -> Turn:
    return Turn(role, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def call(call_id: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(call_id, "Bash", arguments)


def result(call_id: str, *texts: str, is_error: bool = False) -> ToolResult:
    return ToolResult(call_id, tuple(Text(text) for text in texts), is_error)


def healed(*turns: Turn, side_text: SideText = "user") -> list[Turn]:
    return list(heal(turns, side_text)[0])


def test_a_sound_history_stays_as_it_is() -> None:
    sound = [
        user("go"),
        system("env"),
        assistant(Reasoning("hm"), "Two.", call("a"), call("b")),
        user(result("a", "1"), result("b", "2"), "side"),
        system("late"),
        assistant("done"),
        user("thanks"),
    ]
    assert heal(tuple(sound)) == (tuple(sound), ())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], [user(NO_CONTENT)]),
        ([user("")], [user(NO_CONTENT)]),
        ([user(" \n"), user("a"), user("b")], [user("a", "b")]),
        ([user("a"), assistant("x"), assistant("y"), user("b")], [user("a"), assistant("x", "\n\ny"), user("b")]),
        ([user("a"), system("s"), system("t")], [user("a"), system("s", "t")]),
        ([user("a"), system("s"), user(""), system("t")], [user("a"), system("s", "t")]),
        ([user("a"), assistant(""), user("b")], [user("a"), assistant(NO_CONTENT), user("b")]),
        (
            [user("a"), assistant("x"), user(""), assistant("y")],
            [user("a"), assistant("x"), user(NO_CONTENT), assistant("y")],
        ),
        ([user("a"), assistant("x"), system(" "), assistant("y")], [user("a"), assistant("x", "\n\ny")]),
        ([assistant("x"), user("a")], [user(NO_CONTENT), assistant("x"), user("a")]),
        ([user("a"), assistant("")], [user("a")]),
        ([user("a"), assistant(Reasoning("hm"))], [user("a")]),
        ([assistant("")], [user(NO_CONTENT)]),
        ([user("a"), assistant("So")], [user("a"), assistant("So")]),
        ([system("s")], [system("s")]),
    ],
)
def test_neighbours_and_empty_turns(given: list[Turn], expected: list[Turn]) -> None:
    assert healed(*given) == expected


def test_results_follow_their_calls_in_order_whatever_stood_between() -> None:
    given = [assistant(call("a"), call("b")), system("s"), user("x", result("b", "2")), user(result("a", "1"))]
    assert healed(user("go"), *given) == [
        user("go"),
        assistant(call("a"), call("b")),
        user(result("a", "1"), result("b", "2")),
        system("s"),
        user("x"),
    ]


def test_a_call_without_a_result_gets_one_and_words_stay_a_user_turn() -> None:
    given = (user("go"), assistant(call("a")), user("[Request interrupted by user]"))
    expected = [*given[:2], user(result("a", NO_RESULT), "[Request interrupted by user]")]
    assert healed(*given, side_text="result") == expected
    assert heal(given)[1] == ("history: results made for calls without one: 1",)


def test_a_call_at_the_end_gets_a_result_too() -> None:
    assert healed(user("go"), assistant("x", call("a")))[-1] == user(result("a", NO_RESULT))


def test_a_late_result_becomes_words_and_its_call_keeps_the_answer_it_had() -> None:
    """Moving it up would change what turn n already sent."""
    given = [user("go"), assistant(call("a")), user("hm"), assistant("ok"), user(result("a", "late"))]
    after = healed(*given)
    assert after[:4] == healed(*given[:4])
    assert [part for part in after[4].parts if isinstance(part, ToolResult)] == []
    assert Text("late") in after[4].parts


def test_an_orphan_keeps_its_picture_and_its_note() -> None:
    picture = Image("image/png", "AA")
    after, notes = heal((user(ToolResult("gone", (Text("left"), picture)), "go"),))
    assert after[0].parts[1:] == (Text("left"), picture, Text("go"))
    assert notes == ("history: results without a call kept as text: 1",)


def test_a_second_result_for_one_call_becomes_words() -> None:
    after = healed(user("go"), assistant(call("a")), user(result("a", "1"), result("a", "2")))
    assert [part for part in after[2].parts if isinstance(part, ToolResult)] == [result("a", "1")]
    assert Text("2") in after[2].parts


def test_ids_become_unique_forward_only() -> None:
    given = [
        user("go"),
        assistant(call("a"), call("a"), call("a_2"), call("")),
        user(result("a", "1"), result("a", "2"), result("a_2", "3"), result("", "4")),
        assistant(call("a")),
        user(result("a", "5")),
    ]
    after = healed(*given)
    ids = [part.id for turn in after for part in turn.parts if isinstance(part, ToolCall)]
    assert ids == ["a", "a_2", "a_2_2", "call_4", "a_3"]
    answers = [(part.call_id, part.parts) for turn in after for part in turn.parts if isinstance(part, ToolResult)]
    assert answers == [(name, (Text(str(number)),)) for number, name in enumerate(ids, 1)]
    assert healed(*given[:3]) == after[:3]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"b" : 1, "a":2}', '{"b" : 1, "a":2}'),
        ("", "{}"),
        (" \n", "{}"),
        ("[1]", '{"__unparsed":"[1]"}'),
        ("null", '{"__unparsed":"null"}'),
        ('{"a": ', '{"__unparsed":"{\\"a\\": "}'),
        ("{}{}", '{"__unparsed":"{}{}"}'),
        ("NaN", '{"__unparsed":"NaN"}'),
        ('{"a":' + "[" * 20_000, None),
    ],
)
def test_arguments_are_objects(arguments: str, expected: str | None) -> None:
    sent = healed(user("go"), assistant(call("a", arguments)))[1].parts[0]
    assert isinstance(sent, ToolCall)
    if expected is None:
        assert sent.arguments.startswith('{"__unparsed":"{')
    else:
        assert sent.arguments == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (result("a"), (Text(NO_OUTPUT),)),
        (result("a", "", " "), (Text(NO_OUTPUT),)),
        (result("a", "no file", is_error=True), (Text("Error: no file"),)),
        (result("a", "Error: no file", is_error=True), (Text("Error: no file"),)),
        (
            result("a", "<tool_use_error>x</tool_use_error>", is_error=True),
            (Text("<tool_use_error>x</tool_use_error>"),),
        ),
        (result("a", is_error=True), (Text(f"Error: {NO_OUTPUT}"),)),
        (
            ToolResult("a", (Image("image/png", "AA"),), is_error=True),
            (Text("Error:"), Image("image/png", "AA")),
        ),
    ],
)
def test_results_say_something_and_say_when_they_failed(given: ToolResult, expected: tuple[Part, ...]) -> None:
    after = healed(user("go"), assistant(call("a")), user(given))[2].parts
    assert after == (ToolResult("a", expected),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "joined", "staying"),
    [
        ("result", ("<system-reminder>r</system-reminder>", "and be quick"), ()),
        ("reminders", ("<system-reminder>r</system-reminder>",), ("and be quick",)),
        ("user", (), ("<system-reminder>r</system-reminder>", "and be quick")),
    ],
)
def test_side_text(mode: SideText, joined: tuple[str, ...], staying: tuple[str, ...]) -> None:
    beside = ("<system-reminder>r</system-reminder>", "and be quick")
    given = [user("go"), assistant(call("a"), call("b")), user(result("b", "2"), result("a", "1"), *beside)]
    after = healed(*given, side_text=mode)[2]
    assert after == user(result("a", "1"), result("b", "2", *joined), *staying)


def test_side_text_stays_with_its_picture_and_a_turn_of_its_own_stays_one() -> None:
    picture = Image("image/png", "AA")
    given = [user("go"), assistant(call("a")), user(result("a", "1"), "look", picture)]
    assert healed(*given, side_text="result") == given
    apart = [user("go"), assistant(call("a")), user(result("a", "1")), user("a new prompt")]
    assert healed(*apart, side_text="result")[2] == user(result("a", "1"), "a new prompt")


def test_words_of_the_wrong_speaker_are_kept_as_text() -> None:
    after = healed(user(call("a", '{"x":1}'), Reasoning("hm")), assistant(result("b", "out")), user("go"))
    assert after == [user('[tool call: Bash {"x":1}]', "hm"), assistant("out"), user("go")]


def test_a_hostile_history_costs_linear_time() -> None:
    """100,000 calls with one id: a search per call would take hours."""
    many = 20_000
    given = (
        user("go"),
        assistant(*[call("a")] * many),
        user(*[result("a", "x")] * many, *["side"] * many),
        *[turn for _ in range(many) for turn in (system("s"), user("u"))],
    )
    after = healed(*given, side_text="result")
    assert sum(isinstance(part, ToolResult) for part in after[2].parts) == many


_TEXTS = st.sampled_from(["a", "b", " ", ""]).map(Text)
_CALLS = st.builds(ToolCall, st.sampled_from(["c1", "c2", ""]), st.just("Read"), st.sampled_from(["{}", "[]", "{"]))
_RESULTS = st.builds(
    ToolResult,
    st.sampled_from(["c1", "c2"]),
    st.lists(_TEXTS, max_size=2).map(tuple),
    st.booleans(),
)
_ANY_PART = st.one_of(
    _TEXTS, _CALLS, _RESULTS, st.just(Reasoning("why")), st.just(Image(url="http://x/")), st.just(Document("a/b", ""))
)
_ANY_TURN = st.builds(
    Turn, st.sampled_from(["user", "assistant", "system"]), st.lists(_ANY_PART, max_size=3).map(tuple)
)


@st.composite
def _nearly_sound(draw: st.DrawFn) -> tuple[Turn, ...]:
    """A conversation as clients hold it, perhaps with one turn more, one less or another one."""
    turns: list[Turn] = []
    for number in range(draw(st.integers(1, 4))):
        turns.append(Turn("user", (Text(f"question {number}"),)))
        if draw(st.booleans()):
            turns.append(Turn("system", (Text("note"),)))
        for call in range(draw(st.integers(0, 2))):
            ids = [f"c{number}.{call}.{each}" for each in range(draw(st.integers(1, 2)))]
            turns.append(Turn("assistant", tuple(ToolCall(one, "Read", "{}") for one in ids)))
            turns.append(Turn("user", tuple(ToolResult(one, (Text("text"),)) for one in ids)))
        turns.append(Turn("assistant", (Reasoning("hm"), Text("answer"))))
    place = draw(st.integers(0, len(turns)))
    change = draw(st.sampled_from(["none", "insert", "remove", "replace"]))
    if change in ("remove", "replace"):
        del turns[place : place + 1]
    if change in ("insert", "replace"):
        turns.insert(place, draw(_ANY_TURN))
    return tuple(turns)


@given(turns=st.one_of(_nearly_sound(), st.lists(_ANY_TURN, max_size=5).map(tuple)))
def test_what_looks_well_would_be_mended_into_itself(turns: tuple[Turn, ...]) -> None:
    mended = history._mended(turns, "user")
    assert heal(turns) == mended
    if course(turns).is_well:
        assert mended == (turns, ())


def test_a_sound_history_looks_well_at_once() -> None:
    call, result = ToolCall("c1", "Read", "{}"), ToolResult("c1", (Text("text"),))
    turns = (
        Turn("user", (Text("q"), Image(url="http://x/"))),
        Turn("system", (Text("note"),)),
        Turn("assistant", (Reasoning("hm"), Text("I look."), call)),
        Turn("user", (result,)),
        Turn("assistant", (Text("answer"),)),
    )
    assert course(turns).is_well
    assert course(turns[:-1]).is_well
    assert not course(turns[:-2]).is_well
    assert course(turns[1:]).is_well
    assert not course(turns[2:]).is_well
