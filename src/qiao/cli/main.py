"""The command `qiao`: finds the subcommand, runs it, and turns what ends it into words and an exit status.

A subcommand's module is imported when the subcommand is asked for, by name from the table below: `qiao --help` then
needs neither a server nor a client library.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

import click

from qiao.cli.words import say_error
from qiao.errors import QiaoError

COMMANDS = {
    "up": "Start a model and the gateway, or the gateway for a model that runs elsewhere.",
    "serve": "Serve the gateway for a model that runs elsewhere.",
    "claude": "Run Claude Code on the model.",
    "env": "Print the settings for shells, editors and programs.",
    "key": "Print the gateway's key, or make a new one.",
    "doctor": "Find out what is wrong, and how to mend it.",
    "plan": "Work out how to run a model on these GPUs.",
    "export": "Write the files that start a plan elsewhere.",
}
"""Name and first line of help. A test compares them with the commands themselves."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click names it
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            raise click.UsageError(
                f"No such command {cmd_name!r}." + (f" Did you mean {near[0]!r}?" if near else ""), ctx
            )
        command = load(cmd_name).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _Loaded:
    """The part of a subcommand's module that is used here."""

    command: object
    report: object


def load(name: str) -> _Loaded:
    """The module of a subcommand."""
    module: _Loaded = importlib.import_module(f"qiao.cli.{name}")  # type: ignore[assignment]
    return module


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    report = load("version").report
    assert callable(report)
    click.echo(report())
    ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings also come from QIAO_… variables and from qiao.toml; a flag wins over both.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the versions that a report of a problem needs.",
)
def group() -> None:
    """Run Claude Code, and every other Anthropic client, on an open model of your own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Exit status: 0 done, 1 the answer is no, 2 wrong usage or configuration, 3 not started."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit status back."""
    try:
        outcome = group.main(args=arguments, prog_name="qiao", standalone_mode=False)
    except QiaoError as error:
        say_error(error.message, error.hint)
        return error.exit_status
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        say_error(_sentence(error.format_message()), _usage_hint(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # Who read our output is gone; the interpreter's own flush at the end must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return outcome if isinstance(outcome, int) else 0


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path} --help` lists what there is." if isinstance(context, click.Context) else None
