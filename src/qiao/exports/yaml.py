"""Mappings, lists and scalars as YAML: the part of YAML that manifests need, written so that every reader agrees.

Strings are quoted wherever a reader could take them for something else (yes, 1.0, null, ~, dates).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

Node: TypeAlias = "Mapping[str, Node] | Sequence[Node] | str | int | float | bool | None"

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_TAKEN = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"})


class Commented:
    """A document with comment lines before it."""

    def __init__(self, comment: str, node: Mapping[str, Node]) -> None:
        self.comment = comment
        self.node = node


def documents(*nodes: Mapping[str, Node] | Commented) -> str:
    """Several documents in one file."""
    texts = []
    for node in nodes:
        if isinstance(node, Commented):
            comment = "".join(f"# {line}".rstrip() + "\n" for line in node.comment.splitlines())
            texts.append(comment + document(node.node))
        else:
            texts.append(document(node))
    return "---\n".join(texts)


def document(node: Mapping[str, Node]) -> str:
    """One document."""
    return "\n".join(_mapping(node, 0)) + "\n"


def _mapping(node: Mapping[str, Node], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for key, value in node.items():
        yield from _entry(f"{pad}{_scalar(key)}:", value, depth)


def _entry(head: str, value: Node, depth: int) -> Iterator[str]:
    if isinstance(value, str) and _is_block(value):
        yield f"{head} |" if value.endswith("\n") else f"{head} |-"
        yield from (f"{'  ' * (depth + 1)}{line}".rstrip() for line in value.removesuffix("\n").split("\n"))
    elif isinstance(value, Mapping):
        yield head if value else f"{head} {{}}"
        yield from _mapping(value, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield head if value else f"{head} []"
        yield from _sequence(value, depth + 1)
    else:
        yield f"{head} {_scalar(value)}"


def _is_block(value: str) -> bool:
    """Whether text over several lines comes back from a block scalar letter by letter."""
    lines = value.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and all(line.isprintable() and line == line.rstrip() for line in lines)
        and lines[0] == lines[0].lstrip() != ""
        and lines[-1] != ""
    )


def _sequence(node: Sequence[Node], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for item in node:
        if isinstance(item, Mapping) and item:
            lines = list(_mapping(item, depth + 1))
            yield f"{pad}- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield from _entry(f"{pad}-", item, depth)


def _scalar(value: str | int | float | bool | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # YAML 1.1 takes a mantissa without a point for a word: 5e-324 has to be 5.0e-324.
        mantissa, mark, exponent = repr(value).partition("e")
        return f"{mantissa}.0e{exponent}" if mark and "." not in mantissa else repr(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    return json.dumps(value, ensure_ascii=False)
