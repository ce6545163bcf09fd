"""`qiao serve`: the gateway in front of a server that runs the model."""

from __future__ import annotations

from typing import Any

import click

from qiao.app.announce import announcing
from qiao.app.loop import run
from qiao.app.serve import serve
from qiao.cli.options import configured, flags_of
from qiao.cli.words import say, say_note
from qiao.config import Config
from qiao.ledger.running import Running


@click.command("serve", short_help="Serve the gateway for a model that runs elsewhere.")
@flags_of("upstream", "models", "server", "auth", "folders.state", "log")
def command(config_file: str | None, **flags: Any) -> None:
    """Serve the gateway for a model that runs elsewhere.

    The upstream is any server with OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, LM Studio. It may start
    after the gateway. `qiao up` starts a model as well.
    """
    config = configured(flags, config_file, serving=True)

    def tell(gateway: Running) -> None:
        say(
            f"qiao serves {gateway.url} for {config.upstream.url}. Connect with `{connect_command(config)}`; {key_words(config)}"
        )

    with announcing(config, tell) as ready:
        run(serve(config, ready=ready))
    say_note("Stopped.")


def connect_command(config: Config) -> str:
    """The command that runs Claude Code on this gateway, from any folder of this machine."""
    if config.origin("folders.state").kind == "default":
        return "qiao claude"
    return f"qiao claude --state {config.folders.state}"


def key_words(config: Config) -> str:
    """Where other clients get the key from."""
    if config.auth.no_auth:
        return "no key is asked for."
    origin = config.origin("auth.api_key")
    return "`qiao key` prints the key." if origin.kind == "state" else f"the key is the one from {origin}."
