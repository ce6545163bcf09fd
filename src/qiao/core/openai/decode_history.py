"""`messages` → the head of the prompt and the turns.

Leading system and developer messages are the head; a later one stays where it is, because moving it would change the
prompt before it. Every other message becomes a turn; the results of parallel calls, which this protocol sends as one
message each, become one.
"""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from qiao.core.conversation import (
    Document,
    Image,
    Part,
    Reasoning,
    ResultPart,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from qiao.core.fault import invalid
from qiao.core.fields import shown
from qiao.core.head import without_billing_line
from qiao.core.json_text import arguments_text
from qiao.core.openai import decode_wire as wire
from qiao.core.openai.free_text import FreeText, arguments_of

MAX_MESSAGES: Final = 100_000

_DATA_URL: Final = "data:"
_BASE64: Final = ";base64"
_PDF: Final = "application/pdf"
_ROLES: Final = "'system', 'developer', 'user', 'assistant' or 'tool'"

_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)


class History(msgspec.Struct, frozen=True):
    """`continues`: the last message asks to be continued."""

    system: tuple[str, ...]
    turns: tuple[Turn, ...]
    continues: bool


def history(messages: list[wire.Message], free_text: FreeText, *, field: str = "messages") -> History:
    """The conversation so far, in the order of the client.

    `free_text`: the tools whose calls hold plain text. `field`: where the messages stood, for what is said of them.
    """
    if not messages:
        raise invalid(field, "at least one message is required")
    if len(messages) > MAX_MESSAGES:
        raise invalid(field, f"at most {MAX_MESSAGES} messages are allowed, got {len(messages)}")
    system: list[str] = []
    turns: list[Turn] = []
    results: list[Part] = []
    for index, message in enumerate(messages):
        path = f"{field}.{index}"
        if message.role in ("tool", "function"):
            results.append(_tool_result(message, path))
            continue
        if results:
            turns.append(Turn("user", tuple(results)))
            results = []
        match message.role:
            case "user" | "assistant":
                turns += _spoken_turns(message.role, _parts(message, free_text, path))
            case "system" | "developer":
                texts = _instructions(message, path)
                if turns:
                    turns += [Turn("system", tuple(map(Text, texts)))] if texts else []
                else:
                    system += filter(None, map(without_billing_line, texts))
            case other:
                raise invalid(f"{path}.role", f"expected {_ROLES}, got {shown(other)}")
    if results:
        turns.append(Turn("user", tuple(results)))
    return History(tuple(system), tuple(turns), bool(messages[-1].prefix))


