"""The shapes of Claude Code's requests (2.1.330, as recorded), with short texts in place of its prompts."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

Body = dict[str, Any]

SHORT = 24
"""Tokens that most answers may have: the shape counts, not what a model says."""

BILLING = "x-anthropic-billing-header: cc_version=2.1.330.a1b; cc_entrypoint=sdk-cli;"


def user(content: str | list[Body]) -> Body:
    return {"role": "user", "content": content}


def assistant(content: str | list[Body]) -> Body:
    return {"role": "assistant", "content": content}


def text(words: str, **more: Any) -> Body:
    return {"type": "text", "text": words, **more}


def tool(name: str, properties: Body | None = None, **more: Any) -> Body:
    """A tool with a schema as Claude Code writes them."""
    fields = properties or {"path": {"type": "string", "description": "A path", "minLength": 1}}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }
    return {"name": name, "description": f"The tool {name}.", "input_schema": schema, **more}


def tool_use(identity: str, name: str, given: Body) -> Body:
    return {"type": "tool_use", "id": identity, "name": name, "input": given}


def tool_result(identity: str, content: str | list[Body], **more: Any) -> Body:
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **more}


TOOLS = [
    tool("Bash", {"command": {"type": "string"}}),
    tool("Read"),
    tool("ToolSearch", {"query": {"type": "string"}}),
    tool("DeferredToolPlaceholder", defer_loading=True),
]
CACHED = {"cache_control": {"type": "ephemeral"}}
SYSTEM = [
    text(BILLING),
    text("You are Claude Code, a command line program.", **CACHED),
    text("Help the user with software. Be brief. " * 20, **CACHED),
]
_USER_ID = '{"device_id":"0","account_uuid":"","session_id":"00000000-0000-4000-8000-000000000000"}'


def plain(model: str, words: str = "Say hi.", **more: Any) -> Body:
    """The smallest request."""
    return {"model": model, "max_tokens": SHORT, "messages": [user(words)], **more}


def main_request(model: str, **more: Any) -> Body:
    """The first request of a session: every field that a model it does not know gets."""
    return {
        "model": model,
        "max_tokens": 32_000,
        "stream": True,
        "system": SYSTEM,
        "messages": [
            user([text("<system-reminder>\nToday is a working day.\n</system-reminder>"), text("Say hi", **CACHED)]),
            {"role": "system", "content": [text("The following tools are deferred: NotebookEdit.", **CACHED)]},
        ],
        "tools": TOOLS,
        "metadata": {"user_id": _USER_ID},
        "thinking": {"type": "adaptive", "display": "updates"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        **more,
    }


def side_request(model: str) -> Body:
    """The title of a session: no tools, and a schema for the answer."""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    return {
        "model": model,
        "max_tokens": 64,
        "stream": True,
        "tools": [],
        "system": [text("Give the session a title of three words.")],
        "messages": [user("Mend the build of the parser.")],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }


def classifier(model: str) -> Body:
    """The safety check: whole answer, thinking off, few tokens, a stop string."""
    return {
        "model": model,
        "max_tokens": 64,
        "thinking": {"type": "disabled"},
        "stop_sequences": ["</severity>"],
        "messages": [user("Answer <severity>1</severity> and nothing else.")],
    }


def with_history(model: str, messages: list[Body], **more: Any) -> Body:
    """A later turn: streamed, with the tools."""
    return {"model": model, "max_tokens": SHORT, "stream": True, "tools": TOOLS, "messages": messages, **more}


def tool_search(model: str) -> Body:
    """After ToolSearch: the result names a tool, and the server is to expand it."""
    return with_history(
        model,
        [
            user("Change the notebook."),
            assistant([tool_use("toolu_1", "ToolSearch", {"query": "select:NotebookEdit"})]),
            user([tool_result("toolu_1", [{"type": "tool_reference", "tool_name": "NotebookEdit"}])]),
        ],
        tools=[*TOOLS, tool("NotebookEdit", defer_loading=True)],
    )


def parallel_results(model: str) -> Body:
    """Two calls in one turn and their results, one an error, one a list, with text behind them."""
    return with_history(
        model,
        [
            user("Look at both files."),
            assistant(
                [
                    text("I look."),
                    tool_use("toolu_a", "Read", {"path": "a"}),
                    tool_use("toolu_b", "Read", {"path": "b"}),
                ]
            ),
            user(
                [
                    tool_result("toolu_a", "not there", is_error=True),
                    tool_result("toolu_b", [text("content of b")], **CACHED),
                    text("<system-reminder>Go on.</system-reminder>"),
                ]
            ),
        ],
    )


def thinking_history(model: str) -> Body:
    """Thinking of earlier turns, with a signature that nobody made, and redacted."""
    return with_history(
        model,
        [
            user("Hi"),
            assistant(
                [
                    {"type": "thinking", "thinking": "They greet.", "signature": ""},
                    {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"},
                    text("Hello."),
                ]
            ),
            user("And now?"),
        ],
    )


def orphans(model: str) -> Body:
    """An interrupted turn: a call without a result."""
    return with_history(
        model,
        [
            user("Run it."),
            assistant([tool_use("toolu_x", "Bash", {"command": "make"})]),
            user([text("[Request interrupted by user]")]),
        ],
    )


def empty_blocks(model: str) -> Body:
    """Text blocks with nothing in them, and an assistant turn without content."""
    return with_history(model, [user([text(""), text("Hi")]), assistant([text("")]), user("Go on.")])


def forced_call(model: str, choice: Body) -> Body:
    """A call that has to be made."""
    return {
        "model": model,
        "max_tokens": 256,
        "stream": True,
        "messages": [user("What is 2 + 3? Report it.")],
        "tools": [tool("report_sum", {"sum": {"type": "integer"}})],
        "tool_choice": choice,
        "thinking": {"type": "disabled"},
    }


def image(model: str, *, in_result: bool) -> Body:
    """A picture from the user, or in what a tool gave back."""
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PNG}}
    if not in_result:
        return with_history(model, [user([block, text("What is it?")])])
    return with_history(
        model,
        [
            user("Look at a.png."),
            assistant([tool_use("toolu_i", "Read", {"path": "a.png"})]),
            user([tool_result("toolu_i", [block])]),
        ],
    )


def document(model: str) -> Body:
    """A PDF in what a tool gave back."""
    source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(_PDF).decode()}
    return with_history(
        model,
        [
            user("Read a.pdf."),
            assistant([tool_use("toolu_d", "Read", {"path": "a.pdf"})]),
            user([tool_result("toolu_d", [{"type": "document", "source": source}])]),
        ],
    )


def web_search(model: str) -> Body:
    """The nested request of the WebSearch tool."""
    return {
        "model": model,
        "max_tokens": SHORT,
        "stream": True,
        "messages": [user("Search for qiao.")],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "tool_choice": {"type": "auto"},
    }


def overlong(model: str, window: int) -> Body:
    """More tokens than the window, of the cheapest kind."""
    return {"model": model, "max_tokens": SHORT, "stream": True, "messages": [user("a b c d " * (window // 3))]}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress((b"\0" + b"\xff\x00\x00" * 32) * 32))
    + _chunk(b"IEND", b"")
).decode()

_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj\n"
    b"4 0 obj<</Length 38>>stream\nBT /F1 18 Tf 20 100 Td (qiao) Tj ET   \nendstream endobj\n"
    b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
