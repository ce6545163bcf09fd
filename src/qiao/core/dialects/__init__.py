"""Tool calls that a model writes as text.

`text_tools` makes the stage that turns them into events; `DIALECTS` names the ways in which models write them. Adding
one: a class with the contract of `base.Dialect`, and a line here. How the text is to be understood, case by case, is in
`tests/golden/tool_call_texts`.
"""

from __future__ import annotations

from typing import Literal

from qiao.core.conversation import Tool
from qiao.core.dialects.bare_json import BareJson
from qiao.core.dialects.base import Dialect
from qiao.core.dialects.deepseek_v3 import DeepSeekV3
from qiao.core.dialects.glm45 import Glm45
from qiao.core.dialects.hermes import Hermes
from qiao.core.dialects.kimi_k2 import KimiK2
from qiao.core.dialects.llama3_json import Llama3Json
from qiao.core.dialects.mistral import Mistral
from qiao.core.dialects.pythonic import Pythonic
from qiao.core.dialects.qwen3_coder import Qwen3Coder
from qiao.core.dialects.stage import TextTools
from qiao.core.reasoning import THINK, ReasoningSplitter

__all__ = ["DIALECTS", "Dialect", "TextTools", "text_tools"]

DIALECTS: dict[str, type[Dialect]] = {
    "hermes": Hermes,
    "qwen3_coder": Qwen3Coder,
    "glm45": Glm45,
    "llama3_json": Llama3Json,
    "mistral": Mistral,
    "deepseek_v3": DeepSeekV3,
    "deepseek_v31": DeepSeekV3,
    "kimi_k2": KimiK2,
    "pythonic": Pythonic,
    "json": BareJson,
}


def text_tools(
    dialect: str | None,
    tools: tuple[Tool, ...],
    *,
    reasoning: Literal["tag", "open"] | None = "tag",
    reasoning_tags: tuple[str, str] = THINK,
    repair: bool = True,
    keep_leading_space: bool = False,
    doubts_engine: bool = False,
) -> TextTools:
    """The stage for one answer.

    * `dialect`: a name in `DIALECTS`; None, or no `tools` (also when the client chose none): text is never a call.
    * `reasoning`: "tag": it begins with its opening tag at the start of the output; "open": the chat template has
      written that tag already; None: do not look for any.
    * `repair` False: only calls that are right as they are count.
    * `keep_leading_space`: the answer continues a prefilled one.
    * `doubts_engine`: an engine that splits reasoning itself may have ended it too early, see `EarlyEnd`.
    """
    made = DIALECTS[dialect] if dialect is not None and tools else None
    splitter = None
    if reasoning is not None:
        splitter = ReasoningSplitter(is_open=reasoning == "open", tags=reasoning_tags)
    return TextTools(
        None if made is None else lambda: made(tools, repair=repair),
        splitter,
        keep_leading_space=keep_leading_space,
        doubts_engine=doubts_engine,
    )
