"""Kimi K2: the header is the call's id, `functions.NAME:NUMBER`.

<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}
<|tool_call_end|><|tool_calls_section_end|>
"""

from __future__ import annotations

import re

from qiao.core.dialects.sections import SectionDialect, SectionTags

_NUMBER = re.compile(r":\d+\Z")


class KimiK2(SectionDialect):
    """Name from an id; an id that is only a name is one, too."""

    tags = SectionTags(
        section_open="<|tool_calls_section_begin|>",
        section_close="<|tool_calls_section_end|>",
        call_open="<|tool_call_begin|>",
        separator="<|tool_call_argument_begin|>",
        call_close="<|tool_call_end|>",
    )

    def name_in(self, header: str) -> str | None:
        identifier, separator, _ = header.partition(self.tags.separator)
        if "\n" in identifier.lstrip():
            return ""
        if not separator:
            return None
        return _NUMBER.sub("", identifier.strip()).removeprefix("functions.")
