"""Probes: alive (`/healthz`), ready (`/readyz`), numbers (`/metrics`), and the greetings that Claude Code sends."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from qiao import __version__
from qiao.app.gateway import Context, Gateway
from qiao.app.reading import described
from qiao.core.fault import Fault
from qiao.core.json_text import encode_json
from qiao.observability.metrics import CONTENT_TYPE
from qiao.profiles import UNKNOWN
from qiao.upstream.base import UpstreamFacts
from qiao.upstream.probe import Findings

# Seconds that `/readyz` waits for the upstream's lists, and again for what a probe of it finds.
_PATIENCE = 4.0


async def hello(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    return _json({"name": "qiao", "version": __version__, "message": "hello"})


async def healthz(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    return _json({"status": "ok"})


async def readyz(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    """200 when the upstream answers now, else 503 with the reason; either after a few seconds, however busy it is."""
    try:
        facts = await asyncio.wait_for(gateway.upstream.facts(fresh=True), _PATIENCE)
    except TimeoutError:
        return _does_not_answer(gateway, f"{gateway.upstream.address} did not answer within {_PATIENCE:g} s")
    except Fault as fault:
        return _does_not_answer(gateway, fault.message)
    gateway.metrics.upstream_up(True)
    models = [{"id": model.id, "window": model.window} for model in facts.models]
    found: dict[str, Any] = {
        "status": "ready",
        "upstream": gateway.upstream.address,
        "flavor": facts.flavor,
        "version": facts.version,
        "models": models,
        "tools": await _tools(gateway, facts),
        "waiting": gateway.upstream.waiting,
        "quirks": list(gateway.upstream.quirks.names()),
        "lessons": [msgspec.structs.asdict(lesson) for lesson in gateway.upstream.lessons],
    }
    return _json(found)


def _does_not_answer(gateway: Gateway, reason: str) -> web.Response:
    gateway.metrics.upstream_up(False)
    return _json({"status": "upstream does not answer", "reason": reason}, status=503)


async def _tools(gateway: Gateway, facts: UpstreamFacts) -> dict[str, Any]:
    """Who reads tool calls and reasoning, and why."""
    try:
        found = await gateway.findings(within=_PATIENCE) or Findings()
    except Fault as fault:
        found = Findings(reason=fault.message)
    if not facts.models:
        return described(gateway.switches, gateway.upstream.quirks, UNKNOWN, found)
    main = gateway.main(facts)
    return described(gateway.switches, gateway.upstream.quirks_of(main), gateway.profile(main), found)


async def metrics(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    gateway.metrics.lessons(lesson.remedy for lesson in gateway.upstream.lessons if lesson.is_kept)
    return web.Response(body=gateway.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _json(value: dict[str, Any], *, status: int = 200) -> web.Response:
    return web.Response(body=encode_json(value), status=status, content_type="application/json")
