"""Cores that a process may use, from what a container's limit looks like."""

from __future__ import annotations

import os

import pytest

from qiao.engines.cores import quota_of, usable_cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("max 100000", None),
        ("-1 100000", None),
        ("", None),
        (" ", None),
        ("100000", None),
        ("100000 0", None),
    ],
)
def test_quotas(text: str, expected: int | None) -> None:
    assert quota_of(text) == expected


def test_this_machine_has_some() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
