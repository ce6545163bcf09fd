"""Grammars as one engine makes them: how long to wait for the first of a schema, and what a refusal teaches."""

from __future__ import annotations

from typing import Literal, TypeAlias

from qiao.core.conversation import Tool
from qiao.core.fault import Fault
from qiao.core.openai import request as openai_request
from qiao.core.openai.target import Target
from qiao.policies import guided, refusal, remedies, text_mode
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Remedy, features
from qiao.upstream.client import Client
from qiao.upstream.probe import REQUEST_ID
from qiao.upstream.schemas import Schemas, Trial

_TRIAL_TIMEOUT = 30.0
_FEATURES = frozenset({"strict", "tool_choice", "response_format", "structure"})
# Remedies for a grammar that cannot be made.
_QUIRKS = frozenset({"no_strict", "no_response_format", "no_structure"})

_HARMLESS = Tool("noop", "Does nothing.", strict=True)

Lesson: TypeAlias = Literal["schema", "engine", "request"]
"""What a refusal was about: a schema, which is known now; all grammars of this kind; or something in this request."""


class Grammars:
    """The memory of one engine. `path`: where it takes chats."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path
        self._schemas = Schemas()

    @property
    def refused(self) -> frozenset[str]:
        """Schemas that it cannot take, by `guided.key_of`."""
        return self._schemas.refused

    def forget(self) -> None:
        """It is another engine now."""
        self._schemas = Schemas()

    def is_unproven(self, prepared: Prepared, used: frozenset[str]) -> bool:
        """Whether a grammar has to be made that was never made before, so that a refusal may come late."""
        if not used & _FEATURES:
            return False
        return not prepared.bound or bool(self._schemas.unknown(prepared.bound))

    def accept(self, prepared: Prepared) -> None:
        """A request was taken, and so were its schemas."""
        if prepared.bound and (new := self._schemas.unknown(prepared.bound)):
            self._schemas.keep(new, fit=True)

    def has_unknown(self, prepared: Prepared) -> bool:
        """Whether strict tools were never tried."""
        return prepared.grammar == "strict" and bool(self._schemas.unknown(prepared.bound))

    def suspects(self, prepared: Prepared, used: frozenset[str]) -> frozenset[str]:
        """`used`, without strict tools of which each is known to fit: a refusal is about something else."""
        if prepared.grammar == "strict" and not self._schemas.unknown(prepared.bound):
            return used - {"strict"}
        return used

    async def lesson(self, remedy: Remedy, prepared: Prepared, target: Target, heeded: frozenset[str]) -> Lesson:
        """What the refusal that `remedy` is for was about. `heeded`: the refused schemas that the request left out."""
        if remedy.quirk not in _QUIRKS or prepared.grammar is None:
            return "request"
        if any(key in self.refused and key not in heeded for key in map(guided.key_of, prepared.bound)):
            return "schema"  # another request has found it out meanwhile
        if not self._schemas.unknown(prepared.bound):
            return "request"
        if await self._trial(prepared.grammar, prepared, target)((_HARMLESS,)) is False:
            return "engine"
        # A schema for the answer may stand beside strict tools, and be the one that was refused.
        is_theirs = prepared.grammar != "strict" or prepared.conversation.output_schema is None
        return "schema" if await self.learn(prepared, target, is_refused=is_theirs) else "request"

    async def learn(self, prepared: Prepared, target: Target, *, is_refused: bool) -> bool:
        """Try the schemas that are not known. True: another one is refused."""
        if prepared.grammar is None or not prepared.bound:
            return False
        trial = self._trial(prepared.grammar, prepared, target)
        return await self._schemas.learn(prepared.bound, trial, is_refused=is_refused)

    def _trial(self, grammar: guided.Grammar, prepared: Prepared, target: Target) -> Trial:
        async def trial(tools: tuple[Tool, ...]) -> bool | None:
            schema = text_mode.call_schema(tools) if grammar == "schema" else None
            asked = guided.trial(target.model, grammar, prepared.bound_dialect, tools, schema)
            body = openai_request.encode(asked, target)
            try:
                reply = await self._client.post_whole(
                    self._path, body, timeout=_TRIAL_TIMEOUT, headers={"X-Request-Id": REQUEST_ID}
                )
            except Fault:
                return None  # too busy for a trial; the request itself goes on without the grammar
            if reply.status == 200:
                return True
            refused = refusal.read(reply.status, reply.body)
            remedy = remedies.find(refused.text, refused.status, used=features(asked))
            return False if remedy is not None and remedy.quirk in _QUIRKS else None

        return trial
