"""JSON Schema, flattened: references followed, `allOf` merged, so that each place is one plain object.

What a grammar cannot say (`not`, `if`, …) is left out. Nothing here fails: what cannot be
understood stands for any value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard
from urllib.parse import urljoin

import msgspec

Schema: TypeAlias = dict[str, Any]

ANY: Schema = {}
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

# References that double at every level would otherwise take for ever.
_MOST_STEPS = 20_000

_LARGER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"})
_SMALLER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_MERGED_SCHEMAS = ("items", "additionalProperties", "propertyNames", "contains")
_HINTS: Mapping[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


class Place(msgspec.Struct, frozen=True):
    """A schema with the references that led to it, outermost first."""

    schema: Schema
    trail: tuple[str, ...] = ()


class Flattener:
    """Flattens places of one document. `recursion`: how often a reference may lead through itself."""

    def __init__(self, document: object, *, recursion: int) -> None:
        self._document = document
        self._recursion = recursion
        self._left = _MOST_STEPS
        self._named: dict[str, object] | None = None

    def flat(self, schema: object, trail: tuple[str, ...]) -> Place | None:
        """`schema` without references and `allOf`; None if no value fits, or only an endless one."""
        if schema is False:
            return None
        self._left -= 1
        if not isinstance(schema, dict) or self._left < 0:
            return Place(ANY, trail)
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if isinstance(reference, str):
            if trail.count(reference) > self._recursion:
                return None
            trail = (*trail, reference)
            rest = {key: value for key, value in schema.items() if key not in ("$ref", "$dynamicRef")}
            target = self._target(reference)
            if target is False:
                return None
            return self.flat({"allOf": [target, rest]} if rest else target, trail)
        parts = schema.get("allOf")
        if isinstance(parts, list) and parts:
            merged: Schema | None = {key: value for key, value in schema.items() if key != "allOf"}
            for part in parts:
                place = self.flat(part, trail)
                if place is None or merged is None:
                    return None
                merged, trail = merge(merged, place.schema), place.trail
            return self.flat(merged, trail) if merged is not None else None
        return Place(schema, trail)

    def _target(self, reference: str) -> object:
        """What a reference within the document points to; one to elsewhere may be anything."""
        address, _, fragment = reference.partition("#")
        if fragment and not fragment.startswith("/"):
            return self._by_name(reference)
        found: Any = self._by_name(address) if address else self._document
        for step in fragment.split("/")[1:]:
            name = step.replace("%25", "%").replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(name, ANY)
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                return ANY
        return found

    def _by_name(self, reference: str) -> object:
        """The part of the document that bears this `$id`, or after a `#` this `$anchor`."""
        document = self._document
        base = document.get("$id") if isinstance(document, dict) else None
        base = base if isinstance(base, str) else ""
        if self._named is None:
            self._named = {}
            _collect(document, base, self._named)
        return self._named.get(urljoin(base, reference), ANY)


def _collect(part: object, base: str, named: dict[str, object]) -> None:
    """Every part of a document that has a name, by its whole name; the first of equal ones."""
    waiting = [(part, base)]
    while waiting:
        part, base = waiting.pop()
        if isinstance(part, dict):
            own, anchor = part.get("$id"), part.get("$anchor", part.get("$dynamicAnchor"))
            if isinstance(own, str):
                base = urljoin(base, own)
                named.setdefault(base.removesuffix("#"), part)
            if isinstance(anchor, str):
                named.setdefault(f"{base.partition('#')[0]}#{anchor}", part)
            waiting += [(inner, base) for inner in reversed(part.values())]
        elif isinstance(part, list):
            waiting += [(inner, base) for inner in reversed(part)]


def merge(first: Schema, second: Schema) -> Schema | None:
    """What both say; None if they exclude each other."""
    merged = dict(first)
    properties = _merged_properties(first, second)
    for key, value in second.items():
        if key not in merged or key in ("$schema", "$id", "title", "description", "default", "examples"):
            merged[key] = value
        elif key in _LARGER or key in _SMALLER:
            if is_number(value) and is_number(merged[key]):
                merged[key] = max(merged[key], value) if key in _LARGER else min(merged[key], value)
            elif is_number(value):
                merged[key] = value
        else:
            _merge_key(merged, key, value)
    if properties:
        merged["properties"] = properties
    return None if _is_impossible(merged) else merged


def _merge_key(merged: Schema, key: str, value: Any) -> None:
    old = merged[key]
    if key in ("patternProperties", "dependentSchemas", "$defs", "definitions") and _are(dict, old, value):
        merged[key] = {**old, **{name: _both(old[name], new) if name in old else new for name, new in value.items()}}
    elif key == "required" and _are(list, old, value):
        merged[key] = [*old, *(name for name in value if name not in old)]
    elif key == "type":
        merged[key] = _common_types(old, value)
    elif key in ("enum", "anyOf", "oneOf") and _are(list, old, value):
        if key == "enum":
            merged[key] = [item for item in old if any(is_equal(item, other) for other in value)]
        else:
            merged[key] = [_both(one, other) for one in old for other in value][:64]
    elif key == "const":
        if not is_equal(old, value):
            merged["enum"] = []
    elif key in _MERGED_SCHEMAS:
        merged[key] = _both(old, value)
    elif key == "uniqueItems":
        merged[key] = bool(old) or bool(value)


def _merged_properties(first: Schema, second: Schema) -> Schema:
    """Properties of both; one that only the one side declares also has to fit the other's `additionalProperties`."""
    one, other = first.get("properties"), second.get("properties")
    one, other = one if isinstance(one, dict) else {}, other if isinstance(other, dict) else {}
    merged: Schema = {}
    for name in (*one, *(name for name in other if name not in one)):
        merged[name] = _both(_property(first, one, name), _property(second, other, name))
    return merged


