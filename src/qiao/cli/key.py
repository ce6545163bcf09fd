"""`qiao key`: the gateway's key on stdout."""

from __future__ import annotations

from typing import Any

import click

from qiao.cli.options import configured, flags_of
from qiao.cli.words import say_note, say_warning
from qiao.ledger import keys
from qiao.ledger.running import running


@click.command("key", short_help="Print the gateway's key, or make a new one.")
@click.option("--new", is_flag=True, help="Make a new key; the old one stops working at the gateway's next start.")
@flags_of("folders.state")
def command(new: bool, config_file: str | None, **flags: Any) -> None:
    """Print the gateway's key, or make a new one.

    The key is made on first use and kept in a file that only you can read; while a gateway runs here, its key is
    printed. Clients show it as x-api-key or as Authorization: Bearer.
    """
    config = configured(flags, config_file)
    if new:
        stored = keys.rotate(config.folders.state)
        say_note(f"New key in {stored.path}. A gateway that runs keeps the old one until it is started again.")
        if config.auth.api_key is not None:
            say_warning(f"{config.origin('auth.api_key')} sets another key, and that one wins.")
        click.echo(stored.secret.reveal())
        return
    serving = next((each for each in running(config.folders.state) if each.key is not None), None)
    if serving is not None and serving.key is not None:
        say_note(f"The key of the gateway that runs at {serving.url}.")
        click.echo(serving.key.reveal())
        return
    if config.auth.api_key is not None:
        say_note(f"This key comes from {config.origin('auth.api_key')}.")
        click.echo(config.auth.api_key.reveal())
        return
    stored = keys.load_or_create(config.folders.state)
    if stored.created:
        say_note(f"Made a key and stored it in {stored.path}.")
    if stored.was_readable:
        say_warning(f"{stored.path} was readable by others; it no longer is. `qiao key --new` makes a fresh key.")
    click.echo(stored.secret.reveal())
