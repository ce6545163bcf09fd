"""JSON Schema → GBNF: a grammar whose every sentence is JSON that fits the schema.

One way of writing is chosen (`{"a": 1, "b": [2, 3]}`, keys in the schema's order), so that a small model meets the
spelling it knows. Everything is bounded, because a sentence must come to its end before `max_tokens`. Keywords that
no grammar can say are ignored; a schema without any value, or too large, stands for free JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from qiao.core.llamacpp.numbers import integer, number, whole_bounds
from qiao.core.llamacpp.pattern import UnsupportedPatternError, pattern_node
from qiao.core.llamacpp.rules import (
    EMPTY,
    STRING_CHARACTER,
    Node,
    Rules,
    complement,
    json_character,
    literal,
    union,
)
from qiao.core.llamacpp.schema import ANY, Flattener, Schema, fits, is_equal, is_number, merge, types_of

_MOST_LITERALS = 500
_LONGEST_EXACT = 1000
_DEEPEST = 24
_NOTHING_FITS = "the whole schema, which no value fits"
_NEVER_KEPT = ("not", "if", "unevaluatedProperties", "unevaluatedItems")


class Bounds(msgspec.Struct, frozen=True):
    """How large a sentence may become where the schema sets no limit.

    * `string`: characters of a string. `items`: of an array. `members`: keys of an object without declared ones.
    * `depth`: levels of free JSON. `recursion`: times that a reference may lead through itself.
    * `places`: schema places that are written out; what comes after is written as small as it may be.
    """

    string: int = 200
    items: int = 8
    members: int = 6
    depth: int = 2
    recursion: int = 2
    places: int = 1500


LADDER = (
    Bounds(),
    Bounds(string=100, items=4, members=4, depth=2, recursion=1),
    Bounds(string=60, items=3, members=3, depth=1, recursion=1),
    Bounds(string=40, items=2, members=2, depth=1, recursion=1),
    Bounds(string=24, items=1, members=1, depth=1, recursion=1),
    Bounds(string=12, items=1, members=1, depth=0, recursion=0),
)
"""Bounds to try one after the other until the longest sentence fits a limit."""

# Expression, shortest and longest match.
_DATE = '"20" [0-9]{2} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])'
_TIME = '("0" [0-9] | "1" [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] "Z"'
_URI = '"http" "s"? "://" [a-z] [a-z0-9.]{0,30} [a-z0-9] ("/" [A-Za-z0-9._~/?&=-]{0,60})?'
_FORMATS = {
    "date": (_DATE, 10, 10),
    "time": (_TIME, 9, 9),
    "date-time": (f'{_DATE} "T" {_TIME}', 20, 20),
    "uuid": ('[0-9a-f]{8} "-" [0-9a-f]{4} "-4" [0-9a-f]{3} "-" [89ab] [0-9a-f]{3} "-" [0-9a-f]{12}', 36, 36),
    "email": ('[a-z] [a-z0-9.]{0,20} [a-z0-9] "@" [a-z] [a-z0-9]{0,12} "." [a-z]{2,3}', 7, 40),
    "ipv4": ('[1-9] [0-9]? "." [1-9]? [0-9] "." [1-9]? [0-9] "." [1-9]? [0-9]', 7, 11),
    "ipv6": ('[1-9a-f] [0-9a-f]{0,3} (":" [1-9a-f] [0-9a-f]{0,3}){7}', 15, 39),
    "duration": ('"P" ([1-9] [0-9]? "D" | "T" [1-9] [0-9]? [HMS])', 3, 5),
    "hostname": ('[a-z] [a-z0-9]{0,20} ("." [a-z] [a-z0-9]{0,12}){0,2}', 1, 49),
    "uri": (_URI, 9, 101),
    "url": (_URI, 9, 101),
}


def schema_node(schema: object, rules: Rules, bounds: Bounds, *, otherwise: Schema = ANY) -> Node:
    """The expression for `schema` in `rules`; where no value fits it that for `otherwise`, and free JSON at last."""
    converter = _Converter(schema, rules, bounds)
    node = converter.value(schema, ())
    if node is None and otherwise:
        rules.left_out[_NOTHING_FITS] = None
        node = converter.value(otherwise, ())
    return node if node is not None else converter.free(bounds.depth)


def left_out(schema: object) -> tuple[str, ...]:
    """The keywords of `schema` that its grammar does not keep."""
    rules = Rules()
    schema_node(schema, rules, LADDER[-1])
    return tuple(rules.left_out)


def grammar(schema: object, *, limit: int, ladder: tuple[Bounds, ...] = LADDER) -> str:
    """A whole grammar for `schema`, whose longest sentence has at most `limit` characters if any bounds allow that."""
    for bounds in ladder:
        rules = Rules()
        node = schema_node(schema, rules, bounds)
        if node.longest <= limit:
            break
    return rules.written(node)


class _Converter:
    def __init__(self, document: object, rules: Rules, bounds: Bounds) -> None:
        self._rules = rules
        self._bounds = bounds
        self._flattener = Flattener(document, recursion=bounds.recursion)
        self._character = Node(rules.add(STRING_CHARACTER), 1, 2)
        self._places = 0
        self._depth = 0

    @property
    def _is_spent(self) -> bool:
        """From here on everything is written as small as it may be."""
        return self._places > self._bounds.places or self._depth > _DEEPEST

    def value(self, schema: object, trail: tuple[str, ...]) -> Node | None:
        """Any value of `schema`; None if there is none that ends."""
        self._places += 1
        self._depth += 1
        try:
            place = self._flattener.flat(schema, trail) if self._depth <= 2 * _DEEPEST else None
            return None if place is None else self._flat_value(place.schema, place.trail)
        finally:
            self._depth -= 1

    def _flat_value(self, schema: Schema, trail: tuple[str, ...]) -> Node | None:
        self._rules.left_out |= dict.fromkeys(key for key in _NEVER_KEPT if key in schema)
        for key in ("anyOf", "oneOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and choices:
                return self._choice({name: value for name, value in schema.items() if name != key}, choices, trail)
        if "const" in schema or isinstance(schema.get("enum"), list):
            return self._literals(schema)
        names = types_of(schema)
        if not any(key in schema for key in ("type", "nullable")) and len(names) == 7:
            return self.free(self._bounds.depth)
        nodes = [self._of_type(name, schema, trail) for name in names if not (name == "integer" and "number" in names)]
        found = [node for node in nodes if node is not None]
        return self._rules.alternatives(found) if found else None

    def _choice(self, base: Schema, choices: list[Any], trail: tuple[str, ...]) -> Node | None:
        nodes: list[Node] = []
        for choice in choices:
            place = self._flattener.flat(choice, trail)
            merged = None if place is None else merge(base, place.schema)
            node = None if place is None or merged is None else self.value(merged, place.trail)
            if node is not None:
                nodes.append(node)
                if self._is_spent:
                    break
        return self._rules.alternatives(nodes) if nodes else None

    def _literals(self, schema: Schema) -> Node | None:
        listed = schema.get("enum")
        values: list[Any] = listed if isinstance(listed, list) else [schema["const"]]
        if "const" in schema:
            values = [value for value in values if is_equal(value, schema["const"])]
        if "type" in schema:
            names = types_of(schema)
            values = [value for value in values if fits(value, names)]
        texts = [_written(value) for value in values[:_MOST_LITERALS]]
        return self._rules.alternatives([literal(text) for text in texts]) if texts else None

    def _of_type(self, name: str, schema: Schema, trail: tuple[str, ...]) -> Node | None:
        match name:
            case "object":
                return self._object(schema, trail)
            case "array":
                return self._array(schema, trail)
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return self._number(name, schema)
            case "boolean":
                return self._rules.alternatives([literal("true"), literal("false")])
        return literal("null")

    # -- free JSON ------------------------------------------------------------------------------------------------

    def free(self, depth: int) -> Node:
        """Any JSON value of at most `depth` levels."""
        rules, bounds = self._rules, self._bounds
        scalar = [self._any_string(), number(rules, None, None), *map(literal, ("true", "false", "null"))]
        nodes = [node for node in scalar if node is not None]
        if depth > 0 and not self._is_spent:
            inner = self.free(depth - 1)
            member = rules.sequence((self._key(), literal(": "), inner))
            nodes.append(self._list("[", inner, "]", 0, bounds.items))
            nodes.append(self._list("{", member, "}", 0, bounds.members))
        return rules.alternatives(nodes)

    def _any_string(self) -> Node:
        return self._quoted(self._rules.repeated(self._character, 0, self._bounds.string))

    def _key(self) -> Node:
        return self._quoted(self._rules.repeated(self._character, 1, min(40, self._bounds.string)))

    def _quoted(self, inside: Node) -> Node:
        return self._rules.sequence((literal('"'), inside, literal('"')))

    def _list(self, opening: str, item: Node, closing: str, least: int, most: int) -> Node:
        rules = self._rules
        if most <= 0:
            return literal(opening + closing)
        further = rules.repeated(rules.sequence((literal(", "), item)), max(0, least - 1), most - 1)
        filled = rules.sequence((item, further))
        inside = filled if least > 0 else rules.optional(filled)
        return rules.sequence((literal(opening), inside, literal(closing)))

    # -- strings and numbers --------------------------------------------------------------------------------------

    def _string(self, schema: Schema) -> Node | None:
        least = _count(schema, "minLength") or 0
        asked = _count(schema, "maxLength")
        if asked is not None and asked < least:
            return None
        most = max(least, self._bounds.string) if asked is None else max(least, min(asked, self._bounds.string))
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            try:
                node = pattern_node(
                    pattern,
                    self._rules,
                    cap=min(self._bounds.string, 64 if asked is None else max(1, asked)),
                    character=self._character,
                    shortest=least,
                    longest=most if asked is None else asked,
                )
                return None if node is None else self._quoted(node)
            except UnsupportedPatternError:
                self._rules.left_out["pattern"] = None  # the string stays free: a grammar can promise no more
        known = _FORMATS.get(str(schema.get("format")))
        if known is not None and least <= known[1] and asked is None:
            return self._quoted(Node(self._rules.add(known[0]), known[1], known[2]))
        return self._quoted(
            self._rules.repeated(self._character, min(least, _LONGEST_EXACT), min(most, _LONGEST_EXACT))
        )

    def _number(self, name: str, schema: Schema) -> Node | None:
        minimum, maximum = _limit(schema, "minimum"), _limit(schema, "maximum")
        above, below = _limit(schema, "exclusiveMinimum"), _limit(schema, "exclusiveMaximum")
        if schema.get("exclusiveMinimum") is True:  # draft 4
            minimum, above = None, minimum
        if schema.get("exclusiveMaximum") is True:
            maximum, below = None, maximum
        multiple = _limit(schema, "multipleOf")
        if name == "integer":
            low, high = whole_bounds(minimum, maximum, above, below)
            return integer(self._rules, low, high, multiple)
        return number(self._rules, minimum, maximum, above=above, below=below, multiple=multiple)

    # -- arrays ---------------------------------------------------------------------------------------------------

    def _array(self, schema: Schema, trail: tuple[str, ...]) -> Node | None:
        prefix, items = schema.get("prefixItems"), schema.get("items", ANY)
        if isinstance(items, list):  # before draft 2020-12
            prefix, items = items, schema.get("additionalItems", ANY)
        contains = schema.get("contains")
        least = _count(schema, "minItems") or 0
        asked = _count(schema, "maxItems")
        if asked is not None and asked < least:
            return None
        if not isinstance(prefix, list):
            prefix = []
        if contains is not None and ("maxContains" in schema or (_count(schema, "minContains") or 1) > 1):
            self._rules.left_out["contains"] = None
        if contains is not None and not prefix:
            prefix = [{"allOf": [items, contains]} if isinstance(items, dict) else contains]
            least = max(1, least)
        most = max(least, 0 if self._is_spent else self._bounds.items + len(prefix))
        most = most if asked is None else min(most, asked)
        if schema.get("uniqueItems") is True:
            listed = self._flattener.flat(items, trail)
            if not prefix and listed is not None and isinstance(listed.schema.get("enum"), list):
                return self._subset(listed.schema["enum"], least, most)
            most = max(least, min(most, 1))  # no grammar can keep values apart, one value is unique
            if most > 1:
                self._rules.left_out["uniqueItems"] = None
        if prefix:
            return self._tuple(prefix, items, least, most, trail)
        item = self.value(items, trail) if most > 0 else None
        if item is None:
            return literal("[]") if least == 0 else None
        return self._list("[", item, "]", least, most)

    def _tuple(self, prefix: list[Any], items: object, least: int, most: int, trail: tuple[str, ...]) -> Node | None:
        rules = self._rules
        nodes: list[Node] = []
        for schema in prefix[:most]:
            node = self.value(schema, trail)
            if node is None:
                break
            nodes.append(node)
        rest = EMPTY
        if len(nodes) == len(prefix) and most > len(prefix):
            item = self.value(items, trail)
            if item is not None:
                fewest = max(0, least - len(prefix))
                rest = rules.repeated(rules.sequence((literal(", "), item)), fewest, most - len(prefix))
                least = max(least, len(prefix)) if fewest else least
        if len(nodes) < min(least, len(prefix)) or (least > len(nodes) and rest is EMPTY):
            return None
        for place in range(len(nodes) - 1, -1, -1):
            separator = literal(", ") if place else EMPTY
            rest = rules.sequence((separator, nodes[place], rest))
            if place >= least:
                rest = rules.optional(rest)
        return rules.sequence((literal("["), rest, literal("]")))

    def _subset(self, values: list[Any], least: int, most: int) -> Node | None:
        """Different values out of a list, in its order."""
        texts = list(dict.fromkeys(_written(value) for value in values))
        if len(texts) < least:
            return None
        members = [(literal(text), place < least) for place, text in enumerate(texts)]
        if most < len(texts):
            members = members[:most]
        return self._rules.sequence((literal("["), self._in_order(members, EMPTY), literal("]")))

    # -- objects --------------------------------------------------------------------------------------------------

    def _object(self, schema: Schema, trail: tuple[str, ...]) -> Node | None:
        schema, dependents = _dependents(schema)
        if dependents:
            node = self.value({"allOf": [{**schema, "type": "object"}, *dependents.values()]}, trail)
            if node is not None or any(name in _required(schema) for name in dependents):
                return node
            # What they demand cannot be: these keys stay away.
            schema = {**schema, "properties": {**schema["properties"], **dict.fromkeys(dependents, False)}}
        declared = schema.get("properties")
        properties: dict[str, Any] = declared if isinstance(declared, dict) else {}
        required = _required(schema)
        for name in required:
            if name not in properties:
                properties = {**properties, name: _undeclared(schema, name)}
        least, asked = _count(schema, "minProperties") or 0, _count(schema, "maxProperties")
        optional_left = len(properties) - len(required) if asked is None else asked - len(required)
        if optional_left < 0:
            return None
        members: list[tuple[Node, bool]] = []
        for name, inner in properties.items():
            is_required = name in required
            if not is_required and (optional_left <= 0 or self._is_spent):
                continue
            node = self.value({"allOf": [inner, *_matching(schema, name)]} if _matching(schema, name) else inner, trail)
            if node is None:
                if is_required:
                    return None
                continue
            optional_left -= not is_required
            must = is_required or len(members) < least - len(required)
            members.append((self._rules.sequence((literal(_written(name) + ": "), node)), must))
        room = self._bounds.members if asked is None else min(self._bounds.members, asked - len(members))
        fewest = max(0, least - len(members))
        extra = self._extra(schema, properties, trail) if (fewest or not members) and room > 0 else None
        if extra is None:
            if fewest:
                return None
            return self._rules.sequence((literal("{"), self._in_order(members, EMPTY), literal("}")))
        if not members:
            return self._list("{", extra, "}", fewest, max(room, fewest))
        further = self._rules.repeated(self._rules.sequence((literal(", "), extra)), fewest, max(room, fewest))
        must_all = [(node, True) for node, _ in members]
        return self._rules.sequence((literal("{"), self._in_order(must_all, EMPTY), further, literal("}")))

    def _extra(self, schema: Schema, properties: dict[str, Any], trail: tuple[str, ...]) -> Node | None:
        """A member with a key that is not declared."""
        patterns = schema.get("patternProperties")
        keyed: object = None
        inner = schema.get("additionalProperties", ANY)
        if isinstance(patterns, dict) and patterns:
            if properties:
                return None
            pattern, inner = next(iter(patterns.items()))
            keyed = {"type": "string", "pattern": pattern}
        elif isinstance(schema.get("propertyNames"), dict):
            keyed = {"allOf": [schema["propertyNames"], {"type": "string", "minLength": 1}]}
        value = self.value(inner, trail)
        key = self.value(keyed, trail) if keyed is not None else self._new_key(properties)
        return None if value is None or key is None else self._rules.sequence((key, literal(": "), value))

    def _new_key(self, properties: dict[str, Any]) -> Node | None:
        """A key that begins as no declared one does, so that it cannot be one of them."""
        if not properties:
            return self._key()
        taken = union((ord(name[0]), ord(name[0])) for name in properties if name)
        first = json_character(complement(taken), self._rules, escapes=False)
        if first is None:
            return None
        rest = self._rules.repeated(self._character, 0, min(40, self._bounds.string))
        return self._quoted(self._rules.sequence((first, rest)))

    def _in_order(self, members: list[tuple[Node, bool]], after: Node) -> Node:
        """Members in their order with commas between those that are there; True: it has to be there."""
        rules = self._rules
        tails: list[Node] = [after]
        for node, must in reversed(members):
            piece = rules.sequence((literal(", "), node))
            tails.append(rules.sequence((piece if must else rules.optional(piece), tails[-1])))
        tails.reverse()
        starts: list[Node] = []
        for place, (node, must) in enumerate(members):
            starts.append(rules.sequence((node, tails[place + 1])))
            if must:
                return rules.alternatives(starts)
        return rules.optional(rules.alternatives(starts)) if starts else EMPTY


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _count(schema: Schema, key: str) -> int | None:
    value = _limit(schema, key)
    return int(value) if value is not None and value >= 0 else None


def _limit(schema: Schema, key: str) -> float | None:
    value = schema.get(key)
    return value if is_number(value) else None


def _dependents(schema: Schema) -> tuple[Schema, dict[str, Any]]:
    """The schema without what a key brings along, and that by the key, for those that may be there."""
    names = {*_required(schema), *_mapping(schema.get("properties"))}
    found: dict[str, Any] = {}
    for key in ("dependentSchemas", "dependencies"):
        dependent = _mapping(schema.get(key))
        inner = {name: value for name, value in dependent.items() if not isinstance(value, list)}
        found |= {name: value for name, value in inner.items() if name in names}
        if inner:
            lists = {name: value for name, value in dependent.items() if name not in inner}
            rest = {name: value for name, value in schema.items() if name != key}
            schema = {**rest, key: lists} if lists else rest
    return schema, found


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _required(schema: Schema) -> list[str]:
    """Required names, and those that they in turn require."""
    listed = schema.get("required")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    dependent = schema.get("dependentRequired", schema.get("dependencies"))
    properties = schema.get("properties")
    if isinstance(dependent, dict):
        for name, needs in dependent.items():
            is_possible = name in names or (isinstance(properties, dict) and name in properties)
            if is_possible and isinstance(needs, list):
                names.extend(need for need in needs if isinstance(need, str))
    return list(dict.fromkeys(names))


def _undeclared(schema: Schema, name: str) -> object:
    """The schema of a key that is required but not declared."""
    return True if _matching(schema, name) else schema.get("additionalProperties", True)


def _matching(schema: Schema, name: str) -> list[Any]:
    patterns = schema.get("patternProperties")
    if not isinstance(patterns, dict):
        return []
    found = []
    for pattern, inner in patterns.items():
        try:
            is_match = re.search(pattern, name) is not None
        except re.error:
            continue
        if is_match:
            found.append(inner)
    return found
