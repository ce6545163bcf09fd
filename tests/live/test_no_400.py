"""No valid request is refused: hundreds of drawn ones and those of the real Claude Code, against a real vLLM.

2,800 are drawn from fixed seeds for three servers, as many of them as twenty minutes allow are asked; at the end it is
said how many that were, and fewer than 2,000 are a failure. Others, and longer:
`QIAO_LIVE_REQUESTS=5000 QIAO_LIVE_SECONDS=3000 QIAO_LIVE_SEED=7 make live` (or pytest on this file). A request
that fails is written to a file, which belongs into `tests/live/requests/` once its fault is mended: all that lie there
are asked first.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qiao.core.anthropic.grammar import Checker, GrammarError
from tests.live.conftest import Stages
from tests.live.stage import MODEL, Stage, prompt_tokens
from tests.live.valid_requests import LARGE, Json, collect, requests, showcase
from tests.live.vllm.script import marker, said
from tests.support.claude_code import ClaudeCode

KEPT = sorted((Path(__file__).parent / "requests").glob("*.json"))
COUNT = int(os.environ.get("QIAO_LIVE_REQUESTS", "1400"))
SEED = int(os.environ.get("QIAO_LIVE_SEED", "20"))
TOGETHER = 10
LIMIT = 300.0
BOUND = float(os.environ.get("QIAO_LIVE_SECONDS", "600"))
"""Seconds after which no further drawn request is asked: two idle cores take 1,400 in nine minutes."""

LEAST = 100
"""Drawn requests that must have been asked by then of one server."""

LEAST_IN_ALL = 2000
"""The same of all servers, where the environment leaves as many to be asked."""


@dataclass
class Tally:
    """Drawn requests of this run."""

    drawn: int = 0
    asked: int = 0


@pytest.fixture(scope="session")
def tally() -> Tally:
    return Tally()


@pytest.fixture
def final_tally(tally: Tally) -> Tally:
    """Who asks for it comes last, see `conftest`."""
    return tally


@dataclass
class Asked:
    """One request and what came of it. `problem` is None if all was well."""

    body: Json
    status: int
    problem: str | None
    healed: str | None = None

    @property
    def is_miscounted(self) -> bool:
        return self.status == 200 and self.problem is not None


def ask(stage: Stage, body: Json) -> Asked:
    """Ask, read to the end (or until a long unscripted answer has begun), judge, and compare with the count."""
    is_endless = body["max_tokens"] > LARGE and "@@SAY:" not in json.dumps(body)
    # Not through the tap, which would keep it all.
    connection = http.client.HTTPConnection("127.0.0.1", int(stage.gateway.url.rpartition(":")[2]), timeout=LIMIT)
    try:
        headers = {**stage.headers, "Content-Type": "application/json"}
        connection.request("POST", "/v1/messages?beta=true", json.dumps(body), headers)
        answer = connection.getresponse()
        healed = answer.getheader("x-qiao-healed")
        if answer.status != 200:
            return Asked(body, answer.status, answer.read().decode("utf-8", "replace"), healed)
        message = _streamed(answer, is_endless) if body.get("stream") else json.loads(b"".join(_pieces(answer)))
        if message is not None and not healed:
            # What a refusal takes out of one request only is still counted.
            counted = _counted(connection, body, headers)
            if counted != prompt_tokens(message):
                return Asked(body, 200, f"counted {counted}, sent {prompt_tokens(message)}", healed)
        return Asked(body, 200, None, healed)
    except (GrammarError, OSError, http.client.HTTPException, ValueError, KeyError, AssertionError) as error:
        return Asked(body, 0, f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def _streamed(answer: http.client.HTTPResponse, is_endless: bool) -> Json | None:
    """The message of a stream; None if its reader left because it would not end soon."""
    checker = Checker()
    for piece in _pieces(answer):
        checker.feed(piece)
        if checker.error is not None:
            raise AssertionError(f"error event: {checker.error}")
        if is_endless and b"message_start" in piece:
            return None
    checker.close()
    return checker.message


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes. It is kept alive, so that its reader has to bound it."""
    end = time.monotonic() + LIMIT
    while piece := answer.read1(65536):
        assert time.monotonic() < end, f"the answer did not end within {LIMIT:.0f} s"
        yield piece
    answer.read()  # `read1` alone does not see the end of a body whose length was told


def _counted(connection: http.client.HTTPConnection, body: Json, headers: dict[str, str]) -> Any:
    asked = {name: value for name, value in body.items() if name not in ("max_tokens", "stream")}
    connection.request("POST", "/v1/messages/count_tokens?beta=true", json.dumps(asked), headers)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    return found.get("input_tokens", found)


