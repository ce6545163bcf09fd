"""From a configuration to a gateway that listens: the one place where the parts are put together."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TextIO

from qiao.app.binding import cannot_listen
from qiao.app.gateway import Gateway, Settings
from qiao.app.server import Listening, listen
from qiao.config import Config
from qiao.errors import ConfigurationError
from qiao.ledger.keys import KeyRing
from qiao.observability.logs import RequestLog
from qiao.observability.metrics import Metrics
from qiao.observability.record import RecentRecords, RequestRecord
from qiao.policies.models import Names
from qiao.policies.prepare import Switches
from qiao.policies.text_mode import ENGINE
from qiao.upstream.base import Upstream
from qiao.upstream.openai import OpenAIUpstream


class Observers:
    """Who reads the record of every request: the numbers, the log, and the last few for whoever asks."""

    def __init__(self, config: Config, stream: TextIO) -> None:
        self.metrics = Metrics()
        self.recent = RecentRecords()
        self.log = RequestLog(stream, level=config.log.level, as_json=config.log.json)

    def __call__(self, record: RequestRecord) -> None:
        self.metrics.finish(record)
        self.recent.add(record)
        self.log.write(record)


def configured_upstream(config: Config) -> OpenAIUpstream:
    """The upstream that `--upstream` names. Raises ConfigurationError where none is named. Needs the running loop."""
    url = config.upstream.url
    if url is None:
        raise ConfigurationError(
            "No upstream is named.",
            hint="--upstream http://HOST:PORT/v1 names the server that runs the model; `qiao up` starts one.",
        )
    root, _, version = url.rpartition("/")
    return OpenAIUpstream(
        root,
        prefix=f"/{version}",
        api_key=config.upstream.api_key.reveal() if config.upstream.api_key else None,
        flavor=None if config.upstream.flavor == "auto" else config.upstream.flavor,
        model=config.models.main,
        connect_timeout=config.upstream.connect_timeout,
        queue_limit=config.upstream.queue_limit,
        on_overflow=config.context.on_overflow,
    )


def build_gateway(config: Config, upstream: Upstream, observers: Observers) -> Gateway:
    """The gateway that `config` describes, in front of `upstream`."""
    keys = KeyRing([config.auth.api_key] if config.auth.api_key is not None and not config.auth.no_auth else [])

    def accepts(headers: Mapping[str, str]) -> bool:
        return keys.accepts(headers.get("x-api-key"), headers.get("Authorization"))

    def tenant(headers: Mapping[str, str]) -> str:
        return keys.tenant(headers.get("x-api-key"), headers.get("Authorization"))

    models = config.models
    return Gateway(
        upstream,
        names=Names(main=models.main, small=models.small, subagent=models.subagent, exact=models.map),
        main_plain_id=models.name,
        accepts=accepts,
        tenant=tenant,
        settings=Settings(
            max_body=config.server.max_body,
            max_header=config.server.max_header,
            body_timeout=config.server.body_timeout,
            ping_interval=config.server.ping_interval,
            silence_timeout=config.upstream.silence_timeout,
        ),
        metrics=observers.metrics,
        observe=observers,
        warn=observers.log.warn,
        switches=_switches(config),
        cache_salt=config.upstream.cache_salt,
        probe=upstream.probe if isinstance(upstream, OpenAIUpstream) else None,
    )


def _switches(config: Config) -> Switches:
    # The embedded engine writes its calls under a grammar of its own.
    parser = config.tools.parser if config.upstream.url is not None else ENGINE
    history = config.models.reasoning_history
    return Switches(
        reasoning=None if history == "auto" else history,
        tool_parser=parser,
        repair=not config.tools.no_repair,
        guided=config.tools.guided,
    )


async def start(config: Config, upstream: Upstream, observers: Observers) -> Listening:
    """Listen. Raises `StartError` when the address cannot be bound; the upstream is closed then."""
    gateway = build_gateway(config, upstream, observers)
    try:
        return await listen(
            gateway,
            host=config.server.host,
            port=config.server.port,
            needs_key=not config.auth.no_auth,
            grace=config.server.shutdown_grace,
        )
    except OSError as problem:
        await upstream.close()
        raise cannot_listen(config.server.host, config.server.port, problem) from problem


async def serve(config: Config, *, ready: Callable[[Listening], object]) -> None:
    """Serve the configured upstream until SIGINT or SIGTERM. `ready` is called once connections are accepted."""
    listening = await start(config, configured_upstream(config), Observers(config, sys.stderr))
    try:
        ready(listening)
        await until_signal()
    finally:
        await listening.stop()


async def until_signal(also: Awaitable[None] | None = None) -> None:
    """Wait for SIGINT or SIGTERM, or for `also` to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    waiting: list[asyncio.Future[object]] = [asyncio.ensure_future(stop.wait())]
    if also is not None:
        waiting.append(asyncio.ensure_future(also))
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waiting:
            task.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
