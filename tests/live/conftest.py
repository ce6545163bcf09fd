"""Fixtures on a real vLLM. `stage`: with parsers, which are left to read calls; `bare`: started without any.

`stages()`: the first server, whose tool parser the gateway passes by of its own choice.
`stages(Setup(...), *options of qiao serve)` makes others; servers and gateways are started once a run and kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.live.stage import Stage
from tests.live.vllm.server import Pool, Setup, absence
from tests.support.background import Background
from tests.support.gateway import Gateway, gateway, tools_known
from tests.support.tap import Tap, tapping

KEY = "sk-live-key-of-one-run-52d9"
PARSING = Setup()
BARE = Setup(parser="off", reasoning="off")
HERE = Path(__file__).parent


class Stages(Protocol):
    """Makes a stage. `apart`: a word that gives it a gateway of its own, for tests of what a gateway learns."""

    def __call__(self, setup: Setup = PARSING, *arguments: str, apart: str = "") -> Stage: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder is `live`. Tests that share a server stand together; those that kill one come late."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.live)
    order = {"stage": 0, "bare": 1, "doomed": 2, "final_tally": 3}

    def place(item: pytest.Item) -> int:
        return max((order.get(name, 0) for name in getattr(item, "fixturenames", ())), default=0)

    places = [index for index, item in enumerate(items) if item in ours]
    for index, item in zip(places, sorted(ours, key=place), strict=True):
        items[index] = item


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """The running servers. Skips, with the reason, where this machine cannot have vLLM."""
    reason = absence()
    if reason is not None:
        pytest.skip(reason)
    with Pool(tmp_path_factory.mktemp("engines")) as running:
        yield running


@pytest.fixture(scope="session")
def _made(pool: Pool, background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with contextlib.ExitStack() as stack:
        known: dict[object, tuple[Gateway, Tap, Tap]] = {}

        def made(setup: Setup = PARSING, *arguments: str, apart: str = "") -> Stage:
            server = pool.server(setup)
            identity = (server.url, arguments, apart)
            if identity not in known:
                behind = background.enter(tapping(server.url))
                home = tmp_path_factory.mktemp("gateway")
                front = stack.enter_context(gateway(behind.url, home, *arguments, key=KEY))
                # It answers before it has looked at the engine, and is ready when it has.
                tools_known(front.url, limit=300.0)
                known[identity] = (front, background.enter(tapping(front.url)), behind)
            front, tap, behind = known[identity]
            return Stage(server, front, tap, behind)

        yield made


@pytest.fixture
def stages(_made: Stages) -> Iterator[Stages]:
    used: list[Stage] = []

    def begun(setup: Setup = PARSING, *arguments: str, apart: str = "") -> Stage:
        stage = _made(setup, *arguments, apart=apart)
        stage.begin()
        used.append(stage)
        return stage

    yield begun
    for stage in used:
        stage.judge()


@pytest.fixture
def stage(stages: Stages) -> Stage:
    """vLLM with the hermes tool parser and the qwen3 reasoning parser, and both are trusted."""
    return stages(PARSING, "--tool-parser", "engine")


@pytest.fixture
def bare(stages: Stages) -> Stage:
    """vLLM that was started without a parser."""
    return stages(BARE)


@pytest.fixture
def doomed(stages: Stages, pool: Pool) -> Iterator[Stage]:
    """A server that the test may kill; the next test gets a new one."""
    pool.own(BARE)
    stage = stages(BARE)
    yield stage
    pool.forget(BARE)