def _property(schema: Schema, properties: Schema, name: str) -> Any:
    if name in properties:
        return properties[name]
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)


def _both(first: Any, second: Any) -> Any:
    if first is False or second is False:
        return False
    if first is True or first == {}:
        return second
    if second is True or second == {}:
        return first
    return {"allOf": [first, second]}


def _are(kind: type, *values: object) -> bool:
    return all(isinstance(value, kind) for value in values)


def _is_impossible(schema: Schema) -> bool:
    return schema.get("enum") == [] or schema.get("type") == []


def _common_types(first: Any, second: Any) -> list[str]:
    old, new = type_names(first), type_names(second)
    common = [name for name in old if name in new]
    for one, other in ((old, new), (new, old)):
        # Every integer is a number.
        if "integer" in one and "number" in other and "integer" not in common:
            common.append("integer")
    return common


def type_names(value: object) -> list[str]:
    """The value of `type` as a list of known names."""
    names = value if isinstance(value, list) else [value]
    return [name for name in names if name in TYPES]


def types_of(schema: Schema) -> list[str]:
    """The types that a flat schema allows; what it says nothing of it may be, but a hint is followed."""
    if "type" in schema:
        names = type_names(schema["type"])
        if schema.get("nullable") is True and names and "null" not in names:
            names.append("null")
        return names or list(TYPES)
    hinted = [name for name, keys in _HINTS.items() if any(key in schema for key in keys)]
    return hinted or list(TYPES)


def fits(value: object, names: list[str]) -> bool:
    """Whether a JSON value is of one of these types."""
    match value:
        case None:
            return "null" in names
        case bool():
            return "boolean" in names
        case int():
            return "integer" in names or "number" in names
        case float():
            return "number" in names or ("integer" in names and value.is_integer())
        case str():
            return "string" in names
        case list():
            return "array" in names
    return "object" in names


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_equal(first: object, second: object) -> bool:
    """Equality as JSON Schema has it: true is not 1."""
    if isinstance(first, bool) != isinstance(second, bool):
        return False
    return first == second
