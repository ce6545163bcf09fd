"""What tools on Anthropic's servers did in a conversation that is continued here, in words.

The blocks stand in assistant turns; no engine knows them, so they become text that says what was called and what came
back. Encrypted fields are left out: nobody here can read them.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

from qiao.core.anthropic import wire

Result: TypeAlias = (
    wire.WebSearchToolResultBlock
    | wire.CodeExecutionToolResultBlock
    | wire.BashCodeExecutionToolResultBlock
    | wire.TextEditorCodeExecutionToolResultBlock
    | wire.AdvisorToolResultBlock
)


def use_text(block: wire.ServerToolUseBlock | wire.McpToolUseBlock, arguments: str) -> str:
    """That the tool was called, with the JSON text of its `arguments`."""
    if isinstance(block, wire.McpToolUseBlock):
        server = f" of the MCP server {block.server_name}" if block.server_name else ""
        return f"[Called the tool {block.name}{server} with {arguments}]\n"
    return f"[Called the server tool {block.name} with {arguments}]\n"


def result_text(block: Result) -> str:
    """What came back; empty for a result without readable words."""
    match block:
        case wire.WebSearchToolResultBlock(content=content):
            return _web_search_text(content)
        case wire.CodeExecutionToolResultBlock(content=result) | wire.BashCodeExecutionToolResultBlock(content=result):
            return _execution_text(result or wire.ExecutionResult())
        case wire.TextEditorCodeExecutionToolResultBlock(content=result):
            return _editor_text(result or wire.EditorResult())
        case wire.AdvisorToolResultBlock(content=result):
            return _advisor_text(result or wire.AdvisorResult())
        case _:
            assert_never(block)


def error_text(what: str, result: wire.ServerError) -> str:
    """What went wrong, or the empty string if nothing did."""
    if result.error_code is None:
        return ""
    detail = f": {result.error_message}" if result.error_message else ""
    return f"[The {what} failed with {result.error_code}{detail}]\n"


def fetch_text(result: wire.WebFetchResult) -> str:
    """The line above the document that a web fetch brought."""
    return error_text("web fetch", result) or f"[Fetched {result.url or 'a page'}]\n"


def mcp_result_text(text: str, is_error: bool) -> str:
    return _listing("The MCP tool failed" if is_error else "The MCP tool answered", text)


def _web_search_text(content: list[wire.WebSearchHit] | wire.ServerError | None) -> str:
    if isinstance(content, wire.ServerError):
        return error_text("web search", content) or "[The web search failed]\n"
    hits = [_hit_text(hit) for hit in content or ()]
    return _listing("The web search found", "\n".join(hits) if hits else "nothing")


def _hit_text(hit: wire.WebSearchHit) -> str:
    age = f" ({hit.page_age})" if hit.page_age else ""
    return f"- {hit.title or 'untitled'}: {hit.url or 'no address'}{age}"


def _execution_text(result: wire.ExecutionResult) -> str:
    if error := error_text("code execution", result):
        return error
    streams = [f"{name}:\n{text}" for name, text in (("stdout", result.stdout), ("stderr", result.stderr)) if text]
    status = "" if result.return_code is None else f" with return code {result.return_code}"
    return _listing(f"The code ended{status}", "\n".join(streams))


def _editor_text(result: wire.EditorResult) -> str:
    if error := error_text("file edit", result):
        return error
    if result.content is not None:
        return _listing("The file holds", result.content)
    if result.is_file_update is not None:
        return "[The file was overwritten]\n" if result.is_file_update else "[The file was created]\n"
    return _listing("The file was changed", "\n".join(result.lines or ()))


def _advisor_text(result: wire.AdvisorResult) -> str:
    if error := error_text("advisor", result):
        return error
    return _listing("The advisor said", result.text) if result.text else ""


def _listing(head: str, body: str) -> str:
    return f"[{head}:\n{body}]\n" if body else f"[{head}]\n"
