"""How to connect, in words: after a gateway has started, for the person who started it.

No key is printed here: what a server says ends in logs. The lines fetch it with `qiao key`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from qiao.clients.connection import NO_KEY
from qiao.clients.shells import quote_fish, quote_posix, quote_powershell
from qiao.config import Config
from qiao.ledger.running import Running
from qiao.upstream.gateway import ModelFacts


def own_program(started_as: str, on_path: str | None) -> str:
    """How to start this very program: by its name where the shell finds it, else by its path."""
    own = Path(started_as)
    if own.name not in ("qiao", "qiao.exe"):
        return "qiao" if on_path else f"{quote_posix(sys.executable)} -m qiao"
    if on_path is not None and Path(on_path).resolve() == own.resolve():
        return "qiao"
    return quote_posix(str(own.absolute()))


def own_command(config: Config, words: str) -> str:
    """A command of ours as it has to be typed on this machine, from any folder."""
    program = own_program(sys.argv[0], shutil.which("qiao"))
    if config.origin("folders.state").kind == "default":
        return f"{program} {words}"
    return f"{program} {words} --state {quote_posix(str(config.folders.state))}"


def connect_command(config: Config) -> str:
    """The command that runs Claude Code on this gateway."""
    return own_command(config, "claude")


def key_words(config: Config) -> str:
    """Where other clients get the key from."""
    return "no key is asked for." if config.auth.no_auth else f"`{own_command(config, 'key')}` prints the key."


def reach_words(config: Config) -> str:
    """Who else reaches the gateway; empty where only this machine does."""
    if config.server.is_loopback:
        return ""
    return f" It listens on {config.server.host}: other machines use this machine's own address."


def how_to_connect(config: Config, gateway: Running, models: Sequence[ModelFacts]) -> str:
    """Everything a person needs to use the gateway, ready to copy."""
    main = models[0]
    key = NO_KEY if gateway.key is None else None
    command = own_command(config, "key")
    lines = [
        "Claude Code:",
        f"  {connect_command(config)}",
        "",
        f"Other programs in this shell (`{own_command(config, 'env')}` prints everything, with the model's limits):",
        *_bash(gateway.url, main.id, key or f'"$({command})"'),
        *_fish(gateway.url, main.id, key or f"({command})"),
        *_powershell(gateway.url, main.id, quote_powershell(key) if key else f"({command})"),
        "",
        "Cursor and VS Code:",
        *_plugins(config, gateway, main),
    ]
    return "\n".join(lines)


def _bash(url: str, model: str, key: str) -> list[str]:
    return [
        "  bash, zsh",
        f"    export ANTHROPIC_BASE_URL={quote_posix(url)} ANTHROPIC_MODEL={quote_posix(model)}",
        f"    export ANTHROPIC_AUTH_TOKEN={key}; unset ANTHROPIC_API_KEY",
    ]


def _fish(url: str, model: str, key: str) -> list[str]:
    return [
        "  fish",
        f"    set -gx ANTHROPIC_BASE_URL {quote_fish(url)}; set -gx ANTHROPIC_MODEL {quote_fish(model)}",
        f"    set -gx ANTHROPIC_AUTH_TOKEN {key}; set -e ANTHROPIC_API_KEY",
    ]


def _powershell(url: str, model: str, key: str) -> list[str]:
    return [
        "  PowerShell",
        f"    $Env:ANTHROPIC_BASE_URL = {quote_powershell(url)}; $Env:ANTHROPIC_MODEL = {quote_powershell(model)}",
        f"    $Env:ANTHROPIC_AUTH_TOKEN = {key}; Remove-Item Env:ANTHROPIC_API_KEY -ErrorAction SilentlyContinue",
    ]


def _plugins(config: Config, gateway: Running, main: ModelFacts) -> list[str]:
    key = NO_KEY if gateway.key is None else f"what `{own_command(config, 'key')}` prints"
    rows = (
        ("Base URL", f"{gateway.url} (Cline, Roo Code); {gateway.url}/v1/ (Continue)"),
        ("API key", key),
        ("Model", f"{main.id}, or any claude-… name"),
        ("Provider", "Anthropic"),
    )
    return [
        *(f"  {label:<9} {value}" for label, value in rows),
        f"  `{own_command(config, 'env --client vscode')}` prints whole settings (or cursor, cline, roo, continue).",
    ]
