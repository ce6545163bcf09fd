"""From a decoded conversation to an answer, streamed or whole: the same for every protocol that clients speak.

A protocol brings a `Reply`: how its answer is written. Everything else, which model is meant, the exchange with the
upstream, silence on either side, what is kept for the record, is here and only here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import msgspec
from aiohttp import web

from qiao.app.gateway import Context, Gateway, now
from qiao.core.conversation import Conversation
from qiao.core.dialects import TextTools, text_tools
from qiao.core.exchange import Exchange, Limits, StreamEncoder
from qiao.core.fault import Fault
from qiao.core.fold import Answer as Folded
from qiao.policies.prepare import Prepared
from qiao.upstream.base import Answer, Served
from qiao.upstream.errors import explained

_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class Reply(msgspec.Struct, frozen=True):
    """How one answer is written.

    * `encoder`: events to the bytes of a stream.
    * `whole(folded)`: the body of a whole answer.
    * `ping`: what a stream carries while the engine is silent.
    * `id_prefix`: begins the ids of calls to which the engine gave none.
    """

    encoder: StreamEncoder
    whole: Callable[[Folded], bytes]
    ping: bytes
    id_prefix: str


ReplyTo: TypeAlias = Callable[[Conversation, Answer, Context], Reply]
"""Makes the reply once the upstream has accepted the conversation."""


async def respond(
    request: web.BaseRequest, gateway: Gateway, context: Context, conversation: Conversation, reply_to: ReplyTo
) -> web.StreamResponse:
    """Raises `Fault` until the first byte; afterwards a failure is an event in the stream."""
    context.model = conversation.model
    context.is_stream = conversation.stream
    context.dropped = conversation.dropped
    context.session = conversation.session
    is_subagent = "x-claude-code-agent-id" in request.headers
    served, profile = await gateway.served(conversation.model, is_subagent=is_subagent)
    context.upstream_model = served.id
    tenant = gateway.tenant(request.headers)
    prepare = await gateway.preparation(conversation, served, profile, tenant=tenant)
    sent = now()
    answer = await gateway.upstream.open(prepare, served, request_id=context.request_id)
    context.upstream_seconds = now() - sent
    context.healed = answer.healed
    context.notes = (*answer.prepared.notes, *answer.notes)
    try:
        reply = reply_to(conversation, answer, context)
        exchange = _exchange(conversation, answer, served, reply)
        if conversation.stream:
            return await _stream(request, gateway, context, answer, exchange, reply.ping)
        return await _whole(gateway, context, answer, exchange, reply)
    finally:
        answer.close()


def _exchange(conversation: Conversation, answer: Answer, served: Served, reply: Reply) -> Exchange:
    prepared = answer.prepared
    return Exchange(
        answer.decoder,
        reply.encoder if conversation.stream else None,
        id_prefix=reply.id_prefix,
        stops=prepared.scan_stops,
        one_call=prepared.one_call,
        text_tools=_text_tools(prepared),
        tools=prepared.tools,
        repair=prepared.repair,
        limits=Limits(window=served.window, max_tokens=conversation.max_tokens),
        explain=explained,
    )


def _text_tools(prepared: Prepared) -> TextTools | None:
    if prepared.dialect is None and prepared.reasoning is None:
        return None
    return text_tools(
        prepared.dialect,
        prepared.tools,
        reasoning=prepared.reasoning,
        repair=prepared.repair,
        # Text that nobody reads calls from is the engine's to the letter; so is one that a client has begun.
        keep_leading_space=prepared.dialect is None or prepared.conversation.is_prefill,
    )


def response_headers(context: Context) -> dict[str, str]:
    """What was done to the request, for whoever debugs it. Header values are ASCII."""
    headers = request_id_headers(context.request_id)
    if context.notes:
        headers["x-qiao-notes"] = _ascii("; ".join(context.notes))
    if context.healed:
        headers["x-qiao-healed"] = ", ".join(context.healed)
    return headers


def request_id_headers(request_id: str) -> dict[str, str]:
    """The id under the names that Anthropic's and OpenAI's clients read."""
    return {"request-id": request_id, "x-request-id": request_id}


def _ascii(text: str) -> str:
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:1000]


async def _whole(gateway: Gateway, context: Context, answer: Answer, exchange: Exchange, reply: Reply) -> web.Response:
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
    body = reply.whole(folded)
    headers = response_headers(context)
    context.bytes_out = len(body)
    if context.repairs:
        headers["x-qiao-repairs"] = ", ".join(sorted(set(context.repairs)))
    return web.Response(body=body, content_type="application/json", headers=headers)


async def _stream(
    request: web.BaseRequest, gateway: Gateway, context: Context, answer: Answer, exchange: Exchange, ping: bytes
) -> web.StreamResponse:
    response = web.StreamResponse(headers={**_STREAM_HEADERS, **response_headers(context)})
    await response.prepare(request)
    context.abort = partial(_abort, response, exchange)
    heartbeat = _Heartbeat(response, answer, gateway, ping)
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


async def _abort(response: web.StreamResponse, exchange: Exchange, fault: Fault) -> web.StreamResponse:
    await response.write(exchange.abort(fault))
    await response.write_eof()
    return response


class _Heartbeat:
    """Pings a client whose engine is silent, and gives up on an engine that is silent for too long."""

    def __init__(self, response: web.StreamResponse, answer: Answer, gateway: Gateway, ping: bytes) -> None:
        self.said = self.heard = now()
        self.gave_up = False
        self._response = response
        self._answer = answer
        self._ping = ping
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
                await self._response.write(self._ping)


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
