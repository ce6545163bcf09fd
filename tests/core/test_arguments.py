"""Arguments that models write badly: what becomes of them, and what each mend is called."""

from __future__ import annotations

import json

import pytest

from qiao.core.arguments import Arguments, Closed
from qiao.core.shape import read_shape


def close(text: str, *, schema: object = None, cut: bool = False, mend: bool = True) -> tuple[str, Closed, list[str]]:
    """Everything sent, how it ended and what was mended; the same for the whole text and for single characters."""
    shape = None if schema is None else read_shape(json.dumps(schema))
    found = []
    for pieces in ([text], list(text)):
        arguments = Arguments(shape, mend=mend)
        sent = "".join([arguments.feed(piece) for piece in pieces])
        closed = arguments.close(cut=cut)
        found.append((sent + closed.text, closed, arguments.repairs))
    assert (found[0][0], found[0][1].outcome, found[0][2]) == (found[1][0], found[1][1].outcome, found[1][2])
    return found[0]


@pytest.mark.parametrize(
    ("text", "value", "repairs"),
    [
        ('{"a": 1,}', {"a": 1}, ["trailing_comma"]),
        ('{"a": [1, 2,],}', {"a": [1, 2]}, ["trailing_comma"]),
        ('{"a": 1,, "b": 2}', {"a": 1, "b": 2}, ["extra_comma"]),
        ('{"a": "x" "b": 1}', {"a": "x", "b": 1}, ["missing_comma"]),
        ('{"a": ["x" "y"]}', {"a": ["x", "y"]}, ["missing_comma"]),
        ('{"a"= 1}', {"a": 1}, ["missing_colon"]),
        ('{"a": 1', {"a": 1}, ["missing_bracket"]),
        ('{"a": [{"b": 1', {"a": [{"b": 1}]}, ["missing_bracket"]),
        ('{"a": [1}', {"a": [1]}, ["missing_bracket"]),
        ('{"a": 1}}', {"a": 1}, ["extra_bracket"]),
        ('{"a": 1]}', {"a": 1}, ["extra_bracket"]),
        ('{{"a": 1}}', {"a": 1}, ["doubled_braces"]),
        ('{{"a": {{"b": 1}}}}', {"a": {"b": 1}}, ["doubled_braces"]),
        ('{"a": "x\ny\tz"}', {"a": "x\ny\tz"}, ["raw_control_character"]),
        ("{'a': 'it is \"so\"'}", {"a": 'it is "so"'}, ["single_quotes"]),
        ("{'a': 'it's'}", {"a": "it's"}, ["single_quotes", "unescaped_quote"]),
        ('{a: 1, b_2: "x"}', {"a": 1, "b_2": "x"}, ["unquoted_key"]),
        ('{"a": True, "b": None, "c": NaN}', {"a": True, "b": None, "c": None}, ["python_literal"]),
        ('{"a": "C:\\dir\\ü"}', {"a": "C:\\dir\\ü"}, ["bad_escape"]),
        ('{"a": "\\ud83c"}', {"a": "�"}, ["bad_escape"]),
        ('{"a": 007, "b": +5, "c": .5}', {"a": 7, "b": 5, "c": 0.5}, ["bad_number"]),
        ('{"a": """x\ny "z\\n" w""", "b": 1}', {"a": 'x\ny "z\n" w', "b": 1}, ["triple_quotes"]),
        ("{'a': '''it's'''}", {"a": "it's"}, ["single_quotes", "triple_quotes"]),
        ('```json\n{"a": 1}\n```', {"a": 1}, ["code_fence"]),
        ('{"a": ```json\n{"b": 1}\n```, "c": 2}', {"a": {"b": 1}, "c": 2}, ["code_fence"]),
        ('"{\\"a\\": 1}"', {"a": 1}, ["string_arguments"]),
        ("", {}, ["empty_arguments"]),
        ("null", {}, ["empty_arguments"]),
    ],
)
def test_slips_are_mended_and_named(text: str, value: object, repairs: list[str]) -> None:
    sent, closed, named = close(text)
    assert (json.loads(sent), closed.outcome, named) == (value, "object", repairs)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"command": "echo "hi""}', 'echo "hi"'),
        ('{"command": "echo "hi" && ls", "n": 1}', 'echo "hi" && ls'),
        ('{"command": "print("a", b)"}', 'print("a", b)'),
        ('{"command": "say "", then"}', 'say "", then'),
        ('{"command": "{"a": 1, "b": 2}"}', '{"a": 1, "b": 2}'),
        ('{"command": "echo "x", "y""}', 'echo "x", "y"'),
        ('{"command": "print("a", "b")\\n", "n": 1}', 'print("a", "b")\n'),
        ('{"command": "x = ["a", "b", "it\'s\\n"]"}', 'x = ["a", "b", "it\'s\n"]'),
        ('{"command": "f("a", "b", 3)"}', 'f("a", "b", 3)'),
        ('{"command": "' + 'x("a", "b") ' * 200 + '"}', 'x("a", "b") ' * 200),
        ('{"command": "x = "a" + "b""}', 'x = "a" + "b"'),
        # Keys whose colon or value is missing make no value.
        ('{"command": "ls", "description"}', None),
        ('{"command": "ls", "description", "timeout": 5}', None),
        ('{"command": "ls", "description" "List"}', None),
        ('{"command": "ls", "description",}', None),
        # A sum is no value that anybody has written.
        ('{"command": "a" + "b"}', None),
    ],
)
def test_a_quote_that_was_not_escaped_stays_in_its_string(text: str, value: str | None) -> None:
    sent, closed, named = close(text)
    if value is None:
        assert closed.outcome != "object"
    else:
        assert json.loads(sent)["command"] == value
        assert named == ["unescaped_quote"]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "x", "b": "y"}',
        '{"a": "x" , "b": ["y" , "z" ] }',
        '{"a":"\\"","b":"\\\\"}',
        '{"a": "", "b": [""], "": {}}',
        '{"a": ["x", 1, true, null, -1.5e+7, {"b": "c"}]}',
        '{"a": "}", "b": "],", "c": "\\": "}',
        '{"a": "x"\n\n,\n"b": 1}',
        '{"a": "x", "b\\"c": "y", "it\'s": "z", "' + "k" * 100 + '": 1}',
        '{"a": "x", "b"' + " " * 40 + ': 1, "c"\n\n:2}',
    ],
)
def test_valid_json_is_read_as_what_it_is(text: str) -> None:
    assert close(text) == (text, Closed("", "object"), [])


