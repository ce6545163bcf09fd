"""Programs that talk to the gateway: the official SDKs and curl, ready to run."""

from __future__ import annotations

import json
from typing import Literal, assert_never

from qiao.clients.connection import Connection
from qiao.clients.shells import quote_posix

Program = Literal["sdk-python", "sdk-typescript", "curl"]


def render(connection: Connection, program: Program) -> str:
    """A small program that asks one question, ending in a line break."""
    match program:
        case "sdk-python":
            return _python(connection)
        case "sdk-typescript":
            return _typescript(connection)
        case "curl":
            return _curl(connection)
        case _:
            assert_never(program)


def _python(connection: Connection) -> str:
    return (
        "# pip install anthropic\n"
        "import anthropic\n\n"
        "client = anthropic.Anthropic(\n"
        f"    base_url={_quoted(connection.url)},\n"
        f"    api_key={_quoted(connection.token)},\n"
        ")\n"
        "message = client.messages.create(\n"
        f"    model={_quoted(connection.model)},\n"
        "    max_tokens=64,\n"
        '    messages=[{"role": "user", "content": "Say hello."}],\n'
        ")\n"
        "print(message.content[0].text)\n"
    )


def _typescript(connection: Connection) -> str:
    return (
        "// npm install @anthropic-ai/sdk\n"
        'import Anthropic from "@anthropic-ai/sdk";\n\n'
        "const client = new Anthropic({\n"
        f"  baseURL: {_quoted(connection.url)},\n"
        f"  apiKey: {_quoted(connection.token)},\n"
        "});\n"
        "const message = await client.messages.create({\n"
        f"  model: {_quoted(connection.model)},\n"
        "  max_tokens: 64,\n"
        '  messages: [{ role: "user", content: "Say hello." }],\n'
        "});\n"
        'for (const block of message.content) if (block.type === "text") console.log(block.text);\n'
    )


def _curl(connection: Connection) -> str:
    body = {
        "model": connection.model,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "Say hello."}],
    }
    return (
        f"curl --silent --show-error {quote_posix(connection.url + '/v1/messages')} \\\n"
        f"  --header {quote_posix('x-api-key: ' + connection.token)} \\\n"
        "  --header 'anthropic-version: 2023-06-01' \\\n"
        "  --header 'content-type: application/json' \\\n"
        f"  --data {quote_posix(json.dumps(body, ensure_ascii=False))}\n"
    )


def _quoted(text: str) -> str:
    return json.dumps(text)  # a string in Python, in TypeScript and in JSON alike
