"""`qiao plan`: which engine flags a model needs on which GPUs, how far they reach, and why."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from qiao.app.planning import request_of
from qiao.cli.words import say, say_note, say_warning
from qiao.planner import review
from qiao.planner.choose import plan
from qiao.planner.explain import as_json, explain
from qiao.planner.machine import GIB
from qiao.planner.memory import GpuMemory
from qiao.planner.plan import Outcome, Plan, Refusal
from qiao.planner.request import Request
from qiao.profiles.claude_code import FIRST_REQUEST_WORDS, USEFUL_WINDOW

_Function = TypeVar("_Function", bound=Callable[..., Any])

DEFAULT_MODEL = "qwen3-235b"
_BAR = 44
_SIZE = re.compile(r"^(\d+)\s*([kKmM])?$")
_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}
# No coding agent's instructions and tools leave room for an answer below; Claude Code alone needs far more.
_LEAST_WINDOW = 4096


def _tokens(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """A number of tokens: 131072, 128K or 1M."""
    if value is None:
        return None
    found = _SIZE.match(value.strip().replace(",", ""))
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"{value} is not a number of tokens; write 131072 or 128K")
    tokens = int(found[1]) * _UNITS[(found[2] or "").lower()]
    if tokens < _LEAST_WINDOW:
        raise click.BadParameter(
            f"no agent's request fits into {tokens:,} tokens: Claude Code's first has {FIRST_REQUEST_WORDS}, and "
            f"{USEFUL_WINDOW:,} is the least good window"
        )
    return tokens


def planning_options(function: _Function) -> _Function:
    """What `qiao plan` and `qiao export` ask alike."""
    for option in reversed(
        (
            click.option("--model", default=DEFAULT_MODEL, metavar="NAME", show_default=True, help=_MODEL_HELP),
            click.option("--gpus", metavar="4xH20-96G", help="Plan for these GPUs instead of this machine's."),
            click.option("--nodes", metavar="2x8xH100-80G", help="Plan for several computers."),
            click.option("--window", callback=_tokens, metavar="TOKENS", help=_WINDOW_HELP),
            click.option("--users", type=click.IntRange(1), default=1, show_default=True, help=_USERS_HELP),
            click.option("--quality", "preference", flag_value="quality", help="Prefer the most exact weights."),
            click.option("--speed", "preference", flag_value="speed", help="Prefer the fastest weights."),
            click.option("--vllm", "version", metavar="VERSION", help="The vLLM that will run it (default: newest)."),
        )
    ):
        function = option(function)
    return function


_MODEL_HELP = "A family (qwen3-235b), a repository (Qwen/…), or a folder with a config.json."
_WINDOW_HELP = "Tokens of one conversation, 131072 or 128K (default: as many as fit)."
_USERS_HELP = "Conversations that may fill their window at the same time."


@click.command("plan", short_help="Work out how to run a model on these GPUs.")
@planning_options
@click.option("--explain", "is_explained", is_flag=True, help="Print every term of the sum and every reason.")
@click.option("--json", "is_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--review",
    "script",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Read a start script and say what is wrong with it.",
)
def command(is_explained: bool, is_json: bool, script: Path | None, **asked: Any) -> int:
    """Work out how to run a model on these GPUs.

    Prints the vLLM command, the memory of each GPU, and how many conversations of which length fit. Starts nothing.
    Exit status: 0 it fits, 1 it does not.
    """
    if script is not None:
        return _review(script)
    outcome = plan(asked_for(**asked))
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(as_json(outcome)), indent=2).decode())
    elif is_explained:
        click.echo(explain(outcome))
    if not is_json:
        show(outcome, with_notes=not is_explained)
    return 0 if isinstance(outcome, Plan) else 1


def asked_for(**asked: Any) -> Request:
    """The request that the options of `planning_options` make."""
    if asked["gpus"] and asked["nodes"]:
        raise click.UsageError("--gpus and --nodes exclude each other", click.get_current_context())
    return request_of(**asked)


def _review(script: Path) -> int:
    faults = review.review(script.read_text("utf-8", "replace"))
    for fault in faults:
        say_warning(f"line {fault.line}: {fault.text}")
        say(f"         {fault.mend}")
    if not faults:
        say_note(f"Nothing known to be wrong in {script}.")
    return 1 if faults else 0


def show(outcome: Outcome, *, with_notes: bool = True, on_stderr: bool = False) -> None:
    """The outcome for a person: the picture and the command, or what is missing and what is near."""
    lines = _plan_lines(outcome) if isinstance(outcome, Plan) else _refusal_lines(outcome)
    for line in lines:
        click.echo(line, err=on_stderr)
    if isinstance(outcome, Plan) and outcome.nodes > 1:
        say_note(_SEVERAL_NODES)
    if with_notes:
        for warning in outcome.warnings:
            say_note(warning.text)


_SEVERAL_NODES = (
    "On each computer add --node-rank 0, 1, … and --master-addr with the first one's address, and --headless "
    "on all but the first. `qiao export shell` writes a script that does."
)


def _plan_lines(made: Plan) -> Iterator[str]:
    yield f"{made.model.repository} on {made.machine}: {made.division}"
    for line in picture(made, unicode=_is_unicode()):
        yield f"  {line}"
    times = (
        f"{made.concurrency:.1f} conversations" if made.concurrency < 100 else f"{made.concurrency:.0f} conversations"
    )
    yield f"  window {made.window:,} tokens; {made.tokens:,} tokens of cache hold {times} of that length"
    if made.replicas > 1:
        yield f"  room for {made.replicas} of these, one on each computer"
    yield ""
    for name, value in made.environment.items():
        yield f"{name}={shlex.quote(value)} \\"
    yield _wrapped(made.command)


def _refusal_lines(refused: Refusal) -> Iterator[str]:
    yield refused.message
    for reason in refused.reasons:
        yield f"  {reason.about}: {reason.text}"
    if refused.nearest:
        yield "what fits:"
    for near in refused.nearest:
        yield f"  {near.text}\n      {near.command}"


def _wrapped(words: tuple[str, ...]) -> str:
    """A command line with one flag a line, for any POSIX shell."""
    lines: list[list[str]] = [list(words[:3])]
    for word in words[3:]:
        if word.startswith("--"):
            lines.append([word])
        else:
            lines[-1].append(word)
    return " \\\n  ".join(shlex.join(line) for line in lines)


def picture(made: Plan, *, unicode: bool) -> list[str]:
    """One bar for the GPUs of each pipeline stage: weights, what runs, cache, and what is left alone."""
    marks = ("█", "▒", "░", "·") if unicode else ("#", "+", "-", ".")
    each = made.division.tensor * made.division.data
    lines = []
    for memory in made.memory:
        first = memory.stage * each
        which = f"GPU {first}" if each == 1 else f"GPU {first}-{first + each - 1}"
        lines.append(f"{which:<10} [{_bar(memory, marks)}] {memory.total / GIB:.1f} GiB each")
    tightest = made.tightest
    shares = (tightest.weights, tightest.used - tightest.weights, tightest.cache, tightest.outside)
    names = ("weights", "running", "cache", "left alone")
    parts = [f"{mark} {name} {share / GIB:.1f}" for mark, name, share in zip(marks, names, shares, strict=True)]
    return [*lines, f"{'':<10}  {'   '.join(parts)} GiB"]


def _bar(memory: GpuMemory, marks: tuple[str, str, str, str]) -> str:
    shares = (memory.weights, memory.used - memory.weights, max(memory.cache, 0), memory.outside)
    ends = [round(sum(shares[: index + 1]) / memory.total * _BAR) for index in range(4)]
    widths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return "".join(mark * width for mark, width in zip(marks, widths, strict=True))


def _is_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
