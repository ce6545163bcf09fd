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
from qiao.policies.counts import has_images
from qiao.policies.overflow import LEAST_ANSWER
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


class Fitter:
    """Fits the requests of one upstream."""

    def __init__(self, counter: Counter, on_overflow: OnOverflow = "refuse") -> None:
        self.on_overflow = on_overflow
        self._counter = counter

    async def fit(self, conversation: Conversation, target: Target, window: int) -> Fit:
        """Raises `Fault` with "prompt is too long" where nothing can be done."""
        if has_images(conversation):
            return Fit(conversation)
        count = await self._counter.count(conversation, target)
        if count.by == "estimate":
            return Fit(conversation)  # no number to act on: the engine itself says what does not fit
        room = _room(conversation, count, target, window)
        if room is None and count.is_sum:
            count = await self._counter.recount(conversation, target)
            room = _room(conversation, count, target, window)
        if room is not None:
            return _limited(Fit(conversation), room)
        if self.on_overflow == "trim":
            fit = await self._trimmed(conversation, target, window, count)
            if fit is not None:
                return fit
        if not rules.surely_too_long(count.tokens, window, is_exact=count.is_exact):
            return Fit(conversation)
        raise Fault("invalid_request", rules.too_long(count.tokens, window))

    async def _trimmed(self, conversation: Conversation, target: Target, window: int, count: Count) -> Fit | None:
        """The conversation cut down until it leaves room for an answer; None: it cannot be."""
        wanted = min(conversation.max_tokens or window, max(window // 8, LEAST_ANSWER))
        tokens = to_free(count.tokens + wanted - window, window)
        for _ in range(_MOST_TRIMS):
            done = trim(conversation, tokens)
            if not done.note:
                return None
            left = await self._counter.count(done.conversation, target)
            room = _room(done.conversation, left, target, window)
            if room is not None:
                return _limited(_fit_of(done), room)
            tokens += to_free(left.tokens + wanted - window, window)
        return None


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
