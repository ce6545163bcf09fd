"""The machine that a plan is made for: nodes, their GPUs, the system around them. Values only.

Built by `qiao.hardware.snapshot` from a running machine, or by `qiao.planner.specification` from `--gpus 4xH20-96G`.
What nobody could tell stays None; a plan that needs it says so instead of guessing.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA_VERSION = 1
GIB = 2**30
MIB = 2**20

Interconnect = Literal["nvlink", "pcie"]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU.

    * `name`: as the driver or the person calls it.
    * `memory`: bytes that the driver reports in total.
    * `usable`: bytes that a process can see (the driver keeps some); what an engine calls total memory.
    * `free`: bytes that nobody holds now.
    * `capability`: CUDA compute capability, (9, 0) for Hopper.
    * `interconnect`: how it reaches the other GPUs of its node.
    * `parts`: bytes of each part, where MIG splits the GPU (empty: they cannot be read); None: it is whole.
    * `source`: where the figures come from.
    """

    name: str
    memory: int | None = None
    usable: int | None = None
    free: int | None = None
    capability: tuple[int, int] | None = None
    interconnect: Interconnect | None = None
    parts: tuple[int, ...] | None = None
    source: str = ""

    @property
    def is_split(self) -> bool:
        """MIG makes several small GPUs of it, and an engine cannot use it whole."""
        return self.parts is not None

    @property
    def fp8_arithmetic(self) -> bool | None:
        """Multiplies in FP8 (Ada, Hopper, Blackwell). Others read FP8 weights and multiply in BF16."""
        return None if self.capability is None else self.capability >= (8, 9)

    @property
    def fp4_arithmetic(self) -> bool | None:
        """Multiplies in FP4 (Blackwell)."""
        return None if self.capability is None else self.capability >= (10, 0)

    @property
    def bf16_arithmetic(self) -> bool | None:
        """Multiplies in BF16 (Ampere and later)."""
        return None if self.capability is None else self.capability >= (8, 0)


class Holder(msgspec.Struct, frozen=True):
    """A process that holds memory of a GPU. `gpu` is the index; `memory` in bytes."""

    gpu: int
    process: int
    name: str | None = None
    memory: int | None = None


class System(msgspec.Struct, frozen=True, kw_only=True):
    """What is around the GPUs. Sizes in bytes."""

    platform: str | None = None
    is_wsl: bool | None = None
    memory: int | None = None
    free_memory: int | None = None
    shared_memory: int | None = None
    processors: int | None = None
    driver: str | None = None
    cuda: str | None = None
    disk_free: int | None = None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One computer."""

    gpus: tuple[Gpu, ...] = ()
    system: System = System()
    holders: tuple[Holder, ...] = ()


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One computer or several equal ones. `given` when a person described it instead of it being looked at."""

    schema_version: int = SCHEMA_VERSION
    nodes: tuple[Node, ...] = ()
    given: str | None = None

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, node after node."""
        return tuple(gpu for node in self.nodes for gpu in node.gpus)

    def __str__(self) -> str:
        if self.given:
            return self.given
        if not self.gpus:
            return "no GPU"
        counts: dict[str, int] = {}
        for gpu in self.gpus:
            counts[gpu.name] = counts.get(gpu.name, 0) + 1
        gpus = " + ".join(f"{count} x {name}" for name, count in counts.items())
        return gpus if len(self.nodes) == 1 else f"{gpus} on {len(self.nodes)} nodes"


def representative(machine: Machine) -> Gpu:
    """The GPU that decides: with the least memory of them, as unable as the least able one, and under its name."""
    smallest = min(machine.gpus, key=lambda each: (each.usable or 0, each.free or 0))
    least = min(machine.gpus, key=lambda each: each.capability or (0, 0))
    slowest = "pcie" if any(each.interconnect == "pcie" for each in machine.gpus) else smallest.interconnect
    return msgspec.structs.replace(
        smallest,
        name=smallest.name if least.capability == smallest.capability else least.name,
        capability=least.capability,
        interconnect=slowest,
        free=min((each.free for each in machine.gpus if each.free is not None), default=None),
    )
