"""How many bytes a model's weights take, part by part, and what of each part lies on one GPU.

The sum over all parts is the total of the checkpoint's index; the test compares it with published totals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from qiao.planner.model import ModelFacts
from qiao.planner.quantisation import BF16_BYTES, PLAIN

Spread = Literal["tensor", "expert", "key_value", "copied"]
Place = Literal["layers", "first", "last", "draft"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Matrices of one kind.

    * `spread`: over what it is divided: the tensor-parallel GPUs, the GPUs that share the experts, the tensor-parallel
      GPUs as far as there are key-value heads, or nothing (each GPU has a copy).
    * `place`: in the layers (divided over the pipeline), with the first or last pipeline stage, or the draft layers.
    """

    name: str
    rows: int
    columns: int
    count: int
    spread: Spread = "tensor"
    place: Place = "layers"
    is_quantised: bool = True


class Division(msgspec.Struct, frozen=True, kw_only=True):
    """How the model is cut: tensor, pipeline, data and expert parallel sizes. `expert` 1: experts cut like the rest."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        words = [f"tensor parallel {self.tensor}"]
        if self.pipeline > 1:
            words.append(f"pipeline parallel {self.pipeline}")
        if self.data > 1:
            words.append(f"data parallel {self.data}")
        if self.expert > 1:
            words.append(f"expert parallel {self.expert}")
        return ", ".join(words)


def parts(model: ModelFacts) -> tuple[Part, ...]:
    """Everything that the checkpoint holds."""
    attention = model.attention
    return (
        *_edges(model),
        *_attention(model, attention.layers + attention.sliding_layers, "layers"),
        *_linear(model),
        *_feed_forward(model),
        *_draft(model),
    )


def part_bytes(model: ModelFacts, part: Part) -> tuple[int, int]:
    """Bytes of the part's numbers and of its scales, in the whole checkpoint."""
    scheme = model.quantisation if part.is_quantised else PLAIN
    if scheme.only_experts and part.spread != "expert":
        scheme = PLAIN
    numbers = scheme.matrix_bytes(part.rows, part.columns) * part.count
    return numbers, scheme.scale_bytes(part.rows, part.columns) * part.count


def total_bytes(model: ModelFacts) -> int:
    """The checkpoint's size: as published, else summed up."""
    return model.published_bytes or summed_bytes(model)


def summed_bytes(model: ModelFacts) -> int:
    """The checkpoint's size from its shapes."""
    return sum(sum(part_bytes(model, part)) for part in parts(model))


def parameters(model: ModelFacts) -> int:
    """How many numbers the checkpoint holds."""
    return sum(part.rows * part.columns * part.count for part in parts(model))


def gpu_bytes(model: ModelFacts, division: Division, stage: int) -> tuple[int, int]:
    """Bytes of numbers and of scales on one GPU of pipeline stage `stage`; the stage with the most layers rounds up."""
    numbers = scales = 0
    for part in parts(model):
        if part.place == "draft" or not _is_here(part, division, stage):
            continue
        of_numbers, of_scales = part_bytes(model, part)
        layers = _share_of_layers(model, division, stage) if part.place == "layers" else 1.0
        divisor = _divisor(model, part, division)
        numbers += int(of_numbers * layers / divisor)
        scales += int(of_scales * layers / divisor)
    known = model.published_bytes
    if known is not None:
        # What the index says is truer than the sum of the shapes (excluded layers, packed formats).
        correction = known / summed_bytes(model)
        return int(numbers * correction), int(scales * correction)
    return numbers, scales


def layers_of_stage(layers: int, division: Division, stage: int) -> int:
    """How many of `layers` layers a pipeline stage has; a remainder goes to the stages before the last."""
    base, rest = divmod(layers, division.pipeline)
    if rest == 0:
        return base
    # Engines give the remainder to the last stages but one, where neither embedding nor head lies.
    first = division.pipeline - 1 - rest
    return base + 1 if max(first, 0) <= stage < max(first, 0) + rest else base


def _share_of_layers(model: ModelFacts, division: Division, stage: int) -> float:
    return layers_of_stage(model.layers, division, stage) / model.layers


def _is_here(part: Part, division: Division, stage: int) -> bool:
    match part.place:
        case "first":
            return stage == 0
        case "last":
            return stage == division.pipeline - 1
        case _:
            return True


