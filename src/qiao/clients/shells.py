"""Variables written for shells and files, quoted so that any value survives, each with its reason as a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Literal, assert_never

from qiao.clients.claude_code import Variable

Shell = Literal["bash", "fish", "powershell", "json", "dotenv"]

HOW: dict[Shell, str] = {
    "bash": 'eval "$(qiao env --shell bash)"',
    "fish": "qiao env --shell fish | source",
    "powershell": "qiao env --shell powershell | Out-String | Invoke-Expression",
}
"""How a shell takes what is printed, for bash and zsh, fish, and PowerShell."""


def render(variables: Sequence[Variable], shell: Shell, *, with_reasons: bool = True) -> str:
    """All variables in the words of one shell, ending in a line break."""
    if shell == "json":
        values = {variable.name: variable.value or "" for variable in variables}
        return json.dumps({"env": values}, indent=2, ensure_ascii=False) + "\n"
    lines = []
    for variable in variables:
        if with_reasons:
            lines.append(f"# {variable.why}")
        lines.append(line(variable, shell))
    return "\n".join(lines) + "\n"


def line(variable: Variable, shell: Literal["bash", "fish", "powershell", "dotenv"]) -> str:
    """One variable set, or removed where it has no value."""
    name, value = variable.name, variable.value
    match shell:
        case "bash":
            return f"unset {name}" if value is None else f"export {name}={quote_posix(value)}"
        case "fish":
            return f"set -e {name}" if value is None else f"set -gx {name} {quote_fish(value)}"
        case "powershell":
            if value is None:
                return f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
            return f"$Env:{name} = {quote_powershell(value)}"
        case "dotenv":
            return f"{name}={quote_dotenv(value or '')}"
        case _:
            assert_never(shell)


_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")


def quote_posix(value: str) -> str:
    """For sh, bash and zsh."""
    return value if _PLAIN.fullmatch(value) else "'" + value.replace("'", "'\\''") + "'"


def quote_fish(value: str) -> str:
    """In fish a backslash escapes a quote and itself within single quotes."""
    return value if _PLAIN.fullmatch(value) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_powershell(value: str) -> str:
    """PowerShell doubles a quote, and takes the typographic ones for quotes too."""
    return "'" + re.sub("(['‘’‚‛])", r"\1\1", value) + "'"


def quote_dotenv(value: str) -> str:
    """For .env files: single quotes are literal there; what holds one is quoted doubly."""
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def own_shell(variables: Mapping[str, str], platform: str) -> Shell:
    """The shell that the person probably uses."""
    name = PurePath(variables.get("SHELL", "")).name
    if name == "fish":
        return "fish"
    if name.startswith("pwsh") or (platform == "win32" and not name):
        return "powershell"
    return "bash"
