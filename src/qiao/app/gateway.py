"""What every route works with: the upstream, the names of models, the limits, and where records go."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from qiao.core.conversation import Conversation
from qiao.core.fault import Fault
from qiao.documents.pdf import PdfReader
from qiao.observability.metrics import Metrics
from qiao.policies.models import Names, resolve
from qiao.policies.prepare import Prepared, documents_needed, prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import Profile, find
from qiao.upstream.base import Preparation, Served, Upstream


class Settings(msgspec.Struct, frozen=True):
    """The edge's own limits. Sizes in bytes, times in seconds."""

    max_body: int = 32 * 2**20
    max_header: int = 64 * 2**10
    body_timeout: float = 60.0
    ping_interval: float = 10.0
    silence_timeout: float = 600.0


class Context(msgspec.Struct):
    """One request on its way through: filled in as it is known, read for the record at the end."""

    request_id: str
    route: str
    started: float
    model: str = ""
    upstream_model: str = ""
    is_stream: bool = False
    status: int = 0
    first_byte: float | None = None
    details: dict[str, Any] = {}
    fault: Fault | None = None


class Gateway:
    """The parts put together. `accepts(headers)` says whether the request shows a valid key."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        names: Names,
        accepts: Callable[[Mapping[str, str]], bool],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.upstream = upstream
        self.names = names
        self.accepts = accepts
        self.settings = settings
        self.metrics = metrics
        self._pdf = PdfReader()

    async def served(self, requested: str) -> tuple[Served, Profile]:
        """The model behind a requested name. Raises `Fault` (not_found) for a name that means nothing here."""
        facts = await self.upstream.facts()
        name = resolve(requested, [model.id for model in facts.models], self.names)
        if name is None:
            facts = await self.upstream.facts(fresh=True)
            name = resolve(requested, [model.id for model in facts.models], self.names)
        if name is None:
            raise Fault("not_found", f"model: {requested}")
        served = facts.served(name) or Served(name)
        return served, find(served.id)

    async def preparation(self, conversation: Conversation, served: Served, profile: Profile) -> Preparation:
        """How this conversation is made ready for that model, whatever quirks the upstream turns out to have."""
        documents = {document.data: await self._pdf.text(document.data) for document in documents_needed(conversation)}

        def run(quirks: Quirks) -> Prepared:
            return prepare(conversation, profile, window=served.window, documents=documents, quirks=quirks)

        return run


def new_request_id() -> str:
    """`req_` and 24 hexadecimal digits."""
    return "req_" + secrets.token_hex(12)


def now() -> float:
    """Monotonic seconds of the running loop."""
    return asyncio.get_running_loop().time()
