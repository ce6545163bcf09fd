"""POST /v1/chat/completions: the same answers for OpenAI clients."""

from __future__ import annotations

import time
from functools import partial

from aiohttp import web

from qiao.app.answering import Manner, Reply, respond
from qiao.app.body import read_body
from qiao.app.gateway import Context, Gateway
from qiao.core.conversation import Conversation
from qiao.core.events import Failed
from qiao.core.fault import Fault
from qiao.core.fold import Answer as Folded
from qiao.core.openai import answer as openai_answer
from qiao.core.openai import errors
from qiao.core.openai.answer import Frame
from qiao.core.openai.decode import Request, decode
from qiao.core.openai.encode_stream import PING, Encoder
from qiao.upstream.base import Answer


async def chat_completions(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.StreamResponse:
    """Raises `Fault` until the first byte; afterwards a failure is an error object in the stream."""
    settings = gateway.settings
    body = await read_body(request, limit=settings.max_body, timeout=settings.body_timeout)
    context.bytes_in = len(body)
    asked = decode(body)
    manner = Manner(partial(_reply, asked), PING, failure=_failure, error=_error)
    return await respond(request, gateway, context, asked.conversation, manner, body=body)


def _reply(asked: Request, conversation: Conversation, answer: Answer, context: Context) -> Reply:
    number = context.request_id.removeprefix("req_")
    frame = Frame(
        completion_id="chatcmpl-" + number,
        model=conversation.model,
        created=int(time.time()),
        prompt_estimate=answer.prompt_estimate,
        usage_in_stream=asked.usage_in_stream,
        show_reasoning=conversation.thinking.shown,
        free_text=asked.free_text,
    )
    return Reply(Encoder(frame), partial(_whole, frame), id_prefix="call_" + number)


def _whole(frame: Frame, folded: Folded) -> bytes:
    return openai_answer.encode(folded, frame, output_estimate=folded.estimated_tokens())


def _failure(fault: Fault) -> bytes:
    return Encoder(Frame(completion_id="", model="", created=0)).encode([Failed(fault)])


def _error(fault: Fault, request_id: str) -> bytes:
    return errors.body(fault)
