"""Content blocks → parts of a turn.

Every block type of the API survives, as text at least: only boundary markers and what nobody but Anthropic can read
are left out. What a gateway cannot stand in for (files on Anthropic's servers, URL documents) is refused with its path.
"""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from qiao.core.anthropic import server_blocks, wire
from qiao.core.anthropic.ids import from_client
from qiao.core.anthropic.signature import unseal
from qiao.core.conversation import (
    Document,
    Image,
    Part,
    Reasoning,
    ResultPart,
    Text,
    ToolCall,
    ToolReference,
    ToolResult,
)
from qiao.core.fault import invalid
from qiao.core.fields import shown
from qiao.core.json_text import arguments_text, check_depth, is_null

_PDF: Final = "application/pdf"

_ATTRIBUTE = str.maketrans({"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " "})


def parts_of(block: wire.ContentBlock, path: str) -> list[Part]:
    """The parts that say what `block` says; none for a block without words for the model."""
    match block:
        case wire.TextBlock(text=text):
            return [Text(text)] if text else []
        case wire.ToolUseBlock():
            return [ToolCall(from_client(block.id or ""), block.name, arguments_text(block.input, f"{path}.input"))]
        case wire.ToolResultBlock():
            return [_tool_result(block, path)]
        case wire.ThinkingBlock():
            return _reasoning(block.thinking or unseal(block.signature), block.signature)
        case wire.RedactedThinkingBlock(data=data):
            return _reasoning(unseal(data), data)
        case wire.ImageBlock():
            return [_image(block, path)]
        case wire.DocumentBlock():
            return list(_document(block, path))
        case wire.SearchResultBlock():
            return [_search_result(block)]
        case wire.FallbackBlock() | wire.McpToolListingBlock():
            return []
        case wire.CompactionBlock(content=summary):
            return [Text(f"Summary of the conversation so far:\n\n{summary}")] if summary else []
        case wire.ToolSearchToolResultBlock():
            return [_tool_search_result(block)]
        case wire.WebFetchToolResultBlock():
            return _web_fetch(block, path)
        case wire.McpToolResultBlock():
            return _mcp_result(block, path)
        case wire.ServerToolUseBlock() if block.name.startswith("tool_search_tool"):
            return [ToolCall(from_client(block.id or ""), block.name, arguments_text(block.input, f"{path}.input"))]
        case wire.ServerToolUseBlock() | wire.McpToolUseBlock():
            return [Text(server_blocks.use_text(block, arguments_text(block.input, f"{path}.input")))]
        case (
            wire.WebSearchToolResultBlock()
            | wire.CodeExecutionToolResultBlock()
            | wire.BashCodeExecutionToolResultBlock()
            | wire.TextEditorCodeExecutionToolResultBlock()
            | wire.AdvisorToolResultBlock()
        ):
            text = server_blocks.result_text(block)
            return [Text(text)] if text else []
        case wire.ContainerUploadBlock():
            raise invalid(path, "container_upload: code execution containers are not supported")
        case wire.ToolAdditionBlock() | wire.ToolRemovalBlock():
            raise invalid(path, "tool_addition and tool_removal blocks are only valid in system messages")
        case _:
            assert_never(block)


def _reasoning(words: str | None, signature: str | None) -> list[Part]:
    """Nothing for a block whose words only Anthropic can read; our own come back out of the signature."""
    return [Reasoning(words, signature)] if words else []


def _tool_result(block: wire.ToolResultBlock, path: str) -> ToolResult:
    parts: list[ResultPart] = []
    if isinstance(block.content, str):
        parts += [Text(block.content)] if block.content else []
    else:
        for index, inner in enumerate(block.content or ()):
            parts += _result_parts(inner, f"{path}.content.{index}")
    return ToolResult(from_client(block.tool_use_id or ""), tuple(parts), bool(block.is_error))


def _result_parts(block: wire.ResultBlock, path: str) -> list[ResultPart]:
    match block:
        case wire.TextBlock(text=text):
            return [Text(text)] if text else []
        case wire.ImageBlock():
            return [_image(block, path)]
        case wire.DocumentBlock():
            return list(_document(block, path))
        case wire.SearchResultBlock():
            return [_search_result(block)]
        case wire.ToolReferenceBlock(tool_name=name):
            return [ToolReference(name)]
        case wire.BrowserStateBlock():
            return [Text(_browser_state(block, path))]
        case _:
            assert_never(block)


def _image(block: wire.ImageBlock, path: str) -> Image:
    source = block.source
    match source.type:
        case "base64":
            if not source.media_type:
                raise invalid(f"{path}.source.media_type", "Field required")
            if not source.media_type.startswith("image/"):
                raise invalid(f"{path}.source.media_type", f"unsupported image type {shown(source.media_type)}")
            if not source.data:
                raise invalid(f"{path}.source.data", "Field required")
            return Image(media_type=source.media_type, data=source.data)
        case "url":
            if not source.url:
                raise invalid(f"{path}.source.url", "Field required")
            return Image(media_type=source.media_type, url=source.url)
        case "file":
            raise invalid(f"{path}.source", "file images are not supported by this gateway; send them as base64")
        case other:
            raise invalid(f"{path}.source", f"unsupported image source type {shown(other)}")


def _document(block: wire.DocumentBlock, path: str) -> list[Text | Image | Document]:
    source = block.source
    match source.type:
        case "text":
            return [Text(_document_text(block, source.data or ""))]
        case "content":
            return _document_of_blocks(block, source.content or "", f"{path}.source.content")
        case "base64":
            if source.media_type not in (None, _PDF):
                raise invalid(f"{path}.source.media_type", f"expected {_PDF!r}, got {shown(source.media_type)}")
            if not source.data:
                raise invalid(f"{path}.source.data", "Field required")
            return [Document(_PDF, source.data, block.title, block.context)]
        case "url":
            raise invalid(f"{path}.source", "URL documents are not supported")
        case "file":
            raise invalid(f"{path}.source", "file documents are not supported by this gateway; send them as base64")
        case other:
            raise invalid(f"{path}.source", f"unsupported document source type {shown(other)}")


def _document_of_blocks(
    block: wire.DocumentBlock, content: str | list[wire.TextBlock | wire.ImageBlock], path: str
) -> list[Text | Image | Document]:
    """Text becomes one document; a document with images in it is opened, filled and closed part by part."""
    if isinstance(content, str):
        return [Text(_document_text(block, content))]
    if not any(isinstance(inner, wire.ImageBlock) for inner in content):
        texts = [inner.text or "" for inner in content if isinstance(inner, wire.TextBlock)]
        return [Text(_document_text(block, "\n".join(texts)))]
    parts: list[Text | Image | Document] = [Text(_document_head(block))]
    for index, inner in enumerate(content):
        if isinstance(inner, wire.ImageBlock):
            parts.append(_image(inner, f"{path}.{index}"))
        elif inner.text:
            parts.append(Text(inner.text))
    parts.append(Text("</document>"))
    return parts


def _document_text(block: wire.DocumentBlock, text: str) -> str:
    return f"{_document_head(block)}{text}\n</document>"


def _document_head(block: wire.DocumentBlock) -> str:
    context = f"{block.context}\n\n" if block.context else ""
    return f"{_tag('document', title=block.title)}\n{context}"


def _search_result(block: wire.SearchResultBlock) -> Text:
    content = block.content
    text = content if isinstance(content, str) else "\n".join(inner.text or "" for inner in content or ())
    return Text(f"{_tag('search_result', source=block.source, title=block.title)}\n{text}\n</search_result>")


def _tag(name: str, **attributes: str | None) -> str:
    written = [f' {key}="{value.translate(_ATTRIBUTE)}"' for key, value in attributes.items() if value]
    return f"<{name}{''.join(written)}>"


def _browser_state(block: wire.BrowserStateBlock, path: str) -> str:
    state: dict[str, msgspec.Raw] = {}
    for name, raw in (("tabs", block.tabs), ("state_changes", block.state_changes)):
        if not is_null(raw):
            check_depth(bytes(raw), f"{path}.{name}")
            state[name] = raw
    return msgspec.json.encode(state).decode()


def _tool_search_result(block: wire.ToolSearchToolResultBlock) -> ToolResult:
    found = block.content or wire.ToolSearchResult()
    if error := server_blocks.error_text("tool search", found):
        return ToolResult(from_client(block.tool_use_id or ""), (Text(error),), is_error=True)
    references = tuple(ToolReference(reference.tool_name) for reference in found.tool_references or ())
    return ToolResult(from_client(block.tool_use_id or ""), references)


def _web_fetch(block: wire.WebFetchToolResultBlock, path: str) -> list[Part]:
    fetched = block.content or wire.WebFetchResult()
    parts: list[Part] = [Text(server_blocks.fetch_text(fetched))]
    if fetched.content is not None:
        parts += _document(fetched.content, f"{path}.content.content")
    return parts


def _mcp_result(block: wire.McpToolResultBlock, path: str) -> list[Part]:
    content = block.content
    blocks: list[wire.TextBlock | wire.ImageBlock]
    blocks = [wire.TextBlock(content)] if isinstance(content, str) else content or []
    texts = [inner.text or "" for inner in blocks if isinstance(inner, wire.TextBlock)]
    parts: list[Part] = [Text(server_blocks.mcp_result_text("\n".join(texts), bool(block.is_error)))]
    for index, inner in enumerate(blocks):
        if isinstance(inner, wire.ImageBlock):
            parts.append(_image(inner, f"{path}.content.{index}"))
    return parts
