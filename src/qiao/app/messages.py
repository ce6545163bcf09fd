"""POST /v1/messages: streamed and whole, the same exchange."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from qiao.app.body import read_body
from qiao.app.gateway import Context, Gateway, now
from qiao.core.anthropic import answer as anthropic_answer
from qiao.core.anthropic import request as anthropic_request
from qiao.core.anthropic.answer import Frame
from qiao.core.anthropic.stream import PING
from qiao.core.conversation import Conversation
from qiao.core.exchange import Exchange, Limits, anthropic_exchange
from qiao.core.fault import Fault
from qiao.policies.context import AppliedEdit
from qiao.upstream.base import Answer, Served

_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


async def messages(request: web.BaseRequest, gateway: Gateway, context: Context) -> web.StreamResponse:
    """Raises `Fault` until the first byte; afterwards a failure is an event in the stream."""
    settings = gateway.settings
    body = await read_body(request, limit=settings.max_body, timeout=settings.body_timeout)
    conversation = anthropic_request.decode(body)
    context.model = conversation.model
    context.is_stream = conversation.stream
    context.dropped = conversation.dropped
    context.session = conversation.session
    is_subagent = "x-claude-code-agent-id" in request.headers
    served, profile = await gateway.served(conversation.model, is_subagent=is_subagent)
    context.upstream_model = served.id
    prepare = await gateway.preparation(conversation, served, profile)
    context.bytes_in = len(body)
    sent = now()
    answer = await gateway.upstream.open(prepare, served, request_id=context.request_id)
    context.upstream_seconds = now() - sent
    try:
        exchange, frame = _exchange(conversation, answer, served, context)
        if conversation.stream:
            return await _stream(request, gateway, context, answer, exchange)
        return await _whole(gateway, context, answer, exchange, frame)
    finally:
        answer.close()


def _exchange(conversation: Conversation, answer: Answer, served: Served, context: Context) -> tuple[Exchange, Frame]:
    prepared = answer.prepared
    context.healed = answer.healed
    context.notes = (*prepared.notes, *answer.notes)
    frame = Frame(
        message_id="msg_" + context.request_id.removeprefix("req_"),
        model=conversation.model,
        prompt_estimate=answer.prompt_estimate,
        show_thinking=conversation.thinking.shown,
        applied_edits=None if conversation.edits is None else tuple(map(_edit, prepared.applied_edits)),
        warm_only=conversation.max_tokens == 0,
    )
    exchange = anthropic_exchange(
        answer.decoder,
        frame,
        stream=conversation.stream,
        stops=prepared.scan_stops,
        one_call=prepared.one_call,
        limits=Limits(window=served.window, max_tokens=conversation.max_tokens),
    )
    return exchange, frame


def _edit(edit: AppliedEdit) -> dict[str, Any]:
    """An applied edit in Anthropic's words."""
    applied: dict[str, Any] = {"type": edit.kind, "cleared_input_tokens": edit.cleared_input_tokens}
    if edit.kind == "clear_thinking_20251015":
        applied["cleared_thinking_turns"] = edit.cleared_thinking_turns
    else:
        applied["cleared_tool_uses"] = edit.cleared_tool_uses
    return applied


def response_headers(context: Context) -> dict[str, str]:
    """What was done to the request, for whoever debugs it. Header values are ASCII."""
    headers = {"request-id": context.request_id}
    if context.notes:
        headers["x-qiao-notes"] = _ascii("; ".join(context.notes))
    if context.healed:
        headers["x-qiao-healed"] = ", ".join(context.healed)
    return headers


def _ascii(text: str) -> str:
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:1000]


async def _whole(gateway: Gateway, context: Context, answer: Answer, exchange: Exchange, frame: Frame) -> web.Response:
    while not exchange.is_over:
        try:
            async with asyncio.timeout(gateway.settings.silence_timeout):
                data = await answer.read()
        except TimeoutError as error:
            raise _silent(gateway) from error
        if not data:
            exchange.eof()
            break
        exchange.receive(data)
    _record(context, exchange)
    folded = exchange.answer()
    if folded.fault is not None:
        raise folded.fault
    body = anthropic_answer.encode(folded, frame, output_estimate=folded.estimated_tokens())
    headers = response_headers(context)
    context.bytes_out = len(body)
    if context.repairs:
        headers["x-qiao-repairs"] = ", ".join(sorted(set(context.repairs)))
    return web.Response(body=body, content_type="application/json", headers=headers)


async def _stream(
    request: web.BaseRequest, gateway: Gateway, context: Context, answer: Answer, exchange: Exchange
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**_STREAM_HEADERS, **response_headers(context)})
    await response.prepare(request)
    heartbeat = _Heartbeat(response, answer, gateway)
    pulse = asyncio.create_task(heartbeat.beat())
    loop_time = asyncio.get_running_loop().time
    written = 0
    try:
        while not exchange.is_over:
            try:
                data = await answer.read()
            except Fault as fault:
                out = exchange.fail(_silent(gateway) if heartbeat.gave_up else fault)
            else:
                heartbeat.heard = loop_time()
                if data:
                    out = exchange.receive(data)
                elif heartbeat.gave_up:
                    out = exchange.fail(_silent(gateway))
                else:
                    out = exchange.eof()
            if out:
                heartbeat.said = loop_time()
                if context.first_byte is None:
                    context.first_byte = heartbeat.said
                written += len(out)
                await response.write(out)
    finally:
        pulse.cancel()
        context.bytes_out = written
        _record(context, exchange)
    await response.write_eof()
    return response


class _Heartbeat:
    """Pings a client whose engine is silent, and gives up on an engine that is silent for too long."""

    def __init__(self, response: web.StreamResponse, answer: Answer, gateway: Gateway) -> None:
        self.said = self.heard = now()
        self.gave_up = False
        self._response = response
        self._answer = answer
        self._interval = gateway.settings.ping_interval
        self._patience = gateway.settings.silence_timeout

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(max(self.said + self._interval - now(), 0.005))
            time = now()
            if time - self.heard >= self._patience:
                self.gave_up = True
                self._answer.close()
                return
            if time - self.said >= self._interval:
                self.said = time
                await self._response.write(PING)


def _silent(gateway: Gateway) -> Fault:
    seconds = gateway.settings.silence_timeout
    return Fault("timeout", f"the engine said nothing for {seconds:g} seconds", party="upstream")


def _record(context: Context, exchange: Exchange) -> None:
    facts = exchange.facts
    context.usage = facts.usage
    context.finish = facts.finish
    context.repairs = tuple(name for _, name in facts.repairs)
    if facts.fault is not None:
        context.fault = facts.fault