def none_fails(
    stage: Stage, bodies: Sequence[Json], folder: Path, *, bound: float | None = None, tally: Tally | None = None
) -> None:
    """Ask them all, some together; what is not asked after `bound` seconds is left out."""
    end = math.inf if bound is None else time.monotonic() + bound

    def in_time(body: Json) -> Asked | None:
        return ask(stage, body) if time.monotonic() < end else None

    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as threads:
        outcomes = [outcome for outcome in threads.map(in_time, bodies) if outcome is not None]
    if tally is not None:
        tally.drawn += len(bodies)
        tally.asked += len(outcomes)
    assert len(outcomes) >= min(len(bodies), LEAST)
    # Drawn requests may begin with the same words, and are one conversation then, which another may carry on between
    # a request and its count. Alone, the two have to agree.
    outcomes = [ask(stage, outcome.body) if outcome.is_miscounted else outcome for outcome in outcomes]
    failed = [outcome for outcome in outcomes if outcome.problem is not None]
    for number, outcome in enumerate(failed):
        (folder / f"failed-{number}.json").write_text(json.dumps(outcome.body, ensure_ascii=False, indent=1), "utf-8")
    statuses = Counter(outcome.status for outcome in outcomes)
    healed = Counter(outcome.healed for outcome in outcomes)
    print(f"{len(outcomes)} of {len(bodies)} requests, statuses {dict(statuses)}, healed {healed}")
    shown = "\n".join(f"{outcome.status}: {str(outcome.problem)[:300]}" for outcome in failed[:20])
    assert not failed, f"{len(failed)} of {len(bodies)} failed, see {folder}\n{shown}"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_requests_that_failed_once(stage: Stage, path: Path) -> None:
    outcome = ask(stage, json.loads(path.read_text("utf-8")))
    assert outcome.problem is None


@pytest.mark.timeout(900)
def test_everything_once(stage: Stage, tmp_path: Path) -> None:
    none_fails(stage, showcase(), tmp_path)


@pytest.mark.timeout(3600)
def test_drawn_requests(stage: Stage, tmp_path: Path, tally: Tally) -> None:
    none_fails(stage, collect(COUNT, SEED, requests()), tmp_path, bound=BOUND, tally=tally)


@pytest.mark.timeout(3600)
def test_drawn_requests_without_a_parser(bare: Stage, tmp_path: Path, tally: Tally) -> None:
    none_fails(bare, collect(COUNT // 2, SEED + 1, requests()), tmp_path, bound=BOUND / 2, tally=tally)


@pytest.mark.timeout(3600)
def test_requests_past_a_parser(stages: Stages, tmp_path: Path, tally: Tally) -> None:
    """The usual case: a server with a hermes parser, and the gateway reads the calls."""
    none_fails(stages(), showcase(), tmp_path)
    none_fails(stages(), collect(COUNT // 2, SEED + 2, requests()), tmp_path, bound=BOUND / 2, tally=tally)


def test_enough_were_asked(final_tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the environment or the choice of tests left fewer to be asked, it is only said."""
    asked, drawn = final_tally.asked, final_tally.drawn
    with capsys.disabled():
        print(f"\n{asked} of {drawn} drawn requests were asked")
    if drawn >= LEAST_IN_ALL and "QIAO_LIVE_SECONDS" not in os.environ:
        assert asked >= LEAST_IN_ALL, (
            f"in {2 * BOUND:.0f} seconds only {asked} of {drawn} drawn requests were asked, not {LEAST_IN_ALL}: this "
            "machine needs a higher QIAO_LIVE_SECONDS, or fewer by QIAO_LIVE_REQUESTS"
        )


@pytest.fixture
def claude_bodies(stage: Stage, tmp_path: Path) -> list[Json]:
    """What the real Claude Code sends, in several moods. Its words are its maker's and are not kept."""
    prompt = "Say hi. " + marker(said("Hi.", think="Hm."), said("Bye.", think="Hm."))
    schema = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
    moods: dict[str, tuple[dict[str, str], list[str]]] = {
        "plain": ({}, []),
        "bare": ({}, ["--bare"]),
        "toolless": ({}, ["--tools", ""]),
        "all tools": ({"ENABLE_TOOL_SEARCH": "false"}, []),
        "form": ({}, ["--json-schema", schema, "--max-turns", "1"]),
        "effort": ({}, ["--effort", "max"]),
    }
    for mood, (extra, arguments) in moods.items():
        claude = ClaudeCode(stage.url, stage.key, tmp_path / mood / "home", tmp_path / "work", MODEL, extra)
        claude.run(prompt, *arguments, limit=120)
    names = ("claude-sonnet-4-5", "claude-3-5-haiku-20241022")
    for name in names:
        claude = ClaudeCode(stage.url, stage.key, tmp_path / name / "home", tmp_path / "work", name)
        claude.run(prompt, limit=120)
    bodies = [found.asked for found in stage.tap.exchanges if found.path == "/v1/messages"]
    assert len(bodies) >= len(moods) + len(names)
    return bodies


@pytest.mark.timeout(900)
def test_requests_of_claude_code(stage: Stage, claude_bodies: list[Json], tmp_path: Path) -> None:
    """As they are, and with what its side requests, settings and extra body change."""
    changes: list[Json] = [
        {},
        {"stream": False},
        {"thinking": {"type": "enabled", "budget_tokens": 31_999}, "max_tokens": 32_000},
        {"thinking": {"type": "disabled"}, "max_tokens": 64, "stop_sequences": ["</severity>", "</block>"]},
        {"max_tokens": 128_000, "temperature": 1},
        {"safeguards": [{"type": "dangerous_tool_use", "classifier_context": {}}], "speed": "fast"},
    ]
    bodies = [{**body, **change} for body in claude_bodies for change in changes]
    none_fails(stage, bodies, tmp_path)
