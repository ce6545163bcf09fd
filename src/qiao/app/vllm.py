"""vLLM as `qiao up` starts it: the plan made, its model found or fetched, its process watched, its upstream made."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from qiao.app.planning import is_for_vllm, request_of
from qiao.app.serve import configured_upstream
from qiao.config import Config, Origin, environment
from qiao.engines import vllm
from qiao.engines.base import EngineEvent, OnEvent
from qiao.engines.vllm import VllmEngine, VllmSettings
from qiao.errors import ConfigurationError, StartError
from qiao.options import Secret
from qiao.planner.choose import plan
from qiao.planner.plan import Outcome, Plan
from qiao.upstream.hub import Hub
from qiao.upstream.hub_cache import cache_folder, cached
from qiao.upstream.openai import OpenAIUpstream

LOG_NAME = "vllm.log"
"""In the state folder: all that vLLM wrote in its last run."""

_OWN = Origin("state", "the engine started here")


class Planned(msgspec.Struct, frozen=True):
    """What the planner says, and of which vLLM. `version` None: the installation does not tell, or there is none."""

    outcome: Outcome
    version: str | None
    is_installed: bool


def is_wanted(config: Config) -> bool:
    """Whether the configuration asks for a model that vLLM runs."""
    main = config.models.main
    return config.upstream.url is None and config.engine.gguf is None and main is not None and is_for_vllm(main)


def planned(config: Config) -> Planned:
    """The plan for `--model` on this machine, in the words of the vLLM that is installed here. Starts nothing."""
    variables = environment()
    version, is_installed = None, True
    try:
        version = vllm.version(vllm.find(config.engine.vllm, variables.get("PATH")), variables)
    except StartError:
        is_installed = False
    request = request_of(
        model=config.models.main or "",
        gpus=config.engine.gpus,
        window=config.engine.context,
        users=config.engine.users,
        preference=config.engine.prefer,
        version=version,
        disk=config.folders.cache,
    )
    return Planned(plan(request), version, is_installed)


class RunningVllm:
    """See `app.up.RunningEngine`."""

    def __init__(self, engine: VllmEngine, upstream: OpenAIUpstream, config: Config) -> None:
        self.engine = engine
        self.upstream = upstream
        self.config = config

    async def ended(self) -> None:
        """Waits until the engine is given up; raises `StartError` that says why."""
        await self.engine.wait_until("failed", "stopped")
        raise self.engine.failure or StartError("vLLM was stopped.")


def arguments(config: Config, made: Plan, model: str | None = None) -> tuple[str, ...]:
    """What stands after `vllm serve`: the plan's words, the model's folder for its name, and what the person added."""
    words = list(made.arguments)
    if model is not None:
        words[0] = model
    try:
        more = shlex.split(config.engine.vllm_arguments or "")
    except ValueError as error:
        place = config.origin("engine.vllm_arguments")
        raise ConfigurationError(f"{place} cannot be read: {error}.", hint="Quote it as for a shell.") from None
    return (*words, *more)


@contextlib.asynccontextmanager
async def start_vllm(config: Config, made: Plan, on_event: OnEvent) -> AsyncIterator[RunningVllm]:
    """Start the engine of a plan; it is stopped at the end of the block. Raises a QiaoError."""
    variables = environment()
    program = vllm.find(config.engine.vllm, variables.get("PATH"))
    model = await _model(config, made, on_event)
    settings = VllmSettings(
        program=program,
        arguments=arguments(config, made, str(model)),
        log=config.folders.state / LOG_NAME,
        # The model lies here: nothing has to be asked of a hub, and nothing is told to anybody.
        variables={"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", **made.environment},
    )
    engine = VllmEngine(settings, environment=variables, on_event=on_event)
    try:
        endpoint = await engine.start()
        known = config.replace("models.main", made.served_name, config.origin("models.main"))
        known = known.replace("upstream.url", f"{endpoint.address}/v1", _OWN)
        known = known.replace("upstream.api_key", Secret(endpoint.key), _OWN)
        upstream = configured_upstream(known)
        try:
            yield RunningVllm(engine, upstream, known)
        finally:
            await upstream.close()
    finally:
        await engine.stop()


async def _model(config: Config, made: Plan, on_event: OnEvent) -> Path:
    """The model's folder: its own, the one that Hugging Face's programs filled, or ours, filled now."""
    repository = made.model.repository
    if made.model.is_local:
        return Path(repository)
    known = cached(repository, cache_folder(environment()))
    if known is not None:
        return known
    token = config.engine.hub_token.reveal() if config.engine.hub_token else None

    def tell(done: int, total: int) -> None:
        message = f"Downloading {repository} ({total / 2**30:,.1f} GiB)."
        on_event(EngineEvent("starting", message, done / total if total else None))

    async with Hub(config.engine.hub, token=token, kind=config.engine.hub_kind) as hub:
        return await hub.snapshot(repository, config.folders.cache / "models", on_bytes=tell)
