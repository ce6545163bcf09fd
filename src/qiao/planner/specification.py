"""`4xH20-96G` and `2x8xH100-80G` to a Machine: a machine that somebody has or wants, described by hand."""

from __future__ import annotations

import difflib
import re

from qiao.errors import ConfigurationError
from qiao.planner.gpu_table import DRIVER_SHARE, by_name, known_names
from qiao.planner.machine import GIB, Gpu, Machine, Node

_GPUS = re.compile(r"^(?:(?P<count>\d+)\s*[x×*]\s*)?(?P<name>[A-Za-z0-9][\w .-]*?)(?:-(?P<size>\d+)\s*(?:G|GB|GiB))?$")
_NODES = re.compile(r"^(?P<nodes>\d+)\s*[x×*]\s*(?P<gpus>\d+\s*[x×*].+)$")
_EXAMPLE = "Write it like 4xH20-96G: how many, what, and the memory of each"


def gpus(text: str) -> Machine:
    """One computer, from `COUNTxNAME-SIZEG`; the size may be left out where a name has only one."""
    return Machine(nodes=(Node(gpus=_gpus(text, "--gpus")),), given=text)


def nodes(text: str) -> Machine:
    """Several equal computers, from `NODESxCOUNTxNAME-SIZEG`."""
    found = _NODES.match(text.strip())
    if found is None:
        raise ConfigurationError(
            f"--nodes {text} does not say how many computers with how many GPUs each.",
            hint="Write it like 2x8xH100-80G: computers, GPUs in each, and what they are.",
        )
    count = int(found["nodes"])
    if not 1 <= count <= 1024:
        raise ConfigurationError(f"--nodes {text} asks for {count} computers.", hint="Between 1 and 1024.")
    one = Node(gpus=_gpus(found["gpus"], "--nodes"))
    return Machine(nodes=(one,) * count, given=text)


def _gpus(text: str, flag: str) -> tuple[Gpu, ...]:
    found = _GPUS.match(text.strip())
    if found is None:
        raise ConfigurationError(f"{flag} {text} is not a number and a name of GPUs.", hint=f"{_EXAMPLE}.")
    count = int(found["count"] or 1)
    if not 1 <= count <= 1024:
        raise ConfigurationError(f"{flag} {text} asks for {count} GPUs in a computer.", hint="Between 1 and 1024.")
    size = int(found["size"]) if found["size"] else None
    return (_gpu(found["name"], size, flag),) * count


def _gpu(name: str, size: int | None, flag: str) -> Gpu:
    variants = by_name(name, size)
    if len(variants) == 1:
        return variants[0].gpu()
    if variants:
        names = " or ".join(f"{each.name.replace(' ', '-')}-{each.gigabytes}G" for each in variants)
        raise ConfigurationError(f"{flag}: there are several {name}.", hint=f"Write {names}.")
    others = by_name(name, None)
    if others:
        sizes = ", ".join(f"{each.gigabytes}G" for each in others)
        raise ConfigurationError(f"{flag}: no {name} has {size} GB of memory.", hint=f"Known sizes: {sizes}.")
    if size is None:
        near = difflib.get_close_matches(name.upper(), [each.upper() for each in known_names()], n=2, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known_names())}."
        raise ConfigurationError(
            f"{flag}: {name} is not in the table of GPUs, and no memory size is given.",
            hint=f"{hint} With a size (…-48G) any name is taken.",
        )
    memory = size * GIB
    usable = memory - DRIVER_SHARE
    return Gpu(name=name, memory=memory, usable=usable, free=usable, source="only the size is known, as given")
