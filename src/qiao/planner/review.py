"""What is wrong with a start script for vLLM that somebody wrote or copied: the known traps, line by line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from qiao import profiles
from qiao.errors import ConfigurationError
from qiao.planner import catalogue, vllm
from qiao.planner.model import ModelFacts
from qiao.planner.weights import bf16_bytes
from qiao.profiles.claude_code import FIRST_REQUEST_WORDS, USEFUL_WINDOW

_GIB = 2**30
_FLAG = re.compile(r"(?<!\S)(--[a-z][a-z0-9-]*)(?:[=\s]+(?!--)([^\s`\\|;&]+))?")
_SERVE = re.compile(r"vllm\s+serve\s+([^\s`\\-][^\s`\\]*)")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A trap in a script. `code` is stable."""

    line: int
    code: str
    text: str
    mend: str


class _Script(msgspec.Struct, frozen=True):
    lines: tuple[str, ...]
    flags: dict[str, tuple[int, str]]
    model: ModelFacts | None
    model_name: str | None
    notes: tuple[str, ...]


def review(text: str) -> tuple[Fault, ...]:
    """The faults, in the order of the lines."""
    script = _read(text)
    return tuple(sorted(_faults(script), key=lambda fault: fault.line))


def _read(text: str) -> _Script:
    lines = tuple(text.splitlines())
    flags: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue
        served = _SERVE.search(line)
        if served is not None:
            flags["--model"] = (number, served[1])
        for found in _FLAG.finditer(line):
            flags[found[1]] = (number, (found[2] or "").strip("\"'"))
    name = flags.get("--model", (0, ""))[1] or None
    model, notes = _model(name)
    return _Script(lines, flags, model, name, notes)


def _model(name: str | None) -> tuple[ModelFacts | None, tuple[str, ...]]:
    if name is None:
        return None, ()
    try:
        found = catalogue.find(name)
    except ConfigurationError:
        return None, ()
    missing = tuple(note for note in found.notes if "does not exist" in note)
    plain = [each for each in found.models if each.quantisation.precision == "bf16"]
    return (plain or list(found.models))[0], missing


def _faults(script: _Script) -> Iterator[Fault]:
    yield from _continuations(script)
    yield from _about_model(script)
    yield from _parsers(script)
    yield from _window(script)
    if "--trust-remote-code" in script.flags and script.model is not None and not script.model.remote_code:
        yield Fault(
            line=script.flags["--trust-remote-code"][0],
            code="trust_remote_code",
            text="--trust-remote-code runs code from the download, and this model needs none.",
            mend="Leave it out.",
        )
    missing = [each for each in ("--enable-prompt-tokens-details",) if script.flags and each not in script.flags]
    for flag in missing:
        yield Fault(
            line=len(script.lines),
            code="no_token_details",
            text="The engine will not tell how much of a prompt came from its cache.",
            mend=f"Add {flag}.",
        )


def _continuations(script: _Script) -> Iterator[Fault]:
    """PowerShell goes on after a backtick, bash after a backslash; neither after the other's."""
    ends = [(number, line.rstrip()[-1:]) for number, line in enumerate(script.lines, 1)]
    backticks = [number for number, end in ends if end == "`"]
    backslashes = [number for number, end in ends if end == "\\"]
    if not backticks or not backslashes:
        return
    is_powershell = len(backticks) >= len(backslashes)
    odd, shell, mark = (
        (backslashes, "PowerShell", "a backslash") if is_powershell else (backticks, "bash", "a backtick")
    )
    for number in odd:
        yield Fault(
            line=number,
            code="mixed_continuation",
            text=f"The line ends in {mark}, which does not go on in {shell}: the command stops here, and the next line "
            "is an error.",
            mend="End each line alike: ` in PowerShell, \\ in bash. `qiao export powershell` writes one that runs.",
        )


def _about_model(script: _Script) -> Iterator[Fault]:
    line = script.flags.get("--model", (1, ""))[0]
    for note in script.notes:
        yield Fault(line=line, code="no_such_repository", text=f"{note}", mend="Correct the name.")
    quantised = script.flags.get("--quantization")
    if quantised is None or script.model is None:
        return
    if quantised[1] == "fp8" and script.model.quantisation.precision == "bf16":
        yield Fault(
            line=quantised[0],
            code="online_quantisation",
            text=f"--quantization fp8 reads the BF16 weights first: {bf16_bytes(script.model) / _GIB:,.0f} GiB are "
            "loaded before anything becomes smaller.",
            mend=f"Take the -FP8 repository, {script.model.repository}-FP8, and leave the flag out.",
        )


def _parsers(script: _Script) -> Iterator[Fault]:
    if script.model_name is None:
        return
    profile = profiles.find(script.model.name if script.model else script.model_name)
    right = vllm.tool_parser(profile, vllm.NEWEST).name
    chosen = script.flags.get("--tool-call-parser")
    if right and chosen is None:
        yield Fault(
            line=len(script.lines),
            code="no_tool_parser",
            text="Without a tool parser the engine refuses tools with tool_choice auto.",
            mend=f"Add --enable-auto-tool-choice --tool-call-parser {right}.",
        )
    elif right and chosen is not None and chosen[1] not in (right, f"{right}_json", f"{right}_xml"):
        yield Fault(
            line=chosen[0],
            code="wrong_tool_parser",
            text=f"{profile.family} does not write its calls as the parser {chosen[1]} reads them.",
            mend=f"Use --tool-call-parser {right}.",
        )
    reasoning = script.flags.get("--reasoning-parser")
    if reasoning is not None and profile.reasoning == "none":
        yield Fault(
            line=reasoning[0],
            code="reasoning_parser_on_instruct",
            text=f"{profile.family} does not reason: its whole answer would be taken for reasoning and be empty.",
            mend="Leave --reasoning-parser out.",
        )


def _window(script: _Script) -> Iterator[Fault]:
    given = script.flags.get("--max-model-len")
    if given is None or not given[1].isdigit():
        return
    window = int(given[1])
    if window < USEFUL_WINDOW:
        yield Fault(
            line=given[0],
            code="small_window",
            text=f"A window of {window:,} tokens is small for Claude Code, whose first request takes "
            f"{FIRST_REQUEST_WORDS}: it compacts after a few steps.",
            mend=f"{USEFUL_WINDOW} or more is good; `qiao plan` says how much fits.",
        )
    is_stretched = any(flag.startswith(("--hf-overrides", "--rope-scaling")) for flag in script.flags)
    if script.model is not None and window > script.model.window and not is_stretched:
        yield Fault(
            line=given[0],
            code="beyond_window",
            text=f"The model was trained for {script.model.window:,} tokens.",
            mend=f"At most {script.model.window}.",
        )
