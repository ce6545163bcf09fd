"""The shapes of a chat-completions request, field order as openai's own types have it.

Only shapes: which of them is built from what is said in `request`. JSON that passes through (schemas) is `Raw`, so
that its bytes reach the engine as the client wrote them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec


class TextPart(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="text"):
    text: str


class ImageUrl(msgspec.Struct, frozen=True, gc=False):
    url: str


class ImagePart(msgspec.Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


ContentPart: TypeAlias = TextPart | ImagePart


class CalledFunction(msgspec.Struct, frozen=True, gc=False):
    """`arguments` is a JSON string that holds the JSON text of an object; vLLM answers 400 to an object."""

    name: str
    arguments: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class SystemMessage(msgspec.Struct, frozen=True, gc=False, tag_field="role", tag="system"):
    content: str


class UserMessage(msgspec.Struct, frozen=True, tag_field="role", tag="user"):
    content: str | list[ContentPart]


class AssistantMessage(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="role", tag="assistant"):
    """`content` is written even when it is null: some engines want the key."""

    content: str | None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class ToolMessage(msgspec.Struct, frozen=True, gc=False, tag_field="role", tag="tool"):
    tool_call_id: str
    content: str


Message: TypeAlias = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class Function(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw
    strict: bool | None = None


class FunctionTool(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    function: Function


class FunctionName(msgspec.Struct, frozen=True, gc=False):
    name: str


class NamedChoice(msgspec.Struct, frozen=True, tag_field="type", tag="function"):
    function: FunctionName


class StreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class NamedSchema(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "output"
    schema: msgspec.Raw
    strict: bool = True


class StructureFormat(msgspec.Struct, frozen=True, tag_field="type", tag="structural_tag"):
    format: msgspec.Raw


class SchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema"):
    json_schema: NamedSchema
