"""Llama 3: a JSON object with `parameters`, perhaps behind a special token, several separated by semicolons.

    <|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "get_time", "parameters": {}}

Without the token it is bare JSON, and has to name a declared tool.
"""

from __future__ import annotations

from qiao.core.dialects.bare_json import BareJson

_TOKEN = "<|python_tag|>"  # noqa: S105


class Llama3Json(BareJson):
    """`{"name": …, "parameters": …}` at the margin, or anywhere behind `<|python_tag|>`."""

    triggers: tuple[str, ...] = (_TOKEN,)
    terminators = (_TOKEN,)

    def trigger(self, tag: str, rest: str) -> str:
        self.keep(tag)
        self.open_objects()
        return rest