def _divisor(model: ModelFacts, part: Part, division: Division) -> float:
    match part.spread:
        case "copied":
            return 1
        case "tensor":
            return division.tensor
        case "key_value":
            return min(division.tensor, model.attention.key_value_heads)
        case "expert":
            if division.expert == 1 or model.experts is None:
                return division.tensor * division.data
            # An odd number of GPUs gets whole experts unevenly; the fullest decides.
            return model.experts.count / -(-model.experts.count // division.expert)


def _edges(model: ModelFacts) -> Iterator[Part]:
    yield Part(
        name="embedding", rows=model.vocabulary, columns=model.hidden, count=1, place="first", is_quantised=False
    )
    if not model.tied:
        yield Part(name="head", rows=model.vocabulary, columns=model.hidden, count=1, place="last", is_quantised=False)
    yield _vector("final norm", model.hidden, 1, place="last")
    yield _vector("norms", 2 * model.hidden, model.layers)
    if model.vision_parameters:
        yield Part(name="vision", rows=1, columns=model.vision_parameters, count=1, place="first", is_quantised=False)


def _vector(name: str, length: int, count: int, place: Place = "layers") -> Part:
    return Part(name=name, rows=1, columns=length, count=count, spread="copied", place=place, is_quantised=False)


def _attention(model: ModelFacts, layers: int, place: Place) -> Iterator[Part]:
    attention, hidden = model.attention, model.hidden
    if attention.latent is not None:
        yield from _latent_attention(model, layers, place)
        return
    query = attention.heads * attention.head_size
    key = attention.key_value_heads * attention.head_size
    gate = 2 if attention.gated else 1
    yield Part(name="query", rows=query * gate, columns=hidden, count=layers, place=place)
    yield Part(name="key, value", rows=key, columns=hidden, count=2 * layers, spread="key_value", place=place)
    yield Part(name="attention out", rows=hidden, columns=query, count=layers, place=place)
    if attention.normed:
        yield _vector("query and key norms", 2 * attention.head_size, layers, place)
    if attention.biased:
        yield _vector("attention biases", query * gate + 2 * key + hidden * attention.biased_output, layers, place)


def _latent_attention(model: ModelFacts, layers: int, place: Place) -> Iterator[Part]:
    attention, hidden = model.attention, model.hidden
    plain, rotary, value = attention.head_size, attention.head_size_rotary, attention.head_size_value
    rank, heads = attention.latent_rank, attention.heads
    yield Part(
        name="query down", rows=attention.query_latent, columns=hidden, count=layers, spread="copied", place=place
    )
    yield Part(
        name="query up", rows=heads * (plain + rotary), columns=attention.query_latent, count=layers, place=place
    )
    yield Part(name="latent down", rows=rank + rotary, columns=hidden, count=layers, spread="copied", place=place)
    yield Part(name="latent up", rows=heads * (plain + value), columns=rank, count=layers, place=place)
    yield Part(name="attention out", rows=hidden, columns=heads * value, count=layers, place=place)
    yield _vector("latent norms", attention.query_latent + rank, layers, place)


def _linear(model: ModelFacts) -> Iterator[Part]:
    linear, hidden = model.linear, model.hidden
    if linear is None:
        return
    key, value = linear.key_heads * linear.key_size, linear.value_heads * linear.value_size
    yield Part(name="linear query, key, value", rows=2 * key + value, columns=hidden, count=linear.layers)
    yield Part(name="linear gate", rows=value, columns=hidden, count=linear.layers)
    yield Part(name="linear out", rows=hidden, columns=value, count=linear.layers)
    yield Part(
        name="linear decay and step",
        rows=2 * linear.value_heads,
        columns=hidden,
        count=linear.layers,
        is_quantised=False,
    )
    yield Part(
        name="convolution", rows=2 * key + value, columns=linear.convolution, count=linear.layers, is_quantised=False
    )
    yield _vector("linear norms", 2 * linear.value_heads + linear.value_size, linear.layers)


def _feed_forward(model: ModelFacts) -> Iterator[Part]:
    if model.dense_layers:
        yield Part(name="feed-forward in", rows=model.dense_width, columns=model.hidden, count=2 * model.dense_layers)
        yield Part(name="feed-forward out", rows=model.hidden, columns=model.dense_width, count=model.dense_layers)
    if model.experts is not None:
        yield from _expert_layers(model, model.experts.layers, "layers")


def _expert_layers(model: ModelFacts, layers: int, place: Place) -> Iterator[Part]:
    experts, hidden = model.experts, model.hidden
    assert experts is not None
    every = layers * experts.count
    yield Part(name="experts in", rows=experts.width, columns=hidden, count=2 * every, spread="expert", place=place)
    yield Part(name="experts out", rows=hidden, columns=experts.width, count=every, spread="expert", place=place)
    if experts.biased:
        yield Part(
            name="expert biases",
            rows=1,
            columns=2 * experts.width + hidden,
            count=every,
            spread="expert",
            place=place,
            is_quantised=False,
        )
    yield Part(
        name="router",
        rows=experts.count,
        columns=hidden,
        count=layers,
        spread="copied",
        place=place,
        is_quantised=False,
    )
    if experts.shared_width:
        yield Part(name="shared expert in", rows=experts.shared_width, columns=hidden, count=2 * layers, place=place)
        yield Part(name="shared expert out", rows=hidden, columns=experts.shared_width, count=layers, place=place)
    if experts.shared_gate:
        yield _vector("shared expert gate", hidden, layers, place)


def _draft(model: ModelFacts) -> Iterator[Part]:
    """Layers for multi-token prediction: one attention layer, its feed-forward part, and a joining matrix."""
    layers, hidden = model.draft_layers, model.hidden
    if not layers:
        return
    yield Part(name="draft joint", rows=hidden, columns=2 * hidden, count=layers, place="draft", is_quantised=False)
    yield _vector("draft norms", 5 * hidden, layers, "draft")
    yield from _attention(model, layers, "draft")
    if model.experts is not None:
        yield from _expert_layers(model, layers, "draft")
    else:
        yield Part(
            name="draft feed-forward in", rows=model.dense_width, columns=hidden, count=2 * layers, place="draft"
        )
        yield Part(name="draft feed-forward out", rows=hidden, columns=model.dense_width, count=layers, place="draft")


def bf16_bytes(model: ModelFacts) -> int:
    """What the same model takes in BF16: what online quantisation has to read first."""
    return parameters(model) * BF16_BYTES
