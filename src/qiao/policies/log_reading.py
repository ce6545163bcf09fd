"""A whole log of vLLM or LiteLLM: the lines that matter, and what the server said of itself when it started.

Pure: lines in, a `Reading` out. A log that holds several starts is read from the last one on, unless that one says
nothing. Lines that only repeat a failure (`echo`) are left out where its cause is found.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

import msgspec

from qiao.policies.log_hints import hint
from qiao.policies.log_rule import Hint, Severity

SHOWN = 240
"""Characters of a line that are kept for the report."""

_RANK: dict[Severity, int] = {"fatal": 0, "refused": 1, "warning": 2, "echo": 3}

_START = re.compile(r"vLLM API server version (?P<old>\d[\w.+-]*)|\bversion (?P<new>\d+\.\d+[\w.+-]*)\s*$")
_ENGINE = re.compile(r"Initializing a V\d LLM engine \(v?(?P<version>[\w.+-]+)\)")
_ARGUMENTS = re.compile(r"non-default args: (?P<arguments>\{.*)")
_HIT_RATE = re.compile(r"Prefix cache hit rate: (?:GPU: )?(?P<rate>\d+(?:\.\d+)?)%")
_CONCURRENCY = re.compile(r"Maximum concurrency for (?P<window>[\d,]+) tokens per request: (?P<times>[\d.]+)x")
_WINDOW = re.compile(r"Using max model len (?P<window>\d+)")
_STATUS = re.compile(r"\"(?:POST|GET|HEAD) (?P<path>\S+) HTTP/1\.\d\" (?P<status>\d{3})")
_LITELLM = re.compile(r"LiteLLM|litellm\.")
# Levels, processes, times and places that logs put in front of what is said.
_PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\)\s*)?(?:(?:INFO|WARNING|ERROR|DEBUG)\s+[\d:. -]+\s*(?:\[[^\]]*\]\s*)?)?")


class Line(msgspec.Struct, frozen=True):
    """A line that matters. `number` from 1; `times`: how often the same is said in all."""

    number: int
    text: str
    hint: Hint
    times: int = 1


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a log tells.

    * `lines`: those that matter, the gravest first, each kind once.
    * `version`, `arguments`, `window`, `concurrency`: of the last start (`concurrency`: requests of a full window at
      once).
    * `hit_rate`: the last one told, in percent. `refused`: how many requests got a 4xx or 5xx, by path and status.
    """

    count: int
    lines: tuple[Line, ...] = ()
    is_litellm: bool = False
    version: str | None = None
    arguments: dict[str, object] = {}
    window: int | None = None
    concurrency: float | None = None
    hit_rate: float | None = None
    refused: dict[str, int] = {}


def read(lines: Iterable[str]) -> Reading:
    """Read a log."""
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        reader.take(number, line.rstrip("\r\n"))
    return reader.result()


class _Reader:
    """Collects; starts anew at each start of the server."""

    def __init__(self) -> None:
        self._count = 0
        self._earlier: dict[str, Line] = {}
        self._found: dict[str, Line] = {}
        self._facts: dict[str, object] = {}
        self._refused: dict[str, int] = {}
        self._is_litellm = False

    def take(self, number: int, line: str) -> None:
        self._count = number
        self._is_litellm = self._is_litellm or _LITELLM.search(line) is not None
        self._take_facts(line)
        found = hint(line)
        if found is None:
            return
        known = self._found.get(found.name)
        if known is None or _RANK[found.severity] < _RANK[known.hint.severity]:
            text = _PREFIX.sub("", line).strip()
            text = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
            self._found[found.name] = Line(number, text, found, times=known.times + 1 if known else 1)
        else:
            self._found[found.name] = msgspec.structs.replace(known, times=known.times + 1)

    def _take_facts(self, line: str) -> None:
        if started := _START.search(line):
            self._begin(started["old"] or started["new"])
        elif named := _ENGINE.search(line):
            self._facts["version"] = named["version"]
        elif given := _ARGUMENTS.search(line):
            self._facts["arguments"] = _literal(given["arguments"])
        elif told := _CONCURRENCY.search(line):
            self._facts["concurrency"] = float(told["times"])
            self._facts["window"] = int(told["window"].replace(",", ""))
        elif said := _WINDOW.search(line):
            self._facts["window"] = int(said["window"])
        elif rate := _HIT_RATE.search(line):
            self._facts["hit_rate"] = float(rate["rate"])
        elif (answered := _STATUS.search(line)) and answered["status"] >= "400":
            name = f"{answered['path'].partition('?')[0]} {answered['status']}"
            self._refused[name] = self._refused.get(name, 0) + 1

    def _begin(self, version: str) -> None:
        self._earlier = self._found or self._earlier
        self._found, self._refused = {}, {}
        self._facts = {"version": version}

    def result(self) -> Reading:
        found = self._found or self._earlier
        lines = sorted(found.values(), key=lambda each: (_RANK[each.hint.severity], each.number))
        if any(each.hint.severity == "fatal" for each in lines):
            lines = [each for each in lines if each.hint.severity != "echo"]
        return Reading(
            count=self._count,
            lines=tuple(lines),
            is_litellm=self._is_litellm,
            refused=dict(sorted(self._refused.items())),
            **self._facts,  # type: ignore[arg-type]
        )


def _literal(text: str) -> dict[str, object]:
    """The options as Python prints them; those that can be read, where a line was cut or holds objects."""
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pairs = re.findall(r"'(\w+)': ('(?:[^'\\]|\\.)*'|-?\d+(?:\.\d+)?|True|False|None)(?=[,}])", text)
        return {name: ast.literal_eval(value) for name, value in pairs}
    return {str(name): each for name, each in value.items()} if isinstance(value, dict) else {}
