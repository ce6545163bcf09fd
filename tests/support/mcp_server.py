"""A tiny MCP server on stdin and stdout with one tool, `greet`; run by Claude Code in the tests."""

import json
import sys
from typing import Any

TOOL = {
    "name": "greet",
    "description": "Greets a person by name.",
    "inputSchema": {
        "type": "object",
        "properties": {"person": {"type": "string", "description": "Whom to greet"}},
        "required": ["person"],
    },
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """The result of one request; None for a method that is not known."""
    if method == "initialize":
        capabilities: dict[str, Any] = {"tools": {}}
        version = params.get("protocolVersion", "2025-06-18")
        server = {"name": "people", "version": "1"}
        return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": server}
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        text = f"Good day, {params['arguments']['person']}!"
        return {"content": [{"type": "text", "text": text}], "isError": False}
    return {} if method == "ping" else None


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message.get("method", ""), message.get("params") or {})
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if result is None:
            reply["error"] = {"code": -32601, "message": "Method not found"}
        else:
            reply["result"] = result
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
