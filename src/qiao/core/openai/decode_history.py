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

MAX_MESSAGES: Final = 100_000

_DATA_URL: Final = "data:"
_BASE64: Final = ";base64"
_PDF: Final = "application/pdf"
_ROLES: Final = "'system', 'developer', 'user', 'assistant' or 'tool'"


class History(msgspec.Struct, frozen=True):
    """`continues`: the last message asks to be continued."""

    system: tuple[str, ...]
    turns: tuple[Turn, ...]
    continues: bool


def history(messages: list[wire.Message]) -> History:
    """The conversation so far, in the order of the client."""
    if not messages:
        raise invalid("messages", "at least one message is required")
    if len(messages) > MAX_MESSAGES:
        raise invalid("messages", f"at most {MAX_MESSAGES} messages are allowed, got {len(messages)}")
    system: list[str] = []
    turns: list[Turn] = []
    results: list[Part] = []
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        if message.role in ("tool", "function"):
            results.append(_tool_result(message, path))
            continue
        if results:
            turns.append(Turn("user", tuple(results)))
            results = []
        match message.role:
            case "user":
                turns.append(Turn("user", tuple(_said(_content(message, path), path))))
            case "assistant":
                turns += _assistant_turns(message, path)
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


def _content(message: wire.Message, path: str) -> str | list[wire.ContentPart]:
    if isinstance(message.content, msgspec.UnsetType):
        raise invalid(f"{path}.content", "Field required")
    return message.content or []


def _instructions(message: wire.Message, path: str) -> list[str]:
    texts: list[str] = []
    for index, part in enumerate(_said(_content(message, path), path)):
        if not isinstance(part, Text):
            raise invalid(f"{path}.content.{index}", f"only text is allowed in a {message.role} message")
        texts.append(part.text)
    return texts


def _assistant_turns(message: wire.Message, path: str) -> list[Turn]:
    """One turn as a rule. Pictures that a model made are shown to it by the other side: it cannot say them."""
    content = [] if isinstance(message.content, msgspec.UnsetType) else message.content or []
    thought = message.reasoning or message.reasoning_content
    parts: list[Part] = [Reasoning(thought)] if thought else []
    pictures: list[Part] = []
    for part in _said(content, path):
        (pictures if isinstance(part, Image | Document) else parts).append(part)
    if message.refusal:
        parts.append(Text(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        parts.append(_tool_call(call, f"{path}.tool_calls.{index}"))
    if message.function_call is not None:
        parts.append(_function_call("", message.function_call, f"{path}.function_call"))
    turns = [Turn("assistant", tuple(parts))]
    return [*turns, Turn("user", tuple(pictures))] if pictures else turns


def _tool_call(call: wire.CalledTool, path: str) -> ToolCall:
    if call.function is None:
        kind = call.type or "function"
        if kind != "function":
            raise invalid(f"{path}.type", f"{shown(kind)} calls are not supported by this gateway")
        raise invalid(f"{path}.function", "Field required")
    return _function_call(call.id or "", call.function, f"{path}.function")


def _function_call(call_id: str, function: wire.CalledFunction, path: str) -> ToolCall:
    return ToolCall(call_id, function.name, arguments_text(function.arguments, f"{path}.arguments"))


def _tool_result(message: wire.Message, path: str) -> ToolResult:
    """The result of a call; a `function` message has no id, and is taken for the next call that waits."""
    parts: list[ResultPart] = []
    for part in _said(_content(message, path), path):
        match part:
            case Text() | Image() | Document():
                parts.append(part)
            case Reasoning(text=text):
                parts.append(Text(text))
    return ToolResult(message.tool_call_id or "", tuple(parts))


def _said(content: str | list[wire.ContentPart], path: str) -> list[Text | Image | Document | Reasoning]:
    """The parts of a message's content; none for an empty one."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    parts: list[Text | Image | Document | Reasoning] = []
    for index, part in enumerate(content):
        where = f"{path}.content.{index}"
        match part:
            case (
                wire.TextPart(text=text)
                | wire.InputTextPart(text=text)
                | wire.OutputTextPart(text=text)
                | wire.RefusalPart(refusal=text)
            ):
                parts += [Text(text)] if text else []
            case wire.ImageUrlPart(image_url=image):
                parts.append(_image(image if isinstance(image, str) else image.url, f"{where}.image_url"))
            case wire.InputImagePart(image_url=url):
                parts.append(_image(url or "", f"{where}.image_url"))
            case wire.ThinkingPart(thinking=thinking):
                words = thinking if isinstance(thinking, str) else "".join(piece.text or "" for piece in thinking or ())
                parts += [Reasoning(words)] if words else []
            case wire.FilePart(file=file):
                parts.append(_file(file.file_data, file.filename, f"{where}.file.file_data"))
            case wire.InputFilePart():
                parts.append(_file(part.file_data, part.filename, f"{where}.file_data"))
            case _:
                assert_never(part)
    return parts


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
