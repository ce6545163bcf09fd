"""A parser for the part of PowerShell that our script uses; anything else is an error.

It knows comments, single-quoted strings, arrays, param blocks, if blocks, assignments and calls, and goes on after a
line only within brackets or after a backtick. The script was also parsed by the grammar tree-sitter-powershell 0.26.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"(?P<space>[ \t]+)|(?P<more>`\r?\n)|(?P<line>\r?\n)|(?P<comment>#[^\r\n]*)"
    r"|(?P<string>'(?:[^']|'')*')|(?P<open>@\(|[({\[])|(?P<close>[)}\]])|(?P<comma>,)"
    r"|(?P<word>[^\s'(){}\[\],`;]+)|(?P<bad>.)",
    re.DOTALL,
)
_PAIRS = {"(": ")", "@(": ")", "{": "}", "[": "]"}
_UNARY = re.compile(r"^--?[a-z]")


class ParseError(Exception):
    """PowerShell would not run this."""


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup or ""
        if kind == "bad":
            raise ParseError(f"{token[0]!r} at {token.start()}")
        if kind not in ("space", "more", "comment"):
            found.append((kind, token[0]))
    return found


def parse(text: str) -> list[list[str]]:
    """The statements of the script, as words. Raises ParseError where brackets or lines do not fit."""
    statements: list[list[str]] = [[]]
    depth: list[str] = []
    for kind, word in _tokens(text):
        if kind == "open":
            depth.append(_PAIRS[word])
            if word == "{":
                statements.append([])
                continue
        elif kind == "close":
            if not depth or depth.pop() != word:
                raise ParseError(f"{word} closes nothing")
            if word == "}":
                statements.append([])
                continue
        elif kind == "line":
            if not depth or depth[-1] == "}":
                statements.append([])
            continue
        statements[-1].append(word)
    if depth:
        raise ParseError(f"{depth[-1]} is missing")
    for statement in statements:
        if statement and _UNARY.match(statement[0]):
            raise ParseError(f"a line begins with {statement[0]}")
        if statement and statement[-1] == "\\":
            raise ParseError("a line ends in a backslash, which does not go on")
    return [each for each in statements if each]


def array(text: str, name: str) -> list[str]:
    """The strings of `$name = @(…)`."""
    found = re.search(rf"^\${name} = @\((.*?)\)\r?$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ParseError(f"no ${name}")
    return [word[1:-1].replace("''", "'") for kind, word in _tokens(found[1]) if kind == "string"]
