"""How many tokens a prompt has: by the engine's own tokenizer, else by Qwen's here, else an estimate that says so.

vLLM counts messages as it would render them; llama.cpp renders them (`/apply-template`) and counts the text. What was
counted is kept by prefix (`policies.counts`), so that a grown conversation costs what it grew by.
"""

from __future__ import annotations

import asyncio

import msgspec

from qiao.core.conversation import Conversation, Text, ToolResult
from qiao.core.fault import Fault
from qiao.core.openai import request as openai_request
from qiao.core.openai.target import Target
from qiao.policies import counts
from qiao.policies.counts import Known, PrefixCounts
from qiao.upstream import vocabulary
from qiao.upstream.base import Count
from qiao.upstream.client import Client, Reply

_TIMEOUT = 30.0
# A client may steer a template in many ways, and each is another one.
_MOST_TEMPLATES = 100
_CHARACTERS_A_TOKEN = 3.6
_HAS_NO_ROUTE = (404, 405, 501)
# Ray Serve has the route and a 400 behind it.
_WITHOUT_TOKENIZER = "does not support the 'tokenization' task"


class Counter:
    """Counts prompts for one upstream. `client`: how it is asked."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known = PrefixCounts()
        # Targets whose tokenizer is out of reach: a proxy may stand before several engines.
        self._mute: set[Target] = set()
        self._local = asyncio.Lock()
        # Whether this target's template is additive; asked with the first long count.
        self._additive: dict[Target, bool] = {}
        # Whether it keeps reasoning when the user speaks again, by what steers it; asked when that first matters.
        self._keeping: dict[bytes, bool] = {}

    def forget(self) -> None:
        """Begin anew: another engine may stand behind the same address."""
        self._known = PrefixCounts()
        self._mute.clear()
        self._additive.clear()
        self._keeping.clear()

    async def count(self, conversation: Conversation, target: Target) -> Count:
        """Tokens of the prompt of a prepared conversation. Only what is not known of it is counted. Never raises."""
        known = await self._engine(conversation, target)
        if known is not None:
            return Count(known.tokens, is_exact=True, is_sum=known.is_sum)
        return await self._without_engine(conversation, target)

    async def _without_engine(self, conversation: Conversation, target: Target) -> Count:
        if vocabulary.knows(target.model):
            async with self._local:  # one thread at a time; the loop goes on meanwhile
                tokens = await asyncio.to_thread(_local_count, conversation, target)
            if tokens is not None:
                return Count(tokens, is_exact=False, by="tokenizer")
        return Count(estimate(conversation), is_exact=False, by="estimate")

    async def recount(self, conversation: Conversation, target: Target) -> Count:
        """The same, and nothing that was known is taken for granted: for what a person will be told."""
        tokens = await self._whole(conversation, target)
        if tokens is None:
            return await self.count(conversation, target)
        if conversation.turns and not conversation.is_prefill:
            self._known.remember(counts.digests(conversation, target)[-1], tokens)
        return Count(tokens, is_exact=True)

    # -- by prefix ------------------------------------------------------------------------------------------------

    async def _engine(self, conversation: Conversation, target: Target) -> Known | None:
        if not self._asks(target):
            return None
        turns = len(conversation.turns)
        if conversation.is_prefill or not turns:
            tokens = await self._whole(conversation, target)
            return None if tokens is None else Known(turns, tokens)
        digests = counts.digests(conversation, target)
        known = self._known.longest(digests)
        if known is not None and known.turns == turns:
            return known
        tokens = None
        if known is not None and self._additive.get(target) and await self._adds(conversation, target, known.turns):
            tokens = await self._grown(conversation, target, known)
        is_sum = tokens is not None
        if tokens is None:
            tokens = await self._first(conversation, target)
        if tokens is None:
            return None
        self._known.remember(digests[-1], tokens, is_sum=is_sum)
        return Known(turns, tokens, is_sum)

    async def _first(self, conversation: Conversation, target: Target) -> int | None:
        """The whole prompt; beside it, once for a target, whether the next one needs less."""
        if target in self._additive:
            return await self._whole(conversation, target)
        tokens, is_additive = await asyncio.gather(
            self._whole(conversation, target), self._try(counts.trial(conversation), target)
        )
        if tokens is not None and is_additive is not None:
            self._additive[target] = is_additive
        return tokens

    async def _grown(self, conversation: Conversation, target: Target, known: Known) -> int | None:
        grown = counts.behind_stub(conversation, known.turns)
        stub, more = await asyncio.gather(self._stub(conversation, target), self._whole(grown, target))
        return None if stub is None or more is None else known.tokens + more - stub

    async def _stub(self, conversation: Conversation, target: Target) -> int | None:
        alone = counts.alone(conversation)
        digest = counts.digests(alone, target)[-1]
        known = self._known.longest([digest])
        tokens = known.tokens if known is not None else await self._whole(alone, target)
        if tokens is not None:
            self._known.remember(digest, tokens)
        return tokens

    async def _adds(self, conversation: Conversation, target: Target, start: int) -> bool:
        """Whether what stands behind the first `start` turns can be counted by itself."""
        turns = conversation.turns
        if counts.is_additive(turns, start) or not counts.is_additive(turns, start, keeps_reasoning=True):
            return counts.is_additive(turns, start)
        steering = counts.steering(conversation, target)
        keeps = self._keeping.get(steering)
        if keeps is None:
            keeps = await self._try(counts.reasoning_trial(conversation), target)
            if keeps is not None and len(self._keeping) < _MOST_TEMPLATES:
                self._keeping[steering] = keeps
        return keeps is True

    async def _try(self, trial: counts.Trial, target: Target) -> bool | None:
        asked = (self._whole(part, target) for part in trial)
        whole, opening, growth, stub = await asyncio.gather(*asked, self._stub(trial[0], target))
        if whole is None or opening is None or growth is None or stub is None:
            return None
        return whole == opening + growth - stub

    # -- asking ---------------------------------------------------------------------------------------------------

    def _asks(self, target: Target) -> bool:
        return target.flavor != "openai" and target not in self._mute

    async def _whole(self, conversation: Conversation, target: Target) -> int | None:
        """The engine's own count. It has no limit of length, unlike the count in its refusals."""
        if not self._asks(target):
            return None
        try:
            body = openai_request.encode_tokenize(conversation, target)
            if target.flavor == "llamacpp":
                return await self._rendered(body, target)
            reply = await self._client.post_whole("/tokenize", body, timeout=_TIMEOUT)
        except Fault:
            return None
        if target.flavor == "sglang" and reply.status in (400, 422):
            self._mute.add(target)  # releases that count plain prompts only
        tokens = self._said(reply, target).get("count")
        return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None

    async def _rendered(self, body: bytes, target: Target) -> int | None:
        """llama.cpp: what its template makes of the messages, counted."""
        reply = await self._client.post_whole("/apply-template", body, timeout=_TIMEOUT)
        prompt = self._said(reply, target).get("prompt")
        if not isinstance(prompt, str):
            return None
        asked = msgspec.json.encode({"content": prompt, "add_special": True, "parse_special": True})
        reply = await self._client.post_whole("/tokenize", asked, timeout=_TIMEOUT)
        tokens = self._said(reply, target).get("tokens")
        return len(tokens) if isinstance(tokens, list) else None

    def _said(self, reply: Reply, target: Target) -> dict[str, object]:
        """The object in a reply, empty where it is none. An engine without a tokenizer is not asked again."""
        if reply.status in _HAS_NO_ROUTE or (reply.status == 400 and _WITHOUT_TOKENIZER.encode() in reply.body):
            self._mute.add(target)
        body = reply.json() if reply.status == 200 else None
        return body if isinstance(body, dict) else {}


def _local_count(conversation: Conversation, target: Target) -> int | None:
    tokenizer = vocabulary.load()
    return None if tokenizer is None else tokenizer.count(conversation, target)


def estimate(conversation: Conversation) -> int:
    """Tokens of a prompt from its characters, for engines that do not count before they answer."""
    characters = sum(len(text) for text in conversation.system)
    characters += sum(len(tool.description) + len(tool.parameters) + len(tool.name) for tool in conversation.tools)
    for turn in conversation.turns:
        for part in turn.parts:
            characters += 12
            match part:
                case Text():
                    characters += len(part.text)
                case ToolResult():
                    characters += sum(len(inner.text) for inner in part.parts if isinstance(inner, Text))
                case _:
                    characters += len(getattr(part, "arguments", None) or getattr(part, "text", None) or "")
    return max(1, round(characters / _CHARACTERS_A_TOKEN))
