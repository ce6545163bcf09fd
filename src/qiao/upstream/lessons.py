"""What an upstream's refusals have taught, kept by model: behind a proxy each may have an engine of its own.

Not here: what a probe finds and schemas that make no grammar (`grammars`), which are kept for the whole upstream.
"""

from __future__ import annotations

import msgspec

from qiao.policies.quirks import Quirks, Remedy
from qiao.policies.remedies import MAX_HEALINGS
from qiao.upstream.base import Lesson

_MOST_LESSONS = 100
# Models that are remembered; a proxy may offer any number.
_MOST_MODELS = 256


class Lessons:
    """Begins empty, and is empty again after `forget`."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, int | str | None], Lesson] = {}
        self._kept: dict[str, tuple[Remedy, ...]] = {}

    @property
    def told(self) -> tuple[Lesson, ...]:
        """For people: every remedy once, whichever model it was for."""
        return tuple(self._told.values())

    def forget(self) -> None:
        """The engine is another, or has been started anew."""
        self._told.clear()
        self._kept.clear()

    def learn(self, remedy: Remedy, model: str) -> None:
        """A request for `model` was refused, and `remedy` mends it; if it is lasting, it holds for that model."""
        if remedy.lasting:
            self.keep(remedy, model)
        key = (remedy.name, remedy.value if remedy.lasting else None)
        known = self._told.get(key)
        if known is None and len(self._told) >= _MOST_LESSONS:
            return
        self._told[key] = Lesson(
            remedy.name,
            remedy.explanation,
            remedy.mend,
            key[1],
            times=1 if known is None else known.times + 1,
            is_kept=remedy.lasting,
        )

    def keep(self, remedy: Remedy, model: str) -> None:
        """`remedy` holds for every request to `model` from now on."""
        known = self._kept.get(model, ())
        if not known and len(self._kept) >= _MOST_MODELS:
            del self._kept[next(iter(self._kept))]
        if remedy not in known:
            self._kept[model] = (*known, remedy)

    def applied(self, quirks: Quirks, model: str) -> Quirks:
        """`quirks`, and what `model` has taught."""
        for remedy in self._kept.get(model, ()):
            quirks = quirks.with_(remedy)
        return quirks

    def everything(self, quirks: Quirks) -> Quirks:
        """`quirks`, and what any model has taught."""
        for model in self._kept:
            quirks = self.applied(quirks, model)
        return quirks

    def include(self, remedy: Remedy, *, besides: str) -> bool:
        """Whether some other model has taught `remedy`."""
        return any(remedy in kept for model, kept in self._kept.items() if model != besides)


class Healings:
    """The remedies that one request for `model` needs, at most `MAX_HEALINGS` of them new.

    What another model has taught does not count: one engine may have many names, and more peculiarities than that.
    `names`: in the order in which they were needed.
    """

    def __init__(self, lessons: Lessons, model: str) -> None:
        self.names: list[str] = []
        self._lessons = lessons
        self._model = model
        self._used: list[tuple[Remedy, Quirks]] = []
        self._new = 0

    def admit(self, remedy: Remedy, quirks: Quirks) -> bool:
        """Whether the request is mended once more, by `remedy`, where `quirks` are in force."""
        is_new = not self._lessons.include(remedy, besides=self._model)
        # The same once more is a circle: another remedy has taken this one back since.
        if (remedy, quirks) in self._used or (is_new and self._new >= MAX_HEALINGS):
            return False
        self._new += is_new
        self._used.append((remedy, quirks))
        self.names.append(remedy.name)
        return True


def forgotten(quirks: Quirks) -> Quirks:
    """What is left of a probe's findings for an engine that has changed: it cannot be learned from a refusal, so it
    holds until the next probe."""
    return msgspec.structs.replace(
        Quirks(),
        opens_reasoning=quirks.opens_reasoning,
        no_tool_rendering=quirks.no_tool_rendering,
        structural_tags=quirks.structural_tags,
        template_dialect=quirks.template_dialect,
    )
