"""The sum: everything that lies on one GPU, each term with its name, its bytes and where it comes from. Pure.

What an engine may use is `usable x utilisation`. From it go the weights, what one pass needs while it runs, the
recorded CUDA graphs, the communication buffers and the CUDA context; a margin covers what the estimates are off; the
rest is the cache. Weights and cache are arithmetic; the others are estimates, held against published start-up lines by
the golden cases (tests/golden/plans), always on the careful side.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qiao.planner.cache import Cache, CacheType, cache_of
from qiao.planner.machine import GIB, MIB, Gpu
from qiao.planner.model import ModelFacts
from qiao.planner.weights import Division, gpu_bytes, layers_of_stage

Term = Literal["weights", "weight_scales", "activations", "cuda_graphs", "communication", "cuda_context", "margin"]

# One GPU without others: vllm#10517 printed non_torch_memory=0.35GiB; newer CUDA needs a little more.
_CONTEXT = 512 * MIB
# NCCL's buffers: ai-dynamo/aiconfigurator, systems/*.yaml, nccl_mem: 342 MB for 2 GPUs, 392 MB for 4 and 8.
_COMMUNICATION = {1: 0, 2: 358_612_992}
_COMMUNICATION_MANY = 411_041_792
# Between nodes the same buffers exist for the second network.
_PIPELINE_BUFFERS = 256 * MIB
# vLLM's own estimate of what its graphs take: 1.62 GiB for 51 + 35 graphs of 64 layers (vllm#39559).
_GRAPH_BYTES = int(0.3 * MIB)
_GRAPHS_AT_ALL = 256 * MIB
_LARGEST_GRAPH = 512
_MARGIN = GIB
# The engine cuts the tokens of one pass into pieces for the experts' kernel.
_EXPERT_CHUNK = 32_768
# The vision part is tried with a picture of the largest size.
_PICTURE = 512 * MIB


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One term of the sum, in bytes, for one GPU."""

    term: Term
    bytes: int
    how: str
    source: str


