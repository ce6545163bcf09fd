"""A chat-completions request: client bytes → `Conversation`, or a `Fault` that names the wrong field.

The way in for OpenAI clients; the way out to an engine that speaks the same protocol is `request`. Lenient wherever
leniency loses nothing: OpenAI clients send the options of a dozen servers, and a needless 400 ends somebody's session.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qiao.core.body import EXTRAS, dropped_of, extras_of, fields_of, model_of, not_utf8, optional
from qiao.core.conversation import Conversation, Sampling
from qiao.core.fault import invalid
from qiao.core.openai import decode_options as options
from qiao.core.openai import decode_wire as wire
from qiao.core.openai.decode_history import History, history
from qiao.core.openai.decode_input import messages_of
from qiao.core.openai.decode_tools import allowed_of, tool_choice, tools_of
from qiao.core.openai.free_text import Form, FreeText

PASSED_ON: Final = EXTRAS | {"ignore_eos", "stop_token_ids", "structured_outputs"}
"""Engine options that a client may pass through. They shape one answer and nothing that other clients share."""

READ: Final = frozenset(
    {
        "continue_final_message",
        "enable_thinking",
        "include_reasoning",
        "input",
        "instructions",
        "logprobs",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "prompt_cache_key",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "session_id",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "thinking",
        "thinking_budget",
        "thinking_token_budget",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""Fields that are read here; every other one outside `PASSED_ON` is ignored, and counted as dropped."""

_BOOLEAN: msgspec.json.Decoder[bool] = msgspec.json.Decoder(bool)
_NUMBER: msgspec.json.Decoder[float] = msgspec.json.Decoder(float)
_INTEGER: msgspec.json.Decoder[int] = msgspec.json.Decoder(int)
_MESSAGES: msgspec.json.Decoder[list[wire.Message]] = msgspec.json.Decoder(list[wire.Message])
_TOOLS: msgspec.json.Decoder[list[wire.ToolDefinition]] = msgspec.json.Decoder(list[wire.ToolDefinition])
_TOOL_CHOICE: msgspec.json.Decoder[str | wire.ChosenTool] = msgspec.json.Decoder(str | wire.ChosenTool)
_STREAM_OPTIONS: msgspec.json.Decoder[wire.StreamOptions] = msgspec.json.Decoder(wire.StreamOptions)


class Request(msgspec.Struct, frozen=True):
    """What a client asks, and how it wants to be answered.

    `usage_in_stream`: a last chunk tells the tokens. `free_text`: the tools whose calls hold plain text.
    """

    conversation: Conversation
    usage_in_stream: bool = False
    free_text: dict[str, Form] = {}


def decode(body: bytes) -> Request:
    """The request of `POST /v1/chat/completions`. Raises `Fault` (invalid_request) and nothing else, whatever the
    bytes."""
    try:
        return _request(fields_of(body))
    except UnicodeDecodeError as error:
        raise not_utf8(body) from error


def _request(fields: dict[str, msgspec.Raw]) -> Request:
    model = model_of(fields)
    options.refuse_unsupported(fields)
    offered = tools_of(optional(fields, "tools", _TOOLS) or [])
    tools, choice = allowed_of(optional(fields, "tool_choice", _TOOL_CHOICE), offered.tools)
    past = _past(fields, offered.free_text)
    parallel = optional(fields, "parallel_tool_calls", _BOOLEAN)
    thinking, ignored = options.thinking(fields)
    stream_options = optional(fields, "stream_options", _STREAM_OPTIONS)
    # Without the flag the answer is a turn of its own, as OpenAI and vLLM have it; several agents that share one
    # conversation end it with what another one said.
    continues = past.continues or optional(fields, "continue_final_message", _BOOLEAN) is True
    ends_with_assistant = bool(past.turns) and past.turns[-1].role == "assistant"
    conversation = Conversation(
        model=model,
        turns=past.turns,
        system=past.system,
        tools=tools,
        tool_choice=tool_choice(choice, parallel, tools),
        max_tokens=options.max_tokens(fields),
        stop=options.stop(fields),
        stream=optional(fields, "stream", _BOOLEAN) is True,
        thinking=thinking,
        sampling=Sampling(
            temperature=optional(fields, "temperature", _NUMBER),
            top_p=optional(fields, "top_p", _NUMBER),
            top_k=optional(fields, "top_k", _INTEGER),
        ),
        output_schema=options.output_schema(fields),
        continues=continues or not ends_with_assistant,
        session=options.session(fields),
        extras=extras_of(fields, PASSED_ON),
        dropped=dropped_of(fields, READ | PASSED_ON, ignored),
    )
    wants_usage = stream_options is not None and stream_options.include_usage is True
    return Request(conversation, wants_usage, offered.free_text)


def _past(fields: dict[str, msgspec.Raw], free_text: FreeText) -> History:
    messages = optional(fields, "messages", _MESSAGES)
    if messages is not None:
        return history(messages, free_text)
    messages = messages_of(fields)
    if messages is None:
        raise invalid("messages", "Field required")
    return history(messages, free_text, field="input")
