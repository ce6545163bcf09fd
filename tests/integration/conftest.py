"""The stage of the integration tests: a fake engine, the real gateway as a process in front of it, and a tap before it.

    client ── tap ── gateway (process) ── fake engine

Everything speaks over real sockets. When a test ends, what passed on its stages is judged, whatever the test was about:
every complete stream by the strict grammar, every request that reached the engine by `tests.fakes.hygiene`, and no
request may have been refused by the engine unless the test says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

from qiao.core.anthropic.grammar import Checker
from qiao.core.openai import grammar as openai_grammar
from tests.fakes import hygiene
from tests.fakes.behaviour import MODELS, Behaviour
from tests.fakes.engine import FakeEngine, serving
from tests.support import sdk
from tests.support.background import Background
from tests.support.gateway import Gateway, gateway
from tests.support.sdk import Sdk
from tests.support.tap import Exchange, Tap, tapping

MODEL = "qwen3-235b"
KEY = "sk-test-key-of-one-run-7c41"


@dataclass
class Stage:
    """One engine with its gateway.

    `refusals`: the engine may refuse; `inexact_usage`: it tells its usage only at the end, so that the grammar cannot
    demand the same counts at both ends of a stream.
    """

    engine: FakeEngine
    engine_url: str
    gateway: Gateway
    tap: Tap
    model: str
    refusals: bool = False
    inexact_usage: bool = False
    _unjudged: list[Exchange] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.tap.url

    @property
    def key(self) -> str:
        return self.gateway.key

    def begin(self) -> None:
        self.engine.forget()
        self.tap.forget()
        self.refusals = self.inexact_usage = False

    def judge(self) -> None:
        """Hold everything that passed since `begin` against the rules."""
        assert self.gateway.process.poll() is None, f"the gateway died:\n{self.gateway.output[-3000:]}"
        for exchange in self.tap.exchanges:
            if exchange.path.endswith("/chat/completions"):
                if exchange.is_stream and b"data: [DONE]" in exchange.body:
                    openai_grammar.check(exchange.body)
                continue
            # An SDK that reads the last event may hang up before the end of the HTTP body.
            ended = exchange.is_complete or b"event: message_stop" in exchange.body or b"event: error" in exchange.body
            if exchange.is_stream and ended:
                checker = Checker(exact_usage=not self.inexact_usage)
                checker.feed(exchange.body)
                checker.close()
        for request in self.engine.chats:
            if request.refusal is None:
                found = hygiene.problems(request.body)
                assert not found, f"request {request.number} to the engine: {found}"
            else:
                assert self.refusals, f"the engine refused a request: {request.refusal}"


Stages: TypeAlias = Callable[..., Stage]


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


@pytest.fixture(scope="session")
def _opened(background: Background, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Stages by what they are made of; each is started once."""
    with contextlib.ExitStack() as stack:
        known: dict[object, Stage] = {}

        def opened(
            model: str, behaviour: Behaviour, *arguments: str, key: str | None, own_key: bool, apart: str
        ) -> Stage:
            identity = (model, behaviour, arguments, key, own_key, apart)
            if identity not in known:
                engine = FakeEngine({model: behaviour}, key=key)
                engine_url = background.enter(serving(engine))
                home: Path = tmp_path_factory.mktemp("gateway")
                started = stack.enter_context(gateway(engine_url, home, *arguments, key=KEY if own_key else None))
                known[identity] = Stage(engine, engine_url, started, background.enter(tapping(started.url)), model)
            return known[identity]

        yield opened


@pytest.fixture
def stages(_opened: Stages) -> Iterator[Stages]:
    """Makes a stage for a model of `tests.fakes.behaviour` (or an own behaviour) and options of `qiao serve`.

    `key`: what the engine demands; `own_key` False starts the gateway without `--api-key`; `apart`: a word that makes
    it a stage of its own, for tests of what a gateway learns.
    """
    used: list[Stage] = []

    def begun(
        model: str = MODEL,
        *arguments: str,
        behaviour: Behaviour | None = None,
        key: str | None = None,
        own_key: bool = True,
        apart: str = "",
    ) -> Stage:
        stage = _opened(model, behaviour or MODELS[model], *arguments, key=key, own_key=own_key, apart=apart)
        stage.begin()
        used.append(stage)
        return stage

    yield begun
    for stage in used:
        stage.judge()


@pytest.fixture
def stage(stages: Stages) -> Stage:
    """The plain stage: one model, as vLLM serves it; its parser reads the calls."""
    return stages(MODEL, "--tool-parser", "engine")


@pytest.fixture(scope="session", params=list(sdk.commands()))
def _driven(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    missing = sdk.absent(request.param)
    if missing is not None:
        pytest.skip(missing)
    with sdk.driving(request.param) as running:
        yield running


@pytest.fixture
def client(_driven: Sdk, stage: Stage) -> Sdk:
    """Each official SDK in turn, connected to the plain stage."""
    return connected(_driven, stage)


def connected(driven: Sdk, stage: Stage) -> Sdk:
    """The same SDK, on `stage`."""
    driven.base_url, driven.key = stage.url, stage.key
    return driven
