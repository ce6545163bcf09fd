"""`qiao env`: what `qiao claude` sets, for shells, editors and programs, on stdout."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from qiao.cli.options import configured, flags_of
from qiao.cli.words import say_note
from qiao.clients import editors, sdks, shells
from qiao.clients.claude_code import variables
from qiao.clients.connection import Connection, connect, find_door
from qiao.config import environment
from qiao.ledger.running import running

_SHELLS = ("bash", "fish", "powershell", "json", "dotenv")
_CLIENTS = ("vscode", "cursor", "cline", "continue", "roo", "sdk-python", "sdk-typescript", "curl")


@click.command("env", short_help="Print the settings for shells, editors and programs.")
@click.option("--shell", type=click.Choice(_SHELLS), help="Print variables for this shell or file (default: yours).")
@click.option("--client", type=click.Choice(_CLIENTS), help="Print the settings for this editor or program instead.")
@flags_of("client.url", "auth", "folders.state")
def command(shell: shells.Shell | None, client: str | None, config_file: str | None, **flags: Any) -> None:
    """Print the settings for shells, editors and programs.

    \b
    bash, zsh:   eval "$(qiao env)"
    fish:        qiao env | source
    PowerShell:  qiao env | Out-String | Invoke-Expression

    The gateway has to run: the model's name and its true limits come from it. What is printed holds the key.
    """
    if shell and client:
        raise click.UsageError("--shell and --client exclude each other", click.get_current_context())
    config = configured(flags, config_file, file_in_folder=False)
    connection = asyncio.run(connect(find_door(config, running(config.folders.state))))
    if client is not None:
        click.echo(_for_client(connection, client), nl=False)
        return
    chosen = shell or shells.own_shell(environment(), sys.platform)
    click.echo(shells.render(variables(connection), chosen), nl=False)
    if sys.stdout.isatty() and chosen in shells.HOW:
        say_note(f"To set them in this shell: {shells.HOW[chosen]}")


def _for_client(connection: Connection, client: str) -> str:
    match client:
        case "vscode" | "cursor" | "cline" | "continue" | "roo":
            return editors.render(connection, client)
        case "sdk-python" | "sdk-typescript" | "curl":
            return sdks.render(connection, client)
        case _:
            raise AssertionError(client)
