"""The real Claude Code keeps its patience with pings and loses it without: its timer is lowered to three seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.script import Step, marker, step
from tests.integration.conftest import MODEL, Stages
from tests.support.claude_code import ClaudeCode, Outcome

pytestmark = pytest.mark.timeout(120)

TIMER = {"API_TIMEOUT_MS": "3000"}


def run(stages: Stages, folder: Path, said: Step, *arguments: str) -> tuple[Outcome, list[int | None], list[str]]:
    """What came of it, what became of its requests, and what the engine was asked."""
    stage = stages(MODEL, *arguments)
    claude = ClaudeCode(stage.url, stage.key, folder / "home", folder / "work", extra=TIMER)
    outcome = claude.run("Go. " + marker(said), limit=90)
    fates = ["left" if chat.disconnected_at is not None else "answered" for chat in stage.engine.chats]
    return outcome, [exchange.status for exchange in stage.tap.exchanges], fates


@pytest.mark.parametrize("where", ["before_headers", "before_first"])
def test_pings_keep_it(stages: Stages, tmp_path: Path, where: str) -> None:
    quiet = Step(parts=step("At last.").parts, **{where: 7.0})
    outcome, statuses, fates = run(stages, tmp_path, quiet, "--ping-interval", "1")
    assert outcome.result["result"] == "At last."
    assert (statuses, fates) == ([200], ["answered"])


@pytest.mark.timeout(300)
def test_without_them_it_asks_again_and_finds_its_request(stages: Stages, tmp_path: Path) -> None:
    """It hangs up after three seconds and asks the same half a second later; the engine is asked once."""
    said = step("At last.", before_headers=5.0)
    # Three times at most: on a busy machine it may come back later than it means to.
    for attempt in range(3):
        outcome, statuses, fates = run(stages, tmp_path / str(attempt), said, "--ping-interval", "100")
        assert outcome.result["result"] == "At last."
        if len(fates) == 1:
            break
    assert statuses == [None, 200]
    assert fates == ["answered"]
