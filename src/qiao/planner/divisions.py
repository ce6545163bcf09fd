"""The ways of cutting a model over a machine that are worth trying, best first. Pure.

Within a computer tensor parallel is preferred, because one conversation then uses all GPUs and one cache; experts are
dealt whole where their width cannot be cut; data parallel follows where the cache is copied anyway. Between computers
the pipeline is cut, because layers hand on little. An engine that fits into one computer is not stretched over two: the
others run it again, and the gateway divides the conversations.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from qiao.planner.machine import Gpu
from qiao.planner.model import ModelFacts
from qiao.planner.shapes import Rule, broken, needs_finer_scales, refines
from qiao.planner.vllm import Version
from qiao.planner.weights import Division

# GPUs that one switch connects in common servers; more of them share a layer only where nothing else fits.
_USUAL_TENSOR = 8


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """A way of cutting, the computers one engine takes, and how often the machine has room for it."""

    division: Division
    nodes: int
    replicas: int


class Layouts(msgspec.Struct, frozen=True, kw_only=True):
    """The ways that work, and the rules that the others broke."""

    possible: tuple[Layout, ...]
    rejected: tuple[tuple[Division, Rule], ...]


def layouts(
    model: ModelFacts, nodes: int, gpus: int, gpu: Gpu, version: Version, *, data_parallel: bool = True
) -> Layouts:
    """Every way for `nodes` computers of `gpus` GPUs each."""
    possible: list[Layout] = []
    rejected: dict[Division, Rule] = {}
    for used in _node_counts(nodes):
        for division in _divisions(model, used, gpus):
            if division.data > 1 and not data_parallel:
                continue
            rule = broken(model, division, gpu, version)
            if rule is not None:
                rejected.setdefault(division, rule)
                continue
            possible.append(Layout(division=division, nodes=used, replicas=nodes // used))
    ranked = sorted(possible, key=lambda each: _rank(model, each, gpu, version))
    return Layouts(possible=tuple(ranked), rejected=tuple(rejected.items()))


def _node_counts(nodes: int) -> Iterator[int]:
    used = 1
    while used <= nodes:
        yield used
        used *= 2
    if nodes & (nodes - 1):
        yield nodes


def _divisions(model: ModelFacts, nodes: int, gpus: int) -> Iterator[Division]:
    for tensor in range(gpus, 0, -1):
        for stages in {1, gpus // tensor}:
            yield from _expert_choices(model, Division(tensor=tensor, pipeline=stages * nodes))
        for data in range(2, gpus // tensor + 1):
            if nodes == 1 and (gpus % (tensor * data) == 0):
                yield from _expert_choices(model, Division(tensor=tensor, data=data))


def _expert_choices(model: ModelFacts, division: Division) -> Iterator[Division]:
    yield division
    dealt = division.tensor * division.data
    if model.experts is not None and dealt > 1:
        yield msgspec.structs.replace(division, expert=dealt)


def _rank(model: ModelFacts, layout: Layout, gpu: Gpu, version: Version) -> tuple[int, ...]:
    """Smaller is better: fewer computers, all GPUs, no data parallel, no pipeline, experts cut as the rest."""
    division = layout.division
    # Without expert parallel, data parallel cuts the experts over all ranks and still copies everything else.
    is_wasteful = division.data > 1 and division.expert == 1 and model.experts is not None
    is_refined = needs_finer_scales(model, division) and refines(model, division, gpu, version)
    return (
        layout.nodes,
        -division.gpus,
        int(is_wasteful),
        int(division.tensor > _USUAL_TENSOR),
        division.pipeline,
        division.data,
        int(is_refined),
        division.expert,
    )
