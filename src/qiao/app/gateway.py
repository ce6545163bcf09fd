"""What every route works with: the upstream, the names of models, the limits, and where records go."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

from qiao.app.conversations import Conversations
from qiao.app.joining import Joining
from qiao.app.reading import described
from qiao.core.conversation import Conversation
from qiao.core.events import Finished, Usage
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.documents.pdf import PdfReader
from qiao.observability.metrics import Metrics
from qiao.observability.record import RequestRecord
from qiao.options import Secret
from qiao.policies.blocks import document_key, documents_needed
from qiao.policies.models import Names, resolve
from qiao.policies.prepare import Prepared, Switches, prepare
from qiao.policies.quirks import Quirks
from qiao.policies.rank import ranked
from qiao.profiles import Profile, find
from qiao.upstream.base import Preparation, Served, Upstream, UpstreamFacts
from qiao.upstream.probe import Findings

# Seconds between looks at an upstream that has not answered yet.
_PATIENCE = 5.0
# Names of models whose meaning is kept; clients can send any number of others.
_MAX_RESOLVED = 256


class Settings(msgspec.Struct, frozen=True):
    """The edge's own limits. Sizes in bytes, times in seconds."""

    max_body: int = 32 * 2**20
    max_header: int = 64 * 2**10
    body_timeout: float = 60.0
    ping_interval: float = 10.0
    silence_timeout: float = 1800.0


class Context(msgspec.Struct):
    """One request on its way through: filled in as it is known, read for the record at the end.

    `joined`: the id of the request whose answer it shares. `abort(fault)`: ends an answer that has begun, when
    something broke that should not; None if none has.
    """

    request_id: str
    route: str
    started: float
    model: str = ""
    upstream_model: str = ""
    is_stream: bool = False
    status: int = 0
    first_byte: float | None = None
    session: str | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    healed: tuple[str, ...] = ()
    trimmed: int = 0
    repairs: tuple[str, ...] = ()
    usage: Usage | None = None
    finish: Finished | None = None
    fault: Fault | None = None
    upstream_seconds: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    joined: str = ""
    abort: Callable[[Fault], Awaitable[web.StreamResponse | None]] | None = None


def _one_tenant(headers: Mapping[str, str]) -> str:
    return ""


def _say_nothing(_: str) -> None:
    return None


