"""POST /v1/messages: streamed and whole, the same exchange."""

from __future__ import annotations

from functools import partial
from typing import Any

from aiohttp import web

from qiao.app.answering import Manner, Reply, respond
from qiao.app.body import read_body
from qiao.app.gateway import Context, Gateway
from qiao.core.anthropic import answer as anthropic_answer
from qiao.core.anthropic import errors
from qiao.core.anthropic import request as anthropic_request
from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.stream import PING, Encoder
from qiao.core.conversation import Conversation
from qiao.core.events import Failed
from qiao.core.fault import Fault
from qiao.core.fold import Answer as Folded
from qiao.policies.context import AppliedEdit
from qiao.upstream.base import Answer


async def messages(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.StreamResponse:
    """Raises `Fault` until the first byte; afterwards a failure is an event in the stream."""
    settings = gateway.settings
    body = await read_body(request, limit=settings.max_body, timeout=settings.body_timeout)
    context.bytes_in = len(body)
    return await respond(request, gateway, context, anthropic_request.decode(body), _MANNER, body=body)


def _reply(conversation: Conversation, answer: Answer, context: Context) -> Reply:
    number = context.request_id.removeprefix("req_")
    edits = answer.prepared.applied_edits
    frame = Frame(
        message_id="msg_" + number,
        model=conversation.model,
        prompt_estimate=answer.prompt_estimate,
        show_thinking=conversation.thinking.shown,
        applied_edits=None if conversation.edits is None else tuple(map(_edit, edits)),
        warm_only=conversation.max_tokens == 0,
    )
    return Reply(Encoder(frame), partial(_whole, frame), id_prefix="toolu_" + number)


def _whole(frame: Frame, folded: Folded) -> bytes:
    return anthropic_answer.encode(folded, frame, output_estimate=folded.estimated_tokens())


def _failure(fault: Fault) -> bytes:
    return Encoder(Frame(message_id="", model="")).encode([Failed(fault)])


_MANNER = Manner(_reply, PING, failure=_failure, error=errors.body)


def _edit(edit: AppliedEdit) -> dict[str, Any]:
    """An applied edit in Anthropic's words."""
    applied: dict[str, Any] = {"type": edit.kind, "cleared_input_tokens": edit.cleared_input_tokens}
    if edit.kind == "clear_thinking_20251015":
        applied["cleared_thinking_turns"] = edit.cleared_thinking_turns
    else:
        applied["cleared_tool_uses"] = edit.cleared_tool_uses
    return applied
