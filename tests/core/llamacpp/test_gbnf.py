"""Every sentence of a grammar fits its schema: checked by drawing sentences, without an engine."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from qiao.core.llamacpp.gbnf import Bounds, grammar, left_out, schema_node
from qiao.core.llamacpp.rules import Rules
from tests.core.llamacpp.schemas import schemas
from tests.core.llamacpp.sentences import Sentences

SMALL = (Bounds(string=6, items=3, members=2, depth=1, recursion=1),)


def sentences(schema: object, seed: int = 0, count: int = 12, ladder: tuple[Bounds, ...] = SMALL) -> list[str]:
    reader = Sentences(grammar(schema, limit=10**9, ladder=ladder))
    generator = random.Random(seed)
    return [reader.draw(generator, generator.choice([0.1, 0.5, 0.95])) for _ in range(count)]


def is_satisfiable(schema: object) -> bool:
    from qiao.core.llamacpp.gbnf import _Converter

    return _Converter(schema, Rules(), SMALL[0]).value(schema, ()) is not None


@given(schema=schemas, seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_sentence_fits(schema: object, seed: int) -> None:
    drawn = sentences(schema, seed)
    values = [json.loads(text) for text in drawn]
    if not is_satisfiable(schema):
        return
    validator = Draft202012Validator(schema)
    for value in values:
        problems = [problem.message for problem in validator.iter_errors(value)]
        assert not problems, (value, problems)


@given(schema=schemas, seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_longest_is_an_upper_bound(schema: object, seed: int) -> None:
    rules = Rules()
    node = schema_node(schema, rules, SMALL[0])
    reader = Sentences(rules.written(node))
    generator = random.Random(seed)
    for _ in range(10):
        assert node.shortest <= len(reader.draw(generator, 0.97)) <= node.longest


def one(schema: object) -> set[object]:
    """What a grammar with few sentences says, all of it."""
    return {json.dumps(json.loads(text)) for text in sentences(schema, count=200)}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"const": "x"}, {'"x"'}),
        ({"enum": ["a", 1, None]}, {'"a"', "1", "null"}),
        ({"enum": ["a", 1], "type": "string"}, {'"a"'}),
        ({"type": "string", "nullable": True, "enum": ["a", None]}, {'"a"', "null"}),
        ({"type": ["boolean", "null"]}, {"true", "false", "null"}),
        ({"type": "integer", "minimum": 9, "maximum": 11}, {"9", "10", "11"}),
        ({"type": "integer", "exclusiveMinimum": -2, "exclusiveMaximum": 2}, {"-1", "0", "1"}),
        ({"type": "integer", "minimum": 0, "maximum": 50, "multipleOf": 20}, {"0", "20", "40"}),
        ({"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5}, {"0.5", "0.375", "0.3125", "0.4375"}),
        ({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 3}, {"[1, 1]", "[1, 1, 1]"}),
        ({"type": "array", "items": False}, {"[]"}),
        ({"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}, {"[]", "[1]", "[2]", "[1, 2]"}),
        ({"type": "object", "additionalProperties": False}, {"{}"}),
        (
            {
                "type": "object",
                "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}},
                "required": ["b"],
                "additionalProperties": False,
            },
            {'{"b": 2}', '{"a": 1, "b": 2}', '{"b": 2, "c": 3}', '{"a": 1, "b": 2, "c": 3}'},
        ),
        (
            {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 4}]},
            {"3", "4"},
        ),
        (
            {"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [{"const": 1}, {"const": 2}]}}},
            {"1", "2"},
        ),
        (
            {
                "type": "object",
                "properties": {"kind": {"enum": ["a", "b"]}},
                "anyOf": [
                    {"properties": {"kind": {"const": "a"}, "x": {"const": 1}}, "required": ["kind", "x"]},
                    {"properties": {"kind": {"const": "b"}}, "required": ["kind"]},
                ],
                "additionalProperties": False,
            },
            {'{"kind": "b"}'},
        ),
        ({"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}, "maxProperties": 1}, {'{"a": 1}'}),
        (
            {
                "type": "object",
                "properties": {"a": {"const": 1}, "b": {"const": 2}},
                "dependentRequired": {"a": ["b"]},
                "additionalProperties": False,
            },
            {'{"b": 2}', '{"a": 1, "b": 2}'},
        ),
        ({"type": "string", "pattern": "^(a|b)?$"}, {'""', '"a"', '"b"'}),
        ({"$ref": "#foo", "$defs": {"x": {"$anchor": "foo", "enum": [1, 2]}}}, {"1", "2"}),
        (
            {"$id": "https://x.test/a/b.json", "$ref": "c.json", "$defs": {"x": {"$id": "c.json", "const": 1}}},
            {"1"},
        ),
        (
            {
                "$id": "https://x.test/a.json",
                "type": "array",
                "prefixItems": [{"$ref": "c.json#y"}, {"$ref": "https://x.test/c.json#/$defs/z"}],
                "minItems": 2,
                "items": False,
                "$defs": {"x": {"$id": "c.json", "$defs": {"y": {"$anchor": "y", "const": 1}, "z": {"const": 2}}}},
            },
            {"[1, 2]"},
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"const": 1}, "b": {"enum": [2, 3]}},
                "dependentSchemas": {"a": {"properties": {"b": {"const": 2}}, "required": ["b"]}, "z": False},
                "additionalProperties": False,
            },
            {'{"b": 2}', '{"a": 1, "b": 2}'},
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"const": 1}, "b": {"const": 2}},
                "dependentSchemas": {"a": {"required": ["c"]}},
                "additionalProperties": False,
            },
            {"{}", '{"b": 2}'},
        ),
    ],
)
def test_exactly_these(schema: dict, expected: set[str]) -> None:
    found = one(schema)
    assert found == expected
    for text in found:
        if "nullable" not in schema:  # OpenAPI's word, which JSON Schema does not know
            Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(?!no)x"},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "a|^b"},
        {"type": "integer", "not": {"const": 1}},
        {"if": {"type": "string"}, "then": {"minLength": 2}},
        {"type": "made-up"},
        {"$ref": "https://example.com/elsewhere.json"},
        {"$ref": "#/$defs/missing"},
        {"type": "string", "minLength": 9, "maxLength": 1},
        {"type": "object", "properties": 5, "required": "x", "additionalProperties": "?"},
        {"type": "array", "items": 7, "minItems": "many", "maxItems": -1},
        {"anyOf": []},
        {"anyOf": [False]},
        {"allOf": [{"const": 1}, {"const": 2}]},
        False,
        "no schema",
        [],
        None,
    ],
)
def test_what_no_grammar_says_is_ignored_and_never_fails(schema: object) -> None:
    for text in sentences(schema):
        json.loads(text)


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({"type": "object", "properties": {"not": {"type": "string"}, "if": {"pattern": "^a+$"}}}, ()),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?!no)x"}}}, ("pattern",)),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"const": 1}, "if": {}, "then": {}}}}, ("not", "if")),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ()),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 2}, ("uniqueItems",)),
        ({"type": "array", "contains": {"type": "string"}}, ()),
        ({"type": "array", "contains": {"type": "string"}, "maxContains": 2}, ("contains",)),
        ({"type": "array", "contains": {"type": "string"}, "minContains": 2}, ("contains",)),
    ],
)
def test_what_is_not_kept_is_known(schema: object, names: tuple[str, ...]) -> None:
    assert left_out(schema) == names


@pytest.mark.parametrize(
    ("name", "is_right"),
    [
        ("ipv6", lambda text: IPv6Address(text)),
        ("duration", lambda text: re.fullmatch(r"P(?!$)(\d+D)?(T(?!$)(\d+H)?(\d+M)?(\d+S)?)?", text)),
    ],
)
def test_formats(name: str, is_right: Callable[[str], object]) -> None:
    drawn = {json.loads(text) for text in sentences({"type": "string", "format": name}, count=100)}
    assert len(drawn) > 20
    assert all(is_right(text) for text in drawn)


def test_a_schema_that_leads_through_itself_ends() -> None:
    tree = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["value", "children"],
    }
    for text in sentences(tree, count=40):
        Draft202012Validator(tree).validate(json.loads(text))


def test_endless_values_stand_for_free_json() -> None:
    endless = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    for text in sentences(endless):
        json.loads(text)


def test_references_that_double_at_every_level_stay_small() -> None:
    levels = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(40)}
    bomb = {"$ref": "#/$defs/l0", "$defs": {**levels, "l40": {"type": "boolean"}}}
    assert len(grammar(bomb, limit=1000)) < 20_000
    wide = {
        f"w{n}": {"type": "object", "properties": {k: {"$ref": f"#/$defs/w{n + 1}"} for k in "abc"}} for n in range(12)
    }
    assert len(grammar({"$ref": "#/$defs/w0", "$defs": wide}, limit=1000)) < 400_000


def test_a_deeply_nested_schema_does_not_exhaust_the_stack() -> None:
    schema: dict = {"type": "string"}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    reader = Sentences(grammar(schema, limit=2000))
    for seed in range(5):
        json.loads(reader.draw(random.Random(seed), 0.9))


@pytest.mark.parametrize("limit", [60, 150, 400, 5000])
def test_the_bounds_shrink_until_the_sentence_fits(limit: int) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "required": ["a", "b"],
    }
    reader = Sentences(grammar(schema, limit=limit))
    generator = random.Random(1)
    longest = max(len(reader.draw(generator, 0.999)) for _ in range(20))
    assert longest <= limit
    if limit == 5000:
        assert longest > 200


def test_keys_stay_in_the_order_of_the_schema() -> None:
    schema = {"type": "object", "properties": {name: {"const": 0} for name in "zyxw"}, "required": ["y"]}
    for text in sentences(schema, count=60):
        keys = list(json.loads(text))
        assert keys == sorted(keys, reverse=True)


def test_no_string_holds_half_a_character() -> None:
    for text in sentences({"type": "string"}, count=50):
        json.loads(text).encode("utf-8")
        assert "\\u" not in text
