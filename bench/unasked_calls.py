"""How well the embedded model tells requests that need a tool from those that do not: `python -m bench.unasked_calls`.

For each request: how much more probable than after a neutral request the beginning of each tool's call is. The table
in docs/embedded.md is its output; the requests were written before the first run and not changed after it.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path

from qiao.core.conversation import Conversation, Text, Tool, Turn
from qiao.engines.llamacpp import EmbeddedEngine, EngineSettings
from qiao.engines.models import acquire
from qiao.upstream.llamacpp import LlamaCppUpstream


def tool(name: str, description: str, parameter: str) -> Tool:
    schema = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return Tool(name, description, json.dumps(schema))


TOOLS = (
    tool("Bash", "Executes a shell command.", "command"),
    tool("Read", "Reads a file from the local filesystem.", "file_path"),
    tool("Grep", "Searches the contents of files for a pattern.", "pattern"),
    tool("get_weather", "Tells the weather in a city.", "city"),
    tool("get_time", "Tells the time in a city.", "city"),
    tool("search_docs", "Searches the documentation.", "query"),
)
ASKS = (
    ("Read", "Show me what is in notes.txt."),
    ("Read", "Open the file src/main.py and tell me what it does."),
    ("Grep", "In which files does the word TODO appear?"),
    ("Grep", "Find every place where connect( is called."),
    ("get_weather", "Will I need an umbrella in Hamburg today?"),
    ("get_weather", "How warm is it in Cairo right now?"),
    ("get_time", "What time is it in Tokyo?"),
    ("get_time", "Is it already evening in Lima?"),
    ("search_docs", "What does the manual say about time-outs?"),
    ("search_docs", "Look up how to configure logging in the documentation."),
    ("Bash", "Run the tests."),
    ("Bash", "Delete the build folder."),
)
CHATS = (
    "Thanks, that was helpful!",
    "Who wrote Hamlet?",
    "Explain recursion in one sentence.",
    "Tell me a joke about cats.",
    "What is the difference between a list and a tuple?",
    "Good morning!",
    "Translate 'good night' into Spanish.",
    "I feel tired today.",
    "Write a haiku about rain.",
    "What is 12 times 12?",
    "Which is larger, the moon or the earth?",
    "Can you help me to plan a birthday party?",
)
THRESHOLDS = (2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0)


async def gains(upstream: LlamaCppUpstream, text: str) -> dict[str, float]:
    """The gain of every tool's call after `text`."""
    asked = Conversation("m", (Turn("user", (Text(text),)),), system=("You are a helpful assistant.",), tools=TOOLS)
    names = tuple(each.name for each in TOOLS)
    return await upstream.gains(asked, await upstream.prompt_of(asked), names)


async def measure() -> str:
    """The tables, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(os.environ.get("QIAO_CACHE") or folder)
        model = await acquire(cache / "models", environment=os.environ)
        engine = EmbeddedEngine(EngineSettings(model=model, cache=cache), environment=os.environ)
        endpoint = await engine.start()
        upstream = LlamaCppUpstream(endpoint.address, key=endpoint.key)
        try:
            asks = [(wanted, text, await gains(upstream, text)) for wanted, text in ASKS]
            chats = [(text, await gains(upstream, text)) for text in CHATS]
        finally:
            await upstream.close()
            await engine.stop()
    return "\n".join(_rows(asks, chats))


def _rows(asks: list[tuple[str, str, dict[str, float]]], chats: list[tuple[str, dict[str, float]]]) -> list[str]:
    rows = ["| request | wanted | best | gain | gain of Bash |", "|---|---|---|---|---|"]
    for wanted, text, found in asks:
        best = max(found, key=found.__getitem__)
        rows.append(f"| {text} | {wanted} | {best} | {found[best]:+.1f} | {found['Bash']:+.1f} |")
    for text, found in chats:
        best = max(found, key=found.__getitem__)
        rows.append(f"| {text} | text | {best} | {found[best]:+.1f} | {found['Bash']:+.1f} |")
    rows += [
        "",
        "| threshold | called of 12 | right tool | needless of 12 | needless Bash of 12 |",
        "|---|---|---|---|---|",
    ]
    for threshold in THRESHOLDS:
        called = [(wanted, found) for wanted, _, found in asks if max(found.values()) >= threshold]
        right = sum(max(found, key=found.__getitem__) == wanted for wanted, found in called)
        needless = [found for _, found in chats if max(found.values()) >= threshold]
        bash = sum(max(found, key=found.__getitem__) == "Bash" for found in needless)
        rows.append(f"| {threshold:g} | {len(called)} | {right} | {len(needless)} | {bash} |")
    return rows


if __name__ == "__main__":
    print(asyncio.run(measure()))
