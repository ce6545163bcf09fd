"""Random JSON Schemas of the kind that tools have, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

_NAMES = ["path", "mode", "a", "ab", "b-c", "größe", 'quo"te', "x y", "0"]
_PATTERNS = [
    "^[a-z]+$",
    "^\\d{3}-\\d{4}$",
    "^(foo|bar)-[A-Z0-9_]{2,5}$",
    "^https?://",
    "[^/]+",
    '^["\\\\]?x*$',
    "^(?:v?\\d+\\.)+\\d+$",
    "^\\S+@\\S+$",
]


def _bounded(minimum: str, maximum: str, most: int) -> st.SearchStrategy[dict]:
    limits = st.tuples(st.integers(0, most), st.integers(0, most)).map(sorted)
    both = limits.map(lambda pair: {minimum: pair[0], maximum: pair[1]})
    return st.one_of(
        st.just({}), both, limits.map(lambda pair: {minimum: pair[0]}), limits.map(lambda p: {maximum: p[1]})
    )


def _merged(*parts: st.SearchStrategy[dict]) -> st.SearchStrategy[dict]:
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


_numbers = st.one_of(st.integers(-1200, 1200), st.sampled_from([0.5, -2.25, 0.1, 99.9, 10**7]))
_strings = st.one_of(
    _merged(st.just({"type": "string"}), _bounded("minLength", "maxLength", 30)),
    st.sampled_from(_PATTERNS).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.sampled_from(["date", "date-time", "uuid", "email", "uri", "made-up"]).map(
        lambda name: {"type": "string", "format": name}
    ),
)
_numeric = _merged(
    st.sampled_from([{"type": "integer"}, {"type": "number"}]),
    st.one_of(st.just({}), _numbers.map(lambda n: {"minimum": n}), _numbers.map(lambda n: {"exclusiveMinimum": n})),
    st.one_of(st.just({}), _numbers.map(lambda n: {"maximum": n}), _numbers.map(lambda n: {"exclusiveMaximum": n})),
    st.one_of(st.just({}), st.sampled_from([1, 2, 5, 10, 0.5, 1.5, 100]).map(lambda n: {"multipleOf": n})),
)
_literals = st.one_of(
    st.lists(st.sampled_from(["a", "b c", 'q"', "\n", 1, 2.5, True, None, {"k": [1]}, []]), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from(["x", 3, None, {"a": 1}]).map(lambda value: {"const": value}),
)
_simple = st.one_of(
    _strings,
    _numeric,
    _literals,
    st.sampled_from(
        [{}, True, {"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"$ref": "#/$defs/t"}]
    ),
)


def _compound(inner: st.SearchStrategy) -> st.SearchStrategy:
    objects = st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5).flatmap(
        lambda properties: st.tuples(
            st.just(properties),
            st.lists(st.sampled_from(sorted(properties) or ["free"]), unique=True, max_size=3),
            st.sampled_from([None, True, False, {"type": "integer"}]),
        ).map(_object)
    )
    arrays = st.one_of(
        _merged(inner.map(lambda items: {"type": "array", "items": items}), _bounded("minItems", "maxItems", 5)),
        inner.map(lambda items: {"type": "array", "items": items, "uniqueItems": True}),
        st.tuples(inner, inner).map(lambda pair: {"type": "array", "prefixItems": list(pair), "items": False}),
    )
    return st.one_of(
        objects,
        arrays,
        st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices}),
        st.tuples(objects, objects).map(lambda pair: {"allOf": [pair[0], _renamed(pair[1])]}),
        st.dictionaries(st.just("k"), inner, max_size=0).map(lambda _: {"type": "object"}),
        inner.map(lambda value: {"type": "object", "additionalProperties": value, "minProperties": 1}),
    )


def _object(drawn: tuple) -> dict:
    properties, required, additional = drawn
    schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if additional is not None:
        schema["additionalProperties"] = additional
    return schema


def _renamed(schema: dict) -> dict:
    """The same object with other keys: two patterns for one string are beyond what a grammar can say."""
    names = {name: f"z {name}" for name in schema["properties"]}
    renamed = {**schema, "properties": {names[name]: inner for name, inner in schema["properties"].items()}}
    if "required" in schema:
        renamed["required"] = [names.get(name, name) for name in schema["required"]]
    return renamed


_TREE = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "maxLength": 5},
        "left": {"$ref": "#/$defs/t"},
        "rest": {"type": "array", "items": {"$ref": "#/$defs/t"}},
    },
    "required": ["label"],
    "additionalProperties": False,
}

schemas = st.recursive(_simple, _compound, max_leaves=8).map(
    lambda schema: {**schema, "$defs": {"t": _TREE}} if isinstance(schema, dict) else schema
)
