"""`4xH20-96G` and `2x8xH100-80G` to a Machine: a machine that somebody has or wants, described by hand.

A GPU may also be written as its driver, its maker or a shop writes it: `8x NVIDIA H100 80GB HBM3`, `4张h20 96G`.
"""

from __future__ import annotations

import difflib
import re

from qiao.errors import ConfigurationError
from qiao.planner.gpu_table import DRIVER_SHARE, by_name, known_names
from qiao.planner.machine import GIB, Gpu, Machine, Node

# How many, then what: 4x, 4 x, 4×, 4张, or a number and a space where no memory size follows.
_COUNT = re.compile(r"^(?:(?P<count>\d+)\s*[xX×*张卡块]|(?P<bare>\d{1,3})\s+(?!\d+\s*G(?:i?B)?$))\s*", re.IGNORECASE)
# Or behind: H100-80GB x8. An x in a name, as of the RTX4090, is none.
_COUNT_BEHIND = re.compile(r"(?:\s+[xX]|(?<=[gGbB])[xX]|\s*[×*])\s*(?P<count>\d{1,3})$")
_NODES = re.compile(r"^(?P<nodes>\d+)\s*[xX×*台]\s*(?P<gpus>\d.*)$")
_SIZE = re.compile(r"(?:^|[\s_-])(?P<size>\d+)\s*G(?:i?B)?(?=$|[\s_-])", re.IGNORECASE)
_NAME = re.compile(r"^[A-Za-z0-9][\w .-]*$")
_EXAMPLE = "Write it like 4xH20-96G: how many, what, and the memory of each"


def gpus(text: str) -> Machine:
    """One computer, from `COUNTxNAME-SIZEG`; the size may be left out where a name has only one."""
    return Machine(nodes=(Node(gpus=_gpus(text, "--gpus")),), given=text)


def nodes(text: str) -> Machine:
    """Several equal computers, from `NODESxCOUNTxNAME-SIZEG`."""
    found = _nodes(text)
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


def flag(given: str) -> str:
    """The option that reads `given`: no text is read by both."""
    return "--gpus" if _nodes(given) is None else "--nodes"


def _nodes(text: str) -> re.Match[str] | None:
    found = _NODES.match(text.strip())
    return found if found is not None and _COUNT.match(found["gpus"]) else None


def _gpus(text: str, flag: str) -> tuple[Gpu, ...]:
    text = text.strip()
    count, rest = _counted(re.sub(r"[()（）]", " ", text).strip())
    sizes = list(_SIZE.finditer(rest))
    name = " ".join(_SIZE.sub(" ", rest).split()).strip(" -_") if len(sizes) == 1 else rest
    if _COUNT.match(name) and not by_name(name, None):
        mend = f"For several computers: --nodes {text}" if flag == "--gpus" and _nodes(text) else _EXAMPLE
        raise ConfigurationError(f"{flag} {text} has more than one number of GPUs.", hint=f"{mend}.")
    if not _NAME.match(name):
        raise ConfigurationError(f"{flag} {text} is not a number and a name of GPUs.", hint=f"{_EXAMPLE}.")
    if not 1 <= count <= 1024:
        raise ConfigurationError(f"{flag} {text} asks for {count} GPUs in a computer.", hint="Between 1 and 1024.")
    return (_gpu(name, int(sizes[0]["size"]) if len(sizes) == 1 else None, flag),) * count


def _counted(text: str) -> tuple[int, str]:
    """How many, and the rest of the text."""
    counted = _COUNT.match(text)
    if counted is not None:
        return int(counted["count"] or counted["bare"]), text[counted.end() :]
    behind = _COUNT_BEHIND.search(text)
    if behind is not None:
        return int(behind["count"]), text[: behind.start()]
    return 1, text


def _gpu(name: str, size: int | None, flag: str) -> Gpu:
    variants = by_name(name, size)
    if len(variants) == 1:
        return variants[0].gpu()
    if variants:
        names = " or ".join(f"{each.written}" for each in variants)
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
    if memory <= DRIVER_SHARE:
        raise ConfigurationError(f"{flag}: no GPU has {size} GB of memory.", hint=f"{_EXAMPLE}.")
    usable = memory - DRIVER_SHARE
    return Gpu(name=name, memory=memory, usable=usable, free=usable, source="only the size is known, as given")
