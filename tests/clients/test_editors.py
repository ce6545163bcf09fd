"""Settings for editors: whole texts, parsed where the editor would parse them."""

from __future__ import annotations

import json

import pytest

from qiao.clients.editors import render
from tests.clients.connections import connection


@pytest.mark.parametrize("editor", ["vscode", "cursor"])
def test_the_extension_claude_code(editor: str) -> None:
    text = render(connection(), "vscode" if editor == "vscode" else "cursor")
    body = json.loads("".join(line for line in text.splitlines() if not line.startswith("#")))
    entries = {entry["name"]: entry["value"] for entry in body["claudeCode.environmentVariables"]}
    assert entries["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4000"
    assert entries["ANTHROPIC_AUTH_TOKEN"] == "sk-k"
    assert "ANTHROPIC_API_KEY" not in entries
    assert body["claudeCode.disableLoginPrompt"] is True


def test_cursor_is_told_what_its_own_chat_needs() -> None:
    assert "Cursor's own chat asks from Cursor's servers, which do not reach this machine" in render(
        connection(), "cursor"
    )


def test_cline_and_roo() -> None:
    assert render(connection(window=40960), "cline") == (
        "# Cline: Settings → API Configuration\n"
        "API Provider         Anthropic\n"
        "Anthropic API Key    sk-k\n"
        "Use custom base URL  http://127.0.0.1:4000\n"
        "Model                any Claude model of the list: "
        "the gateway answers every claude-… name with its own model\n"
        "# The list's models count as 200 000 tokens wide; this one has 40960.\n"
    )
    roo = render(connection(window=262144), "roo")
    assert "Roo Code" in roo
    assert "http://127.0.0.1:4000\n" in roo, "without /v1, which Anthropic's SDK adds"
    assert "200 000" not in roo


def test_continue() -> None:
    assert render(connection(), "continue") == (
        "# Continue: in ~/.continue/config.yaml\n"
        "name: qiao\n"
        "version: 1.0.0\n"
        "schema: v1\n"
        "models:\n"
        '  - name: "qwen3-235b"\n'
        "    provider: anthropic\n"
        '    model: "qwen3-235b"\n'
        '    apiBase: "http://127.0.0.1:4000/v1/"\n'
        '    apiKey: "sk-k"\n'
        "    roles: [chat, edit, apply]\n"
        "    capabilities: [tool_use]\n"
        "    defaultCompletionOptions:\n"
        "      contextLength: 131072\n"
    )
