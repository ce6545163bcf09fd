"""Calls as a Python list of function calls: Llama 4, and some smaller models.

    [get_weather(city="Paris", days=2), get_time(tz="UTC")]

The list has to begin at the margin, and each function has to be a declared tool.
"""

from __future__ import annotations

import re

from qiao.core.dialects.base import Dialect
from qiao.core.dialects.bodies import JsonArguments
from qiao.core.json_lexemes import WHITESPACE
from qiao.core.json_reader import ObjectReader

OPEN = "<|python_start|>"
CLOSE = "<|python_end|>"

_NAME = re.compile(r"[A-Za-z_][\w.\-]{0,127}")
_LONGEST_HEAD = 256
_PYTHON = frozenset({"unquoted_key", "missing_colon", "single_quotes", "python_literal", "bad_escape"})


class Pythonic(Dialect):
    """`[name(key=value, …), …]`, values as JSON or Python write them."""

    triggers = (OPEN, CLOSE)
    candidates = re.compile(r"(?m)^[ \t]*(\[)")

    def trigger(self, tag: str, rest: str) -> str:
        if tag == OPEN:
            self.keep(tag)
            self.go(self._opened)
        elif self.has_called:
            self.skip(tag)
        else:
            self.say(tag)
        return rest

    def candidate(self, text: str) -> str:
        self.go(self._opened)
        return text

    def _opened(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        if not rest:
            return rest
        if rest[0] != "[":
            self.fail()
            return rest
        self.keep("[")
        self.go(self._function)
        return rest[1:]

    def _function(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        if not rest:
            return rest
        found = _NAME.match(rest)
        end = found.end() if found else 0
        if found is None or (end < len(rest) and rest[end] != "("):
            self.fail()
            return rest
        if end == len(rest):
            if end < _LONGEST_HEAD and not self.is_final:
                return self.wait(rest)
            self.fail()
            return rest
        name = found.group()
        if not self.is_declared(self.tool_name(name)):
            self.fail()
            return rest
        self.keep(rest[: end + 1])
        self.begin(JsonArguments(name, ObjectReader(mend=self.mend, keywords=True, accepted=_PYTHON)))
        return rest[end + 1 :]

    def after(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.skip(text[: len(text) - len(rest)])
        if not rest:
            return rest
        if rest[0] == ",":
            self.confirm()
            self.skip(",")
            self.go(self._function)
            return rest[1:]
        if rest[0] == "]":
            self.confirm()
            self.skip("]")
            self.prose()
            return rest[1:]
        if self.is_waiting:
            self.fail()
        self.prose()
        return rest
