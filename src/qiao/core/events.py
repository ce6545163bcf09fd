"""The neutral answer, as facts in the past tense.

An engine's decoder yields these; a client's encoder writes them. Order within one answer:
any number of TextAdded / ReasoningAdded / ToolCall…, UsageSeen at any place, then exactly one Finished or Failed.
A sequenced stream (after `sequence`) has at most one call open at a time: ToolCallStarted, ToolArgumentsAdded…,
ToolCallEnded, with nothing between but UsageSeen.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from qiao.core.fault import Fault

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "stop_sequence", "context"]
"""Why the answer ended. "length": max_tokens reached; "context": the model's window was reached."""


class TextAdded(msgspec.Struct, frozen=True, gc=False):
    text: str


class ReasoningAdded(msgspec.Struct, frozen=True, gc=False):
    text: str


class ToolCallStarted(msgspec.Struct, frozen=True, gc=False):
    """`index` is the engine's number of the call in this answer."""

    index: int
    id: str
    name: str


class ToolArgumentsAdded(msgspec.Struct, frozen=True, gc=False):
    """A piece of the JSON text of the arguments of call `index`."""

    index: int
    text: str


class ToolCallEnded(msgspec.Struct, frozen=True, gc=False):
    """`complete` False: the answer was cut inside the call; it must not be executed.

    `raw`: the call in the words of the model, tags included, where it was written as text; a whole answer gives a call
    that is not complete back as this text.
    """

    index: int
    complete: bool = True
    raw: str = ""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the engine counts them. `prompt` includes cached and created; None: the engine did not say."""

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0
    created: int = 0
    reasoning: int | None = None
    is_estimate: bool = False


class UsageSeen(msgspec.Struct, frozen=True, gc=False):
    """The newest counts; a later one replaces an earlier one."""

    usage: Usage


class Finished(msgspec.Struct, frozen=True, gc=False):
    """The engine ended by itself or at a limit. `stop_sequence`: the string that matched, if one did.

    `of_whole`: the reason that a whole answer gives, where the stream has to give another: a call broke after its first
    bytes had gone out, which a whole answer gives back as text.
    """

    reason: FinishReason
    stop_sequence: str | None = None
    of_whole: FinishReason | None = None


class Failed(msgspec.Struct, frozen=True):
    """The answer cannot be completed."""

    fault: Fault


Words: TypeAlias = TextAdded | ReasoningAdded | ToolArgumentsAdded
"""More of what is open already."""

Event: TypeAlias = (
    TextAdded | ReasoningAdded | ToolCallStarted | ToolArgumentsAdded | ToolCallEnded | UsageSeen | Finished | Failed
)
