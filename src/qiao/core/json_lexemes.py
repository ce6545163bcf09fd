"""The words of JSON as models write it: numbers and literals, and the question whether a quote ends its string."""

from __future__ import annotations

import json
import re

import msgspec

WHITESPACE = " \t\n\r"
SPACES = re.compile(r"[ \t\n\r]*")
SCALAR = re.compile(r"[A-Za-z0-9_+\-.$]+")

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_LITERALS = frozenset({"true", "false", "null"})
_FOREIGN_LITERALS = {
    "True": "true", "False": "false", "None": "null", "NaN": "null", "undefined": "null",
    "Infinity": "null", "-Infinity": "null", "nan": "null", "TRUE": "true", "FALSE": "false", "NULL": "null",
}  # fmt: skip

_BARE_KEY = re.compile(r"[A-Za-z_$][\w$.\-]{0,63}[ \t\n\r]{0,16}")
_SHORT_STRING = re.compile(r"""(["'])[^"'\\\n]{0,64}\1[ \t\n\r]{0,16}""")
_SHORT_STRING_BEGUN = re.compile(r"""["'][^"'\\\n]{0,64}\Z""")
_MEMBER = re.compile(r"""(?:"(?:[^"\\\n]|\\.){0,64}"|'(?:[^'\\\n]|\\.){0,64}')[ \t\n\r]{0,16}""")
_MEMBER_BEGUN = re.compile(r"""(?:"(?:[^"\\\n]|\\.){0,64}|'(?:[^'\\\n]|\\.){0,64})\\?\Z""")
_JOINED = re.compile(r"""["'][ \t\n\r]{0,16}\+[ \t\n\r]{0,16}["']""")
_JOINED_BEGUN = re.compile(r"""["'][ \t\n\r]{0,16}(?:\+[ \t\n\r]{0,16})?\Z""")
_LONGEST_LITERAL = 16
_FARTHEST = 256


class Scalar(msgspec.Struct, frozen=True, gc=False):
    """`text`: JSON; `repair`: the name of the mend, if it was none before."""

    text: str
    repair: str | None = None


def read_scalar(word: str) -> Scalar | None:
    """A number or literal, as JSON, Python or JavaScript write it; None if it is neither."""
    if word in _LITERALS or _NUMBER.match(word):
        return Scalar(word)
    if word in _FOREIGN_LITERALS:
        return Scalar(_FOREIGN_LITERALS[word], "python_literal")
    try:
        number = float(word)
    except ValueError:
        return None
    if number in (float("inf"), float("-inf")):
        return None
    digits = word.lstrip("+-")
    if digits.isdigit():
        return Scalar(("-" if word.startswith("-") else "") + (digits.lstrip("0") or "0"), "bad_number")
    return Scalar(json.dumps(number), "bad_number")


def starts_with_any(text: str, position: int, strings: tuple[str, ...], *, is_final: bool) -> bool | None:
    """Whether one of `strings` stands at `position`. None: it may turn out to, when more text comes."""
    for string in strings:
        if text.startswith(string, position):
            return True
        if not is_final and string.startswith(text[position:]):
            return None
    return False


class Quotes:
    """Tells the quote that ends a string from one that the model forgot to escape, by what follows it.

    A string that ends is followed by structure: a bracket, a comma and another member, a terminator. The look-ahead is
    bounded. Valid JSON is always read as what it is.
    """

    def __init__(self, terminators: tuple[str, ...], *, keywords: bool) -> None:
        self._terminators = terminators
        self._closing = "})" if keywords else "}"

    def end_string(self, text: str, position: int, *, in_array: bool, arrays: int, is_final: bool) -> bool | None:
        """About the quote at `position`, in a value. `arrays`: how many are open. None: more text is needed."""
        place = _after_spaces(text, position + 1)
        if place >= len(text):
            return True if is_final else None
        if place - position > _FARTHEST:
            return True
        character = text[place]
        if character in self._closing:
            return True
        if character == "]":
            return arrays > 0
        if character == ",":
            return self._before_comma(text, place + 1, in_array=in_array, is_final=is_final)
        if character in "\"'":
            return _before_quote(text, place, in_array=in_array, is_final=is_final)
        return starts_with_any(text, place, self._terminators, is_final=is_final)

    def _before_comma(self, text: str, position: int, *, in_array: bool, is_final: bool) -> bool | None:
        place = _after_spaces(text, position)
        if place >= len(text):
            return True if is_final else None
        if place - position > _FARTHEST or text[place] in "],":
            return True
        if text[place] in "\"'":
            return True if in_array else self._before_members(text, place, is_final=is_final)
        if text[place] in self._closing:
            return True
        if in_array:
            if text[place] in "[{-0123456789":
                return True
            word = SCALAR.match(text, place)
            if word is not None:
                if word.end() == len(text) and len(word.group()) < _LONGEST_LITERAL and not is_final:
                    return None
                return word.group() in _LITERALS or word.group() in _FOREIGN_LITERALS
        elif (key := _BARE_KEY.match(text, place)) is not None:
            if key.end() == len(text) and not is_final:
                return None
            return text[key.end() : key.end() + 1] in (":", "=")
        return starts_with_any(text, place, self._terminators, is_final=is_final)

    def _before_members(self, text: str, position: int, *, is_final: bool) -> bool | None:
        """`", "` in an object: a key follows if a colon stands behind it; in `print("a", "b")` it is a list of words.

        What may be a key whose colon or value is missing counts as one, so that nobody's value is made up of it.
        """
        place = position
        while place - position <= _FARTHEST:
            found = _MEMBER.match(text, place)
            if found is None:
                return None if not is_final and _MEMBER_BEGUN.match(text, place) else True
            place = found.end()
            if place >= len(text):
                return True if is_final else None
            if text[place] != ",":
                is_apart = text[place - 1] in WHITESPACE
                return text[place] in ":=" + WHITESPACE + self._closing or (is_apart and text[place] in "\"'")
            place = _after_spaces(text, place + 1)
            if place >= len(text):
                return True if is_final else None
            if text[place] not in "\"'":
                return text[place] in self._closing
        return False


def is_joined(text: str, position: int, *, is_final: bool) -> bool | None:
    """Whether the quote at `position` ends the first part of `"a" + "b"`. None: more text is needed."""
    if _JOINED.match(text, position):
        return True
    return None if not is_final and _JOINED_BEGUN.match(text, position) else False


def _before_quote(text: str, position: int, *, in_array: bool, is_final: bool) -> bool | None:
    """`"a" "b": 1` lacks a comma; in `"say "hi""}` the first of the two quotes belongs to the string."""
    place = _after_spaces(text, position + 1)
    if place >= len(text):
        return False if is_final else None
    if text[place] in "}],":
        return False
    found = _SHORT_STRING.match(text, position)
    if found is not None:
        if found.end() == len(text) and not is_final:
            return None
        following = text[found.end() : found.end() + 1]
        return following in ((",", "]") if in_array else (":", "="))
    if _SHORT_STRING_BEGUN.match(text, position) and not is_final:
        return None
    return False


def _after_spaces(text: str, position: int) -> int:
    found = SPACES.match(text, position, position + _FARTHEST + 1)
    return found.end() if found else position
