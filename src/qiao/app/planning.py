"""From what a person asks for to a request for the planner: the machine looked at, the model found. Starts nothing."""

from __future__ import annotations

from pathlib import Path

from qiao.config import environment
from qiao.errors import ConfigurationError
from qiao.hardware import model_files, snapshot
from qiao.planner import catalogue, specification, vllm
from qiao.planner.machine import Machine
from qiao.planner.plan import Goal, Preference
from qiao.planner.request import Request
from qiao.upstream.hub_cache import cache_folder


def request_of(
    *,
    model: str,
    gpus: str | None = None,
    nodes: str | None = None,
    window: int | None = None,
    users: int = 1,
    preference: Preference | None = None,
    version: str | None = None,
    disk: Path | None = None,
) -> Request:
    """The request that these wishes make. `gpus`, `nodes`: as written, None to look at this machine.

    `disk`: the folder that a model would be downloaded to; None: where Hugging Face's programs do.
    """
    goal = Goal(
        window=window,
        users=users,
        preference=preference or "balanced",
        version=vllm.parse_version(version) if version else vllm.NEWEST,
    )
    machine = machine_of(gpus, nodes, disk)
    if model_files.is_local(model):
        return Request(machine=machine, models=(model_files.read(model),), goal=goal, wanted=model)
    found = catalogue.find(model)
    return Request(
        machine=machine, models=found.models, goal=goal, wanted=model, notes=found.notes, since=found.family.since
    )


def machine_of(gpus: str | None, nodes: str | None, disk: Path | None = None) -> Machine:
    """The machine that was described, else this one."""
    if nodes:
        return specification.nodes(nodes)
    if gpus:
        return specification.gpus(gpus)
    variables = environment()
    return snapshot.look(disk or cache_folder(variables), search_path=variables.get("PATH"))


def is_for_vllm(name: str) -> bool:
    """Whether a model's name means one that vLLM runs: a folder with a config.json, or a name of the catalogue.

    All others are left to the embedded engine, which takes GGUF files.
    """
    if model_files.is_local(name):
        return not name.endswith(".gguf")
    try:
        catalogue.find(name)
    except ConfigurationError:
        return False
    return True
