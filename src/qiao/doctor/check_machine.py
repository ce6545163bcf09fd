"""Checks of this machine: ports, GPUs, driver, clock, disk, limits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

from qiao.doctor.facts import Local
from qiao.doctor.finding import ORDER, Check, Finding, Grade
from qiao.planner.machine import GIB, Gpu, Holder

ABOUT = "this machine"
_HERE_SINCE = 1_735_689_600.0  # 2025-01-01: no clock that is right shows less
_MOST_OFFSET = 300.0
_LITTLE_DISK = 10 * GIB
_NO_DISK = 1 * GIB
_FEW_FILES = 4096
_LITTLE_SHARED = 256 * 2**20
_TAKEN = 0.1
# Names under which inference servers hold a GPU.
_ENGINES = re.compile(r"vllm|sglang|ray::|llama|EngineCore|tritonserver|ollama", re.IGNORECASE)


def _finding(check: str, grade: Grade, evidence: str, mend: str | None = None) -> Finding:
    return Finding(check=check, grade=grade, about=ABOUT, evidence=evidence, mend=mend)


def port_in_use(local: Local) -> Finding | None:
    """A port that the gateway wants is taken by somebody else."""
    for port in local.ports:
        if port.is_free or port.is_ours:
            continue
        who = str(port.owner) if port.owner else "a process of another user"
        return _finding(
            "port_in_use",
            "problem",
            f"Port {port.number}, where {port.wanted_by} would listen, is taken by {who}.",
            "End that process, or choose another port with --port.",
        )
    return _finding("port_in_use", "ok", "The gateway's port is free, or its own.") if local.ports else None


def gpu_memory_taken(local: Local) -> Finding | None:
    """Somebody else holds memory of a GPU, or an engine does that is not the one in use."""
    node = next(iter(local.machine.nodes), None)
    if node is None or not node.gpus:
        return None
    found = [_taken(index, gpu, node.holders, local.own_processes) for index, gpu in enumerate(node.gpus)]
    told = sorted((each for each in found if each is not None), key=lambda each: ORDER.index(each.grade))
    return told[0] if told else _finding("gpu_memory_taken", "ok", "No GPU memory is held by strangers.")


def _taken(index: int, gpu: Gpu, holders: Iterable[Holder], own: frozenset[int]) -> Finding | None:
    """What one GPU's memory is lost to."""
    size = gpu.memory or gpu.usable
    if not size:
        return None
    here = [each for each in holders if each.gpu == index]
    used = gpu.usable - gpu.free if gpu.usable is not None and gpu.free is not None else None
    silent = [each for each in here if each.memory is None]
    # What nobody is shown to hold belongs to those whose share the driver does not tell, if there are any.
    rest = max((used or 0) - sum(each.memory or 0 for each in here), 0)
    others = [each for each in here if each.process not in own]
    strangers = [each for each in others if not _is_engine(each)]
    kinds: tuple[tuple[list[Holder], Grade, str], ...] = (
        (
            strangers,
            "warning",
            "End those processes before vLLM starts, or lower --gpu-memory-utilization by their share.",
        ),
        (others, "note", "An engine that qiao does not use: end it if it is left over from an earlier start."),
    )
    for theirs, grade, mend in kinds:
        held = sum(each.memory or 0 for each in theirs) + (rest if any(each in silent for each in theirs) else 0)
        if held > _TAKEN * size:
            names = ", ".join(_named(each) for each in theirs)
            evidence = f"GPU {index} ({gpu.name}): {held / GIB:.1f} of {size / GIB:.1f} GiB are held by {names}."
            return _finding("gpu_memory_taken", grade, evidence, mend)
    if not silent and rest > _TAKEN * size:
        return _finding(
            "gpu_memory_taken",
            "warning",
            f"GPU {index} ({gpu.name}): {rest / GIB:.1f} GiB are held, and no process is shown: "
            "a container, another user, or one that died.",
            "`sudo fuser -v /dev/nvidia*` names them.",
        )
    return None


def _is_engine(holder: Holder) -> bool:
    """By the program's own name: that of its folder says nothing."""
    program = (holder.name or "").split(" ")[0]
    return _ENGINES.search(program if "::" in program else PurePath(program).name) is not None


def _named(holder: Holder) -> str:
    memory = f", {holder.memory / GIB:.1f} GiB" if holder.memory is not None else ""
    return f"{holder.name or '?'} (process {holder.process}{memory})"


