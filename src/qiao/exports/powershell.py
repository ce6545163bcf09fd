"""start_vllm.ps1: runs on Windows and hands over to WSL, where vLLM lives.

Words pass through PowerShell and wsl.exe without quotes: Windows PowerShell drops embedded double quotes of native
programs' arguments, so there are none.
"""

from __future__ import annotations

from qiao.exports.settings import Settings
from qiao.exports.words import about, engine_arguments, lines_of, simple, single_node
from qiao.planner.plan import Plan

_CRLF = "\r\n"


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """The script, with the line ends of Windows."""
    single_node(plan, "PowerShell")
    words = simple(engine_arguments(plan, host="0.0.0.0", port=settings.engine_port), "PowerShell")  # noqa: S104
    variables = simple([f"{name}={value}" for name, value in plan.environment.items()], "PowerShell")
    return {"start_vllm.ps1": _CRLF.join(_script(plan, words, variables))}


def _script(plan: Plan, words: list[str], variables: list[str]) -> list[str]:
    rows = [", ".join(_literal(word) for word in line) for line in lines_of(words)]
    return [
        f"# {about(plan)}".encode("ascii", "replace").decode(),
        "# vLLM needs Linux: this script starts it in WSL 2. Listening on 0.0.0.0 there is what lets Windows reach it;",
        "# WSL's network is not reachable from outside unless it is mirrored or forwarded.",
        "[CmdletBinding()]",
        "param(",
        "    [string] $Distribution = '',",
        "    [Parameter(ValueFromRemainingArguments = $true)] [string[]] $MoreArguments = @()",
        ")",
        "$ErrorActionPreference = 'Stop'",
        "",
        "if (-not (Get-Command 'wsl.exe' -ErrorAction SilentlyContinue)) {",
        "    [Console]::Error.WriteLine('WSL is not installed. In a terminal as administrator: wsl --install')",
        "    exit 127",
        "}",
        "",
        "$Target = @()",
        "if ($Distribution -ne '') { $Target += @('--distribution', $Distribution) }",
        "",
        "& wsl.exe @Target --exec bash -lc 'command -v vllm' | Out-Null",
        "if ($LASTEXITCODE -ne 0) {",
        "    [Console]::Error.WriteLine('vLLM is not on the PATH of a login shell in WSL. There: pip install vllm')",
        "    exit 127",
        "}",
        "",
        f"$Variables = @({', '.join(_literal(each) for each in variables)})",
        "$Arguments = @(",
        *(f"    {row}{',' if index < len(rows) - 1 else ''}" for index, row in enumerate(rows)),
        ")",
        "",
        "& wsl.exe @Target --exec env @Variables bash -lc 'exec vllm serve $@' vllm @Arguments @MoreArguments",
        "exit $LASTEXITCODE",
        "",
    ]


def _literal(word: str) -> str:
    """A word in single quotes, in which PowerShell changes nothing."""
    return "'" + word.replace("'", "''") + "'"
