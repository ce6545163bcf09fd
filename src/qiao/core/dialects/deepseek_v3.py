"""DeepSeek V3 and R1, and V3.1, which leaves the type and the fence out.

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
    ```json
    {"city": "Paris"}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>
    <｜tool▁calls▁end｜>

Both are read, whichever model wrote them.
"""

from __future__ import annotations

from qiao.core.dialects.sections import SectionDialect, SectionTags

_KIND = "function"


class DeepSeekV3(SectionDialect):
    """Both forms: the name behind the separator on a line of its own, or before it."""

    tags = SectionTags(
        section_open="<｜tool▁calls▁begin｜>",
        section_close="<｜tool▁calls▁end｜>",
        call_open="<｜tool▁call▁begin｜>",
        separator="<｜tool▁sep｜>",
        call_close="<｜tool▁call▁end｜>",
    )

    def name_in(self, header: str) -> str | None:
        before, separator, behind = header.partition(self.tags.separator)
        if "\n" in before.lstrip():
            return ""
        if not separator:
            return None
        if before.strip() != _KIND:
            return before.strip()
        name, line_break, _ = behind.partition("\n")
        if "{" in name or "`" in name:
            return name[: min(place for place in (name.find("{"), name.find("`")) if place >= 0)].strip()
        return name.strip() if line_break else None

    def header_end(self, text: str) -> int:
        end = super().header_end(text)
        if text[:end].removesuffix(self.tags.separator).strip() != _KIND:
            return end
        while text[end] not in "\n{`":
            end += 1
        return end