class GpuMemory(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU's memory: what is on it, and what is left for the cache. `stage`: its place in the pipeline."""

    stage: int
    name: str
    total: int
    allowed: int
    lines: tuple[Line, ...]

    @property
    def used(self) -> int:
        """All terms together."""
        return sum(line.bytes for line in self.lines)

    @property
    def cache(self) -> int:
        """What is left for keys and values; negative where the terms alone do not fit."""
        return self.allowed - self.used

    @property
    def outside(self) -> int:
        """What the engine leaves alone."""
        return self.total - self.allowed

    def term(self, name: Term) -> int:
        """Bytes of one term."""
        return sum(line.bytes for line in self.lines if line.term == name)

    @property
    def weights(self) -> int:
        """Weights and their scales."""
        return self.term("weights") + self.term("weight_scales")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine is run, as far as it takes memory."""

    utilisation: float
    batch_tokens: int
    sequences: int
    cache_type: CacheType = "auto"
    prefix_caching: bool = True


def memory_of(model: ModelFacts, division: Division, gpu: Gpu, load: Load) -> tuple[GpuMemory, ...]:
    """The memory of one GPU of each pipeline stage. `gpu.usable` must be known."""
    assert gpu.usable is not None
    return tuple(
        GpuMemory(
            stage=stage,
            name=gpu.name,
            total=gpu.usable,
            allowed=int(gpu.usable * load.utilisation),
            lines=_lines(model, division, load, stage),
        )
        for stage in range(division.pipeline)
    )


def pool_of(model: ModelFacts, division: Division, load: Load) -> Cache:
    """The cache of a GPU under this load."""
    return cache_of(
        model,
        division,
        cache_type=load.cache_type,
        prefix_caching=load.prefix_caching,
        batch_tokens=load.batch_tokens,
    )


def _lines(model: ModelFacts, division: Division, load: Load, stage: int) -> tuple[Line, ...]:
    numbers, scales = gpu_bytes(model, division, stage)
    layers = layers_of_stage(model.layers, division, stage)
    activations, how = _activations(model, division, load)
    return (
        Line(
            term="weights",
            bytes=numbers,
            how=f"{model.quantisation.name}, {_cut(division)}",
            source=_weight_source(model),
        ),
        Line(term="weight_scales", bytes=scales, how="scales and zero points", source="shapes"),
        Line(term="activations", bytes=activations, how=how, source="shapes of one pass"),
        Line(
            term="cuda_graphs",
            bytes=_GRAPHS_AT_ALL + layers * graphs(load.sequences) * _GRAPH_BYTES,
            how=f"{graphs(load.sequences)} graphs of {layers} layers",
            source="estimate after vllm#39559 (1.62 GiB for 86 graphs of 64 layers)",
        ),
        Line(
            term="communication",
            bytes=_communication(division),
            how="NCCL buffers" if division.gpus > 1 else "one GPU",
            source="ai-dynamo/aiconfigurator, nccl_mem",
        ),
        Line(term="cuda_context", bytes=_CONTEXT, how="CUDA and its libraries", source="vllm#10517, rounded up"),
        Line(term="margin", bytes=_MARGIN, how="what the estimates may be off", source="golden cases"),
    )


def graphs(sequences: int) -> int:
    """How many CUDA graphs the engine records: two for each batch size that it prepares, up to its limits."""
    mixed = min(2 * sequences, _LARGEST_GRAPH)
    decode = min(sequences, _LARGEST_GRAPH // 2)
    return _sizes(mixed) + _sizes(decode)


def _sizes(largest: int) -> int:
    """1, 2, 4, then every eighth to 256, then every sixteenth (vLLM, config/vllm.py)."""
    small = sum(size <= largest for size in (1, 2, 4))
    return small + min(largest, 255) // 8 + max(largest - 240, 0) // 16


def _weight_source(model: ModelFacts) -> str:
    return "the checkpoint's index" if model.published_bytes else "shapes"


def _cut(division: Division) -> str:
    words = []
    if division.tensor > 1:
        words.append(f"cut over {division.tensor} GPUs")
    if division.expert > 1:
        words.append(f"experts dealt to {division.expert}")
    if division.pipeline > 1:
        words.append(f"layers over {division.pipeline} stages")
    return ", ".join(words) or "whole"


def _communication(division: Division) -> int:
    within = division.tensor * division.data
    between = _PIPELINE_BUFFERS if division.pipeline > 1 else 0
    return _COMMUNICATION.get(within, _COMMUNICATION_MANY) + between


def _activations(model: ModelFacts, division: Division, load: Load) -> tuple[int, str]:
    """What the largest pass holds at once, in BF16: the stream, the widest part of a layer, the words' scores."""
    tokens = load.batch_tokens
    stream = tokens * model.hidden * 2 * 4
    widest = _dense_pass(model, division, tokens)
    if model.experts:
        # With data parallelism every rank sees the tokens of all.
        seen = min(tokens * division.data, _EXPERT_CHUNK)
        width = model.experts.width // (1 if division.expert > 1 else division.tensor * division.data)
        widest = max(widest, seen * model.experts.active * (model.hidden + 3 * width) * 2)
        stream += (tokens * division.data - tokens) * model.hidden * 2 * 2
    # The scores leave the head in BF16, are copied to FP32 and sorted once.
    scores = load.sequences * model.vocabulary * 4 * 3
    how = f"a pass of {tokens:,} tokens, {load.sequences} answers at once"
    picture = _PICTURE if model.vision_parameters else 0
    return stream + widest + scores + picture, how


def _dense_pass(model: ModelFacts, division: Division, tokens: int) -> int:
    attention = model.attention
    heads = (attention.heads + 2 * attention.key_value_heads) * attention.head_size * (2 if attention.gated else 1)
    width = max(model.dense_width if model.dense_layers else 0, model.experts.shared_width if model.experts else 0)
    linear = 0
    if model.linear:
        linear = (
            2 * model.linear.key_heads * model.linear.key_size + 3 * model.linear.value_heads * model.linear.value_size
        )
    return tokens * max(heads, 3 * width, 2 * linear) // division.tensor * 2
