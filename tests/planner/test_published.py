"""The arithmetic against what engines and publishers printed: tests/golden/plans/published/*.case, each with its link.

Engines print GiB with two digits, so what follows from such a figure may differ by what was rounded away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qiao.planner.cache import Cache, cache_of
from qiao.planner.machine import GIB
from qiao.planner.memory import Load, memory_of
from qiao.planner.shapes import broken
from qiao.planner.vllm import parse_version
from qiao.planner.weights import gpu_bytes, summed_bytes
from tests.planner.cases import Case, cases, division, gpu, model

_ROUNDED = 0.005 * GIB


@pytest.mark.parametrize("path", cases("published"), ids=lambda path: path.stem)
def test_published(path: Path) -> None:
    case = Case(path)
    {"cache": _cache, "weights": _weights, "cut": _cut, "estimate": _estimate}[case.given["kind"]](
        case.given, case.expected
    )


def test_there_are_enough() -> None:
    linked = [path for path in cases("published") if "https://" in path.read_text("utf-8").splitlines()[0]]
    assert len(linked) >= 12


def _cache(given: dict[str, Any], expected: dict[str, Any]) -> None:
    cache = cache_of(
        model(given["model"]),
        division(given),
        cache_type=given.get("cache_type", "auto"),
        prefix_caching=given.get("prefix_caching", True),
    )
    window = given["window"]
    if "needed_gib" in expected:
        assert f"{cache.request_bytes(window) / GIB:.2f}" == expected["needed_gib"]
    if "block_tokens" in expected:
        assert cache.block_tokens == expected["block_tokens"]
    least, most = _available(given, cache)
    if "blocks" in expected:
        assert cache.blocks(least) <= expected["blocks"] <= cache.blocks(most)
    if "longest_window" in expected:
        assert cache.longest_window(least) <= expected["longest_window"] <= cache.longest_window(most)
    if "tokens" in expected:
        assert cache.tokens(least, window) <= expected["tokens"] <= cache.tokens(most, window)
    if "concurrency" in expected:
        lowest, highest = cache.concurrency(least, window), cache.concurrency(most, window)
        assert f"{lowest:.2f}" <= expected["concurrency"] <= f"{highest:.2f}"


def _available(given: dict[str, Any], cache: Cache) -> tuple[int, int]:
    if "blocks" in given:
        exact = given["blocks"] * cache.block_bytes
        return exact, exact
    exact = int(given.get("available_gib", 0) * GIB)
    return int(exact - _ROUNDED), int(exact + _ROUNDED)


def _weights(given: dict[str, Any], expected: dict[str, Any]) -> None:
    facts = model(given["model"])
    if "bytes" in expected:
        assert summed_bytes(facts) == pytest.approx(expected["bytes"], rel=expected["within"], abs=0)
    if "gpu_gib" in expected:
        here = sum(gpu_bytes(facts, division(given), 0)) / GIB
        assert here == pytest.approx(expected["gpu_gib"], rel=expected["within"])


def _cut(given: dict[str, Any], expected: dict[str, Any]) -> None:
    rule = broken(model(given["model"]), division(given), gpu(given["gpu"]), parse_version(given["vllm"]))
    if expected["refused"] is None:
        assert rule is None
    else:
        assert rule is not None
        assert expected["refused"] in rule.text
        assert rule.source


def _estimate(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Never more than there was, and not uselessly less."""
    load = Load(
        utilisation=given["utilisation"],
        batch_tokens=given["batch_tokens"],
        sequences=given["sequences"],
        cache_type=given.get("cache_type", "auto"),
    )
    memory = memory_of(model(given["model"]), division(given), gpu(given["gpu"]), load)
    estimate = min(each.cache for each in memory) / GIB
    assert estimate <= expected["available_gib"]
    assert estimate >= expected["available_gib"] - expected["at_most_below"]
