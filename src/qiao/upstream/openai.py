"""An OpenAI-compatible engine (vLLM, SGLang, llama.cpp, Ray Serve, …) as an upstream.

Facts come from `GET /v1/models` (and vLLM's `/version`), asked again as `renewal` says; an answer is one
`POST /v1/chat/completions`. A refusal that names something the engine does not take is healed: the request is mended
and sent again at once, and what lasts is remembered for that model (`lessons`). At most twice a request, not counting
what another of its models has taught already.

vLLM refuses some things (a thinking budget without a reasoning parser, a schema without a grammar) only after the head
of a stream, as its first event, before it prefills. So a stream counts as accepted once its beginning was looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from qiao.core.conversation import Conversation
from qiao.core.fault import Fault
from qiao.core.openai import request as openai_request
from qiao.core.openai.stream import Decoder
from qiao.core.openai.target import Flavor, Target
from qiao.policies import refusal, remedies, text_mode
from qiao.policies.context import token_trigger
from qiao.policies.overflow import Excess, find_excess
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks, Remedy, features, mend, mend_target
from qiao.policies.remedies import ANSWER_TOO_LONG
from qiao.policies.window import is_far
from qiao.profiles import Profile, find
from qiao.profiles.engines import target_for
from qiao.upstream.base import NOBODY, Answer, Count, Lesson, Listener, Preparation, Served, UpstreamFacts
from qiao.upstream.client import Client, Reply
from qiao.upstream.counting import Counter, estimate
from qiao.upstream.errors import TRANSPORT_ERRORS, fault_of, retry_after
from qiao.upstream.fitting import Fit, Fitter, OnOverflow, Unseen
from qiao.upstream.grammars import Grammars
from qiao.upstream.http import Response, Sink
from qiao.upstream.insisting import Insisting, asking_again
from qiao.upstream.lessons import Healings, Lessons, forgotten
from qiao.upstream.load import Load
from qiao.upstream.probe import Findings, probe
from qiao.upstream.renewal import Renewal

_FACTS_TIMEOUT = 10.0
_FACTS_MINIMUM_AGE = 2.0
# Seconds to wait for the first event of a stream. A late refusal comes at once (vLLM 0.32 on two busy cores: within
# 60 ms of the head), but for a grammar, which is made first; an engine that prefills says nothing.
_FIRST_EVENT_TIMEOUT = 0.25
_GRAMMAR_TIMEOUT = 5.0
_ERROR_BEGINNINGS = (
    b'data: {"error"',
    b'data:{"error"',
    b'data: {"object":"error"',
    b'data: {"object": "error"',
    b"error: {",
)
# Where an engine tells its version, and under which name.
_VERSION_ROUTES: dict[Flavor, tuple[str, str]] = {
    "vllm": ("/version", "version"),
    "sglang": ("/get_server_info", "version"),
    "llamacpp": ("/props", "build_info"),
}
_OWNERS: dict[str, Flavor] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp", "openai": "openai"}


class OpenAIAnswer:
    """An accepted answer; see `upstream.base.Answer`."""

    def __init__(self, client: Client, prepared: Prepared, fit: Fit, healed: tuple[str, ...]) -> None:
        self.decoder = Decoder(whole=not fit.conversation.stream)
        self.prepared = prepared
        self.healed = healed
        self.notes = fit.notes
        self.prompt_estimate = estimate(fit.conversation)
        self._client = client
        self._beginning = b""
        self._response: Response | None = None

    def accept(self, response: Response, beginning: bytes, *, whole: bool) -> None:
        """The engine has accepted. `beginning`: what is still to be handed on. `whole`: it does not stream."""
        self._response = response
        self._beginning = beginning
        self.decoder.whole = whole

    async def pump(self, sink: Sink) -> bool:
        if self._beginning:
            beginning, self._beginning = self._beginning, b""
            if not sink(beginning):
                return True
        if self._response is None:
            return False
        try:
            return await self._response.pump(sink)
        except TRANSPORT_ERRORS as error:
            raise self._client.fault(error) from error

    def close(self) -> None:
        if self._response is not None:
            self._response.close()


class _Sending:
    """A request on its way: what can be made while the engine reads it."""

    def __init__(
        self,
        client: Client,
        prepared: Prepared,
        fit: Fit,
        healed: Sequence[str],
        on_sent: Callable[[Answer], None] | None,
    ) -> None:
        self._client = client
        self._prepared = prepared
        self._fit = fit
        self._healed = tuple(healed)
        self._on_sent = on_sent

    def sent(self) -> None:
        self.features = features(self._fit.conversation)
        self.answer = OpenAIAnswer(self._client, self._prepared, self._fit, self._healed)
        if self._on_sent is not None:
            self._on_sent(self.answer)


class _Beginning:
    """The first bytes of a stream, until they show whether it is an answer. `left`: those that nobody was handed."""

    def __init__(self, on_first: Callable[[bytes], None] | None) -> None:
        self.left = b""
        self._on_first = on_first

    def take(self, data: bytes) -> bool:
        """True: more bytes are needed."""
        self.left += data
        if _may_be_error(self.left):
            return True
        if self._on_first is not None and not self.left.startswith(_ERROR_BEGINNINGS):
            data, self.left = self.left, b""
            self._on_first(data)
        return False


class OpenAIUpstream:
    """One engine behind an OpenAI-compatible API.

    `root`: its address without `/v1`. `flavor` None: found out. `model`: taken as served even if the engine does not
    list its models. `on_heal(remedy)` is told of every healing. `on_overflow`: what becomes of a conversation that
    does not fit the window. `queue_limit`: requests that may wait in the engine, see `Load`.
    """

    def __init__(
        self,
        root: str,
        *,
        prefix: str = "/v1",
        api_key: str | None = None,
        flavor: Flavor | None = None,
        model: str | None = None,
        connect_timeout: float = 10.0,
        on_heal: Callable[[Remedy], None] | None = None,
        on_overflow: OnOverflow = "refuse",
        queue_limit: int | None = None,
    ) -> None:
        self.address = root.rstrip("/") + prefix
        self._quirks = Quirks()
        self._client = Client(root, api_key=api_key, connect_timeout=connect_timeout)
        self._load = Load(self._client, queue_limit) if queue_limit is not None else None
        self._secrets = (api_key,) if api_key else ()
        self._prefix = prefix
        self._flavor = flavor
        self._model = model
        self._on_heal = on_heal
        self._version_known: str | None = None
        self._models_known: tuple[Served, ...] = ()
        self._lessons = Lessons()
        self._facts: UpstreamFacts | None = None
        self._facts_at = 0.0
        self._facts_lock = asyncio.Lock()
        self._renewal = Renewal(self._client.connections, self._facts_again)
        self._counter = Counter(self._client)
        self._fitter = Fitter(self._counter, on_overflow)
        self._found: tuple[str | None, Served, Findings] | None = None
        self._probe_lock = asyncio.Lock()
        self._grammars = Grammars(self._client, prefix + "/chat/completions")
        self._probing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._load is not None:
            await self._load.close()
        await self._renewal.close()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._client.close()

    @property
    def waiting(self) -> int | None:
        return self._load.waiting if self._load is not None else None

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        return self._lessons.told

    @property
    def quirks(self) -> Quirks:
        return self._lessons.everything(self._quirks)

    def quirks_of(self, served: Served, /) -> Quirks:
        return self._lessons.applied(self._quirks, served.id)

    async def admit(self) -> None:
        if self._load is not None:
            await self._load.admit()

    # -- facts ----------------------------------------------------------------------------------------------------

    async def facts(self, *, fresh: bool = False) -> UpstreamFacts:
        known = self._facts
        if known is not None and not self._client.has_failed and not (fresh and self._may_refresh()):
            if self._renewal.is_due(self._facts_at):
                await self._renewal.run()
            return self._facts or known
        async with self._facts_lock:
            if self._facts is None or self._client.has_failed or (fresh and self._may_refresh()):
                await self._renew_facts()
            assert self._facts is not None
            return self._facts

    async def _facts_again(self) -> None:
        async with self._facts_lock:
            await self._renew_facts()

    async def _renew_facts(self) -> None:
        asked = await self._ask_facts()
        self._facts_at = asyncio.get_running_loop().time()
        if asked != self._facts:
            self._facts = asked

    def _may_refresh(self) -> bool:
        return asyncio.get_running_loop().time() - self._facts_at > _FACTS_MINIMUM_AGE

    async def _ask_facts(self) -> UpstreamFacts:
        reply = await self._client.get(self._prefix + "/models", timeout=_FACTS_TIMEOUT)
        if reply.status != 200:
            if reply.status in (404, 405, 501) and self._model is not None:
                models: tuple[Served, ...] = (Served(self._model),)
                self._settle(None, models)
                return UpstreamFacts(self._flavor or "openai", None, models)
            raise self._refused(reply)
        body = reply.json()
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise Fault(
                "api", f"the upstream at {self.address} does not answer /models as OpenAI's API does", party="upstream"
            )
        models = tuple(_served(entry) for entry in listed if isinstance(entry, dict) and entry.get("id"))
        if self._model is not None and all(model.id != self._model for model in models):
            models = (Served(self._model), *models)
        flavor = self._flavor or _flavor_of(listed)
        version = await self._version(flavor)
        self._settle(version, models)
        return UpstreamFacts(flavor, version, models)

    async def _version(self, flavor: Flavor) -> str | None:
        route = _VERSION_ROUTES.get(flavor)
        if route is None:
            return None
        path, name = route
        try:
            reply = await self._client.get(path, timeout=_FACTS_TIMEOUT)
        except Fault:
            return self._version_known  # it is busy, or hangs: no news
        if reply.status == 429 or reply.status >= 500:
            return self._version_known
        # An engine without the route is older or another one; nothing depends on it.
        body = reply.json() if reply.status == 200 else None
        version = body.get(name) if isinstance(body, dict) else None
        return version if isinstance(version, str) else None

    def _settle(self, version: str | None, models: tuple[Served, ...]) -> None:
        """What it taught holds no more where it is another version, or may have been started anew with other flags."""
        is_changed = any(model not in models for model in self._models_known)
        if self._version_known != version or is_changed or self._client.has_failed:
            self._quirks = forgotten(self._quirks)
            self._grammars.forget()
            self._lessons.forget()
            self._counter.forget()
            if self._found is not None:
                self._found = None
                self._probing = asyncio.create_task(self._probe_again())
        self._version_known, self._models_known = version, models
        self._client.has_failed = False

    async def _probe_again(self) -> None:
        with contextlib.suppress(Fault):  # it is busy, or down again: /readyz asks next
            await self.probe()

    async def probe(self) -> Findings | None:
        """What its first model does that it does not tell; asked once a version, and not of who speaks OpenAI's alone.

        What was found is kept in `quirks`. Raises `Fault` when it does not answer.
        """
        facts = await self.facts()
        served = facts.served(self._model) if self._model is not None else next(iter(facts.models), None)
        if facts.flavor == "openai" or served is None:
            return None
        async with self._probe_lock:
            if self._found is None or self._found[:2] != (facts.version, served):
                target = target_for(facts.flavor, facts.version, served.id, root=served.root)
                profile = find(served.root, served.id)
                found, lesson = await probe(self._client, self._prefix, target, profile)
                if lesson is not None:
                    self._lessons.learn(lesson, served.id)
                has_tools = not self.quirks_of(served).no_tools
                self._quirks = _with_findings(self._quirks, found, profile, facts, has_tools=has_tools)
                if found.tool_parser is None:
                    return found  # it was busy, perhaps: the next look may tell
                self._found = (facts.version, served, found)
            return self._found[2]

    # -- answers --------------------------------------------------------------------------------------------------

    async def open(
        self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY
    ) -> Answer:
        first = await self._open(prepare, served, request_id=request_id, listener=listener)
        if not first.prepared.insists:
            return first

        async def again(said: str) -> Answer:
            return await self._open(asking_again(prepare, said), served, request_id=request_id)

        return Insisting(first, again, whole=first.decoder.whole)

    async def _open(
        self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY
    ) -> OpenAIAnswer:
        facts = await self.facts()
        quirks = self.quirks_of(served)
        healed = Healings(self._lessons, served.id)
        window = served.window
        unseen: Unseen | None = None
        while True:
            prepared, conversation, target = await self._ready(prepare, facts, served, quirks)
            body = openai_request.encode(conversation, target)
            fit = Fit(conversation)
            if unseen is not None or not is_far(len(body), conversation.max_tokens, window):
                fit = await self._fitter.fit(conversation, target, window or 0, unseen=unseen)
                if fit.conversation is not conversation:
                    body = openai_request.encode(fit.conversation, target)
            if fit.is_limited or fit.trimmed or ANSWER_TOO_LONG in healed.names:
                prepared = msgspec.structs.replace(
                    prepared, is_limited=fit.is_limited or ANSWER_TOO_LONG in healed.names, trimmed=fit.trimmed
                )
            sending = _Sending(self._client, prepared, fit, healed.names, listener.on_sent)
            response = await self._client.post(
                self._prefix + "/chat/completions",
                body,
                headers={"X-Request-Id": request_id},
                meanwhile=sending.sent,
            )
            is_stream = "event-stream" in response.headers.get("content-type", "")
            used = sending.features
            patience = _GRAMMAR_TIMEOUT if self._grammars.is_unproven(prepared, used) else _FIRST_EVENT_TIMEOUT
            beginning = _Beginning(None if prepared.insists else listener.on_first)
            refused_body = await self._refusal(response, beginning, is_stream=is_stream, patience=patience)
            if refused_body is None:
                self._grammars.accept(prepared)
                sending.answer.accept(response, beginning.left, whole=not is_stream)
                return sending.answer
            refused = refusal.read(response.status, refused_body)
            excess = find_excess(refused.text)
            window = (excess.window if excess is not None else None) or window
            unseen_in = partial(self._fitter.unseen_in, fit.conversation, target, window, excess)
            if unseen is None and (unseen := await unseen_in()) is not None:
                continue  # the look at its size was wrong: once more, by the engine's number
            if response.status == 404:
                self._facts_at, self._facts = 0.0, None  # it may serve another model by now
            counted = None if excess is None else await self._fitter.recount(fit.conversation, target)
            true_count = counted.tokens if counted is not None and counted.is_exact else None
            find_remedy = partial(remedies.find, refused.text, refused.status, quirks=quirks, true_count=true_count)
            remedy = find_remedy(used=self._grammars.suspects(prepared, used)) or find_remedy(used=used)
            if remedy is None or not healed.admit(remedy, quirks):
                if (unseen := await unseen_in(before=unseen, is_last=True)) is None:
                    best = _best(excess, counted, window)
                    raise self._fault(refused, response.headers, window=window, true_count=best)
                # A shorter answer did not help: it is the prompt.
                quirks = msgspec.structs.replace(quirks, max_tokens=self.quirks_of(served).max_tokens)
                continue
            quirks = await self._learned(remedy, quirks, prepared, target)
            if self._on_heal is not None:
                self._on_heal(remedy)

    async def _learned(self, remedy: Remedy, quirks: Quirks, prepared: Prepared, target: Target) -> Quirks:
        """`quirks` and what a refusal has taught; what lasts is remembered."""
        self._lessons.learn(remedy, target.model)
        match await self._grammars.lesson(remedy, prepared, target, quirks.refused_schemas):
            case "schema":
                self._quirks = msgspec.structs.replace(self._quirks, refused_schemas=self._grammars.refused)
                return msgspec.structs.replace(quirks, refused_schemas=self._grammars.refused)
            case "engine":
                self._lessons.keep(remedy, target.model)
            case "request":
                pass
        return quirks.with_(remedy)

    async def _refusal(
        self, response: Response, beginning: _Beginning, *, is_stream: bool, patience: float
    ) -> bytes | None:
        """The body of a refusal; None: the engine has accepted. `patience`: seconds at most."""
        if response.status != 200:
            return await self._client.error_body(response)
        if not is_stream:
            return None
        try:
            async with asyncio.timeout(patience):
                await response.pump(beginning.take)
        except TimeoutError:
            pass  # accepted, and at work
        except TRANSPORT_ERRORS as error:
            response.close()
            raise self._client.fault(error) from error
        except asyncio.CancelledError:
            response.close()
            raise
        refusal_body = _late_refusal(beginning.left)
        if refusal_body is not None:
            response.close()
        return refusal_body

    def _refused(self, reply: Reply) -> Fault:
        return self._fault(refusal.read(reply.status, reply.body), reply.headers)

    def _fault(
        self,
        refused: refusal.Refusal,
        headers: Mapping[str, str],
        *,
        window: int | None = None,
        true_count: int | None = None,
    ) -> Fault:
        return fault_of(
            refused,
            address=self.address,
            retry_after=retry_after(headers, now=time.time()),
            window=window,
            true_count=true_count,
            secrets=self._secrets,
        )

    # -- counting -------------------------------------------------------------------------------------------------

    async def count(self, prepare: Preparation, served: Served) -> Count:
        facts = await self.facts()
        prepared, conversation, target = _prepared(prepare, facts, served, self.quirks_of(served))
        if self._grammars.has_unknown(prepared):
            # A strict tool has a word more in the prompt, unless its schema makes no grammar.
            await self._grammars.learn(prepared, target, is_refused=False)
            self._quirks = msgspec.structs.replace(self._quirks, refused_schemas=self._grammars.refused)
            prepared, conversation, target = _prepared(prepare, facts, served, self.quirks_of(served))
        if not conversation.edits:
            return await self._counter.count(conversation, target)
        _, whole, _ = _prepared(partial(prepare, edited=False), facts, served, self.quirks_of(served))
        original = await self._counter.count(whole, target)
        prepared, conversation, target = _prepared(
            partial(prepare, input_tokens=original.tokens), facts, served, self.quirks_of(served)
        )
        counted = original
        if prepared.applied_edits:
            counted = await self._counter.count(conversation, target)
        return msgspec.structs.replace(counted, original=original.tokens)

    async def _ready(
        self, prepare: Preparation, facts: UpstreamFacts, served: Served, quirks: Quirks
    ) -> tuple[Prepared, Conversation, Target]:
        """What is prepared, and what is sent. The prompt is counted first where a context edit waits for its size."""
        prepared, conversation, target = _prepared(prepare, facts, served, quirks)
        trigger = token_trigger(conversation)
        if trigger is None:
            return prepared, conversation, target
        _, whole, _ = _prepared(partial(prepare, edited=False), facts, served, quirks)
        if is_far(len(openai_request.encode(whole, target)), 0, trigger):
            return prepared, conversation, target
        original = await self._counter.count(whole, target)
        return _prepared(partial(prepare, input_tokens=original.tokens), facts, served, quirks)


def _with_findings(
    quirks: Quirks, found: Findings, profile: Profile, facts: UpstreamFacts, *, has_tools: bool
) -> Quirks:
    """With what a probe found. `has_tools`: the engine takes any. Who tells no version may be anything, also a proxy of
    several models."""
    template = found.template_dialect if facts.version is not None else None
    passes_by = facts.version is not None and found.leaves_calls_alone and text_mode.can_pass_by(profile, template)
    lacks_parser = found.tool_parser is False and has_tools
    return msgspec.structs.replace(
        quirks,
        no_tool_parser=quirks.no_tool_parser or lacks_parser,
        opens_reasoning=found.leaves_reasoning_open,
        no_tool_rendering=found.renders_tools is False,
        structural_tags=found.structural_tags is True,
        splits_reasoning=found.splits_reasoning is True,
        template_dialect=template,
        calls_as_text=text_mode.dialect_of(profile, template) if passes_by else None,
    )


def _best(excess: Excess | None, counted: Count | None, window: int | None) -> int | None:
    """The prompt's tokens for the client: engines cap the count in their refusal, and Claude Code summarises by it."""
    if counted is None or counted.is_exact:
        return counted.tokens if counted is not None else None
    if excess is not None and excess.prompt is not None and (excess.exact or excess.prompt >= counted.tokens):
        return None
    # An estimate that fits is wrong, for the engine has refused.
    return counted.tokens if window is None or counted.tokens > window else None


