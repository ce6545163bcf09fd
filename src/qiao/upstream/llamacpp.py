"""The embedded engine as an upstream: llama.cpp's own routes, because its chat route does not do what is asked of it.

A request is shortened where the model's window is small, rendered by the model's own template (`/apply-template`),
and completed (`/completion`) under a grammar where a call or a schema is wanted. With `tool_choice: auto` the answer
is text, unless a threshold is set and a call is that much more probable than after a neutral request.
"""

from __future__ import annotations

import fnmatch
from typing import TypeVar

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, Turn
from qiao.core.fault import Fault
from qiao.core.llamacpp import request
from qiao.core.llamacpp.stream import Decoder, engine_fault, too_long
from qiao.core.llamacpp.tools import begun, head
from qiao.core.openai.target import Target
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.policies.shorten import DEFAULT_TARGET, MEASURED, shorten
from qiao.upstream.base import NOBODY, Count, Lesson, Listener, Preparation, Served, UpstreamFacts
from qiao.upstream.client import Client, Reply
from qiao.upstream.errors import TRANSPORT_ERRORS
from qiao.upstream.http import Response, Sink

SMALL_WINDOW = 20_000
"""Tokens. A model with less is sent shortened conversations."""

READ_ONLY = ("get_*", "list_*", "search_*", "find_*", "lookup_*", "read_*", "count_*", "Read", "Glob", "Grep", "LS")
"""Names of tools that change nothing, as far as a name can tell: only they may be called unasked."""

_FACTS_TIMEOUT = 10.0
_PROMPT_TIMEOUT = 30.0
_SCORE_TIMEOUT = 120.0
_SPEED_TIMEOUT = 8.0
_LEAST_ANSWER = 16
_NEUTRAL = "Hello."


_T = TypeVar("_T")


class Choices(msgspec.Struct, frozen=True):
    """What the person who runs this engine may decide.

    * `options`: sampling and limits, see `core.llamacpp.request.Options`.
    * `target`: tokens to which a conversation is shortened; None: never.
    * `auto_threshold`: how much more probable (natural logarithm) a call must be than after a neutral request, to be
      made with `tool_choice: auto`; None: never.
    * `auto_names`: patterns of the tools that may be called so.
    """

    options: request.Options = request.Options(
        temperature=0.2, top_p=0.9, repeat_penalty=1.1, longest_answer=512, ends_quietly=True
    )
    target: int | None = DEFAULT_TARGET
    auto_threshold: float | None = None
    auto_names: tuple[str, ...] = READ_ONLY


class _Listed(msgspec.Struct):
    class _Meta(msgspec.Struct):
        n_ctx: int | None = None

    id: str
    meta: _Meta | None = None


class _Models(msgspec.Struct):
    data: list[_Listed]


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Read(msgspec.Struct):
    class _Timings(msgspec.Struct):
        prompt_per_second: float

    timings: _Timings


class _Scored(msgspec.Struct):
    class _Probability(msgspec.Struct):
        logprob: float | None = None

    completion_probabilities: list[_Probability] = []


class LlamaCppAnswer:
    """An accepted answer; see `upstream.base.Answer`."""

    def __init__(
        self,
        response: Response,
        client: Client,
        prepared: Prepared,
        *,
        decoder: Decoder,
        notes: tuple[str, ...],
        estimate: int,
    ) -> None:
        self.decoder = decoder
        self.prepared = prepared
        self.healed: tuple[str, ...] = ()
        self.notes = notes
        self.prompt_estimate = estimate
        self._response = response
        self._client = client

    async def pump(self, sink: Sink) -> bool:
        try:
            return await self._response.pump(sink)
        except TRANSPORT_ERRORS as error:
            raise self._client.fault(error) from error

    def close(self) -> None:
        self._response.close()


