"""This machine as the planner wants to know it: GPUs from NVML or nvidia-smi, the rest from /proc."""

from __future__ import annotations

from pathlib import Path

import msgspec

from qiao.hardware import host, nvidia_smi, nvml
from qiao.planner.machine import Gpu, Holder, Machine, Node, System


def look(disk: Path | None = None, *, search_path: str | None = None, library: nvml.Library | None = None) -> Machine:
    """One computer with what its drivers tell. `disk`: where models are downloaded to; `search_path`: a PATH."""
    system = host.look(disk)
    seen = nvml.look(library)
    if seen is not None and seen.gpus:
        return _machine(seen.gpus, seen.holders, msgspec.structs.replace(system, driver=seen.driver, cuda=seen.cuda))
    text = nvidia_smi.query(search_path)
    if text is None:
        return _machine((), (), system)
    topology = nvidia_smi.query_topology(search_path)
    gpus, driver = nvidia_smi.parse_query(text, nvidia_smi.parse_topology(topology) if topology else None)
    apps = nvidia_smi.query_apps(search_path)
    holders = nvidia_smi.parse_apps(apps, nvidia_smi.parse_uuids(text)) if apps else ()
    return _machine(gpus, holders, msgspec.structs.replace(system, driver=driver))


def _machine(gpus: tuple[Gpu, ...], holders: tuple[Holder, ...], system: System) -> Machine:
    return Machine(nodes=(Node(gpus=gpus, holders=holders, system=system),))
