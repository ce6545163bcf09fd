"""Calls as JSON without any tag, or in a Markdown fence.

    {"name": "get_weather", "arguments": {"city": "Paris"}}

    ```json
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    ```

Nothing but its content tells such a call from other JSON, so it has to begin at the margin, to name a declared tool and
to have arguments; the first key that calls do not have makes it text.
"""

from __future__ import annotations

import re

from qiao.core.dialects.objects import ObjectsDialect


class BareJson(ObjectsDialect):
    """`{"name": …, "arguments": …}` at the margin, alone, in an array or in a fence."""

    candidates = re.compile(r"(?m)^[ \t]*([{\[`])")

    def trigger(self, tag: str, rest: str) -> str:
        self.say(tag)
        return rest

    def candidate(self, text: str) -> str:
        self.open_objects(accepts=self.is_known)
        return text

    def is_known(self, name: str) -> bool:
        return self.is_declared(self.tool_name(name))
