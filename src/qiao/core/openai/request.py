"""A prepared Conversation as the body of POST /chat/completions, and of vLLM's POST /tokenize.

The two bodies come from the same code, so that what is counted is what is sent. What this module may not do is decide:
which tools are shown, where a system turn goes, what becomes of a picture is settled before (`qiao.policies`).
Equal turns give equal bytes, whatever follows them: the engine's prefix cache lives on it.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Final, Literal, assert_never

import msgspec

from qiao.core.beginnings import Beginnings
from qiao.core.conversation import (
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolReference,
    ToolResult,
    Turn,
)
from qiao.core.fault import Fault
from qiao.core.openai.target import ReasoningField, Target
from qiao.core.openai.wire import (
    AssistantMessage,
    Call,
    CalledFunction,
    ContentPart,
    Function,
    FunctionName,
    FunctionTool,
    ImagePart,
    ImageUrl,
    Message,
    NamedChoice,
    NamedSchema,
    SchemaFormat,
    StreamOptions,
    StructureFormat,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)

# Between blocks that a client sent apart, also between those of one turn. Engines join text parts by a newline or by
# nothing, each its own way, so the joining is done here, once.
BLOCK_BREAK = "\n\n"

# A client's extras never replace what the conversation itself says, nor how many answers the decoder reads.
_NOT_EXTRAS = frozenset(
    {
        "add_generation_prompt",
        "continue_final_message",
        "messages",
        "model",
        "n",
        "stream",
        "stream_options",
        "tool_choice",
        "tools",
    }
)

# Characters of a head up to which it is kept as it was written: it comes again with every request.
_KNOWN_HEAD = 128 * 1024

_ENCODER = msgspec.json.Encoder()
_KWARGS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def encode(conversation: Conversation, target: Target) -> bytes:
    """The body of POST /chat/completions for a prepared conversation.

    Raises Fault when the conversation ends with an assistant turn and the engine cannot continue one.
    """
    beginning = _beginning(conversation, target)
    body = _flags(conversation, target)
    if conversation.stream:
        body["stream"] = True
        if target.usage_in_stream:
            continuous = True if target.continuous_usage else None
            body["stream_options"] = StreamOptions(include_usage=True, continuous_usage_stats=continuous)
    if conversation.max_tokens:
        body[target.max_tokens_field] = conversation.max_tokens
    if conversation.stop:
        body["stop"] = conversation.stop[: target.stop_limit]
    _add_sampling(body, conversation, target)
    _add_thinking(body, conversation, target)
    _add_tool_choice(body, conversation)
    if conversation.structure is not None:
        body["response_format"] = StructureFormat(_raw(conversation.structure))
    elif conversation.output_schema is not None:
        body["response_format"] = SchemaFormat(NamedSchema(schema=_raw(conversation.output_schema)))
    _add_extras(body, conversation, target)
    return _joined(beginning, body)


def encode_tokenize(conversation: Conversation, target: Target) -> bytes:
    """The body of vLLM's POST /tokenize: the same prompt, only counted."""
    beginning = _beginning(conversation, target)
    body = _flags(conversation, target)
    continues = "continue_final_message" in body
    body["add_generation_prompt"] = not continues
    kwargs = _template_kwargs(conversation, target)
    effort = _effort(conversation, target)
    if effort is not None:
        # /tokenize has no reasoning_effort; this is what the chat route makes of it [vLLM 0.33 read].
        kwargs.setdefault("enable_thinking", msgspec.Raw(b"false" if effort == "none" else b"true"))
        if effort != "none":
            kwargs.setdefault("reasoning_effort", msgspec.Raw(_ENCODER.encode(effort)))
    if kwargs:
        body["chat_template_kwargs"] = kwargs
    return _joined(beginning, body)


def messages(conversation: Conversation, target: Target) -> list[Message]:
    """The whole prompt as messages: the head, then every turn in its place."""
    result = _head(conversation.system)
    for turn in conversation.turns:
        result.extend(_turn_messages(turn, target.reasoning_field))
    return result


def _head(system: tuple[str, ...]) -> list[Message]:
    head = BLOCK_BREAK.join(block for block in system if block.strip())
    return [SystemMessage(head)] if head else []


