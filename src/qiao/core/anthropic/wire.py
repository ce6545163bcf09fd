"""The shapes of a Messages request as clients write them.

Read by `request` and its neighbours only; past them no wire shape is known. Unknown fields pass unseen, a field that
an SDK may send as null takes null, and JSON that only passes through (tool inputs, schemas) stays `msgspec.Raw`.
Fields that are read and ignored on purpose (`cache_control`, `citations`, encrypted contents) are not listed.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

NOTHING = msgspec.Raw(b"")
"""A raw field that the client did not send."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""A number of tokens or turns; above 2^53 no JSON reader agrees on the value."""


class Shape(msgspec.Struct, frozen=True, gc=False):
    """An object without a tag."""


class Block(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """An object whose `type` says what it is."""


# Content blocks that a person or a model writes


class TextBlock(Block, frozen=True, tag="text"):
    text: str | None


class ImageSource(Shape, frozen=True):
    """`type`: base64, url or file."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImageBlock(Block, frozen=True, tag="image"):
    source: ImageSource


class DocumentSource(Shape, frozen=True):
    """`type`: base64, text, content, url or file."""

    type: str
    media_type: str | None = None
    data: str | None = None
    content: str | list[TextBlock | ImageBlock] | None = None


class DocumentBlock(Block, frozen=True, tag="document"):
    source: DocumentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Block, frozen=True, tag="search_result"):
    content: str | list[TextBlock] | None = None
    source: str | None = None
    title: str | None = None


class ThinkingBlock(Block, frozen=True, tag="thinking"):
    thinking: str | None = None
    signature: str | None = None


class RedactedThinkingBlock(Block, frozen=True, tag="redacted_thinking"):
    data: str | None = None


class ToolUseBlock(Block, frozen=True, tag="tool_use"):
    name: str
    id: str | None = None
    input: msgspec.Raw = NOTHING


# What a tool result may hold


class ToolReferenceBlock(Block, frozen=True, tag="tool_reference"):
    tool_name: str


class BrowserStateBlock(Block, frozen=True, tag="browser_state"):
    tabs: msgspec.Raw = NOTHING
    state_changes: msgspec.Raw = NOTHING


ResultBlock: TypeAlias = (
    TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock | BrowserStateBlock
)


class ToolResultBlock(Block, frozen=True, tag="tool_result"):
    tool_use_id: str | None = None
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


# What Anthropic's own servers wrote into a conversation that is continued here


class ServerToolUseBlock(Block, frozen=True, tag="server_tool_use"):
    name: str
    id: str | None = None
    input: msgspec.Raw = NOTHING


class McpToolUseBlock(Block, frozen=True, tag="mcp_tool_use"):
    name: str
    server_name: str | None = None
    input: msgspec.Raw = NOTHING


class McpToolResultBlock(Block, frozen=True, tag="mcp_tool_result"):
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None


class McpToolListingBlock(Block, frozen=True, tag="mcp_tool_listing"):
    pass


class WebSearchHit(Shape, frozen=True):
    title: str | None = None
    url: str | None = None
    page_age: str | None = None


class ServerError(Shape, frozen=True):
    error_code: str | None = None
    error_message: str | None = None


class WebSearchToolResultBlock(Block, frozen=True, tag="web_search_tool_result"):
    content: list[WebSearchHit] | ServerError | None = None


class WebFetchResult(ServerError, frozen=True):
    url: str | None = None
    content: DocumentBlock | None = None


class WebFetchToolResultBlock(Block, frozen=True, tag="web_fetch_tool_result"):
    content: WebFetchResult | None = None


class ExecutionResult(ServerError, frozen=True):
    stdout: str | None = None
    stderr: str | None = None
    return_code: int | None = None


class CodeExecutionToolResultBlock(Block, frozen=True, tag="code_execution_tool_result"):
    content: ExecutionResult | None = None


class BashCodeExecutionToolResultBlock(Block, frozen=True, tag="bash_code_execution_tool_result"):
    content: ExecutionResult | None = None


class EditorResult(ServerError, frozen=True):
    """`content`: what a view showed; `lines`: the diff of a replacement."""

    content: str | None = None
    is_file_update: bool | None = None
    lines: list[str] | None = None


class TextEditorCodeExecutionToolResultBlock(Block, frozen=True, tag="text_editor_code_execution_tool_result"):
    content: EditorResult | None = None


class ToolSearchResult(ServerError, frozen=True):
    tool_references: list[ToolReferenceBlock] | None = None


class ToolSearchToolResultBlock(Block, frozen=True, tag="tool_search_tool_result"):
    tool_use_id: str | None = None
    content: ToolSearchResult | None = None


class AdvisorResult(ServerError, frozen=True):
    text: str | None = None


class AdvisorToolResultBlock(Block, frozen=True, tag="advisor_tool_result"):
    content: AdvisorResult | None = None


class ContainerUploadBlock(Block, frozen=True, tag="container_upload"):
    pass


class FallbackBlock(Block, frozen=True, tag="fallback"):
    pass


# Tools


class ToolDefinition(Shape, frozen=True):
    """Any entry of `tools`; which fields count depends on `type` (absent or null: a custom tool)."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = NOTHING
    strict: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None
    input_examples: list[msgspec.Raw] | None = None
    display_width_px: int | None = None
    display_height_px: int | None = None
    enable_zoom: bool | None = None
    max_characters: int | None = None


class ToolChangeTarget(Shape, frozen=True):
    """`type`: tool_reference, tool_definition, mcp_tool_reference or mcp_toolset_reference."""

    type: str | None = None
    name: str | None = None
    server_name: str | None = None
    definition: ToolDefinition | None = None


class ToolAdditionBlock(Block, frozen=True, tag="tool_addition"):
    tool: ToolChangeTarget


class ToolRemovalBlock(Block, frozen=True, tag="tool_removal"):
    tool: ToolChangeTarget


class CompactionBlock(Block, frozen=True, tag="compaction"):
    content: str | None = None
    tool_changes: list[ToolAdditionBlock | ToolRemovalBlock] | None = None


class ToolChoice(Shape, frozen=True):
    """`type`: auto, any, tool or none."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


ContentBlock: TypeAlias = (
    TextBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | RedactedThinkingBlock
    | ServerToolUseBlock
    | WebSearchToolResultBlock
    | WebFetchToolResultBlock
    | CodeExecutionToolResultBlock
    | BashCodeExecutionToolResultBlock
    | TextEditorCodeExecutionToolResultBlock
    | ToolSearchToolResultBlock
    | AdvisorToolResultBlock
    | McpToolUseBlock
    | McpToolResultBlock
    | McpToolListingBlock
    | ContainerUploadBlock
    | CompactionBlock
    | FallbackBlock
    | ToolAdditionBlock
    | ToolRemovalBlock
)


# Messages and options


class TurnOutputConfig(Shape, frozen=True):
    """`output_config` inside a system message."""

    effort: str | None = None


class Message(Shape, frozen=True):
    role: str
    content: str | list[ContentBlock] | msgspec.UnsetType | None = msgspec.UNSET
    clear_at: str | None = None
    output_config: TurnOutputConfig | None = None


class Thinking(Shape, frozen=True):
    """`type`: enabled, adaptive, between_tools or disabled."""

    type: str
    budget_tokens: Count | None = None
    display: str | None = None


class OutputFormat(Shape, frozen=True):
    type: str
    schema: msgspec.Raw = NOTHING


class OutputConfig(Shape, frozen=True):
    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(Shape, frozen=True):
    user_id: str | None = None


class UserIdentity(Shape, frozen=True):
    """What Claude Code writes as JSON text into `metadata.user_id`."""

    session_id: str | None = None


class ContainerWithSkills(Shape, frozen=True):
    skills: list[msgspec.Raw] | None = None


class BillingPolicy(Shape, frozen=True):
    bill_to: str | None = None


class Edit(Shape, frozen=True):
    """An entry of `context_management.edits`; its fields are read once its type is known."""

    type: str
    keep: msgspec.Raw = NOTHING
    trigger: msgspec.Raw = NOTHING
    clear_at_least: msgspec.Raw = NOTHING
    exclude_tools: msgspec.Raw = NOTHING
    clear_tool_inputs: msgspec.Raw = NOTHING


class ContextManagement(Shape, frozen=True):
    edits: list[Edit] | None = None


class Amount(Shape, frozen=True):
    """A threshold: `type` says of what (input_tokens, tool_uses, thinking_turns, all), `value` how much."""

    type: str
    value: Count | None = None
