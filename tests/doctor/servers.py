"""Servers that a person may have named by mistake: small, with the answers that real ones were seen to give."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

from tests.support.listening import listening


@contextlib.asynccontextmanager
async def answering(
    routes: Mapping[tuple[str, str], Any], headers: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """A server that gives each (method, path) its answer: status, JSON object or text. Others: 404 as FastAPI does."""

    async def answer(request: web.BaseRequest) -> web.Response:
        status, body = routes.get((request.method, request.path), (404, {"detail": "Not Found"}))
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    async with listening(web.ServerRunner(web.Server(answer))) as url:
        yield url


LITELLM_HEADERS = {"x-litellm-version": "1.109.1", "x-litellm-call-id": "0"}

LITELLM = {
    ("GET", "/v1/models"): (200, {"data": [{"id": "qwen3-235b", "object": "model", "owned_by": "openai"}]}),
    ("GET", "/health/liveliness"): (200, '"I\'m alive!"'),
    ("POST", "/v1/chat/completions"): (400, {"error": {"message": "Missing required parameter: messages"}}),
}


def litellm(words: str, status: int = 404) -> dict[tuple[str, str], Any]:
    """A LiteLLM (as 1.109.1 answered in front of a mock) that says `words` to every message."""
    error = {"type": "error", "error": {"type": "not_found_error", "message": words}}
    return {**LITELLM, ("POST", "/v1/messages"): (status, error)}


LITELLM_WRONG_KEY = {
    key: (400, {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}})
    for key in (("GET", "/v1/models"), ("POST", "/v1/messages"), ("POST", "/v1/chat/completions"))
}

CARELESS = {
    ("GET", "/v1/models"): (200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "me"}]}),
    ("POST", "/v1/messages"): (200, {"choices": [{"message": {"role": "assistant", "content": "hi"}}]}),
}
"""A server that answers everything with 200 and OpenAI's shape."""
