"""What to offer where a wish cannot be met: a smaller wish, more GPUs, a smaller model. Pure."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner import catalogue, specification
from qiao.planner.cache import bytes_per_token as cache_bytes_per_token
from qiao.planner.gpu_table import by_driver_name
from qiao.planner.machine import GIB, Machine
from qiao.planner.plan import Nearest, Plan
from qiao.planner.request import Request
from qiao.planner.vllm import NEWEST, version_text
from qiao.planner.weights import parameters

_MOST = 4
_GPU_COUNTS = (1, 2, 4, 8)
_SMALLER_MODELS = 2
_LONGER_MODELS = 2
_USUAL_WINDOW = 65_536
# What the embedded engine takes unasked (engines/llamacpp.py).
_EMBEDDED_WINDOW = 32_768


def for_request(request: Request, fitting: Callable[[Request], Plan | None]) -> tuple[Nearest, ...]:
    """The nearest wishes that `fitting` meets; where nothing near meets them, what is near without any wishes."""
    found = tuple(itertools.islice(_offers(request, fitting), _MOST))
    if found or (request.goal.window is None and request.goal.users == 1):
        return found
    return for_request(_with(request, users=1), fitting)


def _offers(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    yield from _other_checkpoints(request, fitting)
    yield from _smaller_wishes(request, fitting)
    yield from _more_gpus(request, fitting)
    yield from _smaller_models(request, fitting)


def _other_checkpoints(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    """The same model in another precision, where one alone was asked for."""
    asked = {each.repository for each in request.models}
    try:
        family = catalogue.find(next(iter(asked))).family
    except ConfigurationError:  # a folder
        return
    others = tuple(each for each in catalogue.find(family.name).models if each.repository not in asked)
    plan = fitting(msgspec.structs.replace(request, models=others)) if others else None
    if plan is not None:
        other = msgspec.structs.replace(request, wanted=plan.model.repository)
        yield Nearest(
            text=f"{plan.model.repository}, the same model in {plan.model.quantisation.name} ({plan.window:,} tokens)",
            command=_command(other, window=request.goal.window),
        )


def _smaller_wishes(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    goal = request.goal
    shorter = fitting(_with(request, window=None)) if goal.window is not None else None
    if shorter is not None:
        yield Nearest(
            text=f"a window of {shorter.window:,} tokens on the same machine{_users(goal.users)}",
            command=_command(request, window=shorter.window),
        )
    users = _most_users(request, fitting)
    if users:
        window = f" with {goal.window:,} tokens each" if goal.window else ""
        yield Nearest(
            text=f"{users} user{'s' if users > 1 else ''} at once{window}",
            command=_command(request, users=users, window=goal.window),
        )
    if shorter is None and not users and goal.window is not None and goal.users > 1:
        both = fitting(_with(request, window=None, users=1))
        if both is not None:
            yield Nearest(
                text=f"one user with a window of {both.window:,} tokens on the same machine",
                command=_command(request, users=1, window=both.window),
            )


def _most_users(request: Request, fitting: Callable[[Request], Plan | None]) -> int:
    """How many users fewer than asked for fit, at the same window; 0 where not even one."""
    low, high = 0, request.goal.users - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fitting(_with(request, window=request.goal.window, users=middle)) is not None:
            low = middle
        else:
            high = middle - 1
    return low


def _more_gpus(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    machine = request.machine
    node = machine.nodes[0]
    if len({each.name for each in machine.gpus}) > 1:  # of which more would help is not known
        return
    for count in _GPU_COUNTS:
        if count <= len(node.gpus):
            continue
        described = f"{count}x{_gpu(request)}"
        bigger = specification.gpus(described)
        plan = fitting(msgspec.structs.replace(request, machine=bigger))
        if plan is not None:
            yield Nearest(
                text=f"{count} such GPUs in one computer ({plan.model.name}, {plan.window:,} tokens)",
                command=_command(request, machine=described, window=request.goal.window),
            )
            return
    for count in (2, 3, 4):
        if count <= len(machine.nodes) or len(node.gpus) < max(_GPU_COUNTS):
            continue
        described = f"{count}x{len(node.gpus)}x{_gpu(request)}"
        plan = fitting(msgspec.structs.replace(request, machine=specification.nodes(described)))
        if plan is not None:
            yield Nearest(
                text=f"{count} such computers ({plan.model.name}, {plan.window:,} tokens)",
                command=_command(request, machine=described, window=request.goal.window),
            )
            return


def _smaller_models(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    found = 0
    for family in catalogue.smaller_than(parameters(request.models[0])):
        other = catalogue.find(family.name)
        smaller = msgspec.structs.replace(
            request, models=other.models, wanted=family.name, since=family.since, notes=()
        )
        plan = fitting(smaller)
        if plan is None or plan.window < min(request.goal.window or _USUAL_WINDOW, _USUAL_WINDOW):
            continue
        yield Nearest(
            text=f"{plan.model.name} on this machine ({plan.window:,} tokens)",
            command=_command(smaller, window=request.goal.window),
        )
        found += 1
        if found == _SMALLER_MODELS:
            return


def without_gpu() -> tuple[Nearest, ...]:
    """For a machine without GPUs."""
    return (
        Nearest(text="the small embedded model, which needs no GPU", command="qiao up"),
        Nearest(text="the model on another machine that serves it", command="qiao up --upstream http://HOST:8000/v1"),
        Nearest(text="a plan for a machine that you have elsewhere", command="qiao plan --gpus 4xH20-96G"),
    )


def unknown_memory() -> tuple[Nearest, ...]:
    """For GPUs whose memory nobody tells (shared memory, a driver that does not answer)."""
    return (Nearest(text="say what the machine has", command="qiao plan --gpus 1xNAME-96G"),)


def taken(machine: Machine) -> tuple[Nearest, ...]:
    """For GPUs that somebody else uses: who it is."""
    holders = [holder for node in machine.nodes for holder in node.holders]
    found = [
        Nearest(
            text=f"GPU {each.gpu}: process {each.process}"
            + (f" ({each.name})" if each.name else "")
            + (f" holds {each.memory / GIB:.1f} GiB" if each.memory else ""),
            command=f"kill {each.process}",
        )
        for each in holders
    ]
    return tuple(found) or (Nearest(text="see who uses the GPUs", command="nvidia-smi"),)


def shorter(request: Request, window: int, fitting: Callable[[Request], Plan | None]) -> tuple[Nearest, ...]:
    """For a window that is longer than the model's own."""
    found = tuple(itertools.islice(_longer_models(request, window, fitting), _LONGER_MODELS))
    if fitting(_with(request, window=window)) is not None:
        text = f"the model's own window of {window:,} tokens"
        found = (Nearest(text=text, command=_command(request, window=window)), *found)
    near = found or tuple(_smaller_wishes(request, fitting))
    return near or for_request(_with(request, window=None), fitting)


