"""A machine, a model and a goal to a Plan or a Refusal. Pure.

Every published precision of the model is tried with every way of cutting it, in the order of the preference; the first
that reaches the goal is taken. Where none does, the best try says what is missing, and the same search with smaller
wishes finds what does fit.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from qiao.planner import mig, nearest
from qiao.planner.arguments import finished
from qiao.planner.cache import CacheType
from qiao.planner.divisions import Layouts, layouts
from qiao.planner.fit import Fit, is_taken, try_fit, utilisation
from qiao.planner.machine import GIB, Gpu, representative
from qiao.planner.model import ModelFacts
from qiao.planner.plan import Goal, Nearest, Outcome, Plan, Reason, Refusal, Warned
from qiao.planner.quantisation import Precision
from qiao.planner.request import Request
from qiao.planner.shapes import BLOCK_SOURCE, MARLIN_SOURCE, without_kernel
from qiao.planner.vllm import NEWEST, STRETCHES_SINCE, longest_window, version_text

# Windows to be content with, largest first: room for Claude Code to work, enough for it to start, barely any.
_WINDOWS = (65_536, 49_152, 16_384)
_MOST_REASONS = 4


def plan(request: Request) -> Outcome:
    """The plan for a request, or why there is none and what is nearest."""
    usable = mig.whole(request.machine)
    if usable is not request.machine and usable.gpus:
        return mig.told(plan(msgspec.structs.replace(request, machine=usable)), request.machine)
    refused = _refused_at_once(request)
    if refused is not None:
        return refused
    found = search(request)
    if found.best is not None:
        return finished(request, found.best, found.tried[found.best.model.repository])
    return _refused(request, found)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The first try that reaches the goal, else the try that comes closest, and the ways of cutting by repository."""

    best: Fit | None
    closest: Fit | None
    tried: dict[str, Layouts]


def search(request: Request) -> Found:
    """Try every checkpoint with every way of cutting it."""
    gpu = representative(request.machine)
    nodes, gpus = len(request.machine.nodes), min(len(node.gpus) for node in request.machine.nodes)
    tried: dict[str, Layouts] = {}
    fits: list[Fit] = []
    for model, cache_type in _attempts(request, gpu):
        possible = layouts(model, nodes, gpus, gpu, request.goal.version, data_parallel=request.data_parallel)
        tried.setdefault(model.repository, possible)
        fits += [try_fit(model, layout, gpu, request.goal, cache_type) for layout in possible.possible]
    if request.goal.preference != "quality":
        # What fits into one computer in another precision beats what has to be stretched over several.
        fits.sort(key=lambda each: each.layout.nodes)
    best = next(_acceptable(fits, request.goal), None)
    closest = min(fits, key=lambda each: (each.missing, -each.window), default=None)
    return Found(best=best, closest=closest, tried=tried)


def _acceptable(fits: list[Fit], goal: Goal) -> Iterator[Fit]:
    """The tries that reach the goal, best first."""
    if goal.window is not None:
        yield from (each for each in fits if each.missing == 0)
        return
    for window in _WINDOWS:
        for each in fits:
            if each.missing == 0 and each.window >= min(window, each.model.window):
                yield each


def ranked(models: tuple[ModelFacts, ...], goal: Goal, gpu: Gpu) -> list[ModelFacts]:
    """The checkpoints in the order of the preference."""
    order = _order(goal, gpu)
    usable = [each for each in models if each.quantisation.precision in order]
    return sorted(usable, key=lambda each: order.index(each.quantisation.precision))


def _order(goal: Goal, gpu: Gpu) -> tuple[Precision, ...]:
    match goal.preference:
        case "quality":
            return ("bf16", "fp8", "int8", "int4", "fp4")
        case "speed" if gpu.fp4_arithmetic:
            return ("fp4", "fp8", "int8", "int4", "bf16")
        case "speed" if gpu.fp8_arithmetic:
            return ("fp8", "int8", "int4", "bf16", "fp4")
        case "speed":
            return ("int4", "int8", "fp8", "bf16", "fp4")
        case _ if gpu.fp8_arithmetic:
            return (
                ("fp8", "bf16", "int8", "fp4", "int4") if gpu.fp4_arithmetic else ("fp8", "bf16", "int8", "int4", "fp4")
            )
        case _:
            return ("bf16", "fp8", "int8", "int4", "fp4")


def _attempts(request: Request, gpu: Gpu) -> Iterator[tuple[ModelFacts, CacheType]]:
    """Checkpoints and cache precisions, best first.

    The cache stays in the model's own precision where the goal is met so; a cache in FP8 costs less than weights of
    4 bits.
    """
    models = ranked(request.models, request.goal, gpu)
    may_shrink = request.goal.preference != "quality" and gpu.fp8_arithmetic
    cache_types: tuple[CacheType, ...] = ("auto", "fp8") if may_shrink else ("auto",)
    fine = [each for each in models if each.quantisation.bits > 4]
    coarse = [each for each in models if each.quantisation.bits <= 4]
    groups = (models,) if request.goal.preference == "speed" else (fine, coarse)
    for group in groups:
        for cache_type in cache_types:
            for model in group:
                yield model, cache_type


