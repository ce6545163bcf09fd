"""Which path is answered by what, and in whose shape an error is written. Every other path is a 404."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import msgspec
from aiohttp import web

from qiao.app import chat_completions, count_tokens, health, messages, models
from qiao.app.gateway import Context, Gateway
from qiao.core.fault import Fault

ErrorShape: TypeAlias = Literal["anthropic", "openai", "both"]
Handler: TypeAlias = Callable[[web.BaseRequest, Gateway, Context], Awaitable[web.StreamResponse]]


class Route(msgspec.Struct, frozen=True):
    """`name` is the label in metrics; `is_open` routes need no key."""

    name: str
    handler: Handler
    methods: frozenset[str]
    is_open: bool = False


_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})
_HELLO = Route("hello", health.hello, _GET, is_open=True)

ROUTES: dict[str, Route] = {
    "/v1/messages": Route("messages", messages.messages, _POST),
    "/v1/messages/count_tokens": Route("count_tokens", count_tokens.count_tokens, _POST),
    "/v1/chat/completions": Route("chat_completions", chat_completions.chat_completions, _POST),
    "/v1/models": Route("models", models.list_models, _GET),
    "/": _HELLO,
    "/api/hello": _HELLO,
    "/healthz": Route("healthz", health.healthz, _GET, is_open=True),
    "/readyz": Route("readyz", health.readyz, _GET, is_open=True),
    "/metrics": Route("metrics", health.metrics, _GET, is_open=True),
}
_RETRIEVE = Route("models", models.retrieve_model, _GET)

# Answered with the sentence a user of that part needs, instead of a bare "not found".
_ABSENT = {
    "/v1/messages/batches": "Message Batches are not available on this gateway.",
    "/v1/files": "The Files API is not available on this gateway; send the content in the request.",
    "/v1/skills": "Agent Skills are not available on this gateway.",
    "/v1/complete": "The Text Completions API is gone; use POST /v1/messages.",
    "/v1/completions": "Text completions are not available on this gateway; use POST /v1/chat/completions.",
    "/v1/responses": "The Responses API is not available on this gateway; use POST /v1/chat/completions.",
    "/v1/embeddings": "Embeddings are not available on this gateway.",
}
_ASKED_BY_BOTH = ("/v1/models", "/v1/chat", "/v1/completions", "/v1/responses", "/v1/embeddings")
# OpenAI's clients append these to the base URL, which has to end in /v1 and often does not.
_WITHOUT_VERSION = ("/chat/completions", "/models")


def find(method: str, path: str) -> Route:
    """The route of a request. Raises `Fault` (not_found), which names the path or the mend."""
    path = normalised(path)
    route = ROUTES.get(path)
    if route is None and path.startswith("/v1/models/"):
        route = _RETRIEVE
    if route is not None and method in route.methods:
        return route
    if route is not None:
        allowed = " or ".join(sorted(route.methods))
        raise Fault("not_found", f"{path}: {method} is not answered here, use {allowed}")
    for prefix, sentence in _ABSENT.items():
        if path == prefix or path.startswith(prefix + "/"):
            raise Fault("not_found", sentence)
    raise Fault("not_found", f"Not found: {method} {path[:200]}")


def error_shape(method: str, path: str) -> ErrorShape:
    """In whose shape a failure of this request is told: in Anthropic's, but where only OpenAI's protocol is served.

    Clients of both sides ask `/v1/models`, and OpenAI's ask for what is not here: `both` is Anthropic's body with the
    two more keys that OpenAI's clients read.
    """
    path = normalised(path)
    route = ROUTES.get(path)
    if route is not None and route.handler is chat_completions.chat_completions and method in route.methods:
        return "openai"
    return "both" if any(path == own or path.startswith(own + "/") for own in _ASKED_BY_BOTH) else "anthropic"


def normalised(path: str) -> str:
    """The path without a trailing slash, and without what users double or forget when they set a base URL.

    Clients append `/v1/messages` to the base URL, so `…/v1` gives `/v1/v1/messages`, and `…/anthropic` (the path of
    several hosted services) `/anthropic/v1/messages`.
    """
    if path != "/":
        path = path.rstrip("/") or "/"
    path = path.removeprefix("/anthropic") or "/"
    if path.startswith(_WITHOUT_VERSION):
        return "/v1" + path
    return path.removeprefix("/v1") if path.startswith("/v1/v1/") else path