def driver(local: Local) -> Finding | None:
    """The driver does not work, or is older than the CUDA version that PyTorch was built for."""
    if local.driver_problem is not None:
        mend = (
            "Restart the machine: the driver was updated under a running kernel module."
            if "mismatch" in local.driver_problem.lower()
            else "Install the NVIDIA driver for this kernel; in WSL it belongs to Windows."
        )
        return _finding("driver", "problem", f"nvidia-smi fails: {local.driver_problem[:200]}", mend)
    node = next(iter(local.machine.nodes), None)
    if node is None or not node.gpus:
        return None
    can, wants = _numbers(node.system.cuda), _numbers(local.torch_cuda)
    if can and wants and can[0] < wants[0]:
        return _finding(
            "driver",
            "problem",
            f"The driver {node.system.driver or ''} runs CUDA up to {node.system.cuda}, and the PyTorch of this "
            f"environment was built for {local.torch_cuda}.",
            "Update the driver (CUDA 12.8 needs 570 or newer, CUDA 13 needs 580), or install a PyTorch for an older "
            "CUDA.",
        )
    return _finding("driver", "ok", f"The driver {node.system.driver or ''} works, CUDA {node.system.cuda or '?'}.")


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version or "")[:2])


def clock(local: Local) -> Finding | None:
    """The clock is wrong: certificates and tokens fail, and times in logs mislead."""
    mend = "Set it: `timedatectl set-ntp true`; in WSL `wsl --shutdown`, then start again."
    if local.now is not None and local.now < _HERE_SINCE:
        return _finding("clock", "problem", "The clock of this machine shows a year that has passed.", mend)
    if local.clock_offset is not None and abs(local.clock_offset) > _MOST_OFFSET:
        way = "ahead of" if local.clock_offset > 0 else "behind"
        evidence = f"The clock is {abs(local.clock_offset):.0f} s {way} the server's."
        return _finding("clock", "warning", evidence, mend)
    return _finding("clock", "ok", "The clock is right, as far as can be seen.") if local.now is not None else None


def disk(local: Local) -> Finding | None:
    """A file system that models or state need is nearly full."""
    if not local.mounts:
        return None
    least = min(local.mounts, key=lambda mount: mount.free)
    free = f"{least.folder} has {least.free / GIB:.1f} GiB left"
    mend = "Make room, or put models elsewhere (HF_HOME, --cache)."
    if least.free < _NO_DISK:
        return _finding("disk", "problem", f"{free}: too little for any model.", mend)
    if least.free < _LITTLE_DISK:
        return _finding("disk", "warning", f"{free}; Qwen3-235B in FP8 needs 221.", mend)
    return _finding("disk", "ok", f"{free}.")


def shared_memory(local: Local) -> Finding | None:
    """Too little shared memory for several GPUs: a container's default."""
    node = next(iter(local.machine.nodes), None)
    if node is None or len(node.gpus) < 2 or node.system.shared_memory is None:
        return None
    if node.system.shared_memory >= _LITTLE_SHARED:
        return _finding("shared_memory", "ok", f"Shared memory: {node.system.shared_memory / GIB:.1f} GiB.")
    return _finding(
        "shared_memory",
        "problem",
        f"Shared memory has {node.system.shared_memory / 2**20:.0f} MiB, and {len(node.gpus)} GPUs talk through it.",
        "Docker: --ipc=host or --shm-size=16g; Kubernetes: an emptyDir with medium: Memory.",
    )


def file_limit(local: Local) -> Finding | None:
    """The limit of open files is too low for many connections."""
    if local.file_limit is None:
        return None
    if local.file_limit >= _FEW_FILES:
        return _finding("file_limit", "ok", f"{local.file_limit} files may be open.")
    return _finding(
        "file_limit",
        "warning",
        f"Only {local.file_limit} files may be open: connections are files too.",
        "`ulimit -n 65535` before the start; in systemd LimitNOFILE=65535.",
    )


CHECKS: tuple[Check[Local], ...] = (
    Check("port_in_use", "the gateway's port, taken by somebody else, who is named", port_in_use),
    Check("gpu_memory_taken", "GPU memory that somebody else holds, or an engine that is not in use", gpu_memory_taken),
    Check("driver", "a driver that does not work, or is too old for PyTorch's CUDA", driver),
    Check("shared_memory", "too little shared memory for several GPUs", shared_memory),
    Check("file_limit", "a limit of open files that is too low", file_limit),
    Check("clock", "a clock that is wrong", clock),
    Check("disk", "a disk that is nearly full", disk),
)