class Gateway:
    """The parts put together. `accepts(headers)` says whether the request shows a valid key.

    `tenant(headers)`: whose request it is, one word for each key. `cache_salt`: with it, every tenant has a part of
    the engine's prefix cache for itself.
    `probe`: looks at what the upstream does not tell; None: there is nothing to find. `warn(text)`: tells the person
    who runs the gateway what had better be changed.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        names: Names,
        accepts: Callable[[Mapping[str, str]], bool],
        settings: Settings,
        metrics: Metrics,
        observe: Callable[[RequestRecord], None],
        main_plain_id: str | None = None,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        tenant: Callable[[Mapping[str, str]], str] = _one_tenant,
        cache_salt: Secret | None = None,
        probe: Callable[[], Awaitable[Findings | None]] | None = None,
        warn: Callable[[str], None] = _say_nothing,
    ) -> None:
        self.upstream = upstream
        self.names = names
        self.accepts = accepts
        self.settings = settings
        self.metrics = metrics
        self.observe = observe
        self.switches = switches
        self.tenant = tenant
        self.conversations = Conversations()
        self._cache_salt = cache_salt
        self._probe = probe
        self._probing: asyncio.Future[Findings | None] | None = None
        self.warn = warn
        self.main_plain_ids = (main_plain_id,) if main_plain_id else ()
        self._known_names: tuple[UpstreamFacts, Names] | None = None
        self._resolved: dict[tuple[str, bool], tuple[Served, Profile]] = {}
        self._pdf = PdfReader()
        self.joining = Joining()

    async def warm_up(self) -> None:
        """Ask the upstream until it answers. That it does not yet is no failure: a request will say so."""
        is_up = False
        while True:
            try:
                await self.upstream.facts()
                is_up = True
                await self._look()
            except Fault:
                self.metrics.upstream_up(is_up)
                await asyncio.sleep(_PATIENCE)
            else:
                self.metrics.upstream_up(True)
                return

    async def _look(self) -> None:
        """Probe, and tell the person who runs the gateway what had better be changed."""
        found = await self.findings()
        facts = await self.upstream.facts()
        if found is not None and facts.models:
            main = self.main(facts)
            for advice in described(self.switches, self.upstream.quirks_of(main), self.profile(main), found)["advice"]:
                self.warn(advice)

    async def findings(self, *, within: float | None = None) -> Findings | None:
        """What a probe of the upstream found, asked once; None where there is nothing to find. Raises `Fault`.

        `within`: seconds to wait for it at most. A probe asks for answers, which stand in the engine's queue like
        others; it goes on, and whoever asks next finds it or waits for the same one.
        """
        if self._probe is None:
            return None
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self._probe())
            self._probing.add_done_callback(_seen)
        done, _ = await asyncio.wait({self._probing}, timeout=within)
        if not done:
            return Findings(reason=f"not known yet: the engine is busy and did not answer within {within:g} s")
        return self._probing.result()

    async def close(self) -> None:
        """End what looks at the upstream."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})

    async def served(self, requested: str, *, is_subagent: bool = False) -> tuple[Served, Profile]:
        """The model behind a requested name. Raises `Fault` (not_found) for a name that means nothing here."""
        for fresh in (False, True):
            facts = await self.upstream.facts(fresh=fresh)
            names = self._names_for(facts)
            known = self._resolved.get((requested, is_subagent))
            if known is not None:
                return known
            name = resolve(requested, [model.id for model in facts.models], names, is_subagent=is_subagent)
            if name is not None:
                served = facts.served(name) or Served(name)
                if len(self._resolved) >= _MAX_RESOLVED:
                    self._resolved.clear()
                self._resolved[requested, is_subagent] = found = served, self.profile(served)
                return found
        raise Fault("not_found", f"model: {requested}")

    def main(self, facts: UpstreamFacts) -> Served:
        """The main model of an upstream that serves any."""
        return facts.served(self.names.main or "") or facts.models[0]

    def listed_names(self, facts: UpstreamFacts) -> list[str]:
        """The names to tell clients: the main model's first, its plain id before its own name. Never `claude-…`."""
        names = self._names_for(facts)
        ids = [model.id for model in facts.models]
        if names.main in ids:
            ids.sort(key=lambda name: name != names.main)
        plain: dict[str, list[str]] = {}
        for name, model in names.plain.items():
            plain.setdefault(model, []).append(name)
        listed = [name for model in ids for name in (*plain.get(model, ()), model)]
        return list(dict.fromkeys(listed))

    def _names_for(self, facts: UpstreamFacts) -> Names:
        """The configured names, and every served model by the plain id of its family (`qwen3-235b`)."""
        if self._known_names is None or self._known_names[0] is not facts:
            plain: dict[str, str] = {}
            for model in facts.models:
                plain.setdefault(self.profile(model).plain_id, model.id)
            for name in self.main_plain_ids:
                plain[name] = self.names.main or (facts.models[0].id if facts.models else name)
            names = msgspec.structs.replace(self.names, plain={**plain, **self.names.plain})
            self._known_names = (facts, names)
            self._resolved.clear()
        return self._known_names[1]

    def profile(self, served: Served) -> Profile:
        """Facts of the model's family. The path it was loaded from tells more than the name it is served under."""
        by_root = find(served.root) if served.root else None
        return by_root if by_root is not None and by_root.family != "unknown" else find(served.id)

    async def preparation(
        self,
        conversation: Conversation,
        served: Served,
        profile: Profile,
        *,
        tenant: str,
        is_asked: bool = True,
        is_side: bool = False,
    ) -> Preparation:
        """How this conversation is made ready for that model, whatever quirks the upstream turns out to have.

        `is_asked` False: it is only to be counted. `is_side`: it may be served after others.
        """
        tool_history = self.conversations.tools(tenant, conversation, is_asked=is_asked)
        if is_side:
            conversation = ranked(conversation)
        if self._cache_salt is not None:
            conversation = salted(conversation, tenant, self._cache_salt)
        documents = {
            document_key(document): await self._pdf.text(document.data) for document in documents_needed(conversation)
        }

        def run(quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True) -> Prepared:
            return prepare(
                conversation if edited else msgspec.structs.replace(conversation, edits=None),
                profile,
                target=target,
                window=served.window,
                documents=documents,
                switches=self.switches,
                quirks=quirks,
                tool_history=tool_history,
                input_tokens=input_tokens,
            )

        return run


def _seen(probing: asyncio.Future[Findings | None]) -> None:
    """A probe that failed after everybody stopped waiting for it is no news: whoever asks next probes again."""
    if not probing.cancelled():
        probing.exception()


def salted(conversation: Conversation, tenant: str, secret: Secret) -> Conversation:
    """The conversation with the tenant's salt, from which neither key nor secret can be read: who sends the beginning
    of another's prompt cannot tell by the time it takes whether the engine had it. A client's own salt is replaced."""
    salt = hashlib.blake2b(tenant.encode(), key=hashlib.sha256(secret.reveal().encode()).digest(), digest_size=16)
    extras = {**conversation.extras, "cache_salt": msgspec.Raw(msgspec.json.encode(salt.hexdigest()))}
    return msgspec.structs.replace(conversation, extras=extras)


def new_request_id() -> str:
    """`req_` and 24 hexadecimal digits."""
    return "req_" + os.urandom(12).hex()


def now() -> float:
    """Monotonic seconds of the running loop."""
    return asyncio.get_running_loop().time()
