"""How qiao talks to people: on stderr, readable without colour. stdout is for data."""

from __future__ import annotations

import sys

import click

from qiao.config import colour_wanted


def say(text: str) -> None:
    """A line for the person at the terminal."""
    click.echo(text, err=True)


def say_error(message: str, hint: str | None = None) -> None:
    """What went wrong, and after it how to mend it."""
    _labelled("error", "red", message)
    if hint:
        _labelled("hint", "cyan", hint)


def say_warning(message: str) -> None:
    """Something to act on, now or later."""
    _labelled("warning", "yellow", message)


def say_note(message: str) -> None:
    """Something that was decided for the person."""
    _labelled("note", "cyan", message)


def _labelled(label: str, colour: str, message: str) -> None:
    mark = click.style(f"{label}:", fg=colour, bold=True) if colour_wanted(sys.stderr) else f"{label}:"
    click.echo(f"{mark} {message}", err=True, color=True)
