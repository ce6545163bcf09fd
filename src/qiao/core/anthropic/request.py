"""A Messages request: client bytes → `Conversation`, or a `Fault` that names the wrong field.

Each top-level field is cut out first and then read by its own decoder, so that unknown fields cost nothing, are known
by name, and never fail a request. Lenient wherever leniency loses nothing: Claude Code adds fields faster than
gateways learn them, and a needless 400 ends somebody's session.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from qiao.core.anthropic import options, wire
from qiao.core.anthropic.fields import read
from qiao.core.anthropic.history import history, system_texts
from qiao.core.anthropic.json_text import MAX_DEPTH, check_depth, is_null, kind_of, mend_surrogates
from qiao.core.anthropic.tools import Toolbox, tool_choice
from qiao.core.conversation import Conversation, Sampling
from qiao.core.fault import Fault, invalid

T = TypeVar("T")

EXTRAS: Final = frozenset(
    {
        "cache_salt",
        "chat_template_kwargs",
        "frequency_penalty",
        "logit_bias",
        "min_p",
        "min_tokens",
        "presence_penalty",
        "priority",
        "repetition_detection",
        "repetition_penalty",
        "seed",
        "vllm_xargs",
    }
)
"""Engine options that a client may pass through. They shape the sampling and nothing that other clients share."""

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

MAX_DROPPED: Final = 64
"""Names of ignored fields that are kept for the record; a hostile body can hold a million."""

MAX_NAME: Final = 80
"""Characters of one such name."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_BODY: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_STRINGS: msgspec.json.Decoder[list[str]] = msgspec.json.Decoder(list[str])
_BOOLEAN: msgspec.json.Decoder[bool] = msgspec.json.Decoder(bool)
_NUMBER: msgspec.json.Decoder[float] = msgspec.json.Decoder(float)
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(int)
_COUNT: msgspec.json.Decoder[int] = msgspec.json.Decoder(wire.Count)
_MESSAGES: msgspec.json.Decoder[list[wire.Message]] = msgspec.json.Decoder(list[wire.Message])
_SYSTEM: msgspec.json.Decoder[str | list[wire.ContentBlock]] = msgspec.json.Decoder(str | list[wire.ContentBlock])
_TOOLS: msgspec.json.Decoder[list[wire.ToolDefinition]] = msgspec.json.Decoder(list[wire.ToolDefinition])
_TOOL_CHOICE: msgspec.json.Decoder[wire.ToolChoice] = msgspec.json.Decoder(wire.ToolChoice)
_THINKING: msgspec.json.Decoder[wire.Thinking] = msgspec.json.Decoder(wire.Thinking)
_OUTPUT_CONFIG: msgspec.json.Decoder[wire.OutputConfig] = msgspec.json.Decoder(wire.OutputConfig)
_OUTPUT_FORMAT: msgspec.json.Decoder[wire.OutputFormat] = msgspec.json.Decoder(wire.OutputFormat)
_METADATA: msgspec.json.Decoder[wire.Metadata] = msgspec.json.Decoder(wire.Metadata)
_CONTEXT: msgspec.json.Decoder[wire.ContextManagement] = msgspec.json.Decoder(wire.ContextManagement)


def decode(body: bytes) -> Conversation:
    """The request of `POST /v1/messages`. Raises `Fault` (invalid_request) and nothing else, whatever the bytes."""
    try:
        fields = _fields(body)
        model = _model(fields)
        max_tokens = _optional(fields, "max_tokens", _COUNT)
        if max_tokens is None:
            raise invalid("max_tokens", "Field required")
        stream = _optional(fields, "stream", _BOOLEAN)
        conversation = _conversation(fields, model, max_tokens)
        return msgspec.structs.replace(conversation, max_tokens=max_tokens, stream=stream is True)
    except UnicodeDecodeError as error:
        raise _not_utf8(body) from error


def decode_count(body: bytes) -> Conversation:
    """The request of `POST /v1/messages/count_tokens`: the same, but without an answer's length or way."""
    try:
        fields = _fields(body)
        return _conversation(fields, _model(fields), None)
    except UnicodeDecodeError as error:
        raise _not_utf8(body) from error