@pytest.mark.parametrize(
    "text", ['{"a": "x', '{"a": "x", "b": ', '{"a": "x", "b', '{"a": ["x", 1 2]}', '{"a": "x", "b": tru']
)
def test_what_would_need_an_invented_value_is_not_completed(text: str) -> None:
    sent, closed, _ = close(text)
    assert closed.outcome == "cut"
    assert '{"a": "x'.startswith(sent) or sent.startswith(('{"a": "x', '{"a": ["x'))


@pytest.mark.parametrize("text", ["{", '{"a', '{"a": ', "[1]", "5", "words", '{"a": 1 2}'])
def test_nothing_is_sent_of_what_may_be_no_object(text: str) -> None:
    sent, closed, _ = close(text, cut=True)
    assert closed.outcome in ("text", "cut")
    assert sent in ("", '{"a": 1')


def test_a_complete_object_counts_although_the_answer_was_cut() -> None:
    assert close('{"a": 1}', cut=True)[1].outcome == "object"
    assert close('{"a": 1', cut=True)[1].outcome == "text"


def test_what_stands_behind_the_object_is_given_back() -> None:
    assert close('{"a": 1}, "name": "f"}')[1] == Closed("", "object", ', "name": "f"}')


def test_an_object_that_was_guessed_does_not_count_when_words_follow_it() -> None:
    sent, closed, _ = close('{"a": "say "hi"}"}')
    assert closed.outcome == "cut"
    assert sent == '{"a": "say \\"hi"'


@pytest.mark.parametrize(
    "text", ['{"a": 1,}', "{'a': 1}", '{"a": "x\ny"}', '{"a": 1', '{"a": "x "y""}', '```\n{"a": 1}\n```']
)
def test_without_mending_only_valid_json_counts(text: str) -> None:
    assert close(text, mend=False)[1].outcome != "object"
    assert close('{"a": 1}', mend=False)[1].outcome == "object"


def test_a_string_goes_out_while_it_is_written() -> None:
    arguments = Arguments()
    assert arguments.feed('{"content": "one ') == '{"content": "one '
    assert arguments.feed("two") == "two"
    assert arguments.feed('"') == ""  # it may not end the string
    assert arguments.feed(", ") == ""
    assert arguments.feed('"n"') == ""
    assert arguments.feed(": 1") == '"'  # a key follows: it does
    assert arguments.feed("}") == ', "n": 1}'


def test_deep_nesting_and_long_runs_do_no_harm() -> None:
    for text in ("[" * 100_000, '{"a":' * 50_000, '"' + " " * 100_000, "5" * 100_000, "\\u" * 50_000, '"" ' * 50_000):
        arguments = Arguments()
        arguments.feed('{"a": ' + text)
        arguments.close(cut=False)
