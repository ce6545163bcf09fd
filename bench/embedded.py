"""The embedded engine: reading and writing speed, and the time to the first token, cold and cached.

Measured through `LlamaCppUpstream`, as the gateway speaks to it, on whatever the machine has left; `run()` is called
by `python -m bench`. The whole run is bounded: what a busy machine does not get done in time is said to be missing.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, Turn
from qiao.core.events import Event, TextAdded, UsageSeen
from qiao.core.llamacpp.request import Options
from qiao.engines.base import Endpoint
from qiao.engines.llamacpp import EmbeddedEngine, EngineSettings
from qiao.engines.models import acquire
from qiao.policies.prepare import Prepared
from qiao.policies.shorten import MEASURED, target_for
from qiao.upstream.llamacpp import Choices, LlamaCppUpstream

_CACHE = Path(__file__).parent.parent / ".cache"
_WORDS = (
    "river",
    "stone",
    "window",
    "market",
    "early",
    "follow",
    "bright",
    "carry",
    "simple",
    "answer",
    "north",
    "paper",
    "garden",
    "silver",
    "listen",
)
_WRITTEN = 32
_FULL_SECONDS = 210.0
_QUICK_SECONDS = 60.0
_REPEATS = 2


class Measured(msgspec.Struct, frozen=True):
    """One answer. Seconds and tokens; `cached` of the prompt's tokens did not have to be read."""

    prompt: int
    cached: int
    first: float
    written: int
    writing: float

    @property
    def reading_speed(self) -> float:
        return (self.prompt - self.cached) / self.first

    @property
    def writing_speed(self) -> float:
        return (self.written - 1) / self.writing if self.writing else 0.0


class Request(msgspec.Struct, frozen=True):
    """One row. `name` empty: it only makes ready for the next. `repeats`: the fastest of so many is kept."""

    name: str
    conversation: Conversation
    is_shortened: bool = False
    repeats: int = 1


class Found(msgspec.Struct):
    """What was measured. `speed`: tokens of a prompt a second, as `qiao up` measures it at its start."""

    speed: float | None
    rows: list[tuple[str, Measured | None]]
    loads: tuple[float, float]


def text_of(tokens: int, seed: int) -> str:
    """About `tokens` tokens that no other seed begins with."""
    chosen = [_WORDS[(seed * 7919 + place * place * (seed + 3)) % len(_WORDS)] for place in range(tokens)]
    return f"Note {seed}: " + " ".join(chosen)


def asking(text: str, *more: Turn) -> Conversation:
    turns = (Turn("user", (Text(text + "\nTell me a long story."),)), *more)
    return Conversation("m", turns, max_tokens=_WRITTEN)


def agent_request() -> Conversation:
    """The shape of an agent's first request: 12 tools of 2 KB, a system prompt of 7 KB, reminders of 9 KB."""
    reminder = f"<system-reminder>{text_of(1800, 97)}</system-reminder>"
    return _agent(Turn("user", (Text(reminder), Text("Tell me a long story."))))


def agent_session() -> Conversation:
    """The same agent after twenty rounds: as long as it is, it is shortened to the target."""
    turns: list[Turn] = []
    for place in range(20):
        turns.append(Turn("user", (Text(f"Question {place}: {text_of(220, 200 + place)}"),)))
        turns.append(Turn("assistant", (Text(text_of(120, 300 + place)),)))
    return _agent(*turns, Turn("user", (Text("Tell me a long story."),)))


def _agent(*turns: Turn) -> Conversation:
    tools = tuple(
        Tool(f"Tool{n}", f"Does thing {n}.\n\n" + text_of(450, n), '{"type":"object","properties":{"a":{},"b":{}}}')
        for n in range(12)
    )
    system = ("You are an agent.", "You help people. " + text_of(1400, 98))
    return Conversation("m", turns, system=system, tools=tools, max_tokens=_WRITTEN)


def requests(*, quick: bool) -> list[Request]:
    """In this order: what matters most comes first, in case time runs out."""
    out: list[Request] = []
    for size in (200,) if quick else (1000, 6000):
        name = f"{size // 1000}k tokens" if size >= 1000 else f"{size} tokens"
        cold = asking(text_of(size, size))
        turn = Turn("assistant", (Text("Once upon a time."),))
        following = asking(text_of(size, size), turn, Turn("user", (Text(text_of(300 if size > 300 else 30, 5)),)))
        out += [
            Request(f"{name}, cold", cold),
            Request(f"{name}, the same again", cold, repeats=_REPEATS),
            Request(f"{name}, next turn", following),
            Request("", asking(text_of(60, size + 1))),
            Request(f"{name}, next turn again, after another conversation", following),
        ]
        if size == 6000:
            continue
        out += [
            Request("an agent's first request, shortened, cold", agent_request(), is_shortened=True),
            Request("an agent's first request, the same again", agent_request(), is_shortened=True),
            Request("an agent's 21st request, shortened to the target, cold", agent_session(), is_shortened=True),
        ]
    return out


