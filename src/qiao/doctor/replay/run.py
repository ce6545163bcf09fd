"""The replay: all points one after the other, bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from qiao.doctor.replay import points_around, points_requests
from qiao.doctor.replay.sheet import Failed, Point, Question, Sheet, Talk, Unknown, Verdict
from qiao.upstream.endpoint import Endpoint

QUESTIONS: tuple[Question, ...] = (*points_requests.QUESTIONS, *points_around.QUESTIONS)
"""All points, in the order in which they are asked."""

LIMIT = 240.0
"""Seconds for the whole sheet; what is left then is skipped."""

REQUEST_LIMIT = 60.0
"""Seconds for one request."""


async def replay(
    root: str,
    key: str | None,
    *,
    server: str = "",
    model: str | None = None,
    limit: float = LIMIT,
    told: Callable[[Point], None] | None = None,
) -> Sheet:
    """The score sheet of the endpoint at `root` (without /v1). `told` hears of every point as it is judged."""
    points: list[Point] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    async with Endpoint(root, key, timeout=REQUEST_LIMIT) as endpoint:
        listed = await endpoint.get("/v1/models?limit=1000")
        chosen, window = points_around.window_of(listed, model)
        talk = Talk(endpoint, chosen or "claude-sonnet-4-5", bool(key), window)
        for question in QUESTIONS:
            point = await _judged(question, talk, end)
            points.append(point)
            if told is not None:
                told(point)
    return Sheet(
        url=root,
        server=server,
        model=talk.model,
        points=tuple(points),
        window=window,
        errors=tuple(dict.fromkeys(talk.errors)),
    )


async def _judged(question: Question, talk: Talk, end: float) -> Point:
    loop = asyncio.get_running_loop()
    started = loop.time()
    verdict: Verdict
    if started >= end:
        verdict, evidence = "skipped", "the time was over"
    else:
        try:
            async with asyncio.timeout_at(end):
                verdict, evidence = "pass", await question.ask(talk)
        except Failed as failed:
            verdict, evidence = "fail", str(failed)
        except Unknown as unknown:
            verdict, evidence = "skipped", str(unknown)
        except TimeoutError:
            verdict, evidence = "skipped", "the time was over"
    return Point(
        name=question.name,
        group=question.group,
        about=question.about,
        must=question.must,
        verdict=verdict,
        evidence=evidence,
        seconds=round(loop.time() - started, 3),
    )
