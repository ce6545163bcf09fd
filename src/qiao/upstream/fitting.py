"""A request made to fit its window before it is sent: counted where that can matter, its answer limited, or refused.

The refusal is the one sentence that clients act on, and comes before any prefill. Where the gateway was started with
`--on-overflow trim`, the conversation is cut down first.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qiao.core.conversation import Conversation
from qiao.core.fault import Fault
from qiao.core.openai.target import Target
from qiao.policies import window as rules
from qiao.policies.context import clamp_budget
from qiao.policies.counts import has_images, without_images
from qiao.policies.overflow import LEAST_ANSWER, Excess
from qiao.policies.trim import Trimmed, to_free, trim
from qiao.upstream.base import Count
from qiao.upstream.counting import Counter

OnOverflow = Literal["refuse", "trim"]

_MOST_TRIMS = 3
# SGLang refuses a request that fills its window exactly.
_RESERVE = {"sglang": 1}
# A template of our own may be some tokens off.
_LOCAL_RESERVE = 64


class Fit(msgspec.Struct, frozen=True):
    """A request as it is sent.

    * `is_limited`: the answer is as long as the window allows, and shorter than the client asked for.
    * `trimmed`: pieces of the conversation that were shortened. `notes`: what was done, for the record.
    """

    conversation: Conversation
    is_limited: bool = False
    trimmed: int = 0
    notes: tuple[str, ...] = ()


class Unseen(msgspec.Struct, frozen=True):
    """What an engine sees of a prompt and our count does not: its pictures are `added` to it, and an estimate is off by
    a `factor`. `is_last`: nobody knows better any more."""

    factor: float = 1.0
    added: int = 0
    is_last: bool = False


class Fitter:
    """Fits the requests of one upstream."""

    def __init__(self, counter: Counter, on_overflow: OnOverflow = "refuse") -> None:
        self.on_overflow = on_overflow
        self._counter = counter

    async def fit(
        self, conversation: Conversation, target: Target, window: int, *, unseen: Unseen | None = None
    ) -> Fit:
        """Raises `Fault` with "prompt is too long" where nothing can be done.

        `unseen`: the engine has refused the prompt for its length, see `unseen_in`. Before that, what nobody here can
        count is the engine's to judge.
        """
        has_pictures = has_images(conversation)
        if has_pictures and self.on_overflow == "refuse":
            return Fit(conversation)
        count = await self._count(conversation, target, unseen)
        if count.by == "estimate" and unseen is None:
            return Fit(conversation)  # no number to act on: the engine itself says what does not fit
        room = _room(conversation, count, target, window)
        if room is None and count.is_sum:
            count = _with(await self.recount(conversation, target), unseen)
            room = _room(conversation, count, target, window)
        if room is not None:
            return Fit(conversation) if has_pictures and unseen is None else _limited(Fit(conversation), room)
        if self.on_overflow == "trim":
            fit = await self._trimmed(conversation, target, window, count, unseen)
            if fit is not None:
                return fit
        is_guess = has_pictures or not rules.surely_too_long(count.tokens, window, is_exact=count.is_exact)
        if is_guess and unseen is None:
            return Fit(conversation)
        raise Fault("invalid_request", rules.too_long(count.tokens, window))

    async def unseen_in(
        self,
        refused: Conversation,
        target: Target,
        window: int | None,
        excess: Excess | None,
        *,
        before: Unseen | None = None,
        is_last: bool = False,
    ) -> Unseen | None:
        """What our count does not see of a prompt, by what the engine said of `refused`; None: nothing is cut by it.

        `before`: what was found out so far. `is_last`: no shorter answer helped, so the prompt alone is over the window
        where the engine told no exact number. Before that, a bound is no reason to cut what may well fit.
        """
        if excess is None or window is None or self.on_overflow == "refuse" or (before is not None and before.is_last):
            return None
        count = await self._count(refused, target)
        told = excess.prompt or 0
        if not excess.exact and not is_last:
            if told and (has_images(refused) or count.by == "estimate"):
                return None
            is_prompt = count.tokens + (refused.max_tokens or LEAST_ANSWER) <= window
            told = window + 1 if is_prompt and not told else count.tokens
        elif not excess.exact:
            told = max(told, count.tokens, window + 1)
        if count.is_exact or has_images(refused):
            return Unseen(added=max(0, told - count.tokens), is_last=is_last)
        return Unseen(factor=told / count.tokens, is_last=is_last)

    async def recount(self, conversation: Conversation, target: Target) -> Count:
        """Nothing taken for granted, see `Counter.recount`; not exact where there are pictures: the words alone."""
        if not has_images(conversation):
            return await self._counter.recount(conversation, target)
        count = await self._counter.recount(without_images(conversation), target)
        return msgspec.structs.replace(count, is_exact=False)

    async def _count(self, conversation: Conversation, target: Target, unseen: Unseen | None = None) -> Count:
        if not has_images(conversation):
            return _with(await self._counter.count(conversation, target), unseen)
        count = await self._counter.count(without_images(conversation), target)
        return _with(msgspec.structs.replace(count, is_exact=False), unseen)

    async def _trimmed(
        self, conversation: Conversation, target: Target, window: int, count: Count, unseen: Unseen | None
    ) -> Fit | None:
        """The conversation cut down until it leaves room for an answer; None: it cannot be."""
        wanted = min(conversation.max_tokens or window, max(window // 8, LEAST_ANSWER))
        tokens = to_free(count.tokens + wanted - window, window)
        for _ in range(_MOST_TRIMS):
            done = trim(conversation, tokens)
            if not done.note:
                return None
            left = await self._count(done.conversation, target, unseen)
            room = _room(done.conversation, left, target, window)
            if room is not None:
                return _limited(_fit_of(done), room)
            tokens += to_free(left.tokens + wanted - window, window)
        return None


def _with(count: Count, unseen: Unseen | None) -> Count:
    if unseen is None or (unseen.factor, unseen.added) == (1, 0):
        return count
    return msgspec.structs.replace(count, tokens=round(count.tokens * unseen.factor) + unseen.added, is_exact=False)


def _room(conversation: Conversation, count: Count, target: Target, window: int) -> int | None:
    reserve = _RESERVE.get(target.flavor, 0) if count.is_exact else _LOCAL_RESERVE
    return rules.answer_room(conversation.max_tokens, count.tokens, window, reserve=reserve)


def _fit_of(done: Trimmed) -> Fit:
    return Fit(done.conversation, trimmed=done.results + done.texts, notes=(done.note,))


def _limited(fit: Fit, room: int) -> Fit:
    """With the answer's limit, where the window is what limits it."""
    conversation = fit.conversation
    asked = conversation.max_tokens
    if asked is None or room >= asked:
        return fit
    thinking = msgspec.structs.replace(conversation.thinking, budget=clamp_budget(conversation.thinking.budget, room))
    return msgspec.structs.replace(
        fit,
        conversation=msgspec.structs.replace(conversation, max_tokens=room, thinking=thinking),
        is_limited=True,
        notes=(*fit.notes, f"max_tokens: {asked} asked, {room} left in the window"),
    )
