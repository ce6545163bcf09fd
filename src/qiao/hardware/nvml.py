"""NVIDIA's management library, through nvidia-ml-py: what the driver says about the GPUs of this machine.

A call that the driver does not support leaves its figure None. Without driver, library or GPU there is no answer at
all, and `nvidia_smi` is asked instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import msgspec
import pynvml

from qiao.hardware.nvidia_smi import gpu_of
from qiao.planner.machine import Gpu, Holder, Interconnect

_Value = TypeVar("_Value")
_MOST_LINKS = 18


class Library(Protocol):
    """The part of nvidia-ml-py that is used; tests bring what a machine answered."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> Any: ...  # noqa: N802
    def nvmlShutdown(self) -> Any: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802
    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]: ...  # noqa: N802
    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]: ...  # noqa: N802
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int: ...  # noqa: N802
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]: ...  # noqa: N802
    def nvmlDeviceGetNvLinkState(self, handle: Any, link: int) -> int: ...  # noqa: N802
    def nvmlSystemGetDriverVersion(self) -> str | bytes: ...  # noqa: N802
    def nvmlSystemGetCudaDriverVersion(self) -> int: ...  # noqa: N802
    def nvmlSystemGetProcessName(self, process: int) -> str | bytes: ...  # noqa: N802


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML told."""

    gpus: tuple[Gpu, ...]
    holders: tuple[Holder, ...]
    driver: str | None
    cuda: str | None


def look(library: Library | None = None) -> Seen | None:
    """The GPUs of this machine; None where NVML cannot be used."""
    nvml = library if library is not None else cast("Library", pynvml)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return _look(nvml)
    finally:
        nvml.nvmlShutdown()


def _look(nvml: Library) -> Seen:
    def known(call: Callable[[], _Value]) -> _Value | None:
        try:
            return call()
        except nvml.NVMLError:
            return None

    gpus: list[Gpu] = []
    holders: list[Holder] = []
    for index in range(known(nvml.nvmlDeviceGetCount) or 0):
        handle = known(lambda at=index: nvml.nvmlDeviceGetHandleByIndex(at))  # type: ignore[misc]
        if handle is None:
            continue
        memory = known(lambda of=handle: nvml.nvmlDeviceGetMemoryInfo(of))  # type: ignore[misc]
        mig = known(lambda of=handle: nvml.nvmlDeviceGetMigMode(of))  # type: ignore[misc]
        gpus.append(
            gpu_of(
                _text(nvml.nvmlDeviceGetName(handle)),
                int(memory.total) if memory is not None else None,
                int(memory.free) if memory is not None else None,
                capability=known(lambda of=handle: nvml.nvmlDeviceGetCudaComputeCapability(of)),  # type: ignore[misc]
                interconnect=_interconnect(nvml, handle),
                parts=_parts(nvml, handle) if mig is not None and mig[0] == 1 else None,
                source="NVML",
            )
        )
        running = known(lambda of=handle: nvml.nvmlDeviceGetComputeRunningProcesses(of)) or []  # type: ignore[misc]
        holders += [_holder(nvml, index, process) for process in running]
    return Seen(
        gpus=tuple(gpus),
        holders=tuple(holders),
        driver=_optional_text(known(nvml.nvmlSystemGetDriverVersion)),
        cuda=_cuda(known(nvml.nvmlSystemGetCudaDriverVersion)),
    )


def _parts(nvml: Library, handle: Any) -> tuple[int, ...]:
    """Bytes of each part that MIG made; empty where the driver does not list them."""
    found: list[int] = []
    try:
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(nvml.NVMLError):  # fewer parts than there could be
                part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                found.append(int(nvml.nvmlDeviceGetMemoryInfo(part).total))
    except nvml.NVMLError:
        return ()
    return tuple(found)


def _interconnect(nvml: Library, handle: Any) -> Interconnect | None:
    """NVLink where a link is up; None where the driver does not say, so that the table decides."""
    answered = False
    for link in range(_MOST_LINKS):
        try:
            if nvml.nvmlDeviceGetNvLinkState(handle, link) == 1:
                return "nvlink"
            answered = True
        except nvml.NVMLError:
            break
    return "pcie" if answered else None


def _holder(nvml: Library, gpu: int, process: Any) -> Holder:
    try:
        name = _text(nvml.nvmlSystemGetProcessName(process.pid))
    except nvml.NVMLError:
        name = None
    memory = getattr(process, "usedGpuMemory", None)
    return Holder(gpu, int(process.pid), name, int(memory) if isinstance(memory, int) and memory < 2**62 else None)


def _cuda(version: int | None) -> str | None:
    return f"{version // 1000}.{version % 1000 // 10}" if version else None


def _optional_text(value: str | bytes | None) -> str | None:
    return _text(value) if value is not None else None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
