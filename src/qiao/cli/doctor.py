"""`qiao doctor`: what is wrong, why, and how to mend it; and how well any endpoint serves Claude Code."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, assert_never

import click

from qiao.cli.options import configured, flags_of
from qiao.cli.words import say, say_note
from qiao.config import colour_wanted, environment
from qiao.doctor import mending
from qiao.doctor.examine import Examination, Wishes, examine
from qiao.doctor.finding import Finding, Grade
from qiao.doctor.mending import Mending
from qiao.doctor.replay.run import LIMIT
from qiao.doctor.replay.sheet import Point, Sheet
from qiao.doctor.report import as_json
from qiao.errors import ConfigurationError
from qiao.options import Secret

_MOST = 64 * 2**20
_MARKS: dict[Grade, tuple[str, str]] = {
    "problem": ("problem", "red"),
    "warning": ("warning", "yellow"),
    "note": ("note", "cyan"),
    "ok": ("ok", "green"),
}
_VERDICTS = {"pass": ("pass", "green"), "fail": ("FAIL", "red"), "skipped": ("-", "cyan")}


@click.command("doctor", short_help="Find out what is wrong, and how to mend it.")
@click.option("--url", metavar="URL", help="Look at this Anthropic endpoint, and replay Claude Code's requests on it.")
@click.option("--upstream", metavar="URL", help="Look at this engine (an OpenAI-compatible server).")
@click.option(
    "--log",
    "logs",
    metavar="FILE",
    multiple=True,
    help="Read this log of vLLM or LiteLLM (or a start script, or LiteLLM's configuration); - is stdin.",
)
@click.option("--key", metavar="KEY", help="Key for what --url or --upstream names.")
@click.option("--model", metavar="NAME", help="Model to ask there (default: the first).")
@click.option(
    "--limit",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=LIMIT,
    show_default=True,
    help="Time for the replay.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object.")
@click.option("--fix", is_flag=True, help="Mend what is qiao's to mend; says first what it does.")
@click.option("--yes", is_flag=True, help="With --fix: also change settings files of Claude Code, keeping a copy.")
@flags_of("client.claude", "folders")
def command(
    url: str | None,
    upstream: str | None,
    logs: tuple[str, ...],
    key: str | None,
    model: str | None,
    limit: float,
    wants_json: bool,
    fix: bool,
    yes: bool,
    config_file: str | None,
    **flags: Any,
) -> int:
    """Find out what is wrong, and how to mend it.

    Without a target it looks at this machine, at Claude Code, and at the gateway that runs here. Each finding comes
    with what was seen and what to do. --url also prints a score sheet: Claude Code's requests, point by point, against
    any server that speaks Anthropic's protocol.

    Exit status: 0 well, 1 there is a problem, or a point is missed without which Claude Code does not work.
    """
    if yes and not fix:
        raise click.UsageError("--yes goes with --fix", click.get_current_context())
    config = configured(flags, config_file)
    variables = environment()
    wishes = Wishes(
        url=url,
        upstream=upstream,
        logs=tuple(_read(name) for name in logs),
        key=Secret(key) if key else None,
        model=model,
        limit=limit,
    )
    screen = _Screen(quiet=wants_json)
    found = asyncio.run(examine(config, wishes, variables, Path.cwd(), screen.told))
    mendings = mending.plan(config, variables, Path.cwd()) if not logs or url or upstream else ()
    if not wants_json:
        _print(found)
        _print_mendings(mendings, fix=fix, yes=yes)
    if fix:
        mendings = tuple(mending.mend(each) if yes or not each.foreign else each for each in mendings)
    if wants_json:
        click.echo(json.dumps(as_json(found, mendings), indent=2, ensure_ascii=False))
    elif fix:
        _print_done(mendings, yes=yes)
    return 0 if found.is_well else 1


def _read(name: str) -> tuple[str, str]:
    if name == "-":
        return "stdin", sys.stdin.buffer.read(_MOST).decode("utf-8", "replace")
    path = Path(name)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            # Of a huge log the end matters: that is where it broke.
            stream.seek(max(0, size - _MOST))
            return name, stream.read(_MOST).decode("utf-8", "replace")
    except OSError as problem:
        raise ConfigurationError(f"{name} cannot be read: {problem.strerror}.", hint="Check the path.") from None


class _Screen:
    """Progress on stderr, for people only."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def told(self, event: str | Point) -> None:
        if self._quiet:
            return
        match event:
            case str():
                say(f"… {event}")
            case Point():
                if sys.stderr.isatty():
                    say(f"  {_VERDICTS[event.verdict][0]:<5} {event.name}")
            case _:
                assert_never(event)


def _print(found: Examination) -> None:
    if found.sheet is not None:
        _print_sheet(found.sheet)
    for finding in found.findings:
        if finding.grade != "ok":
            _print_finding(finding)
    good = [finding for finding in found.findings if finding.grade == "ok"]
    for finding in good:
        click.echo(f"{_styled('ok')} {finding.check}: {finding.evidence}")
    problems = sum(1 for each in found.findings if each.grade == "problem")
    warnings = sum(1 for each in found.findings if each.grade == "warning")
    click.echo(f"\nproblems: {problems}; warnings: {warnings}; found well: {len(good)}")


def _print_finding(finding: Finding) -> None:
    click.echo(f"{_styled(finding.grade)} {finding.check} ({finding.about})")
    click.echo(f"        {finding.evidence}")
    if finding.mend:
        click.echo(f"     -> {finding.mend}")


def _print_sheet(sheet: Sheet) -> None:
    click.echo(
        f"\nClaude Code's requests on {sheet.url}{f' ({sheet.server})' if sheet.server else ''}, model {sheet.model}"
    )
    group = ""
    for point in sheet.points:
        if point.group != group:
            group = point.group
            click.echo(f"\n{group}")
        word, colour = _VERDICTS[point.verdict]
        star = "*" if point.must else " "
        click.echo(f"  {_coloured(f'{word:<5}', colour)}{star} {point.name:<24} {point.about}")
        if point.verdict != "pass":
            click.echo(f"         {point.evidence}")
    click.echo(f"\nscore: {sheet.passed} of {sheet.total} points ({sheet.count('skipped')} not judged)")
    if sheet.failed_musts:
        names = ", ".join(point.name for point in sheet.failed_musts)
        click.echo(f"without these Claude Code does not work (*): {names}")
    click.echo("")


def _print_mendings(mendings: tuple[Mending, ...], *, fix: bool, yes: bool) -> None:
    if not mendings:
        return
    click.echo("\nTo be mended:" if fix else "\n`qiao doctor --fix` would mend:")
    for each in mendings:
        note = "" if not each.foreign else "; not qiao's file" + ("" if yes else ": only with --yes")
        click.echo(f"  {each.path}: {each.what}{note}")


def _print_done(mendings: tuple[Mending, ...], *, yes: bool) -> None:
    for each in mendings:
        if each.done:
            click.echo(f"mended: {each.path}")
        elif each.foreign and not yes:
            say_note(f"{each.path} was left as it is: it is not qiao's. --fix --yes changes it, and keeps a copy.")
        else:
            say_note(f"{each.path} could not be changed.")
    if not mendings:
        click.echo("Nothing is there for --fix to mend.")


def _styled(grade: Grade) -> str:
    word, colour = _MARKS[grade]
    return _coloured(f"{word:<7}", colour)


def _coloured(text: str, colour: str) -> str:
    return click.style(text, fg=colour, bold=True) if colour_wanted(sys.stdout) else text
