"""GPUs that MIG splits into parts: a plan counts whole GPUs, so they are left out, and told of. Pure."""

from __future__ import annotations

import msgspec

from qiao.planner.machine import GIB, Gpu, Machine
from qiao.planner.plan import Nearest, Outcome, Plan, Warned

VARIABLES = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
"""How an engine is kept to some of a computer's GPUs. Not for containers: there the GPUs are numbered anew."""


def whole(machine: Machine) -> Machine:
    """The machine without the GPUs that are split; the same one where none is."""
    if not any(gpu.is_split for gpu in machine.gpus):
        return machine
    nodes = (
        msgspec.structs.replace(
            node,
            gpus=tuple(gpu for gpu in node.gpus if not gpu.is_split),
            holders=tuple(
                msgspec.structs.replace(each, gpu=_whole_before(node.gpus, each.gpu))
                for each in node.holders
                if each.gpu < len(node.gpus) and not node.gpus[each.gpu].is_split
            ),
        )
        for node in machine.nodes
    )
    return msgspec.structs.replace(machine, nodes=tuple(nodes))


def told(outcome: Outcome, machine: Machine) -> Outcome:
    """What was planned for the whole GPUs of `machine`, with a word of the others, and kept off them."""
    visible = ",".join(str(number) for number, gpu in enumerate(machine.gpus) if not gpu.is_split)
    warning = Warned(
        code="mig",
        text=f"{described(machine)}; the plan leaves it out, and the engine is kept off it by "
        f"CUDA_VISIBLE_DEVICES={visible}.",
    )
    outcome = msgspec.structs.replace(outcome, warnings=(warning, *outcome.warnings))
    if isinstance(outcome, Plan):
        # In the order of the driver, which is the one that was looked at, and not the fastest first.
        chosen = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible}
        outcome = msgspec.structs.replace(outcome, environment={**chosen, **outcome.environment})
    return outcome


def described(machine: Machine) -> str:
    """Which GPUs are split, and into what."""
    return "; ".join(
        f"GPU {number} ({gpu.name}) is split by MIG{_parts(gpu)}"
        for number, gpu in enumerate(machine.gpus)
        if gpu.is_split
    )


def near(machine: Machine) -> tuple[Nearest, ...]:
    """What to do where every GPU is split."""
    number, gpu = next((number, gpu) for number, gpu in enumerate(machine.gpus) if gpu.is_split)
    found = [
        Nearest(
            text=f"GPU {number} whole again (as root, with nothing running on it)",
            command=f"nvidia-smi -i {number} -mig 0",
        )
    ]
    largest = max(gpu.parts or (), default=0) // GIB
    if largest:
        name = gpu.name.removeprefix("NVIDIA ").split(" ")[0]
        found.insert(
            0,
            Nearest(
                text="one part, which the engine sees by CUDA_VISIBLE_DEVICES=MIG-… (`nvidia-smi -L` prints the name)",
                command=f"qiao plan --gpus 1x{name}-MIG-{largest}G",
            ),
        )
    return tuple(found)


def _parts(gpu: Gpu) -> str:
    sizes = [f"{size / GIB:.1f}" for size in gpu.parts or ()]
    return f" into {len(sizes)} parts of {', '.join(sorted(set(sizes)))} GiB" if sizes else ""


def _whole_before(gpus: tuple[Gpu, ...], number: int) -> int:
    return sum(not gpu.is_split for gpu in gpus[:number])