def _turn_messages(turn: Turn, reasoning_field: ReasoningField) -> list[Message]:
    match turn.role:
        case "system":
            return [SystemMessage(joined(turn.parts))]
        case "user":
            return _user_messages(turn)
        case "assistant":
            return [_assistant_message(turn, reasoning_field)]
        case _:
            assert_never(turn.role)


def function_tool(tool: Tool) -> FunctionTool:
    """A tool as the protocol writes it; `strict` only where the client asked for it (one bad schema under `strict`
    makes vLLM refuse the whole request)."""
    return FunctionTool(
        Function(
            name=tool.name,
            description=tool.description or None,
            parameters=_raw(tool.parameters),
            strict=tool.strict,
        )
    )


@lru_cache(16)
def _function_tools(tools: tuple[Tool, ...]) -> bytes:
    """The list of tools, which comes again with every turn of a conversation."""
    return _ENCODER.encode([function_tool(tool) for tool in tools])


def _beginning(conversation: Conversation, target: Target) -> list[bytes]:
    """The long part of a body, as it was written before: model, messages and tools, up to the next field."""
    if conversation.is_prefill and target.prefill == "none":
        raise Fault(
            "invalid_request",
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        )
    head = _written_head(conversation.system)
    messages = [*head, *_WRITTEN[target.reasoning_field].of(conversation.turns)]
    if not head:
        messages[:1] = [piece.removeprefix(b",") for piece in messages[:1]]
    tools = (b',"tools":', _function_tools(conversation.tools)) if conversation.tools else ()
    return [b'{"model":', _ENCODER.encode(target.model), b',"messages":[', *messages, b"]", *tools]


def _flags(conversation: Conversation, target: Target) -> dict[str, object]:
    """How the last turn is read."""
    body: dict[str, object] = {}
    if conversation.is_prefill and target.prefill == "flags":
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
    return body


def _joined(beginning: list[bytes], rest: dict[str, object]) -> bytes:
    """The body, long pieces copied once: a person waits meanwhile."""
    end = _ENCODER.encode(rest) if rest else b"{}"
    return b"".join((*beginning, b"," if rest else b"", end[1:]))


def _written_head(system: tuple[str, ...]) -> tuple[bytes, ...]:
    is_known = sum(map(len, system)) <= _KNOWN_HEAD
    return _known_head(system) if is_known else _known_head.__wrapped__(system)


@lru_cache(64)
def _known_head(system: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple([_ENCODER.encode(message) for message in _head(system)])


def _write(reasoning_field: ReasoningField, written: list[bytes], turn: Turn) -> None:
    """A turn's messages behind those that are written, which the conversation brings again with every request. Each
    begins with a comma."""
    written += [b"," + _ENCODER.encode(message) for message in _turn_messages(turn, reasoning_field)]


_FIELDS: Final[tuple[ReasoningField, ...]] = ("reasoning", "reasoning_content", None)
_WRITTEN: Final = {field: Beginnings(list[bytes], partial(_write, field), tuple[bytes, ...]) for field in _FIELDS}


def _user_messages(turn: Turn) -> list[Message]:
    """Tool messages first, then at most one user message: nothing may stand between parallel results."""
    tool_messages: list[Message] = []
    rest: list[Part] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            tool_messages.append(ToolMessage(part.call_id, joined(part.parts)))
            # Pictures have no place in a tool message; a prepared conversation has moved them already.
            rest.extend(inner for inner in part.parts if isinstance(inner, Image))
        else:
            rest.append(part)
    if rest:
        tool_messages.append(UserMessage(_content(rest)))
    return tool_messages


def _content(parts: list[Part]) -> str | list[ContentPart]:
    """A plain string when there is only text, which every template takes; parts only with a picture."""
    if not any(isinstance(part, Image) for part in parts):
        return joined(parts)
    return [
        ImagePart(ImageUrl(_image_url(part))) if isinstance(part, Image) else TextPart(_words(part)) for part in parts
    ]


def _assistant_message(turn: Turn, reasoning_field: ReasoningField) -> AssistantMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Call] = []
    is_parted = False
    for part in turn.parts:
        match part:
            case ToolCall():
                is_parted = any(texts)
                calls.append(Call(id=part.id, function=CalledFunction(part.name, part.arguments)))
            case Reasoning():
                thoughts.append(part.text)
            case _:
                words = _words(part)
                if is_parted and words:
                    texts.append(BLOCK_BREAK)
                    is_parted = False
                texts.append(words)
    # Joined by nothing, but where a call stood between them: the model wrote these pieces as one text.
    text = "".join(texts)
    thought = "".join(thoughts) or None
    return AssistantMessage(
        content=text if text or not calls else None,
        reasoning=thought if reasoning_field == "reasoning" else None,
        reasoning_content=thought if reasoning_field == "reasoning_content" else None,
        tool_calls=calls or None,
    )


