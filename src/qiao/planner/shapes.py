"""Which ways of cutting a model work: divisibility rules of the engine's kernels, each with its source. Pure.

A `Rule` that is broken makes the engine stop at load; a `Remark` is worth saying and no reason against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from qiao.planner.machine import Gpu
from qiao.planner.model import ModelFacts
from qiao.planner.weights import Division

Version = tuple[int, ...]

REFINES_SINCE: Version = (0, 29)
"""Since then the engine divides the scales of a block further, where the kernel can read the finer ones."""
_SMALLEST_REFINED = 32

BLOCK_SOURCE = "vllm#17569; vLLM, quantization/utils/fp8_utils.py"
HEADS_SOURCE = "vLLM, VllmConfig: attention heads must be divisible by the tensor parallel size"
MARLIN_SOURCE = "vLLM, marlin_utils.check_moe_marlin_supports_config"
FP8_SOURCE = "NVIDIA, CUDA compute capability 8.9 and later; vLLM, quantization/fp8.py: Marlin below"


class Rule(msgspec.Struct, frozen=True):
    """Something the engine would refuse, with the engine's own words where they are known."""

    text: str
    source: str


class Remark(msgspec.Struct, frozen=True):
    """Something to know about a way of cutting."""

    text: str
    source: str


def broken(model: ModelFacts, division: Division, gpu: Gpu, version: Version) -> Rule | None:
    """The first rule that this way of cutting breaks."""
    return next(_broken(model, division, gpu, version), None)


def _broken(model: ModelFacts, division: Division, gpu: Gpu, version: Version) -> Iterator[Rule]:
    missing = without_kernel(model, gpu, version)
    if missing is not None:
        yield missing
    tensor, attention = division.tensor, model.attention
    if attention.heads % tensor:
        yield Rule(f"{attention.heads} attention heads cannot be divided by {tensor}", HEADS_SOURCE)
    groups = attention.key_value_heads
    if attention.latent is None and max(groups, tensor) % min(groups, tensor):
        yield Rule(f"{groups} key-value heads and {tensor} GPUs do not divide each other", HEADS_SOURCE)
    if model.linear and (model.linear.value_heads % tensor or model.linear.key_heads % tensor):
        yield Rule(
            f"{model.linear.key_heads} and {model.linear.value_heads} linear attention heads cannot be divided by "
            f"{tensor}",
            "vLLM, mamba_utils.gated_delta_net_state_shape",
        )
    if division.pipeline > model.layers:
        yield Rule(
            f"{model.layers} layers cannot be divided over {division.pipeline} stages", "one layer each at least"
        )
    if model.experts and division.expert > model.experts.count:
        yield Rule(
            f"{model.experts.count} experts cannot be divided over {division.expert} GPUs", "one expert each at least"
        )
    if model.quantisation.block:
        yield from _blocks(model, division, gpu, version)
    if model.experts and model.quantisation.group and model.quantisation.precision == "int4":
        yield from _groups(model, division)


# Weights' method, with the precision where it matters: the least compute capability that the engine asks for at load,
# and since which version.
_KERNELS: dict[str, tuple[tuple[Version, tuple[int, int]], ...]] = {
    "fp8": (((0, 16), (7, 5)), ((0,), (8, 0))),
    "awq": (((0,), (7, 5)),),
    "gptq": (((0, 24), (7, 5)), ((0,), (6, 0))),
    "auto-round": (((0, 24), (7, 5)), ((0,), (6, 0))),
    "mxfp4": (((0,), (8, 0)),),
    "modelopt fp8": (((0, 28), (8, 0)), ((0,), (8, 9))),
    "modelopt": (((0, 16), (7, 5)), ((0,), (8, 0))),
    "compressed-tensors": (((0, 16), (7, 5)), ((0,), (8, 0))),
}
_KERNELS_SOURCE = (
    "vLLM 0.11.2, 0.16, 0.24, 0.33: get_min_capability of each quantisation; GPTQ since 0.24: verify_marlin_supported"
)


def without_kernel(model: ModelFacts, gpu: Gpu, version: Version) -> Rule | None:
    """Why the engine has nothing that multiplies these weights on this GPU; None where it has, or nobody knows."""
    stored = model.quantisation
    method = stored.method or ""
    rows = _KERNELS.get(f"{method} {stored.precision}", _KERNELS.get(method, ()))
    since = next((each for each in rows if version >= each[0]), None)
    if since is None or gpu.capability is None or gpu.capability >= since[1]:
        return None
    needed, has = (".".join(map(str, each)) for each in (since[1], gpu.capability))
    text = f"vLLM multiplies {stored.name} from compute capability {needed} on, and {gpu.name} has {has}"
    return Rule(text, _KERNELS_SOURCE)


