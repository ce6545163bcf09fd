"""A Messages request: client bytes → `Conversation`, or a `Fault` that names the wrong field.

Lenient wherever leniency loses nothing: Claude Code adds fields faster than gateways learn them, and a needless 400
ends somebody's session.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qiao.core.anthropic import options, wire
from qiao.core.anthropic.history import history, system_texts
from qiao.core.anthropic.tools import declared, tool_choice
from qiao.core.body import EXTRAS, dropped_of, extras_of, fields_of, model_of, not_utf8, optional
from qiao.core.conversation import Conversation, Sampling
from qiao.core.fault import invalid

READ: Final = frozenset(
    {
        "context_management",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
"""Fields that are read here; those that are only checked, because nothing comes of them, count as dropped."""

_STRINGS: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])
_BOOLEAN: msgspec.json.Decoder[bool] = msgspec.json.Decoder(bool)
_NUMBER: msgspec.json.Decoder[float] = msgspec.json.Decoder(float)
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(int)
_COUNT: msgspec.json.Decoder[int] = msgspec.json.Decoder(wire.Count)
_MESSAGES: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_SYSTEM: msgspec.json.Decoder[str | list[wire.ContentBlock]] = msgspec.json.Decoder(str | list[wire.ContentBlock])
_TOOL_CHOICE: msgspec.json.Decoder[wire.ToolChoice] = msgspec.json.Decoder(wire.ToolChoice)
_THINKING: msgspec.json.Decoder[wire.Thinking] = msgspec.json.Decoder(wire.Thinking)
_OUTPUT_CONFIG: msgspec.json.Decoder[wire.OutputConfig] = msgspec.json.Decoder(wire.OutputConfig)
_OUTPUT_FORMAT: msgspec.json.Decoder[wire.OutputFormat] = msgspec.json.Decoder(wire.OutputFormat)
_METADATA: msgspec.json.Decoder[wire.Metadata] = msgspec.json.Decoder(wire.Metadata)
_CONTEXT: msgspec.json.Decoder[wire.ContextManagement] = msgspec.json.Decoder(wire.ContextManagement)


def decode(body: bytes) -> Conversation:
    """The request of `POST /v1/messages`. Raises `Fault` (invalid_request) and nothing else, whatever the bytes."""
    try:
        fields = fields_of(body)
        model = model_of(fields)
        max_tokens = optional(fields, "max_tokens", _COUNT)
        if max_tokens is None:
            raise invalid("max_tokens", "Field required")
        stream = optional(fields, "stream", _BOOLEAN)
        conversation = _conversation(fields, model, max_tokens)
        return msgspec.structs.replace(conversation, max_tokens=max_tokens, stream=stream is True)
    except UnicodeDecodeError as error:
        raise not_utf8(body) from error


def decode_count(body: bytes) -> Conversation:
    """The request of `POST /v1/messages/count_tokens`: the same, but without an answer's length or way."""
    try:
        fields = fields_of(body)
        return _conversation(fields, model_of(fields), None)
    except UnicodeDecodeError as error:
        raise not_utf8(body) from error


def _conversation(fields: dict[str, msgspec.Raw], model: str, max_tokens: int | None) -> Conversation:
    """What both endpoints ask. `max_tokens`: None for count_tokens."""
    options.refuse_unsupported(fields, counting=max_tokens is None)
    messages = optional(fields, "messages", _MESSAGES)
    if messages is None:
        raise invalid("messages", "Field required")
    toolbox = declared(fields.get("tools"))
    past = history(messages, toolbox)
    tools = toolbox.offered()
    config = optional(fields, "output_config", _OUTPUT_CONFIG)
    edits, ignored = options.edits(optional(fields, "context_management", _CONTEXT))
    effort = past.effort or (config.effort if config is not None else None)
    if effort is not None and effort not in options.EFFORTS:
        ignored.append("output_config.effort")
        effort = None
    session, names_session = options.session(optional(fields, "metadata", _METADATA))
    return Conversation(
        model=model,
        turns=past.turns,
        system=system_texts(optional(fields, "system", _SYSTEM)),
        tools=tools,
        tool_choice=tool_choice(optional(fields, "tool_choice", _TOOL_CHOICE), tools),
        stop=_stop(fields),
        thinking=options.thinking(optional(fields, "thinking", _THINKING), effort, max_tokens),
        sampling=_sampling(fields),
        output_schema=options.output_schema(config, optional(fields, "output_format", _OUTPUT_FORMAT)),
        session=session,
        names_session=names_session,
        extras=extras_of(fields),
        edits=edits,
        dropped=dropped_of(fields, READ | EXTRAS, ignored),
    )


def _stop(fields: dict[str, msgspec.Raw]) -> tuple[str, ...]:
    stop = optional(fields, "stop_sequences", _STRINGS) or []
    if any(not text or text.isspace() for text in stop):
        raise invalid("stop_sequences", "each stop sequence must contain non-whitespace")
    return tuple(stop)


def _sampling(fields: dict[str, msgspec.Raw]) -> Sampling:
    return Sampling(
        temperature=optional(fields, "temperature", _NUMBER),
        top_p=optional(fields, "top_p", _NUMBER),
        top_k=optional(fields, "top_k", _INTEGER),
    )
