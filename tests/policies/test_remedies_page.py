"""The page of remedies is what the table says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qiao.policies import remedies
from qiao.policies.overflow import find_excess
from qiao.policies.remedies_page import Row, markdown_rows, page, rows

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "remedies.md"


def test_the_page_is_current() -> None:
    if os.environ.get("GOLDEN_ACCEPT"):
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page(), "GOLDEN_ACCEPT=1 pytest tests/policies/test_remedies_page.py"


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.name} {row.says[:20]}")
def test_every_row_says_everything(row: Row) -> None:
    assert row.says
    assert row.cause
    assert row.done
    if row.name == "prompt_too_long":
        assert find_excess(row.says) is not None
        return
    needs = {each.name: each.needs for each in remedies.TABLE}.get(row.name)
    found = remedies.find(row.says, 400, used=frozenset({needs}) if needs else None)
    assert found is not None
    assert found.name == row.name


def test_the_rows_are_a_table() -> None:
    lines = markdown_rows().splitlines()
    assert len(lines) == len(rows())
    assert all(line.replace("\\|", "").count("|") == 6 for line in lines)
