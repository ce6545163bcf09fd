"""`qiao serve`: the gateway in front of a server that runs the model."""

from __future__ import annotations

from typing import Any

import click

from qiao.app.announce import announcing
from qiao.app.loop import run
from qiao.app.serve import serve
from qiao.cli.connecting import connect_command, key_words, reach_words
from qiao.cli.options import configured, flags_of
from qiao.cli.words import say, say_note
from qiao.ledger.running import Running


@click.command("serve", short_help="Serve the gateway for a model that runs elsewhere.")
@flags_of("upstream", "models", "context", "tools", "server", "auth", "folders.state", "log")
def command(config_file: str | None, **flags: Any) -> None:
    """Serve the gateway for a model that runs elsewhere.

    The upstream is any server with OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, LM Studio. It may start
    after the gateway. `qiao up` starts a model as well.
    """
    config = configured(flags, config_file, serving=True)

    def tell(gateway: Running) -> None:
        connect = f"Connect with `{connect_command(config)}`; {key_words(config)}"
        say(f"qiao serves {gateway.url} for {config.upstream.url}. {connect}{reach_words(config)}")

    with announcing(config, tell) as ready:
        run(serve(config, ready=ready))
    say_note("Stopped.")
