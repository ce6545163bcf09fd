"""Tokens and prompts of the fake engine: close to a real one in size and layout, exact in nothing.

The prompt is laid out as Qwen's chat template does it, so that tests can ask whether one turn's prompt begins
with the turn before it (what an engine's prefix cache needs) and how much of it was seen before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.fakes.script import text_of

BLOCK = 128
"""Tokens in one block of the prefix cache; nothing shorter is reused."""

_TOKEN = re.compile(r"\s?\w{1,8}|\s+|[^\w\s]")
_OPEN, _CLOSE = "<|im_start|>", "<|im_end|>\n"


def tokens(text: str) -> list[str]:
    """`text` cut into pieces of the size that a tokenizer makes; joined they are the text again."""
    return _TOKEN.findall(text)


def count(text: str) -> int:
    """How many tokens `text` has."""
    return sum(1 for _ in _TOKEN.finditer(text))


def render(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    *,
    opening: bool = True,
    calls: str = "hermes",
) -> str:
    """The prompt that the template makes; `opening` begins the turn that the model shall write. `calls`: how it writes
    them."""
    turns = list(messages)
    head = ""
    if turns and turns[0].get("role") in ("system", "developer"):
        head = text_of(turns.pop(0).get("content"))
    if tools:
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        head += f"\n\n# Tools\n\n<tools>\n{listed}\n</tools>"
    written = [f"{_OPEN}system\n{head}{_CLOSE}"] if head else []
    written += [_turn(message, calls) for message in turns]
    if opening:
        return "".join(written) + f"{_OPEN}assistant\n"
    return "".join(written).removesuffix(_CLOSE)


def _turn(message: Mapping[str, Any], calls: str) -> str:
    role = message.get("role")
    words = text_of(message.get("content"))
    if role == "tool":
        return f"{_OPEN}user\n<tool_response>\n{words}\n</tool_response>{_CLOSE}"
    if role == "assistant":
        thought = message.get("reasoning") or message.get("reasoning_content")
        if thought:
            words = f"<think>\n{thought}\n</think>\n\n{words}"
        for call in message.get("tool_calls") or ():
            words += _CALLS[calls](call["function"]["name"], call["function"].get("arguments") or "{}")
    return f"{_OPEN}{role}\n{words}{_CLOSE}"


def raw_call(name: str, arguments: str) -> str:
    """A tool call as a Hermes-style model writes it into its text."""
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>'


class PrefixCache:
    """Remembers prompts and says how many tokens of a new one stand at the head of an earlier one."""

    def __init__(self, capacity: int = 32) -> None:
        self._capacity = capacity
        self._prompts: list[str] = []

    def add(self, prompt: str) -> int:
        """Remember `prompt`; tokens of it that were cached, in whole blocks."""
        longest = max((_shared(prompt, earlier) for earlier in self._prompts), default=0)
        self._prompts = [*self._prompts[-self._capacity + 1 :], prompt]
        return count(prompt[:longest]) // BLOCK * BLOCK


def _shared(one: str, other: str) -> int:
    """The number of characters at the head that both have."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _coder_call(name: str, arguments: str) -> str:
    written = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in json.loads(arguments).items())
    return f"<tool_call>\n<function={name}>\n{written}</function>\n</tool_call>"


def _kimi_call(name: str, arguments: str) -> str:
    call = f"<|tool_call_begin|>functions.{name}:0<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
    return f"<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>"


_CALLS: dict[str, Callable[[str, str], str]] = {
    "hermes": raw_call,
    "qwen3_coder": _coder_call,
    "kimi_k2": _kimi_call,
    "mistral": lambda name, arguments: f"[TOOL_CALLS]{name}[ARGS]{arguments}",
    "": lambda name, arguments: "",
}