def _parts(message: wire.Message, free_text: FreeText, path: str) -> list[Part]:
    """All that a user's or an assistant's message says, in order."""
    thought = message.reasoning or message.reasoning_content
    parts: list[Part] = [Reasoning(thought)] if thought else []
    if message.role == "user":
        parts += _said(_content(message, path), f"{path}.content")
    elif not isinstance(message.content, msgspec.UnsetType):
        parts += _said(message.content or [], f"{path}.content")
    if message.refusal:
        parts.append(Text(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        parts.append(_tool_call(call, free_text, f"{path}.tool_calls.{index}"))
    if message.function_call is not None:
        parts.append(_function_call("", message.function_call, free_text, f"{path}.function_call"))
    return parts


def _spoken_turns(role: Role, parts: list[Part]) -> list[Turn]:
    """One turn as a rule, without parts if the message was empty.

    What only the other side can say (a picture that a model made, the results in a message of Anthropic's form)
    becomes a turn of its own in that place.
    """
    turns: list[Turn] = []
    for part in parts:
        speaker = _speaker(part, role)
        if turns and turns[-1].role == speaker:
            turns[-1] = Turn(speaker, (*turns[-1].parts, part))
        else:
            turns.append(Turn(speaker, (part,)))
    return turns or [Turn(role, ())]


def _speaker(part: Part, role: Role) -> Role:
    match part:
        case Reasoning() | ToolCall():
            return "assistant"
        case ToolResult() | Image() | Document():
            return "user"
        case Text():
            return role


def _content(message: wire.Message, path: str) -> str | list[wire.ContentPart]:
    if isinstance(message.content, msgspec.UnsetType):
        raise invalid(f"{path}.content", "Field required")
    return message.content or []


def _instructions(message: wire.Message, path: str) -> list[str]:
    texts: list[str] = []
    for index, part in enumerate(_said(_content(message, path), f"{path}.content")):
        if not isinstance(part, Text):
            raise invalid(f"{path}.content.{index}", f"only text is allowed in a {message.role} message")
        texts.append(part.text)
    return texts


def _tool_call(call: wire.CalledTool, free_text: FreeText, path: str) -> ToolCall:
    if call.custom is not None:
        return ToolCall(call.id or "", call.custom.name, arguments_of(call.custom.input or ""))
    if call.function is None:
        raise invalid(f"{path}.{'custom' if call.type == 'custom' else 'function'}", "Field required")
    return _function_call(call.id or "", call.function, free_text, f"{path}.function")


def _function_call(call_id: str, function: wire.CalledFunction, free_text: FreeText, path: str) -> ToolCall:
    raw = function.arguments
    if free_text.get(function.name) == "function" and bytes(raw)[:1] == b'"':
        return ToolCall(call_id, function.name, arguments_of(_STRING.decode(raw)))
    return ToolCall(call_id, function.name, arguments_text(raw, f"{path}.arguments"))


def _tool_result(message: wire.Message, path: str) -> ToolResult:
    """The result of a call; a `function` message has no id, and is taken for the next call that waits."""
    parts: list[ResultPart] = []
    for index, part in enumerate(_said(_content(message, path), f"{path}.content")):
        match part:
            case Text() | Image() | Document():
                parts.append(part)
            case Reasoning(text=text):
                parts.append(Text(text))
            case _:
                raise invalid(f"{path}.content.{index}", "a result cannot hold calls or results")
    return ToolResult(message.tool_call_id or "", tuple(parts))


def _said(content: str | list[wire.ContentPart], path: str) -> list[Part]:
    """The parts of a message's content; none for an empty one."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    parts: list[Part] = []
    for index, part in enumerate(content):
        parts += _part(part, f"{path}.{index}")
    return parts


def _part(part: wire.ContentPart, path: str) -> list[Part]:
    match part:
        case (
            wire.TextPart(text=text)
            | wire.InputTextPart(text=text)
            | wire.OutputTextPart(text=text)
            | wire.RefusalPart(refusal=text)
        ):
            return [Text(text)] if text else []
        case wire.ImageUrlPart(image_url=image):
            return [_image(image if isinstance(image, str) else image.url, f"{path}.image_url")]
        case wire.InputImagePart(image_url=url):
            return [_image(url or "", f"{path}.image_url")]
        case wire.ThinkingPart(thinking=thinking):
            words = thinking if isinstance(thinking, str) else "".join(piece.text or "" for piece in thinking or ())
            return [Reasoning(words)] if words else []
        case wire.ReasoningTextPart(text=text) | wire.SummaryTextPart(text=text):
            return [Reasoning(text)] if text else []
        case wire.FilePart(file=file):
            return [_file(file.file_data, file.filename, f"{path}.file.file_data")]
        case wire.InputFilePart():
            return [_file(part.file_data, part.filename, f"{path}.file_data")]
        case wire.ImagePart(source=source):
            return [_source_image(source, f"{path}.source")]
        case wire.ToolUsePart():
            return [ToolCall(part.id or "", part.name, arguments_text(part.input, f"{path}.input"))]
        case wire.ToolResultPart():
            return [_block_result(part, f"{path}.content")]
        case _:
            assert_never(part)


def _block_result(part: wire.ToolResultPart, path: str) -> ToolResult:
    """The result of a call as a block of Anthropic's form."""
    content = part.content
    inner: list[ResultPart] = [Text(content)] if isinstance(content, str) and content else []
    for index, block in enumerate(content if isinstance(content, list) else ()):
        inner += [found for found in _part(block, f"{path}.{index}") if isinstance(found, Text | Image)]
    return ToolResult(part.tool_use_id or "", tuple(inner), bool(part.is_error))


def _source_image(source: wire.ImageSource, path: str) -> Image:
    if source.url:
        return _image(source.url, f"{path}.url")
    if not source.data:
        raise invalid(f"{path}.data", "Field required")
    return Image(media_type=source.media_type or "image/png", data=source.data)


def _image(url: str, path: str) -> Image:
    if not url:
        raise invalid(path, "Field required")
    if not url.startswith(_DATA_URL):
        if not url.startswith(("http://", "https://")):
            raise invalid(path, f"expected an http, https or data URL, got {shown(url)}")
        return Image(url=url)
    media_type, data = _data_url(url, path)
    if not media_type.startswith("image/"):
        raise invalid(path, f"unsupported image type {shown(media_type)}")
    return Image(media_type=media_type, data=data)


def _file(data: str | None, name: str | None, path: str) -> Document:
    if not data:
        raise invalid(path, "Field required; files are not kept here, send the content as base64")
    media_type, data = _data_url(data, path) if data.startswith(_DATA_URL) else (_PDF, data)
    if media_type != _PDF:
        raise invalid(path, f"expected {_PDF!r}, got {shown(media_type)}; send text files as text")
    return Document(_PDF, data, name)


def _data_url(url: str, path: str) -> tuple[str, str]:
    """Media type and base64 data of a `data:` URL."""
    head, comma, data = url[len(_DATA_URL) :].partition(",")
    if not comma or not head.endswith(_BASE64):
        raise invalid(path, f"expected data:TYPE;base64,DATA, got {shown(url)}")
    if not data:
        raise invalid(path, "the data URL holds no data")
    return head.partition(";")[0].lower(), data
