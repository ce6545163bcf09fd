"""The settings files of Claude Code, where they would overrule what `qiao claude` sets.

Claude Code puts the `env` of its settings files over its environment: a ~/.claude/settings.json from some guide would
silently send the session elsewhere. Only `--settings` stands above them, so what contradicts is set there again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qiao.clients.claude_code import Variable

# Auto mode asks a checker on Anthropic's servers about each command. Behind a gateway it is not there, and the terminal
# shows a page of warnings at the first command instead of asking whether it may run.
NO_AUTO_MODE = {"disableAutoMode": "disable"}


ONLY_ANTHROPIC_RUNS = ("WebSearch",)
"""Tools of Claude Code that need Anthropic's servers. Denied, they are not offered: a call could only fail."""


class Conflict(msgspec.Struct, frozen=True):
    """A settings file that sets a variable otherwise. `theirs` is not shown: it may be a key."""

    name: str
    file: Path
    theirs: str


def settings_files(variables: Mapping[str, str], home: Path, folder: Path) -> list[Path]:
    """The settings files that Claude Code reads when started in `folder`, the strongest last."""
    user = Path(variables["CLAUDE_CONFIG_DIR"]) if variables.get("CLAUDE_CONFIG_DIR") else home / ".claude"
    project = folder / ".claude"
    return [user / "settings.json", project / "settings.json", project / "settings.local.json"]


def conflicts(files: Sequence[Path], wanted: Sequence[Variable]) -> list[Conflict]:
    """Where the files contradict what must hold."""
    firm = {variable.name: variable.value or "" for variable in wanted if variable.is_firm}
    found = []
    for file in files:
        for name, theirs in environment_of(file).items():
            if name in firm and theirs != firm[name]:
                found.append(Conflict(name, file, theirs))
    return found


def overriding(found: Sequence[Conflict], wanted: Sequence[Variable], *, own_mode: bool) -> dict[str, Any]:
    """The content for `--settings`."""
    values = {variable.name: variable.value or "" for variable in wanted}
    permissions: dict[str, Any] = {"deny": [*ONLY_ANTHROPIC_RUNS]}
    content = {"permissions": permissions if own_mode else permissions | NO_AUTO_MODE}
    if found:
        content["env"] = {conflict.name: values[conflict.name] for conflict in found}
    return content


def has_secret(content: Mapping[str, Any]) -> bool:
    """Whether the content holds the key, which other users could read on a command line."""
    return bool(content.get("env", {}).get("ANTHROPIC_AUTH_TOKEN"))


def environment_of(file: Path) -> dict[str, str]:
    """The variables that a settings file sets; none where it is not there or broken."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):  # not there, or broken: Claude Code itself says so
        return {}
    environment = content.get("env") if isinstance(content, dict) else None
    if not isinstance(environment, dict):
        return {}
    return {name: str(value) for name, value in environment.items() if isinstance(value, str | int | bool)}
