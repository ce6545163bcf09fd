"""`qiao export`: a plan as files that start it elsewhere, each whole or not at all, never over somebody's edits."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import click
import msgspec

from qiao.cli.plan import asked_for, planning_options, show
from qiao.cli.words import say, say_note
from qiao.errors import ConfigurationError
from qiao.exports import FORMATS, Format, Settings, render
from qiao.exports.render import WITHOUT_DATA_PARALLEL, is_program
from qiao.exports.stamp import is_untouched
from qiao.planner.choose import plan
from qiao.planner.plan import Plan


@click.command("export", short_help="Write the files that start a plan elsewhere.")
@click.argument("kind", metavar="FORMAT", type=click.Choice(list(FORMATS)))
@planning_options
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder to write to.")
@click.option("--stdout", "is_printed", is_flag=True, help="Print the files instead of writing them.")
@click.option("--force", is_flag=True, help="Write over files that were edited by hand.")
@click.option("--engine-image", metavar="IMAGE", help="Container image of the engine (default: the official one).")
@click.option("--gateway-image", metavar="IMAGE", help="Container image of the gateway.")
def command(
    kind: Format,
    out: Path,
    is_printed: bool,
    force: bool,
    engine_image: str | None,
    gateway_image: str | None,
    **asked: Any,
) -> int:
    """Write the files that start a plan elsewhere.

    \b
    shell        bash scripts for the engine and the gateway
    powershell   start_vllm.ps1: runs on Windows, starts the engine in WSL
    systemd      two units for one computer
    compose      Docker Compose for one computer
    kubernetes   a Deployment, or a LeaderWorkerSet for several computers
    ray          Ray Serve LLM for one or several computers
    litellm      litellm_config.yaml, for LiteLLM in front of the gateway

    The plan is the one that `qiao plan` shows for the same options; for ray, one without data parallel. Exit status:
    0 written, 1 it does not fit.
    """
    request = asked_for(**asked)
    outcome = plan(request)
    if isinstance(outcome, Plan) and outcome.division.data > 1 and kind in WITHOUT_DATA_PARALLEL:
        say_note(f"{kind} starts data parallel in another way: this is a plan without it, not {outcome.division}.")
        outcome = plan(msgspec.structs.replace(request, data_parallel=False))
    if not isinstance(outcome, Plan):
        show(outcome)
        return 1
    settings = Settings(engine_image=engine_image)
    if gateway_image:
        settings = Settings(engine_image=engine_image, gateway_image=gateway_image)
    files = render(outcome, kind, settings)
    if is_printed:
        for name, text in files.items():
            click.echo(f"# ==> {name} <==" if len(files) > 1 else "", nl=len(files) > 1)
            click.echo(text, nl=False)
        return 0
    _write(out, files, force=force)
    for warning in outcome.warnings:
        say_note(warning.text)
    return 0


def _write(folder: Path, files: dict[str, str], *, force: bool) -> None:
    """What must not be written over is found before the first file is written."""
    try:
        edited = [name for name in files if _is_edited(folder / name)]
    except OSError as problem:
        raise ConfigurationError(f"{problem.filename or folder} cannot be read: {problem.strerror}.") from problem
    if edited and not force:
        raise ConfigurationError(
            f"{' and '.join(edited)} in {folder} {'was' if len(edited) == 1 else 'were'} edited by hand, or written by "
            "something else; nothing was written.",
            hint="Write elsewhere with --out FOLDER, or over them with --force.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            told = _replace(folder / name, text, executable=is_program(name))
            say(f"{told} {folder / name}")
    except OSError as problem:
        raise ConfigurationError(f"{folder} cannot be written: {problem.strerror}.") from problem


def _is_edited(path: Path) -> bool:
    try:
        return not is_untouched(path.read_bytes().decode("utf-8", "replace"))
    except FileNotFoundError:
        return False


def _replace(path: Path, text: str, *, executable: bool) -> str:
    """Write beside and move into place: a reader sees the old text or the new one."""
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return "unchanged"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as stream:
            stream.write(data)
        if executable:
            temporary.chmod(0o755)
        existed = path.exists()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return "replaced" if existed else "wrote"
