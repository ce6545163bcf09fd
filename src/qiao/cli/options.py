"""The flags of a command, made from the declarations in `qiao.config`, and what was given with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from qiao.cli.words import say_warning
from qiao.config import Config, environment, options, resolve
from qiao.ledger.keys import admit
from qiao.options import Option

_Function = TypeVar("_Function", bound=Callable[..., Any])


def flags_of(*keys: str) -> Callable[[_Function], _Function]:
    """Add the flags of these options (`section`, or `section.name`) and `--config` to a command."""
    wanted = [each for each in options() if each.about.flag and (each.section in keys or each.key in keys)]

    def decorate(function: _Function) -> _Function:
        function = click.option("--config", "config_file", metavar="FILE", help="Settings file [QIAO_CONFIG].")(
            function
        )
        for each in reversed(wanted):
            function = _flag(each)(function)
        return function

    return decorate


def _flag(each: Option) -> Callable[[_Function], _Function]:
    name = f"{each.section}__{each.name}"
    flag = each.about.flag or ""
    if each.kind == "boolean":
        return click.option(flag, name, is_flag=True, default=None, help=_help(each))
    return click.option(flag, name, metavar=each.metavar, default=None, help=_help(each))


def _help(each: Option) -> str:
    facts = [", ".join(each.choices)] if each.choices else []
    if each.default not in (None, False, Path()):
        facts.append(f"default: {_default(each)}")
    if each.variable:
        facts.append(each.variable)
    return f"{each.about.help[0].upper()}{each.about.help[1:]} [{'; '.join(facts)}]."


def _default(each: Option) -> str:
    if each.kind == "size" and isinstance(each.default, int):
        return f"{each.default // 2**20}MiB"
    if each.kind == "seconds" and isinstance(each.default, float):
        return f"{each.default:g}s"
    return str(each.default)


def configured(
    flags: Mapping[str, Any], config_file: str | None, *, file_in_folder: bool = True, serving: bool = False
) -> Config:
    """The configuration of a command that got these flags; `serving`: with the key decided. Says what to warn of."""
    config = resolve(
        {name.replace("__", "."): value for name, value in flags.items()},
        variables=environment(),
        folder=Path.cwd(),
        file=config_file,
        file_in_folder=file_in_folder,
    )
    if serving:
        config = admit(config)
    for warning in config.warnings:
        say_warning(warning)
    return config
