"""`qiao up`: a model and the gateway, from nothing to how to connect."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_never

import click
import msgspec

from qiao.app.embedded import start_embedded
from qiao.app.loop import run
from qiao.app.self_check import Check
from qiao.app.up import Event, Opened, Plan, Ready, Refused, RunningEngine, Waiting, decide, up
from qiao.app.vllm import start_vllm
from qiao.cli.connecting import how_to_connect, reach_words
from qiao.cli.options import configured, flags_of
from qiao.cli.plan import show as show_outcome
from qiao.cli.words import say, say_note, say_warning
from qiao.config import Config, environment
from qiao.engines.base import EngineEvent, OnEvent
from qiao.planner.plan import Refusal


@click.command("up", short_help="Start a model and the gateway, or the gateway for a model that runs elsewhere.")
@flags_of("engine", "folders", "upstream", "models", "context", "tools", "server", "auth", "log")
@click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and every setting with its origin; do nothing."
)
def command(dry_run: bool, config_file: str | None, **flags: Any) -> int:
    """Start a model and the gateway, or the gateway for a model that runs elsewhere.

    With --model and a name that `qiao plan` knows, or a folder with a config.json: plan it for this machine's GPUs,
    start vLLM, and keep it running. Otherwise, without --upstream, a small model starts on the CPU. It proves the
    whole chain and is no coder: for work name a bigger one, attach with --upstream, or give --gguf a model file.
    """
    config = configured(flags, config_file, serving=not dry_run)
    plan = decide(config, search_path=environment().get("PATH"))
    if isinstance(plan, Refused):
        show_outcome(_in_words_of_up(plan.refusal))
        return 1
    if dry_run:
        _print_plan(config, plan)
        return 0
    run(up(config, plan, Screen(config).show, _start))
    say_note("Stopped.")
    return 0


def _start(config: Config, plan: Plan, on_event: OnEvent) -> AbstractAsyncContextManager[RunningEngine]:
    return start_embedded(config, on_event) if plan.vllm is None else start_vllm(config, plan.vllm, on_event)


def _in_words_of_up(refused: Refusal) -> Refusal:
    """What is near on this machine can be started at once, and the options have other names here."""
    near = tuple(msgspec.structs.replace(each, command=_command_of_up(each.command)) for each in refused.nearest)
    return msgspec.structs.replace(refused, nearest=near)


def _command_of_up(command: str) -> str:
    if not command.startswith("qiao plan") or "--gpus" in command or "--nodes" in command:
        return command
    words = command.replace("qiao plan", "qiao up", 1).replace("--window", "--context")
    return re.sub(r"--(quality|speed)\b", r"--prefer \1", words)


def _print_plan(config: Config, plan: Plan) -> None:
    what = "attach to" if plan.kind == "attach" else "start"
    where = f"port {config.server.port}" if config.server.port else "a free port"
    click.echo(f"would {what} {plan.target} and serve on {where} of {config.server.host}")
    if plan.vllm is not None:
        show_outcome(plan.vllm)
        if config.engine.vllm_arguments:
            click.echo(f"  and {config.engine.vllm_arguments}")
    click.echo(config.describe())
    for notice in plan.notices:
        say_note(notice)


class Screen:
    """Shows what happens, on stderr: a line a fact; progress on one line where the terminal can."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rewrites = sys.stderr.isatty()
        self._progress = ""

    def show(self, event: Event) -> None:
        """One fact."""
        if isinstance(event, EngineEvent):
            self._show_engine(event)
            return
        self._end_progress()
        match event:
            case Plan():
                say(f"Attaching to {event.target}." if event.kind == "attach" else f"Starting {event.target}.")
                if event.vllm is not None:
                    show_outcome(event.vllm, on_stderr=True)
                for notice in event.notices:
                    say_note(notice)
            case Waiting():
                say(f"Waiting: {event.reason}")
            case Opened():
                say(f"The gateway listens on {event.gateway.url}.{reach_words(self._config)}")
            case Check():
                self._show_check(event)
            case Ready():
                self._show_ready(event)
            case _:
                assert_never(event)

    def _show_engine(self, event: EngineEvent) -> None:
        if event.state not in ("starting", "loading"):
            self._end_progress()
            words = say_warning if event.state in ("restarting", "failed") else say
            words(event.message)
            return
        share = f" {event.fraction:.0%}" if event.fraction is not None else ""
        if self._rewrites:
            click.echo(f"\r\033[K{event.message}{share}", err=True, nl=False)
            self._progress = event.message
        elif (told := _milestone(event)) != self._progress:
            say(f"{event.message}{share}")
            self._progress = told

    def _end_progress(self) -> None:
        if self._rewrites and self._progress:
            say("")
        self._progress = ""

    def _show_check(self, check: Check) -> None:
        if check.problem:
            say(f"  failed  {check.name}: {check.problem}")
        else:
            say(f"  ok      {check.name}: {check.note} ({check.seconds:.1f} s)")

    def _show_ready(self, event: Ready) -> None:
        main = event.models[0]
        window = f", window {main.window} tokens" if main.window else ""
        if event.failed:
            say_warning(f"{event.failed} of the checks failed; the gateway runs all the same.")
        say(f"qiao is up: {event.gateway.url} serves {main.id}{window}.\n")
        say(how_to_connect(self._config, event.gateway, event.models))
        say("\nCtrl-C stops everything.")


def _milestone(event: EngineEvent) -> str:
    """Where there is no terminal, a line a quarter of each step is enough: some count hundreds of files."""
    step = re.sub(r"[\d,.]+", "#", event.message)
    return step if event.fraction is None else f"{step} {int(event.fraction * 4)}"
