"""What a prefix cache saves, counted from the tokens of prompts: blocks of 16, reused from the front, never evicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

BLOCK = 16


class Counted(NamedTuple):
    """One request. `lost`: tokens of the conversation's prompt before that this one does not begin with."""

    prompt: int
    prefilled: int
    lost: int


class PrefixCache:
    """Blocks by all that stands before them."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def prefill(self, prompt: Sequence[int], answer: Sequence[int]) -> int:
        """Tokens of `prompt` that have to be computed. The engine keeps what it computed, its answer too."""
        reused = 0
        is_known = True
        key = 0
        whole = [*prompt, *answer]
        for begin in range(0, len(whole) - BLOCK + 1, BLOCK):
            key = hash((key, *whole[begin : begin + BLOCK]))
            # The last token is always computed: its output is the first word of the answer.
            is_known = is_known and key in self._known and begin + BLOCK < len(prompt)
            if is_known:
                reused += BLOCK
            self._known.add(key)
        return len(prompt) - reused


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next(
        (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )


def count(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], sessions: Sequence[int]) -> list[Counted]:
    """All requests of a run, in order."""
    cache = PrefixCache()
    before: dict[int, Sequence[int]] = {}
    counted = []
    for prompt, answer, session in zip(prompts, answers, sessions, strict=True):
        earlier = before.get(session, ())
        counted.append(Counted(len(prompt), cache.prefill(prompt, answer), len(earlier) - shared(earlier, prompt)))
        before[session] = prompt
    return counted
