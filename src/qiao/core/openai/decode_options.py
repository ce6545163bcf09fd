"""The options of a chat-completions request: reasoning, the answer's form and length, stop strings, the session.

An option is refused only where leaving it out would give another answer than the one asked for (several answers,
probabilities, sound); everything else that this gateway does not know is ignored and counted.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from qiao.core.body import optional, session_of
from qiao.core.conversation import Thinking
from qiao.core.fault import invalid
from qiao.core.fields import shown
from qiao.core.json_text import is_null, object_text
from qiao.core.openai import decode_wire as wire

EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})

ANY_OBJECT: Final = '{"type":"object"}'
"""The schema that `json_object` stands for."""

_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_STRINGS: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])
_STOP: msgspec.json.Decoder[str | list[str]] = msgspec.json.Decoder(str | list[str])
_BOOLEAN: msgspec.json.Decoder[bool] = msgspec.json.Decoder(bool)
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(int)
_COUNT: msgspec.json.Decoder[int] = msgspec.json.Decoder(wire.Count)
_FORMAT: msgspec.json.Decoder[wire.ResponseFormat] = msgspec.json.Decoder(wire.ResponseFormat)
_TEXT: msgspec.json.Decoder[wire.TextOption] = msgspec.json.Decoder(wire.TextOption)
_THINKING: msgspec.json.Decoder[wire.ThinkingOption] = msgspec.json.Decoder(wire.ThinkingOption)
_REASONING: msgspec.json.Decoder[wire.ReasoningOption] = msgspec.json.Decoder(wire.ReasoningOption)
_RAWS: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])

# What tells one session from another, the most exact first; `user` is often the same for all sessions of a person.
_SESSION_FIELDS: Final = ("session_id", "prompt_cache_key", "user")


def refuse_unsupported(fields: dict[str, msgspec.Raw]) -> None:
    """Raise a Fault for an option without which the answer would not be the one asked for."""
    answers = optional(fields, "n", _INTEGER)
    if answers not in (None, 1):
        raise invalid("n", f"one answer a request is supported, got {answers}")
    if optional(fields, "logprobs", _BOOLEAN):
        raise invalid("logprobs", "token probabilities are not supported by this gateway")
    if optional(fields, "top_logprobs", _INTEGER):
        raise invalid("top_logprobs", "token probabilities are not supported by this gateway")
    if any(kind != "text" for kind in optional(fields, "modalities", _STRINGS) or ()):
        raise invalid("modalities", "only 'text' is supported by this gateway")
    if optional(fields, "functions", _RAWS):
        raise invalid("functions", "the predecessor of tools is not supported by this gateway; send tools")


def max_tokens(fields: dict[str, msgspec.Raw]) -> int | None:
    """The limit of the answer, None for as much as fits."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        limit = optional(fields, name, _COUNT)
        if limit == 0:
            raise invalid(name, "must be at least 1, got 0")
        if limit is not None:
            return None if limit < 0 else limit
    return None


def stop(fields: dict[str, msgspec.Raw]) -> tuple[str, ...]:
    """The stop strings; an empty one stops nothing."""
    asked = optional(fields, "stop", _STOP)
    return tuple(text for text in ([asked] if isinstance(asked, str) else asked or ()) if text)


def output_schema(fields: dict[str, msgspec.Raw]) -> str | None:
    """The JSON Schema text that the answer has to fit."""
    wanted, path = optional(fields, "response_format", _FORMAT), "response_format"
    if wanted is None and (text := optional(fields, "text", _TEXT)) is not None:
        wanted, path = text.format, "text.format"
    match wanted:
        case None | wire.ResponseFormat(type="text"):
            return None
        case wire.ResponseFormat(type="json_object"):
            return ANY_OBJECT
        case wire.ResponseFormat(type="json_schema", json_schema=named):
            if named is not None:
                return object_text(named.schema, f"{path}.json_schema.schema")
            if is_null(wanted.schema):
                raise invalid(f"{path}.json_schema", "Field required")
            return object_text(wanted.schema, f"{path}.schema")
        case wire.ResponseFormat(type=other):
            raise invalid(f"{path}.type", f"expected 'text', 'json_object' or 'json_schema', got {shown(other)}")


def session(fields: dict[str, msgspec.Raw]) -> str | None:
    """A stable id of the client's session, from which its user cannot be read."""
    name = next((name for field in _SESSION_FIELDS if (name := optional(fields, field, _STRING))), None)
    return None if name is None else session_of(name)


def thinking(fields: dict[str, msgspec.Raw]) -> tuple[Thinking, list[str]]:
    """Whether and how much to think, and the names of options that say nothing known.

    OpenAI's own word is `reasoning_effort`; the others are those of the servers that clients are written for:
    `thinking` (DeepSeek, Z.ai), `reasoning` (OpenRouter), `enable_thinking` and `thinking_budget` (DashScope),
    `thinking_token_budget` and `include_reasoning` (vLLM). The first that says something decides.
    """
    option = optional(fields, "thinking", _THINKING) or wire.ThinkingOption()
    reasoning = optional(fields, "reasoning", _REASONING) or wire.ReasoningOption()
    ignored: list[str] = []
    effort = optional(fields, "reasoning_effort", _STRING) or reasoning.effort
    if effort is not None and effort not in EFFORTS:
        ignored.append("reasoning_effort")
        effort = None
    is_shown = optional(fields, "include_reasoning", _BOOLEAN) is not False and not reasoning.exclude
    mode = _mode(effort, option.type, optional(fields, "enable_thinking", _BOOLEAN), reasoning.enabled)
    if mode == "off":
        return Thinking(mode="off", shown=is_shown), ignored
    budget = next(
        (
            tokens
            for tokens in (
                option.budget_tokens,
                reasoning.max_tokens,
                optional(fields, "thinking_token_budget", _COUNT),
                optional(fields, "thinking_budget", _COUNT),
            )
            if tokens is not None and tokens > 0
        ),
        None,
    )
    return Thinking(mode=mode if budget is None else "on", budget=budget, effort=effort, shown=is_shown), ignored


def _mode(
    effort: str | None, thinking_type: str | None, enable_thinking: bool | None, enabled: bool | None
) -> Literal["default", "on", "off"]:
    if effort is not None:
        return "off" if effort == "none" else "on"
    if thinking_type in ("enabled", "adaptive", "disabled"):
        return "off" if thinking_type == "disabled" else "on"
    switch = enabled if enable_thinking is None else enable_thinking
    return "default" if switch is None else "on" if switch else "off"
