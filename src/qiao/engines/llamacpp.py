"""The embedded engine: llama.cpp's own server (xllamacpp) in a child process on loopback.

engine = EmbeddedEngine(EngineSettings(model=path), environment=config.environment(), on_event=show)
endpoint = await engine.start()      # Endpoint(address, key)
...
await engine.stop()
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from qiao.engines import requirements
from qiao.engines.base import Endpoint, EngineEvent, OnEvent, ignore
from qiao.engines.cores import usable_cores
from qiao.engines.gguf import GgufFacts, copy_with_context, read_facts
from qiao.engines.llamacpp_child import ChildSettings
from qiao.engines.supervised import Supervised
from qiao.engines.supervisor import Command, Policy, Supervisor
from qiao.errors import ConfigurationError

DEFAULT_CONTEXT = 8192
"""Tokens, where a model file does not say its own."""

LARGEST_DEFAULT_CONTEXT = 32_768
"""A larger window costs memory from the start, so that it has to be asked for."""

_YARN_FACTOR = 2
_PROGRESS_INTERVAL = 0.5
# Threads that spin while they wait take the cores from everything else on the machine.
_OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}


class EngineSettings(msgspec.Struct, frozen=True):
    """How to run the engine.

    * `model`: a GGUF file. `alias`: the name under which it is served; None: the file's own.
    * `context`: tokens; None: the model's own, up to `LARGEST_DEFAULT_CONTEXT`.
    * `yarn`: twice the model's own window. A copy of the file is kept in `cache`.
    * `prefill_threads`: None: all cores. `cache_mebibytes`: bound of the prompt cache in memory.
    """

    model: Path
    cache: Path
    alias: str | None = None
    context: int | None = None
    yarn: bool = False
    prefill_threads: int | None = None
    decode_threads: int = 1
    cache_mebibytes: int = 1024
    flash_attention: bool = True


class EmbeddedEngine(Supervised):
    """One engine process with its supervisor. `environment`: that of the process, complete."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        environment: Mapping[str, str],
        policy: Policy | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self._settings = settings
        self._environment = {**environment, **_OPENMP}
        self._key = secrets.token_urlsafe(24)
        self._on_event = on_event
        self._child: ChildSettings | None = None
        self._watch: asyncio.Task[None] | None = None
        super().__init__(Supervisor("embedded engine", self._command, policy=policy, on_event=on_event))

    @property
    def restarts(self) -> int:
        return self._supervisor.restarts

    @property
    def log(self) -> tuple[str, ...]:
        """The engine's last lines."""
        return tuple(self._supervisor.log)

    @property
    def window(self) -> int:
        """Tokens of prompt and answer together; known after `start`."""
        return self._child.context if self._child is not None else DEFAULT_CONTEXT

    async def start(self) -> Endpoint:
        """Returns when the model answers. Raises `StartError`, or `ConfigurationError` for an unusable model file."""
        requirements.check()
        self._child = await asyncio.to_thread(self.prepare)
        self._watch = asyncio.create_task(self._tell_progress())
        try:
            address = await self._supervisor.start()
        finally:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        return Endpoint(address, self._key)

    def prepare(self) -> ChildSettings:
        """What the process will be told. Reads the model's head, and writes a stretched copy for YaRN."""
        settings = self._settings
        facts = read_facts(settings.model)
        context, original = _window(settings, facts)
        model = settings.model if original is None else _stretched(settings, context)
        return ChildSettings(
            model=str(model),
            key=self._key,
            alias=settings.alias or model_name(settings.model),
            parent=os.getpid(),
            context=context,
            original_context=original,
            prefill_threads=settings.prefill_threads or usable_cores(),
            decode_threads=settings.decode_threads,
            cache_mebibytes=settings.cache_mebibytes,
            flash_attention=settings.flash_attention,
        )

    def _command(self, address: str | None) -> Command:
        """Started again, the engine comes back under its address, because the gateway knows it by that."""
        if self._child is None:
            raise RuntimeError("the engine is prepared before it is started")
        port = urlsplit(address).port or 0 if address else 0
        child = msgspec.structs.replace(self._child, port=port)
        return Command(
            (sys.executable, "-P", "-m", "qiao.engines.llamacpp_child"),
            self._environment,
            msgspec.json.encode(child) + b"\n",
        )

    async def _tell_progress(self) -> None:
        """The engine says nothing while it loads, but its memory grows by the model's size."""
        size = _size(self._settings.model)
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL)
            resident = _resident(self.pid)
            if self.state == "loading" and resident is not None and size:
                fraction = min(resident / size, 0.99)
                self._on_event(EngineEvent("loading", "Loading the model.", fraction))


# Endings that say how the weights are stored: Q4_1, Q4_K_M, IQ3_XS, F16.
_STORAGE = re.compile(r"[-_.](?:i?q\d\w*|b?f16|fp16|f32)$")


def model_name(path: Path) -> str:
    """The plain name of a model file: `SmolLM2-135M-Instruct.Q4_1.gguf` → `smollm2-135m-instruct`."""
    return _STORAGE.sub("", path.name.lower().removesuffix(".gguf")) or "model"


def _window(settings: EngineSettings, facts: GgufFacts) -> tuple[int, int | None]:
    """The window, and the trained one if it is stretched."""
    own = facts.context or DEFAULT_CONTEXT
    if settings.yarn:
        stretched = own * _YARN_FACTOR
        if settings.context is not None and settings.context > stretched:
            raise ConfigurationError(
                f"A window of {settings.context} tokens is more than YaRN gives this model ({stretched}).",
                hint="Ask for less with --context.",
            )
        return settings.context or stretched, own
    if settings.context is not None and settings.context > own:
        raise ConfigurationError(
            f"This model was made for {own} tokens, and --context asks for {settings.context}.",
            hint=f"Ask for at most {own}, or add --yarn to double the window at some loss.",
        )
    return settings.context or min(own, LARGEST_DEFAULT_CONTEXT), None


def _stretched(settings: EngineSettings, context: int) -> Path:
    settings.cache.mkdir(parents=True, exist_ok=True)
    target = settings.cache / f"{settings.model.stem}.{context}.gguf"
    if not target.exists() or target.stat().st_size != settings.model.stat().st_size:
        copy_with_context(settings.model, target, context)
    return target


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _resident(pid: int | None) -> int | None:
    """Bytes of memory of a process (Linux)."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
