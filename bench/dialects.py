"""What reading calls out of a model's text costs: time for one call, by length and by the size of the pieces.

    python -m bench dialects

The whole path is measured as the gateway runs it: reasoning split, dialect, repair by schema, sequencer. `growth` says
whether the cost is linear: what a character of a long call costs, in characters of a short one.
"""

from __future__ import annotations

import json
import time

from qiao.core.conversation import Tool
from qiao.core.dialects import text_tools
from qiao.core.events import Finished, TextAdded, ToolArgumentsAdded
from qiao.core.sequence import Sequencer

_SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "content": {"type": "string"},
        "rows": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["path"],
    "additionalProperties": False,
}
TOOLS = (Tool("Write", parameters=json.dumps(_SCHEMA)),)
LINE = 'def name(argument: str) -> dict[str, int]:\n    return {"key": [1, 2], "other": len(argument)}\n\n'
SIZES = (10_000, 100_000, 1_000_000)
PIECES = (4, 64, 1 << 30)


def texts(size: int) -> dict[str, tuple[str, str]]:
    """What is measured: (dialect, text) by its name; each about `size` characters long."""
    content = LINE * (size // len(LINE))
    arguments = json.dumps({"path": "a.py", "content": content})
    rows = json.dumps({"path": "a.py", "rows": list(range(size // 7))})
    parameters = f"<parameter=path>\na.py\n</parameter>\n<parameter=content>\n{content}\n</parameter>\n"
    return {
        "prose": ("hermes", content),
        "hermes, a file": ("hermes", f'<tool_call>\n{{"name": "Write", "arguments": {arguments}}}\n</tool_call>'),
        "hermes, numbers": ("hermes", f'<tool_call>\n{{"name": "Write", "arguments": {rows}}}\n</tool_call>'),
        "qwen3_coder, a file": ("qwen3_coder", f"<tool_call>\n<function=Write>\n{parameters}</function>\n</tool_call>"),
    }


def measure(dialect: str, text: str, piece: int) -> tuple[float, int]:
    """Seconds of processor time, and after how many characters the first byte of the arguments went out."""
    stage = text_tools(dialect, TOOLS)
    sequencer = Sequencer(id_prefix="toolu", tools=TOOLS)
    first = 0
    begin = time.process_time()
    for start in range(0, len(text), piece):
        events = sequencer.feed(stage.feed([TextAdded(text[start : start + piece])]))
        if not first and any(isinstance(event, ToolArgumentsAdded) for event in events):
            first = min(start + piece, len(text))
    sequencer.feed(stage.feed([Finished("stop")]))
    return time.process_time() - begin, first


def growth(name: str, piece: int, *, short: int = 10_000, long: int = 1_000_000, rounds: int = 3) -> float:
    """How many times more a character costs in a call of `long` characters than in one of `short`: 1 is linear.

    The lowest of some rounds of each: neighbours on the machine can only add. A short call is read many times over, so
    that both take long enough to be measured.
    """

    def cost(size: int) -> float:
        dialect, text = texts(size)[name]
        times = max(1, long // size // 10)
        return min(sum(measure(dialect, text, piece)[0] for _ in range(times)) / times for _ in range(rounds)) / len(
            text
        )

    return cost(long) / cost(short)


def run() -> str:
    """The table, as Markdown."""
    rows = [
        "| text | length | in pieces of 4 | of 64 | at once | µs a piece of 4 | first argument byte after |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in SIZES:
        for name, (dialect, text) in texts(size).items():
            found = [measure(dialect, text, piece) for piece in PIECES]
            times = " | ".join(f"{seconds * 1000:.1f} ms" for seconds, _ in found)
            a_piece = found[0][0] / (len(text) / PIECES[0]) * 1e6
            first = f"{found[0][1]} characters" if found[0][1] else "-"
            rows.append(f"| {name} | {len(text):,} | {times} | {a_piece:.1f} | {first} |")
    ratios = ", ".join(f"{name} {growth(name, 4):.2f}" for name in texts(SIZES[0]))
    rows += ["", f"A character of a text of 1 MB costs, in characters of one of 10 KB (1 is linear): {ratios}."]
    return "\n".join(rows)
