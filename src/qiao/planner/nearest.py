"""What to offer where a wish cannot be met: a smaller wish, more GPUs, a smaller model. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from qiao.planner import catalogue
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
_USUAL_WINDOW = 65_536
# What the embedded engine takes unasked (engines/llamacpp.py).
_EMBEDDED_WINDOW = 32_768


def for_request(request: Request, fitting: Callable[[Request], Plan | None]) -> tuple[Nearest, ...]:
    """The nearest wishes that `fitting` meets."""
    found: list[Nearest] = []
    for each in _offers(request, fitting):
        found.append(each)
        if len(found) == _MOST:
            break
    return tuple(found)


def _offers(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    yield from _smaller_wishes(request, fitting)
    yield from _more_gpus(request, fitting)
    yield from _smaller_models(request, fitting)


def _smaller_wishes(request: Request, fitting: Callable[[Request], Plan | None]) -> Iterator[Nearest]:
    goal = request.goal
    if goal.window is not None:
        plan = fitting(_with(request, window=None))
        if plan is not None:
            yield Nearest(
                text=f"a window of {plan.window:,} tokens on the same machine{_users(goal.users)}",
                command=_command(request, window=plan.window),
            )
    users = _most_users(request, fitting)
    if users:
        window = f" with {goal.window:,} tokens each" if goal.window else ""
        yield Nearest(
            text=f"{users} user{'s' if users > 1 else ''} at once{window}",
            command=_command(request, users=users, window=goal.window),
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
    for count in _GPU_COUNTS:
        if count <= len(node.gpus):
            continue
        bigger = Machine(nodes=(msgspec.structs.replace(node, gpus=(node.gpus[0],) * count, holders=()),))
        plan = fitting(msgspec.structs.replace(request, machine=bigger))
        if plan is not None:
            yield Nearest(
                text=f"{count} such GPUs in one computer ({plan.model.name}, {plan.window:,} tokens)",
                command=_command(request, machine=f"--gpus {count}x{_gpu(request)}", window=request.goal.window),
            )
            return
    for count in (2, 3, 4):
        if count <= len(machine.nodes) or len(node.gpus) < max(_GPU_COUNTS):
            continue
        plan = fitting(msgspec.structs.replace(request, machine=Machine(nodes=(node,) * count)))
        if plan is not None:
            yield Nearest(
                text=f"{count} such computers ({plan.model.name}, {plan.window:,} tokens)",
                command=_command(
                    request,
                    machine=f"--nodes {count}x{len(node.gpus)}x{_gpu(request)}",
                    window=request.goal.window,
                ),
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


def shorter(request: Request, window: int) -> tuple[Nearest, ...]:
    """For a window that is longer than the model's own."""
    found = [Nearest(text=f"the model's own window of {window:,} tokens", command=_command(request, window=window))]
    longer = [
        family.name
        for family in catalogue.FAMILIES
        if int((family.config.get("text_config") or family.config)["max_position_embeddings"]) > window
        and abs(family.parameters - parameters(request.models[0])) < parameters(request.models[0]) / 10
    ]
    found += [
        Nearest(
            text=f"{name}, of the same size with a longer window",
            command=_command(msgspec.structs.replace(request, wanted=name)),
        )
        for name in longer[:2]
    ]
    return tuple(found)


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
        Nearest(text=f"the embedded engine, which is llama.cpp ({needed})", command=f"qiao up --gguf {request.wanted}"),
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
    words = ["qiao plan"]
    given = request.machine.given
    if machine is not None:
        words.append(machine)
    elif given is not None:
        words.append(f"{'--nodes' if len(request.machine.nodes) > 1 else '--gpus'} {given}")
    words.append(f"--model {request.wanted}")
    if window:
        words.append(f"--window {window}")
    count = users or request.goal.users
    if count > 1:
        words.append(f"--users {count}")
    if request.goal.preference != "balanced":
        words.append(f"--{request.goal.preference}")
    if request.goal.version != NEWEST:
        words.append(f"--vllm {version_text(request.goal.version)}")
    return " ".join(words)


def _gpu(request: Request) -> str:
    gpu = request.machine.gpus[0]
    facts = by_driver_name(gpu.name, gpu.memory)
    gigabytes = facts.gigabytes if facts else round((gpu.memory or gpu.usable or 0) / GIB)
    name = facts.name if facts else gpu.name
    return f"{name.replace(' ', '-')}-{gigabytes}G"


def _users(users: int) -> str:
    return f" for {users} users at once" if users > 1 else ""
