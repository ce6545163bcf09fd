"""`<tool_call>` with a JSON object in it: Hermes, Qwen2.5, Qwen3; and the family of dialects that use the same tag.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

The tag opens a call only before `{`, `[` or `<function=`; anything else is text. A call ends where its JSON value ends,
not where the closing tag stands. Several values in one tag are several calls. Without a tag only an object counts that
ends the answer, alone or in a fence.
"""

from __future__ import annotations

import re
from typing import Literal

from qiao.core.conversation import Tool
from qiao.core.dialects.bodies import Envelope, JsonArguments
from qiao.core.dialects.markup import FUNCTION_MARKUP, MarkupArguments
from qiao.core.dialects.objects import FENCE, FENCE_LINE, FENCE_LINE_BEGUN, ObjectsDialect
from qiao.core.json_reader import ObjectReader
from qiao.core.tags import Tags

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
FUNCTION = "<function="
FUNCTION_CLOSE = "</function>"
RESPONSE = "<tool_response>"

_ENDS = (CLOSE, OPEN)
_LONGEST_NAME = 256


class Hermes(ObjectsDialect):
    """`<tool_call>{…}</tool_call>`, and XML functions in the same tag."""

    triggers: tuple[str, ...] = (OPEN, CLOSE, RESPONSE)
    candidates = re.compile(r"(?m)^[ \t]*([{`])")

    def __init__(self, tools: tuple[Tool, ...], *, repair: bool = True) -> None:
        super().__init__(tools, repair=repair)
        self._name = ""
        self._has_tag = False
        self._has_function = False
        self._fence: Literal["", "open", "closed"] = ""
        self._is_explaining = False

    terminators = _ENDS
    _inside = Tags([FUNCTION, CLOSE, OPEN])
    _behind = Tags([CLOSE, OPEN, FUNCTION, FUNCTION_CLOSE])

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
        """An object at the margin is a call only if it is right as it is and `</tool_call>` or nothing follows it."""
        self._has_tag = self._has_function = False
        self._fence = ""
        if text[0] == "`":
            self.go(self._code_fence)
            return text
        self.begin(Envelope(mend=False, accepts=self.is_declared), streams=False)
        return text

    def _code_fence(self, text: str) -> str:
        """Qwen2.5-Coder puts its call into a code block, without the tag. An example in an explanation looks the same,
        so one alone counts, as the last thing in the answer, right as it is and with all that the tool requires."""
        may_call = self.mend and not (self.has_called or self._is_explaining)
        found = FENCE_LINE.match(text) if may_call else None
        if found is not None:
            self.keep(found.group())
            self.go(self._in_code)
            return text[found.end() :]
        if may_call and FENCE_LINE_BEGUN.match(text) and not self.is_final:
            return self.wait(text)
        self.keep(text[0])
        self.fail()
        return text[1:]

    def _in_code(self, text: str) -> str:
        rest = self.keep_space(text)
        if rest[:1] == "{":
            self._fence = "open"
            envelope = Envelope(mend=False, accepts=self.is_declared, needs_arguments=True)
            self.begin(envelope, streams=False)
        elif rest:
            self.fail()
        return rest

    def _after_code(self, text: str) -> str:
        rest = self.skip_space(text)
        if not rest:
            return rest
        if self._fence == "open" and rest.startswith(FENCE) and self.has_required_arguments:
            self._fence = "closed"
            self.note("code_fence")
            self.skip(FENCE)
            return rest[len(FENCE) :]
        if self._fence == "open" and FENCE.startswith(rest) and not self.is_final:
            return self.wait(rest)
        self._is_explaining = True
        self.fail()
        return rest

    def _end(self, cut: bool) -> None:
        super()._end(cut or self._fence == "open")

    def _open(self, tag: str) -> None:
        self.keep(tag)
        self._fence = ""
        self._has_tag, self._has_function = True, False
        self.open_objects()

    def _invented(self, text: str) -> str:
        self.skip(text)
        return ""

    # -- behind the opening tag -----------------------------------------------------------------------------------

    def open_otherwise(self, text: str) -> str:
        match self._inside.match(text):
            case "<function=":
                self.keep(FUNCTION)
                self.go(self._function_name)
                return text[len(FUNCTION) :]
            case "</tool_call>" if not self.is_fenced:
                self._drop_empty()
                return text[len(CLOSE) :]
            case None if self._inside.may_begin(text) and not self.is_final:
                return self.wait(text)
            case _:
                return self.open_foreign(text)

    def open_foreign(self, text: str) -> str:
        """What stands in the tag is none of the things that open a call everywhere."""
        self.fail()
        return text

    def _drop_empty(self) -> None:
        self._raw.append(CLOSE)
        raw = "".join(self._raw)
        self._raw.clear()
        self.skip(raw)
        self.prose()

    # -- XML functions --------------------------------------------------------------------------------------------

    def open_function(self, rest: str) -> str:
        """`<function=` stands in the prose, without the tag that belongs round it."""
        self._has_tag = self._has_function = False
        self._fence = ""
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
        rest = self.keep_space(text)
        if rest[:1] == "{":
            reader = ObjectReader(terminators=(*_ENDS, FUNCTION_CLOSE), mend=self.mend)
            self.begin(JsonArguments(self._name, reader))
        elif rest:
            self.begin(MarkupArguments(self._name, FUNCTION_MARKUP, _ENDS, self.shape_of(self._name), mend=self.mend))
        return rest

    # -- behind a call --------------------------------------------------------------------------------------------

    def after(self, text: str) -> str:
        if self._fence:
            return self._after_code(text)
        if not (self._has_tag or self._has_function):
            return self._after_candidate(text)
        return super().after(text)

    def _after_candidate(self, text: str) -> str:
        rest = self.skip_space(text)
        if rest.startswith(CLOSE):
            self.confirm()
            self.skip(CLOSE)
            self.prose()
            return rest[len(CLOSE) :]
        if not rest:
            return rest
        if CLOSE.startswith(rest) and not self.is_final:
            return self.wait(rest)
        self.fail()
        return rest

    def after_otherwise(self, text: str) -> str:
        tag = self._behind.match(text)
        match tag:
            case None if self._behind.may_begin(text) and not self.is_final:
                return self.wait(text)
            case None if CLOSE.startswith(text):
                self.skip(text)
                return ""
            case "<tool_call>":
                self.confirm()
                self.prose()
                return text
            case "<function=":
                self.confirm()
                self.keep(FUNCTION)
                self.go(self._function_name)
            case "</tool_call>":
                self.confirm()
                self.skip(CLOSE)
                self.prose()
            case "</function>" if self._has_function:
                self.skip(FUNCTION_CLOSE)
            case _:
                return self.leave(text)
        return text[len(tag) :]