def joined(parts: tuple[Part | ToolReference, ...] | list[Part]) -> str:
    """The words of blocks that a client sent apart, as one text."""
    return BLOCK_BREAK.join(words for part in parts if (words := _words(part)))


def _words(part: Part | ToolReference) -> str:
    """A part as words. Only `Text` occurs in a prepared conversation where words are asked for; the others are
    written rather than lost."""
    match part:
        case Text() | Reasoning():
            return part.text
        case Image():
            return ""
        case Document():
            return f"[document: {part.title or part.media_type}]"
        case ToolReference():
            return f"[tool: {part.name}]"
        case ToolCall():
            return f"[tool call: {part.name} {part.arguments}]"
        case ToolResult():
            return joined(part.parts)
        case _:
            assert_never(part)


def _image_url(image: Image) -> str:
    if image.url is not None:
        return image.url
    return f"data:{image.media_type or 'image/png'};base64,{image.data or ''}"


def _add_sampling(body: dict[str, object], conversation: Conversation, target: Target) -> None:
    """Absent stays absent: then the engine takes the model's own generation_config."""
    sampling = conversation.sampling
    if sampling.temperature is not None:
        body["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    # Not a field of OpenAI's protocol; every engine but OpenAI's own knows it.
    if sampling.top_k is not None and _takes(target, "top_k"):
        body["top_k"] = sampling.top_k


def _add_thinking(body: dict[str, object], conversation: Conversation, target: Target) -> None:
    effort = _effort(conversation, target)
    if effort is not None:
        body["reasoning_effort"] = effort
    if conversation.thinking.budget is not None and target.thinking_budget:
        body["thinking_token_budget"] = conversation.thinking.budget
    kwargs = _template_kwargs(conversation, target)
    if kwargs:
        body["chat_template_kwargs"] = kwargs


def _effort(conversation: Conversation, target: Target) -> str | None:
    effort = conversation.thinking.effort
    return effort if effort in target.effort_values else None


def _template_kwargs(conversation: Conversation, target: Target) -> dict[str, msgspec.Raw]:
    raw = conversation.extras.get("chat_template_kwargs")
    if raw is None or not target.template_kwargs:
        return {}
    try:
        return _KWARGS.decode(raw)
    except msgspec.DecodeError as error:
        raise Fault("invalid_request", f"chat_template_kwargs: must be an object ({error})") from error


def _add_tool_choice(body: dict[str, object], conversation: Conversation) -> None:
    """Both fields need tools: vLLM answers 400 to a `tool_choice` without them."""
    if not conversation.tools:
        return
    choice = conversation.tool_choice
    body["tool_choice"] = _choice(choice.mode, choice.name)
    if not choice.parallel and choice.mode != "none":
        body["parallel_tool_calls"] = False


def _choice(mode: Literal["auto", "any", "none", "tool"], name: str | None) -> str | NamedChoice:
    match mode:
        case "auto" | "none":
            return mode
        case "any":
            return "required"
        case "tool":
            return NamedChoice(FunctionName(name or ""))
        case _:
            assert_never(mode)


def _add_extras(body: dict[str, object], conversation: Conversation, target: Target) -> None:
    for name, value in conversation.extras.items():
        if name == "chat_template_kwargs" or name in _NOT_EXTRAS or not _takes(target, name):
            continue
        body[name] = value


def _takes(target: Target, option: str) -> bool:
    if option == "cache_salt" and not target.cache_salt:
        return False
    if option == "priority" and not target.priority:
        return False
    return target.extras is None or option in target.extras


def _raw(json: str) -> msgspec.Raw:
    return msgspec.Raw(json.encode())
