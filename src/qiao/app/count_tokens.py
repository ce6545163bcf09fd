"""POST /v1/messages/count_tokens: the tokens of the prompt that /v1/messages would send."""

from __future__ import annotations

from aiohttp import web

from qiao.app.body import read_body
from qiao.app.conversations import in_session
from qiao.app.gateway import Context, Gateway
from qiao.core.anthropic import request as anthropic_request
from qiao.core.json_text import encode_json


async def count_tokens(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.Response:
    settings = gateway.settings
    body = await read_body(request, limit=settings.max_body, timeout=settings.body_timeout)
    conversation = in_session(anthropic_request.decode_count(body), request.headers)
    context.model = conversation.model
    served, profile = await gateway.served(conversation.model)
    context.upstream_model = served.id
    tenant = gateway.tenant(request.headers)
    prepare = await gateway.preparation(conversation, served, profile, tenant=tenant, is_asked=False)
    count = await gateway.upstream.count(prepare, served)
    answer: dict[str, object] = {"input_tokens": count.tokens}
    if conversation.edits is not None:
        original = count.tokens if count.original is None else count.original
        answer["context_management"] = {"original_input_tokens": original}
    headers = {"x-qiao-count": "exact" if count.is_exact else count.by}
    return web.Response(body=encode_json(answer), content_type="application/json", headers=headers)
