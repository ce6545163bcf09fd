"""For all tests: how Hypothesis draws its examples, which tests run only when asked, and who left something open.

Laws are about what is true, not about how busy the machine is: no deadline. And a run says the same today and tomorrow:
the examples are derived from the test, so that a failure always belongs to a change. For a search with new ones:
`pytest --hypothesis-profile=search`.

A socket, a file or a task that nobody closed is an error, but one that Python finds when it collects garbage, which is
at some later time. So each module collects its own, and is the one that fails.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("qiao", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("qiao")

FINDS_GARBAGE = pytest.StashKey[bool]()
PURE = ("core", "exports", "planner", "policies", "profiles", "properties")
"""Rooms that open nothing: a look at everything there is takes a third of a second."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only waits, for 21 minutes, unless `-m` names it."""
    if "patience" in config.option.markexpr:
        return
    waiting = [item for item in items if item.get_closest_marker("patience")]
    if waiting:
        config.hook.pytest_deselected(items=waiting)
        items[:] = [item for item in items if item not in waiting]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Live suites are left as they are."""
    session.stash[FINDS_GARBAGE] = not any(item.get_closest_marker("live") for item in session.items)


@pytest.fixture(scope="module", autouse=True)
def _garbage_is_found_where_it_was_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Entered before all fixtures of the module, and so left after them."""
    yield
    folder = request.path.relative_to(Path(__file__).parent).parts[0]
    if request.session.stash[FINDS_GARBAGE] and folder not in PURE:
        gc.collect()
