"""A person at a terminal, and a gateway that runs for them in front of a fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine, serving
from tests.support.background import Background
from tests.support.command import Person
from tests.support.gateway import Gateway, gateway


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "home", tmp_path / "work")


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    with Background() as background:
        yield background.enter(serving(FakeEngine()))


@pytest.fixture(scope="module")
def somebody(tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Whose gateway runs for all tests of a module."""
    folder = tmp_path_factory.mktemp("somebody")
    return Person(folder / "home", folder / "work")


@pytest.fixture(scope="module")
def running(engine_url: str, somebody: Person) -> Iterator[Gateway]:
    """A gateway with the generated key, and another model for small requests."""
    (somebody.home / "qiao.toml").write_text('[models]\nmain = "qwen3-235b"\nsmall = "small-window"\n', "utf-8")
    with gateway(engine_url, somebody.home, key=None) as started:
        yield started
