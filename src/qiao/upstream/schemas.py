"""Which tools' schemas an engine can make a grammar of.

One schema that it cannot take makes an engine refuse the whole request, and it does not say which one it was. So the
tools of a refused request are halved and tried, one token each time, until the culprits are known; that is done once a
schema. What was learned is kept for the schemas used last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from qiao.core.conversation import Tool
from qiao.policies.guided import key_of

LIMIT = 1024
"""Schemas that are remembered."""

_MOST_TRIALS = 48

Trial: TypeAlias = Callable[[tuple[Tool, ...]], Awaitable[bool | None]]
"""Whether the engine makes a grammar of these tools' schemas; None: it did not tell."""


class Schemas:
    """The memory of one engine."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self._known: OrderedDict[str, bool] = OrderedDict()
        self._limit = limit
        self._refused: frozenset[str] = frozenset()

    @property
    def refused(self) -> frozenset[str]:
        """Keys (`guided.key_of`) of the schemas that it cannot take."""
        return self._refused

    def unknown(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        """Those that were never tried."""
        return tuple(tool for tool in tools if key_of(tool) not in self._known)

    def keep(self, tools: Sequence[Tool], *, fit: bool) -> None:
        """Remember what became of these."""
        for tool in tools:
            key = key_of(tool)
            self._known[key] = fit
            self._known.move_to_end(key)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        self._refused = frozenset(key for key, fits in self._known.items() if not fits)

    async def learn(self, tools: Sequence[Tool], trial: Trial, *, is_refused: bool) -> bool:
        """Find the culprits among `tools`. `is_refused`: all together were refused. True: something new is known."""
        unknown = self.unknown(tools)
        before = self._refused
        if unknown:
            # What is known was taken alone, so that it is not known to be the reason now.
            await self._search(unknown, trial, [_MOST_TRIALS], is_refused=is_refused and len(unknown) == len(tools))
        return self._refused != before

    async def _search(self, tools: tuple[Tool, ...], trial: Trial, left: list[int], *, is_refused: bool) -> bool | None:
        """Whether all of `tools` fit; `left` holds the number of trials that may still be made."""
        if not is_refused:
            if left[0] == 0:
                return None
            left[0] -= 1
            fit = await trial(tools)
            if fit is None:
                return None
            if fit:
                self.keep(tools, fit=True)
                return True
        if len(tools) == 1:
            self.keep(tools, fit=False)
            return False
        middle = len(tools) // 2
        first = await self._search(tools[:middle], trial, left, is_refused=False)
        await self._search(tools[middle:], trial, left, is_refused=first is True)
        return False
