"""The embedded engine: reading and writing speed, and the time to the first token, cold and cached.

Measured through `LlamaCppUpstream`, as the gateway speaks to it, on whatever the machine has left; `run()` is called
by `python -m bench`.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, Turn
from qiao.core.events import TextAdded, UsageSeen
from qiao.core.llamacpp.request import Options
from qiao.engines.llamacpp import EmbeddedEngine, EngineSettings
from qiao.engines.models import acquire
from qiao.policies.prepare import Prepared
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
_WRITTEN = 48


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


def text_of(tokens: int, seed: int) -> str:
    """About `tokens` tokens that no other seed begins with."""
    chosen = [_WORDS[(seed * 7919 + place * place * (seed + 3)) % len(_WORDS)] for place in range(tokens)]
    return f"Note {seed}: " + " ".join(chosen)


def asking(text: str, *more: Turn) -> Conversation:
    turns = (Turn("user", (Text(text + "\nTell me a long story."),)), *more)
    return Conversation("m", turns, max_tokens=_WRITTEN)


def agent_request() -> Conversation:
    """The shape of an agent's first request: 12 tools of 2 KB, a system prompt of 7 KB, reminders of 9 KB."""
    tools = tuple(
        Tool(f"Tool{n}", f"Does thing {n}.\n\n" + text_of(450, n), '{"type":"object","properties":{"a":{},"b":{}}}')
        for n in range(12)
    )
    reminder = f"<system-reminder>{text_of(1800, 97)}</system-reminder>"
    turns = (Turn("user", (Text(reminder), Text("Tell me a long story."))),)
    system = ("You are an agent.", "You help people. " + text_of(1400, 98))
    return Conversation("m", turns, system=system, tools=tools, max_tokens=_WRITTEN)


async def measure(upstream: LlamaCppUpstream, conversation: Conversation) -> Measured:
    served = (await upstream.facts()).models[0]
    begun = time.monotonic()
    answer = await upstream.open(lambda quirks, target: Prepared(conversation), served, request_id="bench")
    first = last = 0.0
    usage = None
    while data := await answer.read():
        for event in answer.decoder.feed(data):
            if isinstance(event, TextAdded):
                last = time.monotonic() - begun
                first = first or last
            elif isinstance(event, UsageSeen):
                usage = event.usage
    answer.close()
    assert usage is not None
    # The model may have had nothing to say: then its end is the first that is heard of it.
    first = first or time.monotonic() - begun
    return Measured(usage.prompt or 0, usage.cached, first, usage.completion or 0, max(last - first, 0.0))


async def _all() -> list[tuple[str, Measured]]:
    rows: list[tuple[str, Measured]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = await acquire(_CACHE / "models", environment=os.environ)
        engine = EmbeddedEngine(EngineSettings(model=model, cache=Path(folder)), environment=os.environ)
        endpoint = await engine.start()
        # Nothing is shortened, so that the sizes are what they are called; the agent's request is.
        whole = LlamaCppUpstream(
            endpoint.address, key=endpoint.key, choices=Choices(target=None, options=Options(temperature=0.8))
        )
        short = LlamaCppUpstream(endpoint.address, key=endpoint.key)
        try:
            await measure(whole, asking("Warm up."))
            for size in (1000, 6000):
                name = f"{size // 1000}k tokens"
                cold = asking(text_of(size, size))
                turn = Turn("assistant", (Text("Once upon a time."),))
                following = asking(text_of(size, size), turn, Turn("user", (Text(text_of(300, 5)),)))
                rows.append((f"{name}, cold", await measure(whole, cold)))
                repeats = [await measure(whole, cold) for _ in range(3)]
                rows.append((f"{name}, the same again", sorted(repeats, key=lambda found: found.first)[1]))
                rows.append((f"{name}, next turn (+300)", await measure(whole, following)))
                await measure(whole, asking(text_of(400, size + 1)))
                rows.append((f"{name}, after another prompt", await measure(whole, cold)))
            rows.append(("an agent's first request, shortened, cold", await measure(short, agent_request())))
            rows.append(("an agent's first request, again", await measure(short, agent_request())))
        finally:
            await whole.close()
            await short.close()
            await engine.stop()
    return rows


def run() -> str:
    """The table, as Markdown."""
    lines = [
        "| request | prompt tokens | cached | first token s | reading t/s | writing t/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in asyncio.run(_all()):
        reading = f"{found.reading_speed:.0f}" if found.prompt - found.cached > 50 else "–"
        lines.append(
            f"| {name} | {found.prompt} | {found.cached} | {found.first:.2f} | {reading} | {found.writing_speed:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(run())
