"""A reader of GBNF that draws random sentences out of a grammar: what the grammar allows, without an engine."""

from __future__ import annotations

import random
import re

_TOKEN = re.compile(
    r'\s+|(?P<string>"(?:[^"\\]|\\.)*")|(?P<class>\[(?:[^\]\\]|\\.)*\])|(?P<name>[A-Za-z0-9-]+)'
    r"|(?P<count>\{\d+(?:,\d*)?\})|(?P<mark>[()|?*+])"
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-F]{2})|u([0-9A-F]{4})|U([0-9A-F]{8})|(.))")
_CONTROL = {"n": "\n", "r": "\r", "t": "\t"}


class Sentences:
    """Draws sentences. `greed` near 1 makes them long."""

    def __init__(self, grammar: str) -> None:
        self.rules: dict[str, list] = {}
        for line in grammar.splitlines():
            name, _, text = line.partition(" ::= ")
            assert name not in self.rules
            tokens = _tokens(text)
            self.rules[name] = _alternatives(tokens)
            assert not tokens, (name, tokens)
        for name in _names(self.rules.values()):
            assert name in self.rules, name

    def draw(self, generator: random.Random, greed: float = 0.5) -> str:
        return self._draw(self.rules["root"], generator, greed)

    def _draw(self, alternatives: list, generator: random.Random, greed: float) -> str:
        out = []
        for kind, value, least, most in generator.choice(alternatives):
            times = least
            while times < most and generator.random() < greed:
                times += 1
            for _ in range(times):
                if kind == "string":
                    out.append(value)
                elif kind == "class":
                    out.append(_character(value, generator))
                else:
                    inner = self.rules[value] if kind == "name" else value
                    out.append(self._draw(inner, generator, greed))
        return "".join(out)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        assert found, text[place : place + 40]
        place = found.end()
        if found.lastgroup:
            tokens.append((found.lastgroup, found[0]))
    return tokens


def _alternatives(tokens: list[tuple[str, str]]) -> list:
    out: list[list] = [[]]
    while tokens:
        kind, text = tokens[0]
        if text == ")" and kind == "mark":
            break
        tokens.pop(0)
        if kind == "mark" and text == "|":
            out.append([])
        elif kind == "mark" and text == "(":
            inner = _alternatives(tokens)
            assert tokens.pop(0)[1] == ")"
            out[-1].append(["group", inner, 1, 1])
        elif kind == "mark":
            out[-1][-1][2:] = {"?": (0, 1), "*": (0, 30), "+": (1, 30)}[text]
        elif kind == "count":
            low, comma, high = text[1:-1].partition(",")
            out[-1][-1][2:] = (int(low), int(high) if high else 30 if comma else int(low))
        elif kind == "string":
            out[-1].append(["string", _unescaped(text[1:-1]), 1, 1])
        elif kind == "class":
            out[-1].append(["class", _ranges(text[1:-1]), 1, 1])
        else:
            out[-1].append(["name", text, 1, 1])
    return out


def _unescaped(text: str) -> str:
    def one(found: re.Match) -> str:
        code = found[1] or found[2] or found[3]
        return chr(int(code, 16)) if code else _CONTROL.get(found[4], found[4])

    return _ESCAPE.sub(one, text)


def _ranges(text: str) -> list[tuple[int, int]]:
    negated = text.startswith("^")
    pieces = re.findall(r"\\x[0-9A-F]{2}|\\u[0-9A-F]{4}|\\U[0-9A-F]{8}|\\.|.", text[negated:], re.DOTALL)
    found, place = [], 0
    while place < len(pieces):
        low = high = ord(_unescaped(pieces[place]))
        if pieces[place + 1 : place + 2] == ["-"] and place + 2 < len(pieces):
            high = ord(_unescaped(pieces[place + 2]))
            place += 2
        assert low <= high, text
        found.append((low, high))
        place += 1
    if not negated:
        return found
    pool = [*range(0x20, 0x7F), 0xE9, 0x4E2D, 0x1F600, 0x2028]
    return [(code, code) for code in pool if not any(low <= code <= high for low, high in found)]


def _character(ranges: list[tuple[int, int]], generator: random.Random) -> str:
    low, high = generator.choice(ranges)
    return chr(generator.randint(low, high))


def _names(rules: object) -> set[str]:
    found: set[str] = set()
    for rule in rules:
        for sequence in rule:
            for kind, value, _, _ in sequence:
                if kind == "name":
                    found.add(value)
                elif kind == "group":
                    found |= _names([value])
    return found
