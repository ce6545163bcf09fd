"""Rules of a GBNF grammar (llama.cpp's notation), and the small pieces that every JSON grammar needs.

A `Node` is an expression with the number of characters that it can grow to, so that a grammar can be chosen that
always closes before a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec


class Node(msgspec.Struct, frozen=True):
    """An expression that can stand in a sequence (a name, a literal, a group), its shortest and longest match."""

    text: str
    shortest: int
    longest: int


class Rules:
    """The named rules of one grammar; equal expressions share a name.

    `left_out`: keywords of the schema that they do not keep, each once.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, None] = {}
        self._by_text: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._by_text)

    def add(self, text: str) -> str:
        """The name of the rule that says `text`."""
        name = self._by_text.get(text)
        if name is None:
            name = self._by_text[text] = f"r{len(self._by_text)}"
        return name

    def written(self, root: Node) -> str:
        """The grammar as llama.cpp reads it."""
        lines = [f"root ::= {root.text}"]
        lines.extend(f"{name} ::= {text}" for text, name in self._by_text.items())
        return "\n".join(lines) + "\n"

    def alternatives(self, nodes: Sequence[Node]) -> Node:
        """One of `nodes`, which are not empty."""
        if len(nodes) == 1:
            return nodes[0]
        texts = list(dict.fromkeys(node.text for node in nodes))
        return Node(
            self.add(" | ".join(texts)),
            min(node.shortest for node in nodes),
            max(node.longest for node in nodes),
        )

    def sequence(self, nodes: Iterable[Node]) -> Node:
        """All of `nodes`, one after the other."""
        kept = [node for node in nodes if node.text]
        if len(kept) == 1:
            return kept[0]
        if not kept:
            return EMPTY
        return Node(
            self.add(" ".join(node.text for node in kept)),
            sum(node.shortest for node in kept),
            sum(node.longest for node in kept),
        )

    def optional(self, node: Node) -> Node:
        return Node(f"({node.text})?", 0, node.longest)

    def repeated(self, node: Node, least: int, most: int) -> Node:
        """`node` from `least` to `most` times."""
        if most <= 0:
            return EMPTY
        if least == most == 1:
            return node
        name = node.text if is_atom(node.text) else self.add(node.text)
        count = f"{{{least}}}" if least == most else f"{{{least},{most}}}"
        return Node(f"{name}{count}", node.shortest * least, node.longest * most)


EMPTY = Node("", 0, 0)


def is_atom(text: str) -> bool:
    """Whether a repetition may be written right behind `text`: a name or one character class."""
    return text.isalnum() or (text.startswith("[") and text.endswith("]") and text.find("]") == len(text) - 1)


def literal(text: str) -> Node:
    """Exactly `text`."""
    return Node('"' + "".join(_escaped(character) for character in text) + '"', len(text), len(text))


def _escaped(character: str) -> str:
    match character:
        case '"' | "\\":
            return "\\" + character
        case "\n":
            return "\\n"
        case "\r":
            return "\\r"
        case "\t":
            return "\\t"
    code = ord(character)
    return f"\\x{code:02X}" if code < 0x20 or code == 0x7F else character


# -- characters inside a JSON string ----------------------------------------------------------------------------------

# Half surrogates as \\u escapes would make text that no UTF-8 writer takes, so that escape is not offered at all.
STRING_CHARACTER = '[^"\\\\\\x00-\\x1F\\x7F] | "\\\\" ["\\\\/bfnrt]'

Ranges = tuple[tuple[int, int], ...]
"""Character codes, inclusive, sorted and apart."""

_LAST_CODE = 0x10FFFF
_NEVER_RAW: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), (0xD800, 0xDFFF))
_ESCAPES = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same codes, sorted and without overlap."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(ranges: Ranges) -> Ranges:
    """Every other code."""
    out: list[tuple[int, int]] = []
    next_code = 0
    for low, high in union(ranges):
        if low > next_code:
            out.append((next_code, low - 1))
        next_code = high + 1
    if next_code <= _LAST_CODE:
        out.append((next_code, _LAST_CODE))
    return tuple(out)


def without(ranges: Ranges, removed: Ranges) -> Ranges:
    """The codes of `ranges` that are not in `removed`."""
    return complement(union((*complement(ranges), *removed)))


def json_character(ranges: Ranges, rules: Rules, *, escapes: bool = True) -> Node | None:
    """One character out of `ranges` as it stands in a JSON string; None if none can stand there.

    `escapes`: also those that have to be escaped. Control characters without a short escape are left out.
    """
    nodes: list[Node] = []
    raw = without(ranges, _NEVER_RAW)
    if raw:
        nodes.append(Node(character_class(raw), 1, 1))
    if escapes:
        codes = [code for code in _ESCAPES if any(low <= code <= high for low, high in ranges)]
        nodes.extend(literal(_ESCAPES[code]) for code in codes)
    return rules.alternatives(nodes) if nodes else None


def character_class(ranges: Ranges) -> str:
    """`[…]` with every character that means something there written as a number."""
    parts = [_code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in ranges]
    return "[" + "".join(parts) + "]"


def _code(code: int) -> str:
    character = chr(code)
    if code < 0x80 and character.isalnum():
        return character
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
