"""A name and pairs of key and value in `<tool_call>`: GLM-4.5 and later.

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Paris</arg_value>
    </tool_call>

GLM-4.7 writes the same without line breaks. Values are typed by the tool's schema.
"""

from __future__ import annotations

import re

from qiao.core.dialects.hermes import CLOSE, OPEN, Hermes
from qiao.core.dialects.markup import GLM_MARKUP, MarkupArguments

_NAME = re.compile(r"[\w.:/\-]{1,128}")
_ENDS = (CLOSE, OPEN)


class Glm45(Hermes):
    """`<tool_call>NAME<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`."""

    def open_foreign(self, text: str) -> str:
        found = _NAME.match(text)
        if found is None:
            return super().open_foreign(text)
        if found.end() == len(text) and not self.is_final:
            return self.wait(text)
        self._name = found.group()
        self.keep(self._name)
        self.go(self._behind_name)
        return text[found.end() :]

    def _behind_name(self, text: str) -> str:
        """A name is one only before a parameter, or, for a declared tool, before the end of the call."""
        rest = self.keep_space(text)
        if not rest:
            return rest
        openings = (GLM_MARKUP.key_open, *((CLOSE,) if self.is_declared(self.tool_name(self._name)) else ()))
        if any(rest.startswith(opening) for opening in openings):
            shape = self.shape_of(self._name)
            self.begin(MarkupArguments(self._name, GLM_MARKUP, _ENDS, shape, mend=self.mend))
        elif any(opening.startswith(rest) for opening in openings) and not self.is_final:
            return self.wait(rest)
        else:
            self.fail()
        return rest
