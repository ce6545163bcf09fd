"""What a tool's JSON Schema allows at one place of its arguments: types, members, items; as much as repair asks.

References within the schema are followed, unions become the sum of their branches, `allOf` the common part. Whatever
cannot be understood allows everything, so that nothing is mended on a guess.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_TYPES_OF: dict[type, tuple[str, ...]] = {
    type(None): ("null",),
    bool: ("boolean",),
    int: ("integer", "number"),
    str: ("string",),
    list: ("array",),
    dict: ("object",),
}
_DEEPEST = 32


class Shape:
    """One place. `types`: JSON Schema's type names, None if any. `choices`: the values allowed, None if any.

    `property` and `item` give the shape of a member or element, None if anything may stand there.
    """

    def __init__(self, nodes: list[dict[str, Any]], document: _Document) -> None:
        self._document = document
        self._nodes = nodes
        self.types = _common(document.types(node) for node in nodes)
        self.choices = document.choices(nodes)
        if self.types is None and self.choices is not None:
            self.types = frozenset(name for value in self.choices for name in type_names(value))
        self._members: dict[str, Shape | None] = {}
        self._items: dict[int, Shape | None] = {}

    @functools.cached_property
    def required(self) -> frozenset[str]:
        lists = (node.get("required") for node in self._objects)
        return frozenset(key for keys in lists if isinstance(keys, list) for key in keys if isinstance(key, str))

    def allows_type(self, *names: str) -> bool:
        return self.types is None or not self.types.isdisjoint(names)

    def allows(self, value: object) -> bool:
        """By type and choice; what is inside an array or object is not looked at."""
        if self.choices is not None and not any(_same(value, choice) for choice in self.choices):
            return False
        return self.allows_type(*type_names(value))

    def declares(self, key: str) -> bool:
        return any(key in _mapping(node, "properties") for node in self._objects)

    def forbids(self, key: str) -> bool:
        """`additionalProperties: false`, and nothing beside it names the key."""
        for node in self._objects:
            closed = node.get("additionalProperties") is False and not node.get("patternProperties")
            if closed and key not in _mapping(node, "properties"):
                return True
        return False

    def property(self, key: str) -> Shape | None:
        if key not in self._members:
            found: list[object] = []
            for node in self._objects:
                properties = _mapping(node, "properties")
                if key in properties:
                    found.append(properties[key])
                elif not node.get("patternProperties"):
                    found.append(node.get("additionalProperties"))
            self._members[key] = self._document.shape(found)
        return self._members[key]

    def item(self, index: int) -> Shape | None:
        index = min(index, self._first_items)
        if index not in self._items:
            found: list[object] = []
            for node in self._arrays:
                first = node.get("prefixItems")
                own = first[index : index + 1] if isinstance(first, list) else []
                found.append(own[0] if own else node.get("items"))
            self._items[index] = self._document.shape(found)
        return self._items[index]

    @functools.cached_property
    def _first_items(self) -> int:
        """How many items, from the first, have a schema of their own."""
        lists = (node.get("prefixItems") for node in self._arrays)
        return max((len(first) for first in lists if isinstance(first, list)), default=0)

    @functools.cached_property
    def _objects(self) -> list[dict[str, Any]]:
        return self._branches("object", 0)

    @functools.cached_property
    def _arrays(self) -> list[dict[str, Any]]:
        return self._branches("array", 0)

    def _branches(self, kind: str, depth: int) -> list[dict[str, Any]]:
        """The schemas that all apply to a value of this type; of a union, the one branch that can be meant."""
        found = list(self._nodes)
        if depth > _DEEPEST:
            return found
        for node in self._nodes:
            for branches in _unions(node):
                shapes = [self._document.shape([branch]) for branch in branches]
                fitting = [shape for shape in shapes if shape is None or shape.allows_type(kind)]
                if len(fitting) == 1 and fitting[0] is not None:
                    found += fitting[0]._branches(kind, depth + 1)
        return found


@functools.lru_cache(maxsize=512)
def read_shape(schema: str) -> Shape | None:
    """The shape of a tool's whole arguments; None if `schema` is no JSON object."""
    try:
        document = json.loads(schema)
    except (ValueError, RecursionError):
        return None
    return _Document(document).shape([document]) if isinstance(document, dict) else None


