"""`pattern` of JSON Schema (regular expressions) as GBNF, the subset that schemas of tools use.

Groups, alternatives, classes, quantifiers and anchors at the ends. Look-around, back references and word boundaries
raise `UnsupportedPatternError`: such a pattern is then ignored. Quantifiers without an end are bounded.
"""

from __future__ import annotations

from qiao.core.llamacpp.rules import EMPTY, Node, Ranges, Rules, complement, json_character, union

_DIGITS: Ranges = ((0x30, 0x39),)
_WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Ranges = ((0x09, 0x0D), (0x20, 0x20))
_CLASSES: dict[str, Ranges] = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "v": 0x0B, "0": 0x00}
# Letters and signs that people write, without the spaces beyond ASCII.
_PRINTABLE: Ranges = ((0x20, 0x7E), (0xA1, 0x167F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
_ASCII: Ranges = ((0x20, 0x7E),)
_MOST_REPEATS = 1000
_DEEPEST = 32


class UnsupportedPatternError(Exception):
    """The pattern says something that cannot be written as a grammar."""


def pattern_node(pattern: str, rules: Rules, *, cap: int, character: Node, shortest: int, longest: int) -> Node | None:
    """Strings that `pattern` is found in, without their quotes; None if it wants more than `longest` characters.

    `cap`: where a quantifier has no end. `character`: any character, for what may follow a pattern without `$`.
    `shortest`, `longest`: the string's own limits, kept as far as quantifiers and an open end leave room for it.
    """
    usual = _node(pattern, rules, 0, cap, character, shortest, longest)
    for floor in (0, shortest):
        for most in (cap, longest, longest // 2, 1, 0):
            node = _node(pattern, rules, floor, max(floor, most), character, shortest, longest)
            if shortest <= node.shortest and node.longest <= longest:
                return node
    return usual if usual.shortest <= longest else None


def _node(pattern: str, rules: Rules, floor: int, cap: int, character: Node, shortest: int, longest: int) -> Node:
    reader = _Reader(pattern, rules, floor, cap)
    body = reader.whole()
    if reader.is_anchored_at_end:
        return body
    least = max(0, shortest - body.shortest)
    # An escaped character counts twice in the JSON text, and once for the string's limit.
    most = max(least, min(cap, longest - body.longest))
    return rules.sequence((body, rules.repeated(Node(character.text, 1, 1), least, most)))


class _Reader:
    """Recursive descent over one pattern."""

    def __init__(self, pattern: str, rules: Rules, floor: int, cap: int) -> None:
        self._text = pattern.removeprefix("^")
        self._place = 0
        self._rules = rules
        self._floor = floor
        self._cap = cap
        self._depth = 0
        self.is_anchored_at_end = False
        self._was_anchored = pattern.startswith("^")

    def whole(self) -> Node:
        node = self._alternatives(at_top=True)
        if self._place < len(self._text):
            raise UnsupportedPatternError(self._text[self._place :])
        return node

    def _peek(self) -> str:
        return self._text[self._place : self._place + 1]

    def _take(self) -> str:
        character = self._peek()
        if not character:
            raise UnsupportedPatternError("the pattern ends too early")
        self._place += 1
        return character

    def _alternatives(self, *, at_top: bool = False) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UnsupportedPatternError("nested too deeply")
        nodes = [self._sequence(at_top=at_top)]
        while self._peek() == "|":
            if at_top and (self._was_anchored or self.is_anchored_at_end):
                raise UnsupportedPatternError("an anchor belongs to one alternative only")
            self._place += 1
            nodes.append(self._sequence(at_top=False))
        self._depth -= 1
        if len(nodes) > 1 and any(not node.text for node in nodes):
            return self._rules.optional(self._rules.alternatives([node for node in nodes if node.text]))
        return self._rules.alternatives(nodes)

    def _sequence(self, *, at_top: bool) -> Node:
        nodes: list[Node] = []
        while (character := self._peek()) and character not in "|)":
            if character == "$" and at_top and self._place == len(self._text) - 1:
                self._place += 1
                self.is_anchored_at_end = True
                break
            nodes.append(self._quantified(self._atom()))
        return self._rules.sequence(nodes)

    def _quantified(self, node: Node) -> Node:
        character = self._peek()
        if character == "*":
            least, most = self._floor, self._cap
        elif character == "+":
            least, most = max(1, self._floor), max(1, self._cap)
        elif character == "?":
            least, most = 0, 1
        elif character == "{":
            counts = self._counts()
            if counts is None:
                raise UnsupportedPatternError("a brace that is no count")
            least, most = counts
        else:
            return node
        if character != "{":
            self._place += 1
        if self._peek() in ("?", "+"):
            self._place += 1  # lazy or possessive: the same strings
        if not node.text:
            return EMPTY
        return self._rules.optional(node) if (least, most) == (0, 1) else self._rules.repeated(node, least, most)

    def _counts(self) -> tuple[int, int] | None:
        end = self._text.find("}", self._place)
        low, comma, high = self._text[self._place + 1 : end].partition(",")
        if end < 0 or not low.isdigit() or (high and not high.isdigit()):
            return None
        self._place = end + 1
        least = int(low)
        if comma and not high:
            least = max(least, self._floor)
        most = int(high) if high else max(least, self._cap) if comma else least
        if most > _MOST_REPEATS or least > most:
            raise UnsupportedPatternError("a count that is too large")
        return least, most

    def _atom(self) -> Node:
        character = self._take()
        match character:
            case "(":
                return self._group()
            case "[":
                return self._character(self._class())
            case ".":
                return self._character(_PRINTABLE)
            case "\\":
                return self._character(self._escape(self._take()))
            case "^" | "$" | "*" | "+" | "?" | "{":
                raise UnsupportedPatternError(character)
        return self._character(((ord(character), ord(character)),))

    def _group(self) -> Node:
        if self._peek() == "?":
            self._place += 1
            kind = self._take()
            if kind == "P":
                kind = self._take()
            if kind == "<" and self._peek() not in ("=", "!"):
                while self._take() != ">":
                    pass
            elif kind != ":":
                raise UnsupportedPatternError("look-around or a flag")
        node = self._alternatives()
        if self._take() != ")":
            raise UnsupportedPatternError("a group without an end")
        return node

    def _escape(self, character: str) -> Ranges:
        if character in _CLASSES:
            return _CLASSES[character]
        if character.lower() in _CLASSES:
            return _within(_ASCII, complement(_CLASSES[character.lower()]))
        if character in _CONTROLS:
            return ((_CONTROLS[character], _CONTROLS[character]),)
        if character in "xu":
            return self._code(2 if character == "x" else 4)
        if character.isalnum():
            raise UnsupportedPatternError("\\" + character)
        return ((ord(character), ord(character)),)

    def _code(self, digits: int) -> Ranges:
        written = self._text[self._place : self._place + digits]
        try:
            code = int(written, 16)
        except ValueError:
            raise UnsupportedPatternError(written) from None
        self._place += digits
        return ((code, code),)

    def _class(self) -> Ranges:
        is_negated = self._peek() == "^"
        if is_negated:
            self._place += 1
        found: list[tuple[int, int]] = []
        # Whether a letter beyond ASCII belongs to \w is not the same everywhere, so that none is written then.
        names_class = False
        is_first = True
        while (character := self._take()) != "]" or is_first:
            is_first = False
            names_class = names_class or (character == "\\" and self._peek().lower() in _CLASSES)
            low = self._escape(self._take()) if character == "\\" else ((ord(character), ord(character)),)
            is_single = len(low) == 1 and low[0][0] == low[0][1]
            if is_single and self._peek() == "-" and self._text[self._place + 1 : self._place + 2] not in ("]", ""):
                self._place += 1
                last = self._take()
                high = self._escape(self._take()) if last == "\\" else ((ord(last), ord(last)),)
                if len(high) != 1 or high[0][0] < low[0][0]:
                    raise UnsupportedPatternError("a range that runs backwards")
                found.append((low[0][0], high[0][1]))
            else:
                found.extend(low)
        if not is_negated:
            return union(found)
        return _within(_ASCII if names_class else _PRINTABLE, complement(union(found)))

    def _character(self, ranges: Ranges) -> Node:
        node = json_character(ranges, self._rules)
        if node is None:
            raise UnsupportedPatternError("a character that no JSON string holds")
        return node


def _within(allowed: Ranges, ranges: Ranges) -> Ranges:
    """The codes of both: a negated class means "another letter", not U+0007."""
    return complement(union((*complement(ranges), *complement(allowed))))