def _prepared(
    prepare: Callable[[Quirks, Target], Prepared], facts: UpstreamFacts, served: Served, quirks: Quirks
) -> tuple[Prepared, Conversation, Target]:
    """What is prepared, and what is sent: the same conversation without what the quirks forbid."""
    target = mend_target(target_for(facts.flavor, facts.version, served.id, root=served.root), quirks)
    prepared = prepare(quirks, target)
    return prepared, mend(prepared.conversation, quirks), target


def _may_be_error(beginning: bytes) -> bool:
    """Whether a stream that begins so may still turn out to be a refusal."""
    is_event = b"\n\n" in beginning or b"\r\n\r\n" in beginning
    return not is_event and any(
        beginning.startswith(start) or start.startswith(beginning) for start in _ERROR_BEGINNINGS
    )


def _late_refusal(beginning: bytes) -> bytes | None:
    """The error object that a stream begins with; None for an answer."""
    if not beginning.startswith(_ERROR_BEGINNINGS):
        return None
    line, newline, _ = beginning.partition(b"\n")
    return line.partition(b":")[2].strip() if newline else None


def _flavor_of(listed: list[Any]) -> Flavor:
    """The engine's family by `owned_by`. Who does not say is taken for vLLM: what it refuses is healed."""
    owners = {str(entry.get("owned_by", "")).lower() for entry in listed if isinstance(entry, dict)}
    return next((_OWNERS[owner] for owner in sorted(owners) if owner in _OWNERS), "vllm")


def _served(entry: dict[str, Any]) -> Served:
    nested: list[Any] = [entry, entry.get("metadata"), entry.get("meta")]
    names = (
        "max_model_len",
        "max_request_context_length",
        "context_length",
        "max_context_length",
        "n_ctx",
        "n_ctx_train",
    )
    window = next(
        (
            value
            for name in names
            for place in nested
            if isinstance(place, dict) and isinstance(value := place.get(name), int) and value > 0
        ),
        None,
    )
    root = entry.get("root")
    return Served(str(entry["id"]), window, root if isinstance(root, str) else None)