class LlamaCppUpstream:
    """The engine at `address` (without a path), which wants `key`. `window`: tokens, None: it is asked."""

    def __init__(
        self, address: str, *, key: str | None = None, window: int | None = None, choices: Choices | None = None
    ) -> None:
        self.address = address.rstrip("/")
        self.quirks = Quirks(no_images=True)
        self._client = Client(self.address, api_key=key)
        self._window = window
        self._choices = choices or Choices()
        self._facts: UpstreamFacts | None = None
        self._neutral: dict[tuple[str, ...], dict[str, float]] = {}

    async def close(self) -> None:
        await self._client.close()

    def quirks_of(self, _: Served, /) -> Quirks:
        return self.quirks

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        return ()

    @property
    def waiting(self) -> int | None:
        return None  # it serves the one who started it

    async def admit(self) -> None:
        pass

    async def facts(self, *, fresh: bool = False) -> UpstreamFacts:
        """The model and its window. `fresh`: the engine is asked again."""
        if self._facts is None or fresh:
            reply = await self._client.get("/v1/models", timeout=_FACTS_TIMEOUT)
            listed = self._read(reply, _Models).data
            served = tuple(
                Served(model.id, self._window or (model.meta.n_ctx if model.meta is not None else None))
                for model in listed
            )
            self._facts = UpstreamFacts("llamacpp", None, served)
        return self._facts

    async def open(
        self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY
    ) -> LlamaCppAnswer:
        prepared = prepare(self.quirks, _target(served))
        conversation, notes = self._fitted(prepared.conversation, served)
        prompt = await self.prompt_of(conversation)
        tools = request.callable_tools(conversation)
        tokens = await self._tokens(prompt + begun(tools))
        room = await self._room(tokens, served, conversation.max_tokens)
        if not tools:
            tools, said = await self._unasked(conversation, prompt)
            longer = await self._tokens(prompt + begun(tools)) if tools else tokens
            if room - (longer - tokens) < _LEAST_ANSWER:
                tools = ()  # nobody asked for it, and it would not fit
            else:
                tokens, room, notes = longer, room - (longer - tokens), notes + said
        options = self._choices.options
        forced = request.forced_call(conversation, tools, options, room=room)
        body = request.completion(conversation, prompt, options, forced_by=forced, room=room)
        response = await self._client.post("/completion", body, headers={"X-Request-Id": request_id})
        if response.status != 200:
            raise self._fault(response.status, await self._client.error_body(response))
        if missing := request.left_out(conversation, forced):
            notes += (f"schema: not kept by the grammar: {', '.join(missing)}",)
        leashed = request.is_leashed(conversation, options, forced_by=forced, room=room)
        if leashed:
            notes += (f"max_tokens: texts of this engine end after {options.longest_answer}",)
        decoder = Decoder(forced, leashed=leashed)
        answer = LlamaCppAnswer(response, self._client, prepared, decoder=decoder, notes=notes, estimate=tokens)
        if listener.on_sent is not None:
            listener.on_sent(answer)
        return answer

    async def reading_speed(self) -> float | None:
        """Tokens of a prompt that the engine reads in a second; None where a short one took too long to tell.

        Measured with `shorten.MEASURED` tokens, so that it costs a second.
        """
        try:
            reply = await self._client.post_whole("/completion", request.reading(MEASURED), timeout=_SPEED_TIMEOUT)
        except Fault as fault:
            if fault.kind != "timeout":
                raise
            return None
        return self._read(reply, _Read).timings.prompt_per_second

    async def count(self, prepare: Preparation, served: Served) -> Count:
        conversation, _ = self._fitted(prepare(self.quirks, _target(served)).conversation, served)
        prompt = await self.prompt_of(conversation)
        tools = request.callable_tools(conversation)
        return Count(await self._tokens(prompt + begun(tools)), is_exact=True)

    # -- the prompt -----------------------------------------------------------------------------------------------

    def _fitted(self, conversation: Conversation, served: Served) -> tuple[Conversation, tuple[str, ...]]:
        target = self._choices.target
        if target is None or (served.window or 0) > SMALL_WINDOW:
            return conversation, ()
        shortened = shorten(conversation, target=target)
        return shortened.conversation, ((shortened.note,) if shortened.note else ())

    async def prompt_of(self, conversation: Conversation) -> str:
        """The prompt that the model's own template makes of `conversation`."""
        reply = await self._client.post_whole(
            "/apply-template", request.template(conversation), timeout=_PROMPT_TIMEOUT
        )
        return self._read(reply, _Prompt).prompt

    async def _tokens(self, prompt: str) -> int:
        body = msgspec.json.encode({"content": prompt, "add_special": True, "parse_special": True})
        reply = await self._client.post_whole("/tokenize", body, timeout=_PROMPT_TIMEOUT)
        return len(self._read(reply, _Tokens).tokens)

    async def _room(self, tokens: int, served: Served, asked: int | None) -> int:
        """Tokens that an answer has behind a prompt of `tokens`. Raises `Fault` where they are too few for `asked`."""
        window = served.window or (await self.facts()).models[0].window
        if window is None:
            return self._choices.options.longest_answer
        least = _LEAST_ANSWER if asked is None else max(1, min(asked, _LEAST_ANSWER))
        if tokens + least > window:
            # Clients read the gap between the two numbers.
            raise too_long(max(tokens, window + 1), window)
        return window - tokens

    # -- calls that nobody asked for ------------------------------------------------------------------------------

    async def _unasked(self, conversation: Conversation, prompt: str) -> tuple[tuple[Tool, ...], tuple[str, ...]]:
        """The tool that is so probable after `prompt` that it is called although it need not be."""
        threshold = self._choices.auto_threshold
        allowed = [tool for tool in conversation.tools if _matches(tool.name, self._choices.auto_names)]
        is_open = conversation.tool_choice.mode == "auto" and not conversation.is_prefill
        if threshold is None or not allowed or not is_open or conversation.output_schema is not None:
            return (), ()
        gains = await self.gains(conversation, prompt, tuple(tool.name for tool in allowed))
        best = max(allowed, key=lambda tool: gains[tool.name])
        if gains[best.name] < threshold:
            return (), ()
        return (best,), (f"tool_choice: {best.name} called unasked ({gains[best.name]:+.1f} over a neutral request)",)

    async def gains(self, conversation: Conversation, prompt: str, names: tuple[str, ...]) -> dict[str, float]:
        """How much more probable a call of each of `names` is after `prompt` than after a neutral request."""
        neutral = msgspec.structs.replace(conversation, turns=(Turn("user", (Text(_NEUTRAL),)),))
        neutral_prompt = await self.prompt_of(neutral)
        key = (neutral_prompt, *names)
        if key not in self._neutral:
            self._neutral.clear()  # one client at a time: another set of tools is another session
            self._neutral[key] = {name: await self._probability(neutral_prompt, name) for name in names}
        usual = self._neutral[key]
        return {name: await self._probability(prompt, name) - usual[name] for name in names}

    async def _probability(self, prompt: str, name: str) -> float:
        """Logarithm of the probability that the answer begins with a call of `name`."""
        reply = await self._client.post_whole(
            "/completion", request.scoring(prompt, head(name).partition(",")[0]), timeout=_SCORE_TIMEOUT
        )
        scored = self._read(reply, _Scored).completion_probabilities
        return sum(token.logprob for token in scored if token.logprob is not None)

    # -- replies --------------------------------------------------------------------------------------------------

    def _read(self, reply: Reply, kind: type[_T]) -> _T:
        if reply.status != 200:
            raise self._fault(reply.status, reply.body)
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except msgspec.DecodeError as error:
            raise Fault(
                "api", f"the engine at {self.address} answers in another way than llama.cpp: {error}", party="upstream"
            ) from error

    def _fault(self, status: int, body: bytes) -> Fault:
        try:
            error = msgspec.json.decode(body)["error"]
        except (msgspec.DecodeError, KeyError, TypeError):
            error = {"message": body[:200].decode("utf-8", "replace"), "code": status}
        return engine_fault(error)


def _target(served: Served) -> Target:
    """What the policies have to know: it stops at any number of strings, and its template takes no variables here."""
    return Target(model=served.id, flavor="llamacpp", stop_limit=None, template_kwargs=False)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
