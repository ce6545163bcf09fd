"""GET /v1/models and /v1/models/{id}, in a shape that is Anthropic's and OpenAI's at once.

The two protocols share no key with different meanings here, so nobody has to guess who asks: Anthropic's clients find
every capability key filled, OpenAI's find `object`, `created`, `owned_by`, and vLLM's `max_model_len`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from qiao.app.gateway import Context, Gateway
from qiao.core.fault import invalid
from qiao.core.json_text import encode_json
from qiao.profiles import Profile
from qiao.upstream.base import Served

_DEFAULT_WINDOW = 32_768
_DEFAULT_OUTPUT = 32_000
# Engines do not say when a model was made; a fixed date keeps the answer the same on every call.
_CREATED = "2025-07-21T00:00:00Z"
_CREATED_SECONDS = 1_753_056_000


async def list_models(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    facts = await gateway.upstream.facts(fresh=True)
    models = []
    for name in gateway.listed_names(facts):
        served, profile = await gateway.served(name)
        models.append(model_info(name, served, profile))
    # OpenAI's list has no pages, and its clients take what comes for everything.
    lists = request.query.getall("lifecycle[]", request.query.getall("lifecycle", []))
    asked = {stage.strip().lower() for each in lists for stage in each.split(",")} - {""}
    if asked and "active" not in asked:
        models = []  # what an engine serves is active
    default = 20 if "anthropic-version" in request.headers else 1000
    page, has_more = _page(models, request.query, default)
    answer = {
        "object": "list",
        "data": page,
        "has_more": has_more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
    return web.Response(body=encode_json(answer), content_type="application/json")


async def retrieve_model(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    name = unquote(request.rel_url.raw_path.rsplit("/models/", 1)[1])
    context.model = name
    served, profile = await gateway.served(name)
    context.upstream_model = served.id
    return web.Response(body=encode_json(model_info(name, served, profile)), content_type="application/json")


def model_info(name: str, served: Served, profile: Profile) -> dict[str, Any]:
    """Anthropic's ModelInfo and OpenAI's Model. The window is the true one, so that clients compact in time."""
    window = served.window or profile.context or _DEFAULT_WINDOW
    reasons = profile.reasoning != "none"
    efforts = {level: {"supported": reasons} for level in ("low", "medium", "high", "xhigh", "max")}
    return {
        "id": name,
        "type": "model",
        "object": "model",
        "created": _CREATED_SECONDS,
        "owned_by": "qiao",
        "max_model_len": window,
        "display_name": name if name == served.id else f"{name} ({served.id})",
        "created_at": _CREATED,
        "lifecycle": "active",
        "line": None,
        "deprecated_at": None,
        "retires_at": None,
        "max_input_tokens": window,
        "max_tokens": min(profile.max_output or _DEFAULT_OUTPUT, max(window // 2, 1)),
        "allowed_fallback_models": [],
        "capabilities": {
            "batch": {"supported": False},
            "citations": {"supported": False},
            "code_execution": {"supported": False},
            "image_input": {"supported": profile.images is not False},
            "pdf_input": {"supported": True},
            "structured_outputs": {"supported": True},
            "compaction": {"supported": False, "summarize": {"supported": False}},
            "context_management": {
                "supported": True,
                "clear_thinking_20251015": {"supported": True},
                "clear_tool_uses_20250919": {"supported": True},
                "compact_20260112": {"supported": False},
            },
            "effort": {"supported": reasons, **efforts},
            "server_tools": {
                "supported": False,
                "code_execution": {"supported": False},
                "web_search": {"supported": False},
            },
            "thinking": {
                "supported": reasons,
                "types": {
                    "adaptive": {"supported": reasons},
                    "between_tools": {"supported": reasons},
                    "disabled": {"supported": profile.reasoning != "always"},
                    "enabled": {"supported": reasons},
                },
            },
        },
    }


def _page(models: list[dict[str, Any]], query: Mapping[str, str], default: int) -> tuple[list[dict[str, Any]], bool]:
    try:
        limit = int(query.get("limit", default))
    except ValueError as error:
        raise invalid("limit", "must be a number from 1 to 1000") from error
    if not 1 <= limit <= 1000:
        raise invalid("limit", "must be a number from 1 to 1000")
    ids = [model["id"] for model in models]
    after, before = query.get("after_id"), query.get("before_id")
    if after in ids:
        models = models[ids.index(after) + 1 :]
    elif before in ids:
        models = models[: ids.index(before)]
        return models[-limit:], len(models) > limit
    return models[:limit], len(models) > limit
