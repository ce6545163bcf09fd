"""A Messages request: client bytes → `Conversation`, or a `Fault` that names the wrong field.

Lenient wherever leniency loses nothing: Claude Code adds fields faster than gateways learn them, and a needless 400
ends somebody's session.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Final

import msgspec

from qiao.core.anthropic import options, wire
from qiao.core.anthropic.history import history, spoken, system_texts
from qiao.core.anthropic.tools import Toolbox, declared, tool_choice
from qiao.core.body import EXTRAS, MAX_DROPPED, dropped_of, extras_of, model_of, not_utf8, optional
from qiao.core.conversation import Conversation, Sampling
from qiao.core.fault import invalid
from qiao.core.growing import Growing

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

_TOOLS: Final = frozenset({"tools", "tool_choice"})

_KNOWN_FRAMES: Final = 64
_MOST_KNOWN_FIELDS: Final = 64
_KNOWN_SIZE: Final = 128 * 1024
"""The rest comes again with every request of a conversation: as many of at most so many bytes are not read anew."""

_EFFORT: Final = "output_config.effort"

_STRINGS: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])
_BOOLEAN: msgspec.json.Decoder[bool] = msgspec.json.Decoder(bool)
_NUMBER: msgspec.json.Decoder[float] = msgspec.json.Decoder(float)
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(int)
_COUNT: msgspec.json.Decoder[int] = msgspec.json.Decoder(wire.Count)
_SYSTEM: msgspec.json.Decoder[str | list[wire.ContentBlock]] = msgspec.json.Decoder(str | list[wire.ContentBlock])
_TOOL_CHOICE: msgspec.json.Decoder[wire.ToolChoice] = msgspec.json.Decoder(wire.ToolChoice)
_THINKING: msgspec.json.Decoder[wire.Thinking] = msgspec.json.Decoder(wire.Thinking)
_OUTPUT_CONFIG: msgspec.json.Decoder[wire.OutputConfig] = msgspec.json.Decoder(wire.OutputConfig)
_OUTPUT_FORMAT: msgspec.json.Decoder[wire.OutputFormat] = msgspec.json.Decoder(wire.OutputFormat)
_METADATA: msgspec.json.Decoder[wire.Metadata] = msgspec.json.Decoder(wire.Metadata)
_CONTEXT: msgspec.json.Decoder[wire.ContextManagement] = msgspec.json.Decoder(wire.ContextManagement)


def decode(body: bytes) -> Conversation:
    """The request of `POST /v1/messages`. Raises `Fault` (invalid_request) and nothing else, whatever the bytes."""
    return _decode(body, counting=False)


def decode_count(body: bytes) -> Conversation:
    """The request of `POST /v1/messages/count_tokens`: the same, but without an answer's length or way."""
    return _decode(body, counting=True)


def _decode(body: bytes, *, counting: bool) -> Conversation:
    try:
        rest, messages = _REQUESTS[counting].of(body)
        if messages is None:
            raise invalid("messages", "Field required")
        toolbox = rest.tools.copy()
        past = history(messages, toolbox)
        tools = toolbox.offered()
        choice = tool_choice(rest.choice, tools)
    except UnicodeDecodeError as error:
        raise not_utf8(body) from error
    whole = msgspec.structs.replace(rest.frame, turns=past.turns, tools=tools, tool_choice=choice)
    return whole if past.effort is None else _with_effort(whole, past.effort)


class _Rest(msgspec.Struct, frozen=True):
    """What a client says in the same words with every request of a conversation: all but its messages."""

    frame: Conversation
    tools: Toolbox
    choice: wire.ToolChoice | None


def _rest(counting: bool, fields: dict[str, msgspec.Raw]) -> _Rest:
    frame = _frame({name: raw for name, raw in fields.items() if name not in _TOOLS}, counting=counting)
    return _Rest(frame, declared(fields.get("tools")), optional(fields, "tool_choice", _TOOL_CHOICE))


_REQUESTS: Final = {counting: Growing("messages", partial(_rest, counting), spoken) for counting in (False, True)}


def _frame(fields: dict[str, msgspec.Raw], *, counting: bool) -> Conversation:
    """The fields beside messages and tools, which many conversations have alike."""
    if len(fields) > _MOST_KNOWN_FIELDS or sum(map(len, fields.values())) > _KNOWN_SIZE:
        return _framed(fields, counting=counting)
    return _known_frame(tuple([(name, bytes(raw)) for name, raw in fields.items()]), counting)


@lru_cache(_KNOWN_FRAMES)
def _known_frame(fields: tuple[tuple[str, bytes], ...], counting: bool) -> Conversation:
    return _framed({name: msgspec.Raw(raw) for name, raw in fields}, counting=counting)


def _framed(fields: dict[str, msgspec.Raw], *, counting: bool) -> Conversation:
    model = model_of(fields)
    max_tokens, stream = None, None
    if not counting:
        max_tokens = optional(fields, "max_tokens", _COUNT)
        if max_tokens is None:
            raise invalid("max_tokens", "Field required")
        stream = optional(fields, "stream", _BOOLEAN)
    options.refuse_unsupported(fields, counting=counting)
    config = optional(fields, "output_config", _OUTPUT_CONFIG)
    edits, ignored = options.edits(optional(fields, "context_management", _CONTEXT))
    effort = config.effort if config is not None else None
    if effort is not None and effort not in options.EFFORTS:
        ignored.append(_EFFORT)
        effort = None
    session, names_session = options.session(optional(fields, "metadata", _METADATA))
    return Conversation(
        model=model,
        turns=(),
        system=system_texts(optional(fields, "system", _SYSTEM)),
        max_tokens=max_tokens or 0,
        stream=stream is True,
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


def _with_effort(conversation: Conversation, effort: str) -> Conversation:
    """With the effort that a turn has set, which counts more than the request's own."""
    if effort not in options.EFFORTS:
        dropped = (*conversation.dropped, _EFFORT)[:MAX_DROPPED]
        return msgspec.structs.replace(_with_thinking(conversation, None), dropped=dropped)
    return _with_thinking(conversation, effort)


def _with_thinking(conversation: Conversation, effort: str | None) -> Conversation:
    if conversation.thinking.mode == "off":
        return conversation
    thinking = msgspec.structs.replace(conversation.thinking, effort=effort)
    return msgspec.structs.replace(conversation, thinking=thinking)


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
