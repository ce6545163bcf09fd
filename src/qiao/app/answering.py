"""From a decoded conversation to an answer, streamed or whole: the same for every protocol that clients speak.

A protocol brings a `Reply`: how its answer is written. Everything else, which model is meant, the exchange with the
upstream, silence on either side, what is kept for the record, is here and only here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec
from aiohttp import web

from qiao.app.conversations import in_session
from qiao.app.delivery import Delivery, Patience
from qiao.app.gateway import Context, Gateway, Settings, now
from qiao.app.joining import Running, Whole, identity_of
from qiao.core.conversation import Conversation
from qiao.core.dialects import TextTools, text_tools
from qiao.core.exchange import Exchange, Limits, StreamEncoder
from qiao.core.fault import Fault
from qiao.core.fold import Answer as Folded
from qiao.policies.prepare import Prepared
from qiao.policies.rank import is_side
from qiao.upstream.base import Answer, Listener, Served
from qiao.upstream.errors import explained

_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
_WHOLE_HEADERS = {"Content-Type": "application/json"}
_WHOLE_PATIENCE = 3


class Reply(msgspec.Struct, frozen=True):
    """How one answer is written.

    * `encoder`: events to the bytes of a stream.
    * `whole(folded)`: the body of a whole answer.
    * `id_prefix`: begins the ids of calls to which the engine gave none.
    """

    encoder: StreamEncoder
    whole: Callable[[Folded], bytes]
    id_prefix: str


class Manner(msgspec.Struct, frozen=True):
    """What a protocol brings.

    * `reply_to`: makes the reply while the upstream reads the conversation.
    * `ping`: what a stream carries while the engine is silent.
    * `failure(fault)`: the end of a stream that has begun without an answer.
    * `error(fault, request_id)`: the body of an error.
    """

    reply_to: Callable[[Conversation, Answer, Context], Reply]
    ping: bytes
    failure: Callable[[Fault], bytes]
    error: Callable[[Fault, str], bytes]


async def respond(
    request: web.BaseRequest,
    gateway: Gateway,
    context: Context,
    conversation: Conversation,
    manner: Manner,
    *,
    body: bytes,
) -> web.StreamResponse:
    """Raises `Fault` until the first byte; afterwards a failure is the end of the answer. `body`: as it was sent."""
    conversation = in_session(conversation, request.headers)
    context.model = conversation.model
    context.is_stream = conversation.stream
    context.dropped = conversation.dropped
    context.session = conversation.session
    identity = identity_of(request, conversation)
    if identity is None:
        return await _Work(request, gateway, context, conversation, manner, None).run()
    while (running := gateway.joining.find(identity, body)) is not None:
        joined = await _follow(request, gateway, context, running, manner)
        if joined is not None:
            return joined
    mine = gateway.joining.begin(identity, body, context.request_id)
    return await _Work(request, gateway, context, conversation, manner, mine).run()


class _Work:
    """One request on its way through the engine, and its answer on the way to the client.

    If others have joined, it goes on without the client that asked first (`_carry_on`).
    """

    def __init__(
        self,
        request: web.BaseRequest,
        gateway: Gateway,
        context: Context,
        conversation: Conversation,
        manner: Manner,
        shared: Running | None,
    ) -> None:
        self._request_headers = request.headers
        self._gateway = gateway
        self._context = context
        self._conversation = conversation
        self._manner = manner
        self._shared = shared
        self._line = _line(request, gateway, context, manner)
        self._line.on_silence = self._give_up
        self._opening: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._limit: asyncio.Timeout | None = None
        self._answer: Answer | None = None

    async def run(self) -> web.StreamResponse:
        """Ask, and pass on. Raises `Fault` until the first byte."""
        shared, line = self._shared, self._line
        self._context.abort = self._abort
        is_handed_over = False
        try:
            if shared is None:
                await self._open()
            else:
                self._opening = asyncio.create_task(self._open())
                await asyncio.shield(self._opening)
            if self._conversation.stream:
                line.begin()
                await self._pass_on()
                return await line.end()
            whole = await self._read_whole()
            if shared is not None:
                shared.end(whole=whole)
            return await _send_whole(line, self._context, whole)
        except Fault as fault:
            if shared is not None:
                shared.end(fault=fault)
            if not line.has_begun:
                raise
            self._context.fault = fault
            return await _fail_late(line, self._context, self._manner, fault)
        except (asyncio.CancelledError, ConnectionError):
            if shared is not None and (is_handed_over := shared.hand_over(self._carry_on, self._rest)):
                self._context.usage = None  # told by whoever has joined, and all of it
                shared.unclaimed = None if self._answer is None else self._exchange
            raise
        finally:
            self._context.bytes_out, self._context.first_byte = line.written, line.first
            line.rest()
            if not is_handed_over:
                self._rest()

    async def _open(self) -> None:
        """Until the upstream has accepted. Raises `Fault`."""
        gateway, context, conversation, shared = self._gateway, self._context, self._conversation, self._shared
        try:
            async with asyncio.timeout(None) as self._limit:
                is_subagent = "x-claude-code-agent-id" in self._request_headers
                served, profile = await gateway.served(conversation.model, is_subagent=is_subagent)
                context.upstream_model = served.id
                if shared is not None:
                    shared.upstream_model = served.id
                tenant = gateway.tenant(self._request_headers)
                prepare = await gateway.preparation(
                    conversation,
                    served,
                    profile,
                    tenant=tenant,
                    is_side=is_side(conversation, self._request_headers),
                )
                await gateway.upstream.admit()

                def begin(answer: Answer) -> None:
                    self._reply = self._manner.reply_to(conversation, answer, context)
                    self._exchange = _exchange(conversation, answer, served, self._reply)
                    context.healed = answer.healed
                    context.notes = (*answer.prepared.notes, *answer.notes)
                    context.trimmed = answer.prepared.trimmed
                    if conversation.stream:
                        self._line.make_ready()

                sent = now()
                answer = await gateway.upstream.open(
                    prepare,
                    served,
                    request_id=context.request_id,
                    listener=Listener(begin, self._receive_first if conversation.stream else None),
                )
        except TimeoutError as error:
            raise _silent(gateway.settings) from error
        self._limit = None
        self._answer = answer
        context.upstream_seconds = now() - sent

    async def _pass_on(self) -> None:
        """A stream, from its first word to its end."""
        assert self._answer is not None
        exchange, line = self._exchange, self._line
        try:
            while not exchange.is_over:
                try:
                    if await self._answer.pump(self._receive):
                        await self._wait_for_room()
                        continue
                    out = exchange.eof()
                except Fault as fault:
                    out = exchange.fail(_silent(self._gateway.settings) if line.gave_up else fault)
                if out:
                    self._say(out)
        finally:
            _record(self._context, exchange)

    def _receive_first(self, data: bytes) -> None:
        """What shows that the engine has accepted."""
        with contextlib.suppress(ConnectionError):  # the client is gone: this request is being cancelled
            self._line.begin()
        self._receive(data)

    def _receive(self, data: bytes) -> bool:
        self._line.heard = self._line.time()
        out = self._exchange.receive(data)
        has_room = self._say(out) if out else True
        return has_room and not self._exchange.is_over

    def _say(self, out: bytes) -> bool:
        line, shared = self._line, self._shared
        has_room = line.say(out, is_last=self._exchange.is_over)
        if shared is None:
            return has_room
        shared.add(out)
        if has_room or not shared.is_followed:
            return has_room
        line.hang_up_if_far_behind()
        return True

    async def _wait_for_room(self) -> None:
        """Until the client takes more, or somebody joins: a client that takes nothing shall not stop the others."""
        with self._line.holding_engine():
            if self._shared is None:
                await self._line.drain()
                return
            if self._draining is None or self._draining.done():
                self._draining = asyncio.create_task(self._line.drain())
                self._draining.add_done_callback(_seen)
            joining = asyncio.create_task(self._shared.followed())
            try:
                await asyncio.wait((self._draining, joining), return_when=asyncio.FIRST_COMPLETED)
            finally:
                joining.cancel()
            if self._draining.done():
                self._draining.result()

    async def _read_whole(self) -> Whole:
        """A whole answer. Raises `Fault`."""
        assert self._answer is not None
        exchange = self._exchange
        try:
            if not await self._answer.pump(self._take):
                exchange.eof()
        except Fault as fault:
            raise (_silent(self._gateway.settings) if self._line.gave_up else fault) from fault
        finally:
            _record(self._context, exchange)
        folded = exchange.answer()
        if folded.fault is not None:
            raise folded.fault
        repairs = sorted(Counter(self._context.repairs).items())
        headers = {"x-qiao-repairs": ", ".join(f"{name}={count}" for name, count in repairs)} if repairs else {}
        return Whole(self._reply.whole(folded), headers)

    def _take(self, data: bytes) -> bool:
        self._line.heard = self._line.time()
        self._exchange.receive(data)
        return not self._exchange.is_over

    async def _carry_on(self) -> None:
        """Go on for those who have joined; the client that asked first is gone."""
        shared = self._shared
        assert shared is not None
        self._line.lose_client()
        try:
            if self._opening is not None:
                await self._opening
            shared.unclaimed = self._exchange
            if self._conversation.stream:
                await self._pass_on()
            else:
                shared.end(whole=await self._read_whole())
        except Fault as fault:
            shared.end(fault=fault)

    def _give_up(self) -> None:
        """The engine was silent for too long."""
        if self._answer is not None:
            self._answer.close()
        elif self._limit is not None:
            self._limit.reschedule(now())

    def _rest(self) -> None:
        """Let the engine go, and everybody who has joined."""
        self._line.rest()
        is_complete = False
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._answer is not None:
            is_complete = self._conversation.stream and self._exchange.is_over
            self._answer.close()
        shared = self._shared
        if shared is None:
            return
        shared.end(is_lost=not is_complete)
        spent = shared.claim() if shared.is_deserted else None
        if spent is not None and (usage := spent.facts.usage) is not None:
            self._gateway.metrics.spend(usage.prompt, usage.cached, usage.completion)

    async def _abort(self, fault: Fault) -> web.StreamResponse | None:
        """The end of an answer when something broke that should not; None if none has begun."""
        if not self._line.has_begun:
            return None
        if self._answer is None or not self._conversation.stream:
            return await _fail_late(self._line, self._context, self._manner, fault)
        self._line.say(self._exchange.abort(fault))
        return await self._line.end()


def _seen(task: asyncio.Task[None]) -> None:
    """Nobody has to ask what became of it."""
    if not task.cancelled():
        task.exception()


async def _follow(
    request: web.BaseRequest, gateway: Gateway, context: Context, running: Running, manner: Manner
) -> web.StreamResponse | None:
    """The answer to a request that joins another one; None where that came to nothing, and this has to ask itself."""
    context.joined = running.request_id
    line = _line(request, gateway, context, manner)
    line.trust_engine()
    running.join()
    try:
        place = 0
        while place < len(running.pieces) or not running.is_over:
            if place == len(running.pieces):
                await running.changed()
                continue
            out = b"".join(running.pieces[place:])
            place = len(running.pieces)
            line.begin()
            line.say(out)
            await line.drain()
        if running.whole is not None:
            return await _send_whole(line, context, running.whole)
        if running.fault is None and not running.is_lost:
            return await line.end()
        if running.is_lost and not line.has_begun:
            context.joined = ""
            return None
        context.fault = running.fault or Fault("api", "the request that this one joined broke off", party="ours")
        if not line.has_begun:
            raise context.fault
        return await _fail_late(line, context, manner, context.fault)
    finally:
        context.upstream_model = running.upstream_model
        context.bytes_out, context.first_byte = line.written, line.first
        running.leave()
        spent = running.claim()
        if spent is not None:
            _record(context, spent)
        line.rest()


def _line(request: web.BaseRequest, gateway: Gateway, context: Context, manner: Manner) -> Delivery:
    """The way to the client. A stream begins after one interval of silence; a whole answer, which loses its status by
    that, after several, still within the minute that proxies wait."""
    interval, limit = gateway.settings.ping_interval, gateway.settings.silence_timeout
    if context.is_stream:
        patience = Patience(begin=interval, interval=interval, limit=limit)
        return Delivery(request, lambda: {**_STREAM_HEADERS, **response_headers(context)}, manner.ping, patience)
    patience = Patience(begin=_WHOLE_PATIENCE * interval, interval=interval, limit=limit)
    return Delivery(request, lambda: {**_WHOLE_HEADERS, **response_headers(context)}, b" ", patience)


async def _send_whole(line: Delivery, context: Context, whole: Whole) -> web.StreamResponse:
    """A whole answer, also behind the white space that kept its client waiting."""
    line.rest()
    if line.has_begun:
        line.say(whole.body)
        return await line.end()
    line.written = len(whole.body)
    headers = response_headers(context) | whole.headers
    return web.Response(body=whole.body, content_type="application/json", headers=headers)


async def _fail_late(line: Delivery, context: Context, manner: Manner, fault: Fault) -> web.StreamResponse:
    """The end of an answer that has begun and came to nothing, see `delivery`."""
    if context.is_stream:
        line.say(manner.failure(fault))
        return await line.end()
    line.say(manner.error(fault, context.request_id))
    return await line.break_off()


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
        names=prepared.names,
        repair=prepared.repair,
        hide_reasoning=conversation.thinking.mode == "off",
        limits=Limits(served.window, conversation.max_tokens, is_full=prepared.is_limited),
        explain=partial(explained, window=served.window),
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
        # Under a grammar a call may follow the reasoning at once.
        doubts_engine=prepared.grammar is None,
    )


def response_headers(context: Context) -> dict[str, str]:
    """What was done to the request, for whoever debugs it. Header values are ASCII."""
    headers = request_id_headers(context.request_id)
    if context.joined:
        headers["x-qiao-joined"] = context.joined
    if context.notes:
        headers["x-qiao-notes"] = _ascii("; ".join(context.notes))
    if context.healed:
        headers["x-qiao-healed"] = ", ".join(context.healed)
    if context.trimmed:
        headers["x-qiao-trimmed"] = str(context.trimmed)
    return headers


def request_id_headers(request_id: str) -> dict[str, str]:
    """The id under the names that Anthropic's and OpenAI's clients read."""
    return {"request-id": request_id, "x-request-id": request_id}


def _ascii(text: str) -> str:
    printable = "".join(character if " " <= character <= "~" else "?" for character in text)
    return printable[:1000]


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