def _not_utf8(body: bytes) -> Fault:
    """Raised late: strings are only decoded where they are read, and a check of its own would cost every request."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return Fault("invalid_request", f"The request body is not valid UTF-8 at byte {error.start}.")
    return Fault("invalid_request", "The request body is not valid UTF-8.")


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level fields, each as the JSON text that the client wrote. All of it is valid JSON after this."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if not body or body.isspace():
        raise Fault("invalid_request", "The request body is empty; a JSON object is required.")
    try:
        try:
            return _BODY.decode(body)
        except msgspec.DecodeError:
            mended = mend_surrogates(body)
            if mended is body:
                raise
            return _BODY.decode(mended)
    except msgspec.ValidationError as error:
        kind = kind_of(body.lstrip()[:1])
        raise Fault("invalid_request", f"The request body must be a JSON object, not {kind}.") from error
    except msgspec.DecodeError as error:
        problem = str(error).removeprefix("JSON is malformed: ")
        raise Fault("invalid_request", f"The request body is not valid JSON: {problem}.") from error
    except RecursionError as error:
        problem = f"The request body is nested too deeply; at most {MAX_DEPTH} levels are supported."
        raise Fault("invalid_request", problem) from error


def _conversation(fields: dict[str, msgspec.Raw], model: str, max_tokens: int | None) -> Conversation:
    """What both endpoints ask. `max_tokens`: None for count_tokens."""
    options.refuse_unsupported(fields, counting=max_tokens is None)
    messages = _optional(fields, "messages", _MESSAGES)
    if messages is None:
        raise invalid("messages", "Field required")
    toolbox = Toolbox()
    toolbox.declare(_optional(fields, "tools", _TOOLS) or [], "tools")
    past = history(messages, toolbox)
    tools = toolbox.offered()
    config = _optional(fields, "output_config", _OUTPUT_CONFIG)
    edits, ignored = options.edits(_optional(fields, "context_management", _CONTEXT))
    effort = past.effort or (config.effort if config is not None else None)
    if effort is not None and effort not in options.EFFORTS:
        ignored.append("output_config.effort")
        effort = None
    return Conversation(
        model=model,
        turns=past.turns,
        system=system_texts(_optional(fields, "system", _SYSTEM)),
        tools=tools,
        tool_choice=tool_choice(_optional(fields, "tool_choice", _TOOL_CHOICE), tools),
        stop=_stop(fields),
        thinking=options.thinking(_optional(fields, "thinking", _THINKING), effort, max_tokens),
        sampling=_sampling(fields),
        output_schema=options.output_schema(config, _optional(fields, "output_format", _OUTPUT_FORMAT)),
        session=options.session(_optional(fields, "metadata", _METADATA)),
        extras=_extras(fields),
        edits=edits,
        dropped=_dropped(fields, ignored),
    )


def _optional(fields: dict[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """The field's value; None if it was not sent, or sent as null."""
    raw = fields.get(name)
    return None if raw is None or is_null(raw) else read(decoder, raw, name)


def _model(fields: dict[str, msgspec.Raw]) -> str:
    model = _optional(fields, "model", _STRING)
    if not model:
        raise invalid("model", "Field required")
    return model


def _stop(fields: dict[str, msgspec.Raw]) -> tuple[str, ...]:
    stop = _optional(fields, "stop_sequences", _STRINGS) or []
    if any(not text or text.isspace() for text in stop):
        raise invalid("stop_sequences", "each stop sequence must contain non-whitespace")
    return tuple(stop)


def _sampling(fields: dict[str, msgspec.Raw]) -> Sampling:
    return Sampling(
        temperature=_optional(fields, "temperature", _NUMBER),
        top_p=_optional(fields, "top_p", _NUMBER),
        top_k=_optional(fields, "top_k", _INTEGER),
    )


def _extras(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    extras: dict[str, msgspec.Raw] = {}
    for name, raw in fields.items():
        if name in EXTRAS and not is_null(raw):
            text = bytes(raw)
            check_depth(text, name)
            extras[name] = msgspec.Raw(text.decode())
    return extras


def _dropped(fields: dict[str, msgspec.Raw], ignored: list[str]) -> tuple[str, ...]:
    names = [name for name, raw in fields.items() if name not in READ and name not in EXTRAS and not is_null(raw)]
    return tuple(name[:MAX_NAME] for name in (names + ignored)[:MAX_DROPPED])
