"""What the gateway needs of any engine: facts about it, an answer to a conversation, a count of its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from qiao.core.exchange import Decoder
from qiao.core.openai.target import Flavor, Target
from qiao.policies.prepare import Prepared
from qiao.policies.quirks import Quirks
from qiao.upstream.http import Sink


class Served(msgspec.Struct, frozen=True):
    """One model that an upstream serves. `window`: tokens of prompt and answer together, None if it does not say."""

    id: str
    window: int | None = None
    root: str | None = None


class UpstreamFacts(msgspec.Struct, frozen=True):
    """What an upstream says of itself. `models` in its own order, the first is its default."""

    flavor: Flavor
    version: str | None
    models: tuple[Served, ...]

    def served(self, name: str) -> Served | None:
        return next((model for model in self.models if model.id == name), None)


class Lesson(msgspec.Struct, frozen=True):
    """What an upstream taught by refusing a request: the remedy's name and value, and how often it was needed.

    `is_kept`: it is in force for every request until the upstream is another; else it belonged to single requests.
    """

    remedy: str
    explanation: str
    mend: str
    value: int | str | None = None
    times: int = 1
    is_kept: bool = True


class Count(msgspec.Struct, frozen=True):
    """Tokens of a prompt.

    * `is_exact`: the engine itself counted. Else `by` says who did: a tokenizer of our own, or nobody: an estimate
      from the number of characters.
    * `is_sum`: put together from counts of its pieces.
    * `original`: tokens before the context edits that the client asked for; None where there were none.
    """

    tokens: int
    is_exact: bool
    by: Literal["engine", "tokenizer", "estimate"] = "engine"
    is_sum: bool = False
    original: int | None = None


class Preparation(Protocol):
    """Makes the conversation ready for an upstream with these quirks. Called again when a refusal teaches a new one.

    `input_tokens`: the prompt's tokens before any context edit, where they are known. `edited` False: without those
    edits.
    """

    def __call__(
        self, quirks: Quirks, target: Target, /, *, input_tokens: int | None = None, edited: bool = True
    ) -> Prepared: ...


class Answer(Protocol):
    """An answer that the upstream has accepted to give.

    * `prepared`: what was sent, and the notes of how it was made ready.
    * `healed`: names of the remedies that were needed before the upstream accepted.
    * `notes`: what else was done to the request, for a response header and the log.
    * `prompt_estimate`: tokens of the prompt, 0 if nothing is known before the engine tells.
    """

    @property
    def decoder(self) -> Decoder: ...

    @property
    def prepared(self) -> Prepared: ...

    @property
    def healed(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def prompt_estimate(self) -> int: ...

    async def pump(self, sink: Sink) -> bool:
        """Hand the answer's bytes to `sink`, piece by piece, in the very moment in which they come.

        True: the sink wants no more for now; call again for the rest. False: they were handed over to the end.
        Raises `Fault`, and whatever the sink raises.
        """
        ...

    def close(self) -> None:
        """Let the engine stop working on it. Safe to call at any time, any number of times."""
        ...


class Listener(msgspec.Struct, frozen=True):
    """Who is told how far a request is, before `Upstream.open` returns.

    * `on_sent` is told of the answer before the upstream accepts, for work that can be done while it reads; the last
      one that it was told of is the one that is returned.
    * `on_first` is handed the first bytes of a stream in the moment in which they show that the upstream has accepted;
      `Answer.pump` goes on behind them. Not where they are held back, or came after the acceptance.
    """

    on_sent: Callable[[Answer], None] | None = None
    on_first: Callable[[bytes], None] | None = None


NOBODY = Listener()


class Upstream(Protocol):
    """An engine as the gateway sees it. Every method raises `Fault` and nothing else."""

    @property
    def address(self) -> str: ...

    @property
    def quirks(self) -> Quirks:
        """What is known of the engine itself, and what any of its models has taught."""
        ...

    def quirks_of(self, served: Served, /) -> Quirks:
        """What a request to `served` heeds."""
        ...

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        """What it taught since it runs as it does; forgotten with its version."""
        ...

    async def facts(self, *, fresh: bool = False) -> UpstreamFacts:
        """What it serves; remembered. `fresh` asks again (at most every few seconds)."""
        ...

    async def admit(self) -> None:
        """One more request is about to be opened. Raises `Fault` (overloaded) where too many wait in the engine."""
        ...

    @property
    def waiting(self) -> int | None:
        """Requests that wait in the engine, None where that is not known or nobody limits it."""
        ...

    async def open(
        self, prepare: Preparation, served: Served, *, request_id: str, listener: Listener = NOBODY
    ) -> Answer:
        """Send a conversation; returns once the upstream has accepted it."""
        ...

    async def count(self, prepare: Preparation, served: Served) -> Count:
        """Tokens of the prompt that `open` would send."""
        ...

    async def close(self) -> None: ...
