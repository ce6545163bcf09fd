"""Repair guided by the schema: what is changed, what stays, what is held while it streams; names nearly right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qiao.core.arguments import Arguments
from qiao.core.repair import near_name, typed_json
from qiao.core.shape import read_shape
from tests.core.test_arguments import close

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
SCHEMA = {
    "type": "object",
    "properties": {
        "n": INTEGER,
        "x": {"type": "number"},
        "b": {"type": "boolean"},
        "s": STRING,
        "l": {"type": "array", "items": INTEGER},
        "ls": {"type": "array", "items": STRING},
        "o": {"type": "object", "properties": {"k": INTEGER, "s": STRING}, "additionalProperties": False},
        "edits": {"type": "array", "items": {"$ref": "#/$defs/edit"}},
        "maybe": {"anyOf": [INTEGER, {"type": "null"}]},
        "e": {"enum": ["Alpha", "Beta", "beta_two"]},
        "either": {"type": ["string", "integer"]},
        "level": {"enum": [1, 2, "three", None]},
        "any": {},
        "pair": {"type": "array", "prefixItems": [INTEGER, STRING]},
    },
    "required": ["n"],
    "$defs": {"edit": {"type": "object", "properties": {"line": INTEGER, "all": {"type": "boolean"}}}},
}


def mend(value: Any, schema: Any = SCHEMA) -> tuple[Any, list[str]]:
    sent, closed, repairs = close(json.dumps(value), schema=schema)
    assert closed.outcome == "object"
    return json.loads(sent), repairs


@pytest.mark.parametrize(
    ("given", "wanted", "repair"),
    [
        ({"n": "5"}, {"n": 5}, "string_to_number"),
        ({"n": "5.0"}, {"n": 5}, "string_to_number"),
        ({"level": "1"}, {"level": 1}, "string_to_number"),
        ({"level": "null"}, {"level": None}, "string_to_null"),
        ({"x": "-1.5e3"}, {"x": -1500.0}, "string_to_number"),
        ({"b": "true"}, {"b": True}, "string_to_boolean"),
        ({"b": "False"}, {"b": False}, "string_to_boolean"),
        ({"l": "[1, 2]"}, {"l": [1, 2]}, "string_to_array"),
        ({"o": '{"k": 1}'}, {"o": {"k": 1}}, "string_to_object"),
        ({"l": 3}, {"l": [3]}, "wrapped_in_array"),
        ({"ls": "a.py"}, {"ls": ["a.py"]}, "wrapped_in_array"),
        ({"edits": {"line": 1}}, {"edits": [{"line": 1}]}, "wrapped_in_array"),
        ({"s": 5}, {"s": "5"}, "scalar_to_string"),
        ({"n": 1, "s": None}, {"n": 1}, "dropped_null"),
        ({"b": "null"}, {}, "dropped_null"),
        ({"maybe": "null"}, {"maybe": None}, "string_to_null"),
        ({"e": "ALPHA"}, {"e": "Alpha"}, "enum_case"),
        ({"e": "Beta-Two"}, {"e": "beta_two"}, "enum_case"),
        ({"o": {"z": 1, "k": 2}}, {"o": {"k": 2}}, "dropped_key"),
        ({"o": {"k": 2, "z": {"a": [1]}}}, {"o": {"k": 2}}, "dropped_key"),
        ({"edits": [{"line": "3", "all": True}]}, {"edits": [{"line": 3, "all": True}]}, "string_to_number"),
        ({"pair": ["1", "2"]}, {"pair": [1, "2"]}, "string_to_number"),
    ],
)
def test_values_that_the_schema_forbids_are_coerced(given: Any, wanted: Any, repair: str) -> None:
    assert mend(given) == (wanted, [repair])


@pytest.mark.parametrize(
    "value",
    [
        {"s": "[1, 2]"},
        {"s": "5"},
        {"n": "five"},
        {"n": "5.5"},
        {"n": "1e300"},
        {"level": "3"},
        {"n": 5.5},
        {"n": [5]},
        {"n": None},
        {"b": "yes"},
        {"b": 1},
        {"l": ["x"]},
        {"l": "x"},
        {"o": [1]},
        {"s": {"a": 1}},
        {"e": "gamma"},
        {"either": "5"},
        {"either": 5},
        {"any": "5"},
        {"unknown": "5"},
        {"unknown": None},
        {"maybe": None},
    ],
)
def test_what_fits_or_cannot_be_read_stays(value: Any) -> None:
    assert mend(value) == (value, [])


def test_several_at_once_and_nested_in_a_string() -> None:
    given = {"n": "5", "edits": '[{"line": "1"}, {"line": 2,}]', "z": None}
    wanted = {"n": 5, "edits": [{"line": 1}, {"line": 2}], "z": None}
    assert mend(given) == (wanted, ["string_to_number", "trailing_comma", "string_to_array"])


def test_a_comma_goes_with_the_key_that_is_dropped() -> None:
    closed_schema = {**SCHEMA, "additionalProperties": False}
    for text, wanted in {
        '{"z": 1, "n": 2}': '{ "n": 2}',
        '{"n": 2, "z": 1}': '{"n": 2}',
        '{"z": 1, "y": [2], "n": 2, "x": 1}': '{ "n": 2, "x": 1}',
        '{"z": 1}': "{}",
        '{"z": 1, "y": 2,}': "{}",
    }.items():
        assert close(text, schema=closed_schema)[0] == wanted


def test_numbers_too_large_for_a_float_are_left_alone() -> None:
    text = '{"n": 123456789012345678901234567890, "x": "1e999"}'
    assert close(text, schema=SCHEMA)[0] == text


def test_only_what_may_need_mending_is_held_back() -> None:
    arguments = Arguments(read_shape(json.dumps(SCHEMA)))
    assert arguments.feed('{"s": "a long te') == '{"s": "a long te'  # a string where a string belongs
    assert arguments.feed('xt", "n": "1') == 'xt"'  # a string where a number belongs
    assert arguments.feed('2", "edits": [{"line": ') == ', "n": 12, "edits": [{'
    assert arguments.feed('"7", "all": true') == '"line": 7'
    assert arguments.feed("}]}") == ', "all": true}]}'
    assert arguments.repairs == ["string_to_number"]


def test_without_repair_values_stay() -> None:
    assert close('{"n": "5"}', schema=SCHEMA, mend=False)[0] == '{"n": "5"}'


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"properties": {"n": {"anyOf": [{"$ref": "#"}, {"$ref": "#/properties/n"}]}}},
        {"properties": {"n": {"$ref": "http://example.com/x"}}},
        {"properties": {"n": {"$ref": "#/nowhere"}}},
        {"properties": {"n": False}, "required": "n", "type": 5},
        {"properties": [], "items": 5, "anyOf": [], "enum": "x"},
        {"allOf": [True, {"properties": {"n": {"type": "zzz"}}}]},
        True,
        "words",
    ],
)
def test_a_schema_that_nobody_understands_changes_nothing(schema: Any) -> None:
    value = {"n": "5", "l": [{"a": None}]}
    assert mend(value, schema) == (value, [])


def test_references_unions_and_all_of_are_followed() -> None:
    schema = {
        "allOf": [{"properties": {"a": {"$ref": "#/definitions/id"}}}, {"required": ["a"]}],
        "properties": {"b": {"oneOf": [{"type": "null"}, {"type": "object", "properties": {"c": INTEGER}}]}},
        "definitions": {"id": {"type": "integer", "nullable": True}},
    }
    assert mend({"a": "5", "b": {"c": "6"}}, schema)[0] == {"a": 5, "b": {"c": 6}}
    assert mend({"a": None}, schema)[0] == {"a": None}


# -- names ------------------------------------------------------------------------------------------------------------

TOOLS = ["Bash", "Read", "Write", "WebFetch", "mcp__git__log", "todo_write", "a", "b"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Bash", "Bash"),
        ("bash", "Bash"),
        ("webfetch", "WebFetch"),
        ("Todo-Write", "todo_write"),
        ("TodoWrite", "todo_write"),
        ("web_fetch", "WebFetch"),
        ("Web Fetch", "WebFetch"),
        ("mcp__git_log", "mcp__git__log"),
        ("Writ", "Write"),
        ("Wrlte", "Write"),
        ("WebFetchh", "WebFetch"),
        ("Web_Fetch", "WebFetch"),
        ("nope", None),
        ("Rea", None),
        ("c", None),
        ("", None),
    ],
)
def test_a_near_name_is_mended(name: str, wanted: str | None) -> None:
    assert near_name(name, TOOLS) == wanted


def test_a_name_between_two_tools_is_left_alone() -> None:
    assert near_name("test1", ["test2", "test3"]) is None
    assert near_name("READ", ["read", "Read"]) is None


# -- parameters written as text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schema", "wanted"),
    [
        ("5", INTEGER, 5),
        ("5", STRING, "5"),
        ('{"a": 1}', STRING, '{"a": 1}'),
        ("5", None, 5),
        ("ls -l", None, "ls -l"),
        ('"quoted"', None, "quoted"),
        ('"quoted"', {"type": ["string", "null"]}, '"quoted"'),
        ("null", {"type": ["string", "null"]}, None),
        ("None", {"type": ["string", "null"]}, None),
        ("True", {"type": "boolean"}, True),
        ("many", INTEGER, "many"),
        (" [1, 2] ", {"type": "array"}, [1, 2]),
        ("['a', 'b',]", {"type": "array"}, ["a", "b"]),
        ("NaN", None, "NaN"),
        ("5", {"type": ["string", "integer"]}, 5),
        ("text ", {"type": ["string", "integer"]}, "text "),
    ],
)
def test_a_parameter_is_typed_by_the_schema(text: str, schema: Any, wanted: Any) -> None:
    shape = None if schema is None else read_shape(json.dumps(schema))
    notes: list[str] = []
    assert json.loads(typed_json(text, shape, notes.append)) == wanted


@pytest.mark.parametrize(
    ("text", "schema", "wanted", "repairs"),
    [
        ("[1, 2,]", {"type": "array"}, [1, 2], ["trailing_comma"]),
        ("{'a': 1}", {"type": "object"}, {"a": 1}, ["single_quotes"]),
        ("```json\n[1]\n```", {"type": "array"}, [1], ["code_fence"]),
        ('"5"', INTEGER, 5, ["string_to_number"]),
        ('"true"', {"type": "boolean"}, True, ["string_to_boolean"]),
        ('"[1, 2]"', {"type": "array"}, [1, 2], ["string_to_array"]),
        ('"fast"', {"enum": ["fast", "slow"]}, "fast", ["quoted_value"]),
        ("True", {"type": "boolean"}, True, []),
        # Nothing is mended where a string may stand, or in a parameter that the schema does not know.
        ("[1, 2,]", {"type": ["array", "string"]}, "[1, 2,]", []),
        ("[1, 2,]", None, "[1, 2,]", []),
        ('"many"', INTEGER, '"many"', []),
        ('"fast"', {"enum": ["fast", '"fast"']}, '"fast"', []),
        ('"quick"', {"enum": ["fast", "slow"]}, '"quick"', []),
    ],
)
def test_a_mend_of_a_parameter_has_a_name(text: str, schema: Any, wanted: Any, repairs: list[str]) -> None:
    shape = None if schema is None else read_shape(json.dumps(schema))
    notes: list[str] = []
    assert json.loads(typed_json(text, shape, notes.append)) == wanted
    assert notes == repairs
    if repairs:
        assert json.loads(typed_json(text, shape)) == text