def _blocks(model: ModelFacts, division: Division, gpu: Gpu, version: Version) -> Iterator[Rule]:
    """FP8 in blocks: what a GPU gets of each matrix must be whole blocks."""
    assert model.quantisation.block is not None
    block = model.quantisation.block[0]
    tensor = division.tensor
    if model.experts and division.expert == 1:
        cut = division.tensor * division.data
        width = model.experts.width // cut
        if model.experts.width % cut or (
            needs_finer_scales(model, division) and not refines(model, division, gpu, version)
        ):
            yield Rule(
                f"each GPU would get experts of width {model.experts.width}/{cut} = {model.experts.width / cut:g}: "
                f"\"The output_size of gate's and up's weight = {width} is not divisible by weight quantization "
                f'block_n = {block}"',
                BLOCK_SOURCE,
            )
    for name, width in _dense_widths(model):
        share = width / tensor
        if tensor > 1 and share % block:
            yield Rule(
                f'the {name} of width {width} would be cut to {share:g}: "Weight input_size_per_partition = '
                f'{share:g} is not divisible by weight quantization block_k = {block}"',
                BLOCK_SOURCE,
            )


def _dense_widths(model: ModelFacts) -> Iterator[tuple[str, int]]:
    if model.dense_layers:
        yield "feed-forward part", model.dense_width
    if model.experts and model.experts.shared_width:
        yield "shared expert", model.experts.shared_width
    attention = model.attention
    yield "attention output", attention.heads * (attention.head_size_value or attention.head_size)
    if model.linear:
        yield "linear attention output", model.linear.value_heads * model.linear.value_size


def _groups(model: ModelFacts, division: Division) -> Iterator[Rule]:
    """4-bit experts: the fast kernel wants whole groups of each expert on a GPU."""
    assert model.experts is not None
    assert model.quantisation.group is not None
    if division.expert > 1:
        return
    width = model.experts.width / (division.tensor * division.data)
    unit = max(64, model.quantisation.group)
    if width % unit:
        yield Rule(
            f"each GPU would get experts of width {width:g}, not a multiple of {unit}: the Marlin kernel leaves them "
            "to a slow one",
            MARLIN_SOURCE,
        )


def needs_finer_scales(model: ModelFacts, division: Division) -> bool:
    """Whether a GPU would get a part of an expert that is no whole number of FP8 blocks."""
    if model.experts is None or model.quantisation.block is None or division.expert > 1:
        return False
    width, rest = divmod(model.experts.width, division.tensor * division.data)
    return rest != 0 or width % model.quantisation.block[0] != 0


def refines(model: ModelFacts, division: Division, gpu: Gpu, version: Version) -> bool:
    """Whether the engine gets round an expert width that is no multiple of the block, by finer scales."""
    if version < REFINES_SINCE or not gpu.fp8_arithmetic or model.experts is None or model.quantisation.block is None:
        return False
    width = model.experts.width // (division.tensor * division.data)
    return math.gcd(*model.quantisation.block, width, model.hidden) >= _SMALLEST_REFINED


def remarks(model: ModelFacts, division: Division, gpu: Gpu) -> Iterator[Remark]:
    """What is worth knowing about a way of cutting that works."""
    groups = model.attention.key_value_heads
    if model.attention.latent is None and division.tensor > groups:
        yield Remark(
            f"the model has {groups} key-value heads: with tensor parallel {division.tensor} each is kept "
            f"{division.tensor // groups} times, so the cache holds no more than with {groups}",
            "vLLM, models/qwen3_moe.py: KV heads are replicated when there are fewer than GPUs",
        )
    precision = model.quantisation.precision
    if precision == "fp8" and gpu.fp8_arithmetic is False:
        yield Remark(
            f"{gpu.name} has no FP8 arithmetic: the weights stay FP8 in memory and are multiplied as BF16 by the "
            "Marlin kernel, which saves memory and not time",
            FP8_SOURCE,
        )
    if precision == "fp4" and gpu.fp4_arithmetic is False:
        yield Remark(
            f"{gpu.name} has no FP4 arithmetic: 4-bit weights are multiplied as BF16 by the Marlin kernel",
            "vLLM, quantization/modelopt.py: Marlin W4A16 below compute capability 10.0",
        )
    if gpu.interconnect == "pcie" and division.tensor > 2:
        yield Remark(
            f"{division.tensor} GPUs exchange every layer's result over PCIe; without NVLink that is what limits speed",
            "vLLM, custom_all_reduce: off for more than two GPUs without NVLink",
        )