def type_names(value: object) -> tuple[str, ...]:
    """The JSON Schema types that a decoded value has."""
    if isinstance(value, float):
        return ("number", "integer") if value.is_integer() else ("number",)
    return _TYPES_OF.get(type(value), ())


class _Document:
    """The whole schema: finds what references mean, and reads every place once, whatever refers to it."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._shapes: dict[tuple[int, ...], Shape | None] = {}

    def shape(self, schemas: Iterable[object]) -> Shape | None:
        """The shape of a place for which all of `schemas` hold."""
        nodes: list[dict[str, Any]] = []
        for schema in schemas:
            self._flatten(schema, nodes, 0)
        if not nodes:
            return None
        key = tuple(id(node) for node in nodes)
        if key not in self._shapes:
            # A place that is reached again while it is read (a union that holds itself) allows anything meanwhile.
            self._shapes[key] = None
            try:
                self._shapes[key] = Shape(nodes, self)
            except RecursionError:
                return None
        return self._shapes[key]

    def types(self, node: dict[str, Any]) -> frozenset[str] | None:
        declared = node.get("type")
        names = declared if isinstance(declared, list) else [declared]
        types = frozenset(name for name in names if name in _TYPES) if declared is not None else frozenset()
        if types and node.get("nullable") is True:
            types |= {"null"}
        unions = [self._union(branches, lambda shape: shape.types) for branches in _unions(node)]
        return _common([types or None, *unions])

    def choices(self, nodes: list[dict[str, Any]]) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = None
        for node in nodes:
            if isinstance(node.get("enum"), list):
                return tuple(node["enum"])
            if "const" in node:
                return (node["const"],)
            for branches in _unions(node):
                found = self._union(branches, _choices_of_branch) or found
        return found

    def _union(self, branches: list[object], get: Callable[[Shape], Iterable[Any] | None]) -> tuple[Any, ...] | None:
        """What the branches allow together; None as soon as one allows anything."""
        together: list[Any] = []
        for branch in branches:
            shape = self.shape([branch])
            allowed = None if shape is None else get(shape)
            if allowed is None:
                return None
            together += allowed
        return tuple(together)

    def _flatten(self, schema: object, nodes: list[dict[str, Any]], depth: int) -> None:
        """The schema and all that `$ref` and `allOf` add to it, as a list of plain schemas that all apply."""
        if not isinstance(schema, dict) or not schema or depth > _DEEPEST or len(nodes) > _DEEPEST:
            return
        nodes.append(schema)
        reference = schema.get("$ref")
        if isinstance(reference, str):
            self._flatten(self._target(reference), nodes, depth + 1)
        parts = schema.get("allOf")
        if isinstance(parts, list):
            for part in parts:
                self._flatten(part, nodes, depth + 1)

    def _target(self, reference: str) -> object:
        if not reference.startswith("#"):
            return None
        found: object = self._root
        for step in reference[1:].split("/")[1:]:
            if not isinstance(found, dict):
                return None
            found = found.get(step.replace("~1", "/").replace("~0", "~"))
        return found


def _choices_of_branch(shape: Shape) -> tuple[Any, ...] | None:
    if shape.choices is None and shape.types == frozenset({"null"}):
        return (None,)
    return shape.choices


def _unions(node: dict[str, Any]) -> list[list[object]]:
    return [node[word] for word in ("anyOf", "oneOf") if isinstance(node.get(word), list) and node[word]]


def _common(sets: Iterable[Iterable[str] | None]) -> frozenset[str] | None:
    found: frozenset[str] | None = None
    for names in sets:
        if names is None:
            continue
        allowed = frozenset(names)
        if "number" in allowed:
            allowed |= {"integer"}
        found = allowed if found is None else found & allowed
    return found


def _mapping(node: dict[str, Any], key: str) -> dict[str, Any]:
    value = node.get(key)
    return value if isinstance(value, dict) else {}


def _same(value: object, choice: object) -> bool:
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)
