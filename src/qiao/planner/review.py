"""What is wrong with a start script for vLLM that somebody wrote or copied: the known traps, line by line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from qiao import profiles
from qiao.errors import ConfigurationError
from qiao.planner import catalogue, vllm
from qiao.planner.model import ModelFacts
from qiao.planner.shapes import REFINES_SINCE, needs_finer_scales
from qiao.planner.vllm import version_text
from qiao.planner.weights import Division, bf16_bytes
from qiao.profiles.claude_code import FIRST_REQUEST_WORDS, USEFUL_WINDOW

_GIB = 2**30
# A word of a shell: quoted parts and all.
_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"';|&])+|[;|&]+""")
_END = re.compile(r"[;|&]+")
_SERVER = re.compile(r"vllm\.entrypoints\.openai\.api_server|(?:^|/)vllm/vllm-openai\b")
# These take no value: what follows them may be the model.
_SWITCH = re.compile(r"--(?:enable|disable|no|trust|enforce|return|async|headless)(?:-|$)")
_SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-ep": "--enable-expert-parallel",
    "-q": "--quantization",
    "-n": "--nnodes",
    "-r": "--node-rank",
}
_UNQUOTED = re.compile(r"\bpip3?\s+install\b[^;|&#]*?\s(?P<word>[\w.\[\],-]+[<>]=?[\w.*]+)")


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
    for command in _commands(lines):
        flags.update(_flags(command))
    name = flags.get("--model", (0, ""))[1] or None
    model, notes = _model(name)
    return _Script(lines, flags, model, name, notes)


def _commands(lines: tuple[str, ...]) -> Iterator[list[tuple[int, str]]]:
    """The words of each command with their lines. A line goes on where it ends in the mark of any shell."""
    words: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#"):
            continue
        bare = line.rstrip()
        goes_on = bare.endswith(("\\", "`"))
        for word in _words(bare.rstrip("\\`")):
            if _END.fullmatch(word):
                yield words
                words = []
            else:
                words.append((number, word))
        if not goes_on:
            yield words
            words = []
    yield words


def _words(text: str) -> Iterator[str]:
    """The words of a line; those of a whole command in quotes (`bash -c "vllm serve …"`) as well."""
    for found in _WORD.finditer(text):
        word = found[0].strip("\"'")
        if word != found[0] and re.search(r"\s--?\w", word):
            yield from _words(word)
        else:
            yield word


def _flags(command: list[tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Long names of flags, with dashes, and their values; the model that `vllm serve` is given as --model."""
    words = [word for _, word in command]
    serve = next((at for at in range(1, len(words)) if words[at] == "serve" and words[at - 1].endswith("vllm")), None)
    is_engine = serve is not None or any(_SERVER.search(word) for word in words)
    found: dict[str, tuple[int, str]] = {}
    at = 0
    while at < len(command):
        number, word = command[at]
        at += 1
        if not (word.startswith("--") or (is_engine and word.partition("=")[0] in _SHORT)):
            if serve is not None and at - 1 > serve and not word.startswith("-"):
                found.setdefault("--model", (number, word))
            continue
        name, has_value, value = word.partition("=")
        name = _SHORT.get(name, name).replace("_", "-")
        if not has_value and not _SWITCH.match(name) and at < len(command) and not _is_flag(command[at][1]):
            value = command[at][1]
            at += 1
        found[name] = (number, value.strip("\"'"))
    return found


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-").isdigit()


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
    yield from _unquoted(script)
    yield from _about_model(script)
    yield from _blocks(script)
    yield from _cache(script)
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


def _unquoted(script: _Script) -> Iterator[Fault]:
    for number, line in enumerate(script.lines, 1):
        bare = re.sub(r"\"[^\"]*\"|'[^']*'", " ", line)
        if not bare.lstrip().startswith("#") and (found := _UNQUOTED.search(bare)):
            name, file = re.split(r"[<>]", found["word"], maxsplit=1)
            yield Fault(
                line=number,
                code="unquoted_version",
                text=f"The shell takes {found['word'][len(name)]} for a redirection: pip sees {name} alone, and a file "
                f"is named {file}.",
                mend=f"Quote it: '{found['word']}'.",
            )


def _blocks(script: _Script) -> Iterator[Fault]:
    """Experts in FP8 blocks, cut into pieces that are no whole blocks (vllm#17569)."""
    tensor = script.flags.get("--tensor-parallel-size")
    if tensor is None or script.model is None or script.model.experts is None or not tensor[1].isdigit():
        return
    data = script.flags.get("--data-parallel-size", (0, "1"))[1]
    division = Division(tensor=max(int(tensor[1]), 1), data=max(int(data), 1) if data.isdigit() else 1)
    if "--enable-expert-parallel" in script.flags or not needs_finer_scales(script.model, division):
        return
    cut = division.tensor * division.data
    width = script.model.experts.width
    yield Fault(
        line=tensor[0],
        code="fp8_blocks",
        text=f"Experts of width {width} over {cut} GPUs are {width / cut:g} wide each, no whole number of FP8 blocks "
        f"of {(script.model.quantisation.block or (0,))[0]}: vLLM before {version_text(REFINES_SINCE)}, and later "
        "ones on GPUs without FP8 arithmetic, stop at load.",
        mend="Add --enable-expert-parallel, which keeps each expert whole, or use fewer GPUs for one engine.",
    )


def _cache(script: _Script) -> Iterator[Fault]:
    off = script.flags.get("--no-enable-prefix-caching")
    if off is not None:
        yield Fault(
            line=off[0],
            code="prefix_caching_off",
            text="Without prefix caching each turn of a session computes the whole conversation anew.",
            mend="Write --enable-prefix-caching.",
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
