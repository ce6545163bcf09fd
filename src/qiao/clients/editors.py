"""Settings for editors and their plug-ins, as a person has to enter them.

What was read from the plug-ins' sources: Cline and Roo Code give their "custom base URL" to Anthropic's SDK, which
adds /v1 itself; Continue joins "messages" to `apiBase`, which therefore ends in /v1/. Cline and Roo Code offer a fixed
list of Claude models, so one of those is chosen there; every claude-… name reaches the model behind the gateway.
"""

from __future__ import annotations

import json
from typing import Literal, assert_never

from qiao.clients.claude_code import variables
from qiao.clients.connection import Connection

Editor = Literal["vscode", "cursor", "cline", "continue", "roo"]


def render(connection: Connection, editor: Editor) -> str:
    """The settings for one editor or plug-in, ending in a line break."""
    match editor:
        case "vscode":
            return _claude_code_extension(connection, "VS Code")
        case "cursor":
            return _cursor(connection)
        case "cline":
            return _plugin(connection, "Cline", "Settings → API Configuration", "Use custom base URL")
        case "roo":
            return _plugin(connection, "Roo Code", "Settings → Providers", "Use custom base URL")
        case "continue":
            return _continue(connection)
        case _:
            assert_never(editor)


def _claude_code_extension(connection: Connection, editor: str) -> str:
    entries = [
        {"name": variable.name, "value": variable.value}
        for variable in variables(connection)
        if variable.value is not None
    ]
    settings = {"claudeCode.environmentVariables": entries, "claudeCode.disableLoginPrompt": True}
    return (
        f"# {editor} with the extension Claude Code: in settings.json (Preferences: Open User Settings (JSON))\n"
        + json.dumps(settings, indent=2, ensure_ascii=False)
        + "\n"
    )


def _cursor(connection: Connection) -> str:
    return (
        "# Cursor's own chat asks from Cursor's servers, which do not reach this machine: give the gateway an address\n"
        "# on the internet (a tunnel, or a server with TLS), and in Settings → Models override OpenAI's base URL by\n"
        "# that address with /v1, OpenAI's key by the gateway's. Extensions inside Cursor run here and need none of\n"
        "# this: Claude Code (below), Cline, Continue and Roo Code (`qiao env --client cline`, …).\n"
    ) + _claude_code_extension(connection, "Cursor")


def _plugin(connection: Connection, name: str, place: str, box: str) -> str:
    rows = (
        ("API Provider", "Anthropic"),
        ("Anthropic API Key", connection.token),
        (box, connection.url),
        ("Model", "any Claude model of the list: the gateway answers every claude-… name with its own model"),
    )
    width = max(len(label) for label, _ in rows)
    note = ""
    if connection.window is not None and connection.window < 200_000:
        note = f"# The list's models count as 200 000 tokens wide; this one has {connection.window}.\n"
    return f"# {name}: {place}\n" + "".join(f"{label:<{width}}  {value}\n" for label, value in rows) + note


def _continue(connection: Connection) -> str:
    limits = ""
    if connection.window is not None:
        limits = f"    defaultCompletionOptions:\n      contextLength: {connection.window}\n"
    return (
        "# Continue: in ~/.continue/config.yaml\n"
        "name: qiao\n"
        "version: 1.0.0\n"
        "schema: v1\n"
        "models:\n"
        f"  - name: {_yaml(connection.model)}\n"
        "    provider: anthropic\n"
        f"    model: {_yaml(connection.model)}\n"
        f"    apiBase: {_yaml(connection.url + '/v1/')}\n"
        f"    apiKey: {_yaml(connection.token)}\n"
        "    roles: [chat, edit, apply]\n"
        "    capabilities: [tool_use]\n"
    ) + limits


def _yaml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # every JSON string is a YAML string
