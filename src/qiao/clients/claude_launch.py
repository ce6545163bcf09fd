"""How one run of Claude Code is put together: arguments, environment, settings, and what to tell the person first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qiao.clients.claude_code import environment, is_session, trim, variables, wants_own_mode
from qiao.clients.claude_settings import conflicts, has_secret, overriding
from qiao.clients.connection import Connection
from qiao.ledger.files import write_private


class Launch(msgspec.Struct, frozen=True):
    """One run, ready but for the settings, which may have to go through a file."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    settings: dict[str, Any] = {}
    notices: tuple[str, ...] = ()


def plan(
    connection: Connection, arguments: Sequence[str], base: Mapping[str, str], settings_files: Sequence[Path]
) -> Launch:
    """The run of Claude Code with the user's `arguments`, which stay as they are; ours come before them."""
    if not is_session(arguments):
        return Launch(tuple(arguments), dict(base))
    wanted = variables(connection)
    surroundings = environment(connection, base)
    trimming = trim(connection.window, arguments)
    found = conflicts(settings_files, wanted)
    notices = [*surroundings.notices]
    if not connection.is_anthropic:
        notices.append(
            f"{connection.url} lists its models as OpenAI's API does. If it is the engine itself, Claude Code may find "
            "no model there, and nothing of what a gateway mends: give --url the gateway's address."
        )
    own_settings = any(each == "--settings" or each.startswith("--settings=") for each in arguments)
    for conflict in found:
        effect = (
            "your --settings is kept, so it holds; remove the line if the session goes elsewhere"
            if own_settings
            else "it is overruled here"
        )
        notices.append(f"{conflict.file} sets {conflict.name} otherwise: {effect}.")
    if trimming.notice:
        notices.append(trimming.notice)
    settings = {} if own_settings else overriding(found, wanted, own_mode=wants_own_mode(arguments))
    return Launch(
        arguments=(*trimming.arguments, *arguments),
        environment=surroundings.values,
        settings=settings,
        notices=tuple(notices),
    )


def final_arguments(launch: Launch, state: Path) -> tuple[str, ...]:
    """The arguments with the settings in place. Settings that hold the key go through a private file in `state`."""
    if not launch.settings:
        return launch.arguments
    text = json.dumps(launch.settings)
    if has_secret(launch.settings):
        path = state / "claude-settings.json"
        write_private(path, text)
        text = str(path)
    return ("--settings", text, *launch.arguments)
