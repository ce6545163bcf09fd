"""Mistral: a special token, then an array of calls; from tokenizer version 11 on the name, then the arguments.

[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}]
[TOOL_CALLS]get_weather{"city": "Paris"}[TOOL_CALLS]get_time{}
[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Paris"}
"""

from __future__ import annotations

import re

from qiao.core.dialects.bodies import JsonArguments
from qiao.core.dialects.objects import ObjectsDialect
from qiao.core.json_reader import ObjectReader

TOKEN = "[TOOL_CALLS]"  # noqa: S105
CALL_ID = "[CALL_ID]"
ARGUMENTS = "[ARGS]"

_NAME = re.compile(r"[\w.:/\-]{1,128}")
_ID = re.compile(r"\[CALL_ID\][\w\-]{0,64}")
_LONGEST_HEAD = 256


class Mistral(ObjectsDialect):
    """Both forms."""

    triggers: tuple[str, ...] = (TOKEN,)
    terminators = (TOKEN,)

    def trigger(self, tag: str, rest: str) -> str:
        self.keep(tag)
        self.open_objects()
        return rest

    def open_otherwise(self, text: str) -> str:
        """Name, perhaps an id, perhaps `[ARGS]`, then the brace: all of it is short."""
        name = _NAME.match(text)
        if name is None:
            self.fail()
            return text
        place = name.end()
        found = _ID.match(text, place)
        place = found.end() if found else place
        if text.startswith(ARGUMENTS, place):
            place += len(ARGUMENTS)
        behind = text[place:].lstrip(" \t\r\n")
        if behind[:1] == "{":
            place = len(text) - len(behind)
            self.keep(text[:place])
            self.begin(JsonArguments(name.group(), ObjectReader(terminators=self.terminators, mend=self.mend)))
            return behind
        may_follow = not behind or CALL_ID.startswith(behind) or ARGUMENTS.startswith(behind)
        if may_follow and len(text) < _LONGEST_HEAD and not self.is_final:
            return self.wait(text)
        self.fail()
        return text

    def after_otherwise(self, text: str) -> str:
        if text.startswith(TOKEN):
            self.confirm()
            self.prose()
            return text
        if TOKEN.startswith(text) and not self.is_final:
            return self.wait(text)
        return self.leave(text)
