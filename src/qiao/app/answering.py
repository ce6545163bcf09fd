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

from qiao.app.gateway import Context, Gateway, Settings, now
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

# Bytes that may wait for a slow client before the engine has to wait as well.
_MAX_UNSENT = 64 * 1024


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
    begun: list[tuple[Reply, Exchange]] = []

    def begin(answer: Answer) -> None:
        reply = reply_to(conversation, answer, context)
        begun[:] = [(reply, _exchange(conversation, answer, served, reply))]

    sent = now()
    answer = await gateway.upstream.open(prepare, served, request_id=context.request_id, on_sent=begin)
    context.upstream_seconds = now() - sent
    context.healed = answer.healed
    context.notes = (*answer.prepared.notes, *answer.notes)
    try:
        reply, exchange = begun[0]
        if conversation.stream:
            return await _Stream(request, gateway, context, answer, exchange, reply.ping).run()
        return await _Whole(gateway, context, answer, exchange).run(reply)
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


class _Whole:
    """An answer that is told at its end."""

    def __init__(self, gateway: Gateway, context: Context, answer: Answer, exchange: Exchange) -> None:
        self._gateway = gateway
        self._context = context
        self._answer = answer
        self._exchange = exchange
        self._pulse = _Pulse(gateway.settings, answer, None)

    def _receive(self, data: bytes) -> bool:
        self._pulse.heard = now()
        self._exchange.receive(data)
        return not self._exchange.is_over

    async def run(self, reply: Reply) -> web.Response:
        """Raises `Fault`."""
        context, exchange = self._context, self._exchange
        try:
            if not await self._answer.pump(self._receive):
                exchange.eof()
        except Fault as fault:
            raise (_silent(self._gateway.settings) if self._pulse.gave_up else fault) from fault
        finally:
            self._pulse.stop()
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


class _Stream:
    """An answer on its way to the client while it is made.

    It is written where it comes in, past the server library's own coroutines: on every piece a person waits, and a
    task switch costs more than the translation.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        gateway: Gateway,
        context: Context,
        answer: Answer,
        exchange: Exchange,
        ping: bytes,
    ) -> None:
        self._request = request
        self._gateway = gateway
        self._context = context
        self._answer = answer
        self._exchange = exchange
        self._ping = ping
        self._written = 0
        self._time = asyncio.get_running_loop().time

    async def run(self) -> web.StreamResponse:
        context, exchange, answer = self._context, self._exchange, self._answer
        self._response = response = web.StreamResponse(headers={**_STREAM_HEADERS, **response_headers(context)})
        await response.prepare(self._request)
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        self._is_chunked = "Transfer-Encoding" in response.headers
        context.abort = self._abort
        self._pulse = _Pulse(self._gateway.settings, answer, partial(self._write, self._ping))
        try:
            while not exchange.is_over:
                try:
                    if await answer.pump(self._receive):
                        await self._request.writer.drain()
                        continue
                    out = exchange.eof()
                except Fault as fault:
                    out = exchange.fail(_silent(self._gateway.settings) if self._pulse.gave_up else fault)
                self._write(out)
        finally:
            self._pulse.stop()
            context.bytes_out = self._written
            _record(context, exchange)
        await response.write_eof()
        return response

    def _receive(self, data: bytes) -> bool:
        pulse = self._pulse
        pulse.heard = self._time()
        if out := self._exchange.receive(data):
            pulse.said = pulse.heard
            self._write(out)
        return not self._exchange.is_over and self._transport.get_write_buffer_size() < _MAX_UNSENT

    def _write(self, out: bytes) -> None:
        """A client that has gone is not told: its request is being cancelled."""
        if not out or self._transport.is_closing():
            return
        if self._context.first_byte is None:
            self._context.first_byte = self._time()
        self._written += len(out)
        self._transport.write(b"%x\r\n%b\r\n" % (len(out), out) if self._is_chunked else out)

    async def _abort(self, fault: Fault) -> web.StreamResponse:
        self._write(self._exchange.abort(fault))
        await self._response.write_eof()
        return self._response


class _Pulse:
    """Pings a client whose engine is silent, and gives up on an engine that is silent for too long.

    `heard`, `said`: when the engine and the gateway said something last. `ping` None: nobody is to be pinged.
    """

    def __init__(self, settings: Settings, answer: Answer, ping: Callable[[], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.said = self.heard = self._loop.time()
        self.gave_up = False
        self._answer = answer
        self._ping = ping
        self._interval = settings.ping_interval
        self._patience = settings.silence_timeout
        self._arm()

    def stop(self) -> None:
        self._timer.cancel()

    def _arm(self) -> None:
        due = self.heard + self._patience
        if self._ping is not None:
            due = min(due, self.said + self._interval)
        self._timer = self._loop.call_at(max(due, self._loop.time() + 0.005), self._beat)

    def _beat(self) -> None:
        time = self._loop.time()
        if time - self.heard >= self._patience:
            self.gave_up = True
            self._answer.close()
            return
        if self._ping is not None and time - self.said >= self._interval:
            self.said = time
            self._ping()
        self._arm()


def _silent(settings: Settings) -> Fault:
    seconds = settings.silence_timeout
    return Fault("timeout", f"the engine said nothing for {seconds:g} seconds", party="upstream")


def _record(context: Context, exchange: Exchange) -> None:
    facts = exchange.facts
    context.usage = facts.usage
    context.finish = facts.finish
    context.repairs = tuple(name for _, name in facts.repairs)
    if facts.fault is not None:
        context.fault = facts.fault
