"""The shapes of a chat-completions request as clients write them.

Read by `decode` and its neighbours only. Unknown fields pass unseen, a field that an SDK may send as null takes null,
and JSON that only passes through (arguments, schemas) stays `msgspec.Raw`. Beside OpenAI's own shapes stand those that
clients of other servers send here: the tools, parts and items of the Responses API (Cursor), blocks and tools that were
written for Anthropic (Cursor, for a model called `claude-…`), thinking parts (Mistral, vLLM).
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

NOTHING = msgspec.Raw(b"")
"""A raw field that the client did not send."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=2**53)]
"""A number of tokens; -1 is what some clients send for "no limit". Above 2^53 no JSON reader agrees on the value."""


class Shape(msgspec.Struct, frozen=True, gc=False):
    """An object without a tag."""


class PartShape(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """An object whose `type` says what it is."""


# Parts of a message's content


class TextPart(PartShape, frozen=True, tag="text"):
    text: str | None


class InputTextPart(PartShape, frozen=True, tag="input_text"):
    text: str | None


class OutputTextPart(PartShape, frozen=True, tag="output_text"):
    text: str | None


class RefusalPart(PartShape, frozen=True, tag="refusal"):
    refusal: str | None


class ThinkingPart(PartShape, frozen=True, tag="thinking"):
    thinking: str | list[TextPart] | None


class ImageUrl(Shape, frozen=True):
    url: str


class ImageUrlPart(PartShape, frozen=True, tag="image_url"):
    image_url: str | ImageUrl


class InputImagePart(PartShape, frozen=True, tag="input_image"):
    image_url: str | None = None


class File(Shape, frozen=True):
    """`file_data`: base64, as a rule in a data URL."""

    file_data: str | None = None
    filename: str | None = None


class FilePart(PartShape, frozen=True, tag="file"):
    file: File


class InputFilePart(PartShape, frozen=True, tag="input_file"):
    file_data: str | None = None
    filename: str | None = None


class ReasoningTextPart(PartShape, frozen=True, tag="reasoning_text"):
    text: str | None


class SummaryTextPart(PartShape, frozen=True, tag="summary_text"):
    text: str | None


class ImageSource(Shape, frozen=True):
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImagePart(PartShape, frozen=True, tag="image"):
    source: ImageSource


class ToolUsePart(PartShape, frozen=True, tag="tool_use"):
    name: str
    id: str | None = None
    input: msgspec.Raw = NOTHING


class ToolResultPart(PartShape, frozen=True, tag="tool_result"):
    tool_use_id: str | None = None
    content: str | list[TextPart | ImagePart | ImageUrlPart] | None = None
    is_error: bool | None = None


ContentPart: TypeAlias = (
    TextPart
    | ImageUrlPart
    | ThinkingPart
    | RefusalPart
    | FilePart
    | InputTextPart
    | OutputTextPart
    | InputImagePart
    | InputFilePart
    | ReasoningTextPart
    | SummaryTextPart
    | ImagePart
    | ToolUsePart
    | ToolResultPart
)


# Messages


class CalledFunction(Shape, frozen=True):
    """`arguments`: JSON text in a string, or the object itself."""

    name: str
    arguments: msgspec.Raw = NOTHING


class CalledCustom(Shape, frozen=True):
    """`input`: free text."""

    name: str
    input: str | None = None


class CalledTool(Shape, frozen=True):
    """`type`: function or custom."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None
    custom: CalledCustom | None = None


class Message(Shape, frozen=True):
    """`prefix`: how DeepSeek's and Mistral's clients mark an assistant message that is to be continued."""

    role: str
    content: str | list[ContentPart] | msgspec.UnsetType | None = msgspec.UNSET
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[CalledTool] | None = None
    function_call: CalledFunction | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None


class Item(Shape, frozen=True):
    """An entry of `input`; which fields count depends on `type` (absent: a message)."""

    type: str | None = None
    role: str | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: msgspec.Raw = NOTHING
    input: str | None = None
    output: str | list[ContentPart] | None = None
    summary: list[ContentPart] | None = None


# Tools


class Grammar(Shape, frozen=True):
    definition: str | None = None


class CustomFormat(Shape, frozen=True):
    """`definition` stands here or in `grammar`."""

    definition: str | None = None
    grammar: Grammar | None = None


class FunctionDefinition(Shape, frozen=True):
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = NOTHING
    input_schema: msgspec.Raw = NOTHING
    strict: bool | None = None
    format: CustomFormat | None = None


class ToolDefinition(FunctionDefinition, frozen=True):
    """`function` or `custom` holds the definition; without it the definition's fields stand beside `type`."""

    type: str | None = None
    function: FunctionDefinition | None = None
    custom: FunctionDefinition | None = None


class FunctionName(Shape, frozen=True):
    name: str | None = None


class NamedTool(Shape, frozen=True):
    """A tool that the request offers, by its name."""

    type: str | None = None
    function: FunctionName | None = None
    custom: FunctionName | None = None
    name: str | None = None


class AllowedTools(Shape, frozen=True):
    """Of the tools that the request offers those that may be called, and whether one has to be."""

    mode: str | None = None
    tools: list[NamedTool] | None = None


class ChosenTool(NamedTool, frozen=True):
    """A `tool_choice` that is an object."""

    allowed_tools: AllowedTools | None = None


# Options


class StreamOptions(Shape, frozen=True):
    include_usage: bool | None = None


class SchemaFormat(Shape, frozen=True):
    schema: msgspec.Raw = NOTHING


class ResponseFormat(Shape, frozen=True):
    """`type`: text, json_object or json_schema, whose schema the Responses API puts beside it."""

    type: str
    json_schema: SchemaFormat | None = None
    schema: msgspec.Raw = NOTHING


class TextOption(Shape, frozen=True):
    """`text` of the Responses API."""

    format: ResponseFormat | None = None


class ThinkingOption(Shape, frozen=True):
    """`thinking` as DeepSeek, Z.ai and Moonshot have it. `type`: enabled, disabled, adaptive or auto."""

    type: str | None = None
    budget_tokens: Count | None = None


class ReasoningOption(Shape, frozen=True):
    """`reasoning` as OpenRouter and the Responses API have it."""

    effort: str | None = None
    max_tokens: Count | None = None
    enabled: bool | None = None
    exclude: bool | None = None
