"""For all tests: how Hypothesis draws its examples, and which tests run only when asked.

Laws are about what is true, not about how busy the machine is: no deadline. And a run says the same today and tomorrow:
the examples are derived from the test, so that a failure always belongs to a change. For a search with new ones:
`pytest --hypothesis-profile=search`.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("qiao", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("qiao")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only waits, for 21 minutes, unless `-m` names it."""
    if "patience" in config.option.markexpr:
        return
    waiting = [item for item in items if item.get_closest_marker("patience")]
    if waiting:
        config.hook.pytest_deselected(items=waiting)
        items[:] = [item for item in items if item not in waiting]