def _refused_at_once(request: Request) -> Refusal | None:
    machine, goal = request.machine, request.goal
    if any(model.quantisation.method == "gguf" for model in request.models):
        return _plain(
            request,
            f"{request.models[0].repository} is a GGUF file, llama.cpp's format: vLLM needs a plugin to read it.",
            nearest.for_gguf(request),
        )
    if not machine.gpus:
        name = request.models[0].name if request.models else request.wanted
        return _plain(
            request, f"{name} needs GPUs, and this machine has none that an engine could use.", nearest.without_gpu()
        )
    if any(gpu.is_split for gpu in machine.gpus):
        return _plain(request, f"{mig.described(machine)}, and a plan needs a whole GPU.", mig.near(machine))
    if any(gpu.usable is None for gpu in machine.gpus):
        return _plain(request, "The driver does not say how much memory the GPUs have.", nearest.unknown_memory())
    gpu = representative(machine)
    if is_taken(gpu):
        held = (gpu.usable or 0) - (gpu.free or 0)
        return _plain(
            request,
            f"Somebody else holds {held / GIB:.1f} GiB of a GPU's {(gpu.usable or 0) / GIB:.1f} GiB; "
            f"{utilisation(gpu):.0%} of it is left.",
            nearest.taken(machine),
        )
    if goal.window is not None and _is_beyond(request):
        longest = max(longest_window(model, goal.version) for model in request.models)
        own = max(model.window for model in request.models)
        further = f" and goes to {longest:,} by YaRN" if longest > own else ""
        if longest == own and max(longest_window(model, NEWEST) for model in request.models) >= goal.window:
            further = f" (by YaRN further, with vLLM {version_text(STRETCHES_SINCE)} and later)"
        return _plain(
            request,
            f"{request.models[0].name} was trained for {own:,} tokens{further}, and {goal.window:,} are asked for.",
            nearest.shorter(request, own, _fitting),
        )
    if request.since is not None and goal.version < request.since[0]:
        return _plain(
            request,
            f"{request.models[0].architecture} came to vLLM with {version_text(request.since[0])}, "
            f"and this is {version_text(goal.version)}.",
            nearest.newer_engine(),
            reasons=(Reason(about="--vllm", text="architecture not in this version", source=request.since[1]),),
        )
    return None


def _is_beyond(request: Request) -> bool:
    """Whether the window is longer than the model can have."""
    longest = max(longest_window(model, request.goal.version) for model in request.models)
    return request.goal.window is not None and request.goal.window > longest


def _plain(request: Request, message: str, near: tuple[Nearest, ...], reasons: tuple[Reason, ...] = ()) -> Refusal:
    return Refusal(
        machine=request.machine,
        goal=request.goal,
        model=request.models[0] if request.models else None,
        message=message,
        nearest=near,
        reasons=reasons,
        warnings=tuple(Warned(code="name", text=note) for note in request.notes),
    )


def _refused(request: Request, found: Found) -> Refusal:
    """Say what the best try lacks, and find what is near."""
    closest = found.closest
    reasons = tuple(
        Reason(about=str(division), text=rule.text, source=rule.source)
        for each in found.tried.values()
        for division, rule in each.rejected
        if closest is None or rule.source in (BLOCK_SOURCE, MARLIN_SOURCE)
    )[:_MOST_REASONS]
    near = nearest.for_request(request, _fitting)
    if closest is None:
        gpu = representative(request.machine)
        missing = [without_kernel(model, gpu, request.goal.version) for model in request.models]
        kernels = tuple(Reason(about="model", text=rule.text, source=rule.source) for rule in missing if rule)
        if len(kernels) == len(missing):
            name = request.models[0].name
            message = f"{name} does not run on {request.machine}: the engine cannot multiply its weights there."
            return _plain(request, message, near, kernels[:_MOST_REASONS])
        message = f"There is no way to cut {request.models[0].name} over {request.machine} that the engine takes."
        return msgspec.structs.replace(_plain(request, message, near), reasons=reasons)
    return Refusal(
        machine=request.machine,
        goal=request.goal,
        model=closest.model,
        message=_shortage(request, closest),
        missing=closest.missing or None,
        division=closest.layout.division,
        closest=closest.memory,
        nearest=near,
        reasons=reasons,
        warnings=tuple(Warned(code="name", text=note) for note in request.notes),
    )


def _shortage(request: Request, closest: Fit) -> str:
    gpu = min(closest.memory, key=lambda each: each.cache)
    division = str(closest.layout.division)
    if gpu.cache <= 0:
        return (
            f"{closest.model.name} does not fit on {request.machine}: with {division} each GPU needs "
            f"{gpu.used / GIB:.1f} GiB before the first token ({gpu.weights / GIB:.1f} GiB of it weights), and may use "
            f"{gpu.allowed / GIB:.1f} GiB. {closest.missing / GIB:.1f} GiB are missing on each GPU."
        )
    wish = f"{request.goal.window:,} tokens" if request.goal.window else f"{_WINDOWS[-1]:,} tokens"
    users = f" for {request.goal.users} users at once" if request.goal.users > 1 else ""
    short = closest.missing or max(
        0, closest.cache.request_bytes(request.goal.window or _WINDOWS[-1]) * request.goal.users - gpu.cache
    )
    return (
        f"{closest.model.name} fits on {request.machine}, but not a window of {wish}{users}: with {division} each GPU "
        f"has {gpu.cache / GIB:.1f} GiB left for the cache, and {short / GIB:.1f} GiB are missing."
    )


def _fitting(request: Request) -> Plan | None:
    # What is near a window that is too long is found by asking here: it must not ask for it in turn.
    if _is_beyond(request) or _refused_at_once(request) is not None:
        return None
    found = search(request)
    if found.best is None:
        return None
    return finished(request, found.best, found.tried[found.best.model.repository])