def _longer_models(request: Request, window: int, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    size = parameters(request.models[0])
    for family in catalogue.FAMILIES:
        text = family.config.get("text_config") or family.config
        if int(text["max_position_embeddings"]) <= window or abs(family.parameters - size) >= size / 10:
            continue
        models = catalogue.find(family.name).models
        other = msgspec.structs.replace(request, models=models, wanted=family.name, since=family.since, notes=())
        if fitting(other) is not None:
            yield Nearest(
                text=f"{family.name}, of the same size with a longer window",
                command=_command(other, window=request.goal.window),
            )


def for_gguf(request: Request) -> tuple[Nearest, ...]:
    """For a file in llama.cpp's format: what it takes in the embedded engine, and in which form vLLM reads it."""
    model = request.models[0]
    window = min(request.goal.window or _EMBEDDED_WINDOW, model.window)
    weights, cache = model.published_bytes or 0, cache_bytes_per_token(model) * window
    needed = f"{weights / GIB:.1f} GiB of weights and {cache / GIB:.1f} GiB for {window:,} tokens"
    free = request.machine.nodes[0].system.free_memory if request.machine.given is None else None
    if free is not None:
        needed += f"; {free / GIB:.1f} GiB of memory are free here"
        if weights + cache > free:
            needed += ", which is not enough"
    return (
        Nearest(
            text=f"the embedded engine, which is llama.cpp ({needed})",
            command=shlex.join(["qiao", "up", "--gguf", request.wanted]),
        ),
        Nearest(text="the same model's repository in FP8 or AWQ", command="qiao plan --model OWNER/NAME"),
    )


def newer_engine() -> tuple[Nearest, ...]:
    """For an architecture that came later."""
    return (Nearest(text="a newer vLLM", command="pip install -U vllm"),)


def _with(request: Request, *, window: int | None = None, users: int | None = None) -> Request:
    goal = msgspec.structs.replace(request.goal, window=window, users=users or request.goal.users)
    return msgspec.structs.replace(request, goal=goal)


def _command(
    request: Request, *, machine: str | None = None, window: int | None = None, users: int | None = None
) -> str:
    """`qiao plan` with the same options but for those given here."""
    words = ["qiao", "plan"]
    described = machine or request.machine.given
    if described is not None:
        words += [specification.flag(described), described]
    words += ["--model", request.wanted]
    if window:
        words += ["--window", str(window)]
    count = users or request.goal.users
    if count > 1:
        words += ["--users", str(count)]
    if request.goal.preference != "balanced":
        words += [f"--{request.goal.preference}"]
    if request.goal.version != NEWEST:
        words += ["--vllm", version_text(request.goal.version)]
    return shlex.join(words)


def _gpu(request: Request) -> str:
    """The machine's GPU as `--gpus` takes it."""
    gpu = request.machine.gpus[0]
    facts = by_driver_name(gpu.name, gpu.memory)
    if facts is not None:
        return facts.written
    name = "-".join(re.findall(r"\w+", gpu.name)) or "GPU"
    return f"{name}-{max(1, round((gpu.memory or gpu.usable or 0) / GIB))}G"


def _users(users: int) -> str:
    return f" for {users} users at once" if users > 1 else ""
