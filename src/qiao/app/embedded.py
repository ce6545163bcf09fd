"""The embedded engine as `qiao up` starts it: its model found or fetched, its process watched, its upstream made."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from qiao import profiles
from qiao.config import Config, environment
from qiao.core.llamacpp.request import Options
from qiao.engines import models, requirements
from qiao.engines.base import Endpoint, EngineEvent, OnEvent
from qiao.engines.llamacpp import EmbeddedEngine, EngineSettings, model_name
from qiao.errors import ConfigurationError, StartError
from qiao.policies.shorten import DEFAULT_TARGET, target_for
from qiao.upstream.hub import Hub
from qiao.upstream.llamacpp import Choices, LlamaCppUpstream

_OWN_NAME = model_name(Path(models.SMOLLM2.file))
_OWN_NAMES = frozenset({_OWN_NAME, profiles.find(_OWN_NAME).plain_id})


class RunningEmbedded:
    """See `app.up.RunningEngine`."""

    def __init__(self, engine: EmbeddedEngine, upstream: LlamaCppUpstream, config: Config) -> None:
        self.engine = engine
        self.upstream = upstream
        self.config = config

    async def ended(self) -> None:
        """Waits until the engine is given up; raises `StartError` that says why."""
        await self.engine.wait_until("failed", "stopped")
        raise self.engine.failure or StartError("The embedded engine was stopped.")


@contextlib.asynccontextmanager
async def start_embedded(config: Config, on_event: OnEvent) -> AsyncIterator[RunningEmbedded]:
    """Start the engine that `config` describes; it is stopped at the end of the block. Raises a QiaoError."""
    requirements.check()
    path, alias = await _model(config, on_event)
    if config.engine.gguf is not None:
        # The file's own name is what is served.
        config = config.replace("models.main", None, config.origin("models.main"))
    engine = EmbeddedEngine(
        EngineSettings(
            model=path,
            cache=_folder(config),
            alias=alias,
            context=config.engine.context,
            yarn=config.engine.yarn,
            prefill_threads=config.engine.threads,
        ),
        environment=environment(),
        on_event=on_event,
    )
    try:
        endpoint = await engine.start()
        choices = _choices(config, alias)
        if alias == _OWN_NAME:
            choices = msgspec.structs.replace(choices, target=await _target(endpoint, on_event))
        upstream = LlamaCppUpstream(endpoint.address, key=endpoint.key, window=engine.window, choices=choices)
        try:
            yield RunningEmbedded(engine, upstream, config)
        finally:
            await upstream.close()
    finally:
        await engine.stop()


async def _target(endpoint: Endpoint, on_event: OnEvent) -> int:
    """Tokens to which prompts are shortened: as many as this machine reads before a person gives up."""
    upstream = LlamaCppUpstream(endpoint.address, key=endpoint.key)
    try:
        speed = await upstream.reading_speed()
    finally:
        await upstream.close()
    target = target_for(speed)
    if target < DEFAULT_TARGET:
        reads = f"reads {speed:.0f} tokens a second" if speed is not None else "reads very slowly"
        on_event(EngineEvent("ready", f"This machine {reads} now: long prompts are shortened to {target} tokens."))
    return target


def _folder(config: Config) -> Path:
    return config.folders.cache / "models"


def _choices(config: Config, alias: str | None) -> Choices:
    """The small model needs a short leash; a model that somebody chose has its own habits."""
    choices = Choices(auto_threshold=config.engine.auto_tools)
    return choices if alias == _OWN_NAME else msgspec.structs.replace(choices, options=Options())


async def _model(config: Config, on_event: OnEvent) -> tuple[Path, str | None]:
    """The model file, and the name under which clients know it."""
    if config.engine.gguf is not None:
        return config.engine.gguf, None
    named = config.models.main
    if named is not None and named.lower() not in _OWN_NAMES:
        if "/" not in named:
            raise ConfigurationError(
                f"--model {named}: the embedded engine has no model of that name.",
                hint=f"Leave --model away for its own ({_OWN_NAME}), write owner/repository (with :FILE.gguf or "
                ":Q4_K_M behind it) for one of a hub, or give a file with --gguf. A model that a server already "
                "serves: `qiao up --upstream URL`.",
            )
        token = config.engine.hub_token.reveal() if config.engine.hub_token else None
        async with Hub(config.engine.hub, token=token, kind=config.engine.hub_kind) as hub:
            tell = _telling(on_event, f"Downloading {named}.")
            return await hub.download(named, _folder(config), on_bytes=tell), named

    def show(progress: models.Progress) -> None:
        verb = "Downloading" if progress.what == "downloading" else "Unpacking"
        _telling(on_event, f"{verb} the model ({models.SMOLLM2.about}).")(progress.done, progress.total)

    path = await models.acquire(_folder(config), environment=environment(), on_progress=show)
    return path, _OWN_NAME


def _telling(on_event: OnEvent, message: str) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        on_event(EngineEvent("starting", message, min(done / total, 1.0) if total else None))

    return tell
