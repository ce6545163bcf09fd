"""`qiao claude`: Claude Code on the model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from qiao.cli.options import configured, flags_of
from qiao.cli.words import say_note, say_warning
from qiao.clients import claude_program
from qiao.clients.claude_code import is_session
from qiao.clients.claude_launch import final_arguments, plan
from qiao.clients.claude_settings import settings_files
from qiao.clients.connection import connect, find_door
from qiao.config import environment
from qiao.ledger.running import running


@click.command(
    "claude",
    short_help="Run Claude Code on the model.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
@click.option(
    "--help",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _parameter, wanted: _help(context, wanted),
    help="Show this text; `qiao claude -h` shows Claude Code's own.",
)
@flags_of("client", "auth", "folders.state")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...], config_file: str | None, **flags: Any) -> int:
    """Run Claude Code on the model.

    Everything besides the options below goes to Claude Code as it is: `qiao claude`, `qiao claude -p "say hi"`,
    `qiao claude --continue`. The options below come first, before any word that is no option; what follows -- is
    Claude Code's in any case. The exit status is Claude Code's.

    The gateway that runs on this machine is used, with its key and the model's true limits; `qiao env` prints what is
    set, and why.
    """
    variables = environment()
    config = configured(flags, config_file, file_in_folder=False)
    home = Path(variables.get("HOME") or Path.home())
    chosen_by = str(config.origin("client.claude"))
    program = claude_program.find(config.client.claude, chosen_by, variables, home)
    if not is_session(arguments):
        return claude_program.run(program, arguments, variables)
    connection = asyncio.run(connect(find_door(config, running(config.folders.state))))
    launch = plan(connection, arguments, variables, settings_files(variables, home, Path.cwd()))
    for notice in launch.notices:
        say_note(notice)
    outdated = claude_program.version_notice(claude_program.version(program, variables))
    if outdated:
        say_warning(outdated)
    return claude_program.run(program, final_arguments(launch, config.folders.state), launch.environment)


def _help(context: click.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(context.get_help())
        context.exit()
