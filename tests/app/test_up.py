"""`qiao up`, its decisions and its course, with a fake engine in front and in the place of the embedded one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from qiao.app.self_check import Check
from qiao.app.serve import configured_upstream
from qiao.app.up import Event, Opened, Plan, Ready, RunningEngine, Waiting, decide, up
from qiao.config import Auth, Config, Engine, Folders, Log, Models, Origin, Server
from qiao.config import Upstream as UpstreamSection
from qiao.engines.base import EngineEvent, OnEvent
from qiao.errors import StartError
from qiao.ledger.running import running
from qiao.options import Secret
from qiao.upstream.base import Upstream
from tests.fakes.engine import FakeEngine, serving


def config(folder: Path, url: str | None = None, **engine: object) -> Config:
    return msgspec.structs.replace(
        Config(),
        server=Server(port=0, shutdown_grace=0.1),
        auth=Auth(api_key=Secret("sk-of-this-test")),
        upstream=UpstreamSection(url=url),
        engine=Engine(**engine),  # type: ignore[arg-type]
        folders=Folders(state=folder),
        log=Log(level="error"),
        origins={"engine.yarn": Origin("flag", "--yarn")} if engine.get("yarn") else {},
    )


def test_decisions(tmp_path: Path) -> None:
    assert decide(config(tmp_path, "http://gpu:8000/v1"), search_path="") == Plan("attach", "http://gpu:8000/v1")
    assert decide(config(tmp_path), search_path="") == Plan("embedded", "the embedded model")
    yarn = decide(config(tmp_path, "http://gpu:8000/v1", yarn=True), search_path="")
    assert isinstance(yarn, Plan)
    assert yarn.notices == ("--yarn is for an engine started here and has no effect.",)
    with pytest.raises(StartError, match="there is no such file"):
        decide(config(tmp_path, gguf=tmp_path / "missing.gguf"), search_path="")
    with pytest.raises(StartError, match="that is a folder"):
        decide(config(tmp_path, gguf=tmp_path), search_path="")


def test_a_model_beside_a_file_is_said_to_have_no_effect(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"")
    both = msgspec.structs.replace(
        config(tmp_path, gguf=file),
        models=Models(main="some-model"),
        origins={"models.main": Origin("flag", "--model"), "engine.gguf": Origin("flag", "--gguf")},
    )
    plan = decide(both, search_path="")
    assert isinstance(plan, Plan)
    assert (plan.target, plan.notices) == (str(file), ("--model has no effect beside --gguf.",))


def test_a_machine_with_gpus_is_told_what_to_do(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n", "utf-8")
    tool.chmod(0o755)
    plan = decide(config(tmp_path), search_path=str(tmp_path))
    assert isinstance(plan, Plan)
    assert plan.kind == "embedded"
    assert "qiao up --model qwen3-235b" in plan.notices[0]
    attached = decide(config(tmp_path, "http://gpu:8000/v1"), search_path=str(tmp_path))
    assert isinstance(attached, Plan)
    assert attached.notices == ()


@contextlib.asynccontextmanager
async def running_up(settings: Config, start: object = None) -> AsyncIterator[tuple[list[Event], asyncio.Task[None]]]:
    """`up` in a task, and what it reports."""
    events: list[Event] = []
    plan = decide(settings, search_path="")
    assert isinstance(plan, Plan)
    task = asyncio.create_task(up(settings, plan, events.append, start))  # type: ignore[arg-type]
    try:
        yield events, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(events: list[Event], kind: type[Event]) -> None:
    async with asyncio.timeout(15):
        while not any(isinstance(event, kind) for event in events):
            await asyncio.sleep(0.01)


async def test_attaching(tmp_path: Path) -> None:
    async with serving(FakeEngine()) as url:
        async with running_up(config(tmp_path, f"{url}/v1")) as (events, _):
            await until(events, Ready)
            assert [type(event) for event in events] == [Plan, Opened, Check, Check, Check, Check, Ready]
            ready = events[-1]
            assert isinstance(ready, Ready)
            assert ready.failed == 0, events
            assert ready.models[0].id == "qwen3-235b"
            assert running(tmp_path) == [ready.gateway]
            assert ready.gateway.key == Secret("sk-of-this-test")
        assert running(tmp_path) == []


async def test_an_upstream_that_comes_later(tmp_path: Path) -> None:
    async with serving(FakeEngine()) as url:
        port = int(url.rpartition(":")[2])
    async with running_up(config(tmp_path, f"{url}/v1")) as (events, task):
        await until(events, Waiting)
        assert not task.done()
        async with serving(FakeEngine(), port=port):
            await until(events, Ready)


class StandIn:
    """An engine that starts at once and ends when told."""

    def __init__(self, upstream: Upstream, settings: Config) -> None:
        self.upstream = upstream
        self.config = settings
        self.end = asyncio.Event()

    async def ended(self) -> None:
        await self.end.wait()
        raise StartError("The engine ended too often.", hint="Read its last words.")


async def test_an_engine_of_our_own(tmp_path: Path) -> None:
    engines: list[StandIn] = []
    stopped: list[str] = []
    async with serving(FakeEngine()) as url:
        upstream = configured_upstream(config(tmp_path, f"{url}/v1"))

        @contextlib.asynccontextmanager
        async def start(settings: Config, _: Plan, on_event: OnEvent) -> AsyncIterator[RunningEngine]:
            on_event(EngineEvent("loading", "Loading the model.", 0.5))
            engines.append(StandIn(upstream, settings))
            try:
                yield engines[0]
            finally:
                stopped.append("engine")

        async with running_up(config(tmp_path), start) as (events, task):
            await until(events, Ready)
            assert [type(event) for event in events[:3]] == [Plan, EngineEvent, Opened]
            engines[0].end.set()
            with pytest.raises(StartError, match="ended too often"):
                await asyncio.wait_for(task, 10)
    assert stopped == ["engine"]
    assert running(tmp_path) == []


@pytest.mark.parametrize("meanwhile", [False, True], ids=["before", "while the engine started"])
async def test_a_port_in_use_leaves_no_engine(tmp_path: Path, meanwhile: bool) -> None:
    told: list[str] = []
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    with socket.socket() as holder:
        if not meanwhile:
            holder.bind(("127.0.0.1", port))
            holder.listen()
        async with serving(FakeEngine()) as url:
            upstream = configured_upstream(config(tmp_path, f"{url}/v1"))

            @contextlib.asynccontextmanager
            async def start(settings: Config, _: Plan, on_event: OnEvent) -> AsyncIterator[RunningEngine]:
                told.append("started")
                holder.bind(("127.0.0.1", port))
                holder.listen()
                try:
                    yield StandIn(upstream, settings)
                finally:
                    told.append("stopped")

            taken = msgspec.structs.replace(config(tmp_path), server=Server(port=port))
            async with running_up(taken, start) as (_, task):
                with pytest.raises(StartError, match=f"Port {port}"):
                    await asyncio.wait_for(task, 10)
    assert told == (["started", "stopped"] if meanwhile else [])
