"""`<tool_call>` with a JSON object in it: Hermes, Qwen2.5, Qwen3; and the family of dialects that use the same tag.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

The tag opens a call only before `{`, `[` or `<function=`; anything else is text. A call ends where its JSON value ends,
not where the closing tag stands. Several values in one tag are several calls.
"""

from __future__ import annotations

import re

from qiao.core.conversation import Tool
from qiao.core.dialects.base import Dialect
from qiao.core.dialects.bodies import Envelope, JsonArguments
from qiao.core.dialects.markup import FUNCTION_MARKUP, MarkupArguments
from qiao.core.dialects.tags import Tags
from qiao.core.json_lexemes import WHITESPACE
from qiao.core.json_reader import ObjectReader

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
FUNCTION = "<function="
FUNCTION_CLOSE = "</function>"
RESPONSE = "<tool_response>"
FENCE = "```"

_ENDS = (CLOSE, OPEN)
_FENCE_LINE = re.compile(r"```[\w-]{0,32}[ \t]{0,8}\r?\n")
_FENCE_LINE_BEGUN = re.compile(r"```[\w-]{0,32}[ \t]{0,8}\r?\Z")
_LONGEST_NAME = 256
_LONGEST_GAP = 256


class Hermes(Dialect):
    """`<tool_call>{…}</tool_call>`, and XML functions in the same tag."""

    triggers: tuple[str, ...] = (OPEN, CLOSE, RESPONSE)
    candidates = re.compile(r"(?m)^[ \t]*(\{)")

    def __init__(self, tools: tuple[Tool, ...], *, repair: bool = True) -> None:
        super().__init__(tools, repair=repair)
        self._name = ""
        self._has_tag = False
        self._in_array = False
        self._is_fenced = False
        self._has_function = False

    _inside = Tags([FUNCTION, CLOSE, OPEN, FENCE])
    _behind = Tags([CLOSE, OPEN, FUNCTION, FUNCTION_CLOSE, FENCE])

    # -- from the prose -------------------------------------------------------------------------------------------

    def trigger(self, tag: str, rest: str) -> str:
        if tag == OPEN:
            self._open(tag)
            return rest
        if tag == RESPONSE and self.has_called and self.at_line_start:
            # What a tool would answer, the model can only have invented.
            self.skip(tag)
            self.go(self._invented)
            return rest
        self.say(tag)
        return rest

    def candidate(self, text: str) -> str:
        """An object at the margin is a call only if `</tool_call>` follows it and it is right as it is."""
        self._has_tag = self._in_array = self._is_fenced = self._has_function = False
        self.begin(Envelope(mend=False, accepts=self.is_declared), streams=False)
        return text

    def _open(self, tag: str) -> None:
        self.keep(tag)
        self._has_tag = True
        self._in_array = self._is_fenced = self._has_function = False
        self.go(self._opened)

    def _invented(self, text: str) -> str:
        self.skip(text)
        return ""

    # -- behind the opening tag -----------------------------------------------------------------------------------

    def _opened(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        if not rest:
            return rest
        if rest[0] == "{":
            self._begin_object()
            return rest
        if rest[0] == "[":
            self._in_array = True
            self.keep("[")
            self.go(self._in_brackets)
            return rest[1:]
        return self._opened_by_tag(rest)

    def _opened_by_tag(self, text: str) -> str:
        match self._inside.match(text):
            case "```":
                return self._open_fence(text)
            case "<function=":
                self.keep(FUNCTION)
                self.go(self._function_name)
                return text[len(FUNCTION) :]
            case "</tool_call>" if not self._is_fenced:
                self._drop_empty()
                return text[len(CLOSE) :]
            case None if self._inside.may_begin(text) and not self.is_final:
                return self.wait(text)
            case _:
                return self.open_otherwise(text)

    def open_otherwise(self, text: str) -> str:
        """What stands in the tag is none of the things that open a call everywhere."""
        self.fail()
        return text

    def _drop_empty(self) -> None:
        self._raw.append(CLOSE)
        raw = "".join(self._raw)
        self._raw.clear()
        self.skip(raw)
        self.prose()

    def _open_fence(self, text: str) -> str:
        found = _FENCE_LINE.match(text)
        if found is not None:
            self._is_fenced = True
            self.keep(found.group())
            return text[found.end() :]
        if _FENCE_LINE_BEGUN.match(text) and not self.is_final:
            return self.wait(text)
        self.fail()
        return text

    def _in_brackets(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        if rest[:1] == "{":
            self._begin_object()
        elif rest:
            self.fail()
        return rest

    def _begin_object(self) -> None:
        ends = (*_ENDS, FENCE) if self._is_fenced else _ENDS
        notes = ["code_fence"] if self._is_fenced else []
        self.begin(Envelope(terminators=ends, mend=self.mend), notes=notes)

    # -- XML functions --------------------------------------------------------------------------------------------

    def open_function(self, rest: str) -> str:
        """`<function=` stands in the prose, without the tag that belongs round it."""
        self._has_tag = self._in_array = self._is_fenced = self._has_function = False
        self.keep(FUNCTION)
        self.go(self._function_name)
        return rest

    def _function_name(self, text: str) -> str:
        end = text.find(">", 0, _LONGEST_NAME)
        name = text[: end if end >= 0 else len(text)].strip(" \t\"'")
        if "<" in name or "\n" in name or (end < 0 and (self.is_final or len(text) >= _LONGEST_NAME)):
            self.fail()
            return text
        if end < 0:
            return self.wait(text)
        if not name or not (self._has_tag or self.is_declared(self.tool_name(name))):
            self.fail()
            return text
        self.keep(text[: end + 1])
        self._name = name
        self._has_function = True
        self.go(self._function_body)
        return text[end + 1 :]

    def _function_body(self, text: str) -> str:
        """Parameters as tags; some models write the arguments as an object instead."""
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        if rest[:1] == "{":
            reader = ObjectReader(terminators=(*_ENDS, FUNCTION_CLOSE), mend=self.mend)
            self.begin(JsonArguments(self._name, reader))
        elif rest:
            self.begin(MarkupArguments(self._name, FUNCTION_MARKUP, _ENDS, self.shape_of(self._name), mend=self.mend))
        return rest

    # -- behind a call --------------------------------------------------------------------------------------------

    def after(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.skip(text[: len(text) - len(rest)])
        if not rest:
            return rest
        if not self._has_tag and not self._has_function:
            return self._after_candidate(rest)
        match rest[0]:
            case "]" if self._in_array:
                self._in_array = False
                self.skip("]")
                return rest[1:]
            case ("}" | "]") as bracket if self.mend:
                self.note("extra_bracket")
                self.skip(bracket)
                return rest[1:]
            case "{" if not self._has_function:
                self.confirm()
                self._begin_object()
                return rest
            case "," | ";":
                return self._after_comma(rest)
            case _:
                return self._after_tag(rest)

    def _after_candidate(self, text: str) -> str:
        if text.startswith(CLOSE):
            self.confirm()
            self.skip(CLOSE)
            self.prose()
            return text[len(CLOSE) :]
        if CLOSE.startswith(text) and not self.is_final:
            return self.wait(text)
        self.fail()
        return text

    def _after_comma(self, text: str) -> str:
        """Between two objects, a comma is layout."""
        rest = text[1:].lstrip(WHITESPACE)
        if not rest and len(text) < _LONGEST_GAP and not self.is_final:
            return self.wait(text)
        if rest[:1] != "{":
            return self._leave(text)
        self.skip(text[: len(text) - len(rest)])
        return rest

    def _after_tag(self, text: str) -> str:
        tag = self._behind.match(text)
        if tag is None:
            if self._behind.may_begin(text):
                if not self.is_final:
                    return self.wait(text)
                if CLOSE.startswith(text):
                    self.skip(text)
                    return ""
            return self._leave(text)
        if tag == OPEN:
            self.confirm()
            self.prose()
            return text
        if tag == FUNCTION:
            self.confirm()
            self.keep(FUNCTION)
            self.go(self._function_name)
        elif tag == CLOSE:
            self.confirm()
            self.skip(CLOSE)
            self.prose()
        elif (tag == FENCE and self._is_fenced) or (tag == FUNCTION_CLOSE and self._has_function):
            self.skip(tag)
        else:
            return self._leave(text)
        return text[len(tag) :]

    def _leave(self, text: str) -> str:
        """Something else follows: a call that was mended and not closed is none."""
        if self.is_waiting:
            self.fail()
        self.prose()
        return text