async def measure(upstream: LlamaCppUpstream, conversation: Conversation) -> Measured:
    served = (await upstream.facts()).models[0]
    begun = time.monotonic()
    answer = await upstream.open(lambda quirks, target: Prepared(conversation), served, request_id="bench")
    texts: list[float] = []
    usages: list[UsageSeen] = []

    def take(data: bytes) -> bool:
        events: list[Event] = answer.decoder.feed(data)
        texts.extend(time.monotonic() - begun for event in events if isinstance(event, TextAdded))
        usages.extend(event for event in events if isinstance(event, UsageSeen))
        return True

    try:
        await answer.pump(take)
    finally:
        answer.close()
    usage = usages[-1].usage
    # The model may have had nothing to say: then its end is the first that is heard of it.
    first = texts[0] if texts else time.monotonic() - begun
    return Measured(
        usage.prompt or 0, usage.cached, first, usage.completion or 0, max(texts[-1] - first, 0.0) if texts else 0.0
    )


async def _measured(endpoint: Endpoint, wanted: list[Request], deadline: float) -> Found:
    before = os.getloadavg()[0]
    # Nothing is shortened, so that the sizes are what they are called; the agent's requests are.
    whole = LlamaCppUpstream(
        endpoint.address, key=endpoint.key, choices=Choices(target=None, options=Options(temperature=0.8))
    )
    speed = await whole.reading_speed()
    short = LlamaCppUpstream(endpoint.address, key=endpoint.key, choices=Choices(target=target_for(speed)))
    rows: list[tuple[str, Measured | None]] = []
    try:
        for request in wanted:
            upstream = short if request.is_shortened else whole
            found: list[Measured] = []
            try:
                async with asyncio.timeout_at(deadline):
                    for _ in range(request.repeats):
                        found.append(await measure(upstream, request.conversation))
            except TimeoutError:
                pass  # the row says that it is missing
            if request.name:
                rows.append((request.name, min(found, key=lambda one: one.first, default=None)))
    finally:
        await whole.close()
        await short.close()
    return Found(speed, rows, (before, os.getloadavg()[0]))


async def _all(*, quick: bool) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        model = await acquire(_CACHE / "models", environment=os.environ)
        engine = EmbeddedEngine(EngineSettings(model=model, cache=Path(folder)), environment=os.environ)
        endpoint = await engine.start()
        deadline = asyncio.get_running_loop().time() + (_QUICK_SECONDS if quick else _FULL_SECONDS)
        try:
            return await _measured(endpoint, requests(quick=quick), deadline)
        finally:
            await engine.stop()


def row(name: str, found: Measured | None) -> str:
    """One line of the table."""
    if found is None:
        return f"| {name} | not measured: no time was left | | | | |"
    reading = f"{found.reading_speed:.0f}" if found.prompt - found.cached > 50 else "–"
    numbers = f"{found.prompt} | {found.cached} | {found.first:.2f} | {reading} | {found.writing_speed:.0f}"
    return f"| {name} | {numbers} |"


def run(*, quick: bool = False) -> str:
    """The table, as Markdown."""
    found = asyncio.run(_all(quick=quick))
    speed = f"{found.speed:.0f} tokens a second" if found.speed is not None else "too slowly to be measured"
    lines = [
        "| request | prompt tokens | cached | first token s | reading t/s | writing t/s |",
        "|---|---|---|---|---|---|",
        *(row(name, measured) for name, measured in found.rows),
        "",
        (
            f"SmolLM2-135M-Instruct, Q4_1; one answer at a time, {_WRITTEN} tokens each, the faster of {_REPEATS} "
            f"where it says “the same again”. At its start the engine read {MEASURED} tokens with {speed}, from which "
            f"`qiao up` derives the target of {target_for(found.speed)} tokens for shortened prompts. The machine's "
            f"load was {found.loads[0]:.1f} before and {found.loads[1]:.1f} after (this alone makes 1 to 2)."
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(run())
