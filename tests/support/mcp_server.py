"""A tiny MCP server on stdin and stdout with one tool, `greet`; run by Claude Code in the tests.

`--after FILE`: it comes up once FILE is there.
"""

import json
import sys
import time
from pathlib import Path
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


def wait_for(path: Path, limit: float = 60.0) -> None:
    until = time.monotonic() + limit
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)


def main() -> None:
    if sys.argv[1:2] == ["--after"]:
        wait_for(Path(sys.argv[2]))
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
