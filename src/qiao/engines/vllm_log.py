"""What vLLM says while it starts, as progress: downloads, shards, graphs; and why it did not start. Pure.

vLLM has no other way to tell how far it is. The patterns were taken from logs of 0.11 to 0.33; a line that none of
them knows says nothing, so that a new version makes the progress coarser and breaks nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import msgspec

from qiao.policies import log_hints

# Who says it: (EngineCore_DP0 pid=12), (Worker_TP0_EP0 pid=48). Containers put a time before it.
_SPEAKER = re.compile(r"^(?:\d{4}-\d\d-\d\dT\S+\s+)?(?:\(([A-Za-z]\w*)[^)]*\bpid=\d+\)\s?)?")
_HEAD = re.compile(r"^(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[?[^\]\s]*\]\s*")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Step(msgspec.Struct, frozen=True):
    """How far the start is. `message`: one sentence; `fraction`: of this step, 0 to 1, where it is known."""

    message: str
    fraction: float | None = None


_Make = Callable[[re.Match[str]], Step]


def _counted(sentence: str) -> _Make:
    """Steps whose line says `done/total` in the groups of these names."""

    def make(found: re.Match[str]) -> Step:
        done, total = int(found["done"]), int(found["total"])
        words = {**found.groupdict(), "done": f"{done:,}", "total": f"{total:,}"}
        return Step(sentence.format(**words), min(done / total, 1.0) if total else None)

    return make


def _share(sentence: str) -> _Make:
    """Steps whose line says per cent alone."""
    return lambda found: Step(sentence.format(**found.groupdict()), min(int(found["percent"]) / 100, 1.0))


def _plain(sentence: str) -> _Make:
    return lambda found: Step(sentence.format(**found.groupdict()))


_COUNT = r"(?P<done>\d+)/(?P<total>\d+)"

# Not tied to the beginning of the line, where several processes write into one pipe and lines run together.
_STEPS: tuple[tuple[re.Pattern[str], _Make], ...] = tuple(
    (re.compile(pattern), make)
    for pattern, make in (
        (rf"Loading .*?(?:shards|loader): +\d+% Completed \| {_COUNT}", _counted("Loading shard {done} of {total}.")),
        (rf"Loading .*?shards: +\d+%\|.*?\| {_COUNT} \[", _counted("Loading shard {done} of {total}.")),
        (r"\bResolved architecture: (?P<name>\w+)", _plain("The model is a {name}.")),
        (r"\bInitializing a V\d LLM engine", _plain("Starting the engine's processes.")),
        (r"\bStarting to load model ", _plain("Loading the model.")),
        (rf"^Fetching \d+ files: +\d+%\|.*?\| {_COUNT} ", _counted("Downloading the model: {done} of {total} files.")),
        (r"^(?P<file>[\w.-]+\.safetensors): +(?P<percent>\d+)%\|", _share("Downloading {file}.")),
        (r"^(?:Dynamo bytecode transform time|Compiling a graph for|Cache the graph of|torch\.compile takes)", _plain(
            "Compiling the model's graphs."
        )),
        (r"^\[?Auto[Tt]uner\]?: Tuning (?P<what>[\w:.-]+): +\d+%\|.*?\| " + _COUNT, _counted(
            "Tuning kernels: {done} of {total}."
        )),
        (rf"^DeepGEMM warmup.*?: +\d+%\|.*?\| {_COUNT} ", _counted("Warming up kernels: {done} of {total}.")),
        (rf"^Capturing (?:CUDA|cudagraph|CUDA graph).*?: +\d+%\|.*?\| {_COUNT} ", _counted(
            "Recording CUDA graphs: {done} of {total}."
        )),
        (r"^(?:GPU|CPU) KV cache size: (?P<tokens>[\d,]+) tokens", _plain("The cache holds {tokens} tokens.")),
    )
)  # fmt: skip


def bare(line: str) -> str:
    """The line without colours, without who says it and when."""
    text = _ANSI.sub("", line).strip()
    text = text[_at(_SPEAKER, text) :]
    return text[_at(_HEAD, text) :].rstrip()


def _at(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.match(text)
    return found.end() if found else 0


def is_first_of_its_kind(line: str) -> bool:
    """Whether nobody but the first of several equal workers says it: all of them load, and all of them tell."""
    found = _SPEAKER.match(_ANSI.sub("", line).strip())
    speaker = found[1] if found else None
    return speaker is None or not re.search(r"(?:TP|PP|DP|EP)[1-9]", speaker)


def step_of(line: str) -> Step | None:
    """The step that a line of the log tells of; None for all others."""
    if not is_first_of_its_kind(line):
        return None
    text = bare(line)
    for pattern, make in _STEPS:
        found = pattern.search(text)
        if found is not None:
            return make(found)
    return None


def is_progress_bar(line: str) -> bool:
    """A line that is drawn again and again: no part of what a person wants to read afterwards."""
    return re.search(r"\d+%(?:\||\s+Completed\b)|\[\d\d:\d\d<[\d:?]+", line) is not None


class Cause(msgspec.Struct, frozen=True):
    """Why a start failed. `text` follows "could not start: "; `is_final`: another start would meet it again."""

    text: str
    hint: str | None = None
    is_final: bool = True


# What argparse says of a flag that this version does not take.
_USAGE = re.compile(r"^(?:vllm(?: serve)?|api_server\.py|\S+): error: (?P<text>.+)")
# The last line of a Python traceback, of whichever process.
_RAISED = re.compile(r"^(?:[a-z_]\w*\.)*(?P<kind>[A-Z]\w*(?:Error|Exception|Failure))(?:: (?P<text>.+))?$")
# Says that another process failed, and not why.
_ECHOES = re.compile(r"Engine core initialization failed|EngineDeadError|WorkerProc initialization failed|SystemExit")


def cause_of(lines: Sequence[str]) -> Cause | None:
    """Why the start failed, from all that was written; None where nothing says it."""
    known = next((hint for line in lines if (hint := log_hints.hint(line)) and hint.severity == "fatal"), None)
    if known is not None:
        return Cause(known.cause.rstrip("."), known.mend)
    for line in lines:
        found = _USAGE.search(bare(line))
        if found is not None:
            return Cause(f"vLLM does not take its command line: {found['text']}", "Look at --vllm-arguments.")
    for before, line in itertools.pairwise(("", *lines)):
        text = _raised(line)
        if text is not None:
            # An assertion without words is told by what it asserted, on the line above.
            return Cause(text if ": " in text else f"{text}: {bare(before).strip()}", is_final=False)
    # Nothing failed outright: the first warning of what could have ended it.
    warned = next((hint for line in lines if (hint := log_hints.suspicion(line)) and hint.severity == "fatal"), None)
    return Cause(warned.cause.rstrip("."), warned.mend, is_final=False) if warned is not None else None


def _raised(line: str) -> str | None:
    found = _RAISED.match(bare(line))
    if found is None or _ECHOES.search(line) or log_hints.is_in_passing(line):
        return None
    return f"{found['kind']}: {found['text']}" if found["text"] else found["kind"]
