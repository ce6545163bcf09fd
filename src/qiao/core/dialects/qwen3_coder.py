"""XML functions, whose tag is often missing: Qwen3-Coder, Qwen3.5 and later.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

Values are typed by the tool's schema. Models of this family often leave out `<tool_call>`; a `<function=` that begins a
line and names a declared tool is a call then, too.
"""

from __future__ import annotations

from qiao.core.dialects.hermes import CLOSE, FUNCTION, OPEN, RESPONSE, Hermes


class Qwen3Coder(Hermes):
    """`<function=…><parameter=…>`, with or without `<tool_call>`; JSON in the tag is understood as well."""

    triggers = (OPEN, CLOSE, RESPONSE, FUNCTION)

    def trigger(self, tag: str, rest: str) -> str:
        if tag == FUNCTION and self.at_line_start:
            return self.open_function(rest)
        return super().trigger(tag, rest)
