"""A model's own config.json to ModelFacts. Pure: the bytes come from whoever may read files.

Every architecture of `profiles` is read whose layers are of the kinds that `model` knows: attention with few or many
key-value heads, sliding windows, latent attention, Gated DeltaNet; dense and expert feed-forward parts. Another kind is
refused by name, because a sum that leaves something out is worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.model import Attention, Experts, LinearAttention, ModelFacts
from qiao.planner.quantisation import MXFP4, PLAIN, Quantisation

Config = Mapping[str, Any]

# What no layer kind of `model` describes, by a field that only such models have.
_UNKNOWN_KINDS = {
    "index_topk": "sparse attention with an index",
    "ssm_state_size": "Mamba layers",
    "mamba_num_heads": "Mamba layers",
    "use_dual_chunk_attention": "dual chunk attention",
}


def read_config(
    data: bytes,
    repository: str,
    *,
    index: bytes | None = None,
    tokenizer: bytes | None = None,
    sources: tuple[str, ...] = (),
    is_local: bool = False,
) -> ModelFacts:
    """Facts from the texts of a model's config.json, model.safetensors.index.json and tokenizer_config.json."""
    config = _decoded(data, f"{repository}: config.json")
    facts = read_fields(config, repository, sources=sources)
    total = _total_size(_decoded(index, f"{repository}: model.safetensors.index.json")) if index is not None else None
    return msgspec.structs.replace(
        facts,
        published_bytes=total if total is not None else facts.published_bytes,
        is_local=is_local,
        remote_code=_own_tokenizer(_decoded(tokenizer, f"{repository}: tokenizer_config.json")) if tokenizer else "",
    )


def read_fields(config: Config, repository: str, *, sources: tuple[str, ...] = ()) -> ModelFacts:
    """Facts from the fields of a config.json."""
    text = _mapping(config, "text_config") or config
    for field, what in _UNKNOWN_KINDS.items():
        if text.get(field):
            raise ConfigurationError(
                f"{repository} has {what} ({field}), for which the planner has no formula.",
                hint="Start it with the flags of its model card and attach with `qiao up --upstream`.",
            )
    layers = _number(text, "num_hidden_layers", repository)
    kinds = _layer_kinds(text, layers)
    experts = _experts(text, repository, layers)
    if experts is not None and experts.layers < 0:
        raise ConfigurationError(f"{repository}: config.json names more layers without experts than it has layers.")
    architectures = _list(config, "architectures") or ["unknown"]
    return ModelFacts(
        repository=repository,
        architecture=str(architectures[0]),
        hidden=_number(text, "hidden_size", repository),
        vocabulary=_number(text, "vocab_size", repository),
        layers=layers,
        window=_number(text, "max_position_embeddings", repository),
        attention=_attention(text, repository, kinds),
        linear=_linear(text, repository, kinds["linear_attention"]),
        experts=experts,
        dense_layers=layers - (experts.layers if experts else 0),
        dense_width=_optional(text, "intermediate_size"),
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        draft_layers=_optional(text, "mtp_num_hidden_layers") or _optional(text, "num_nextn_predict_layers"),
        vision_parameters=_vision(_mapping(config, "vision_config"), repository),
        quantisation=quantisation(
            _mapping(config, "quantization_config") or _mapping(text, "quantization_config"), repository
        ),
        published_bytes=_optional(config, "published_bytes") or None,
        sources=sources,
    )


def quantisation(config: Config, repository: str) -> Quantisation:
    """How the checkpoint is stored, from its `quantization_config`."""
    if not config:
        return PLAIN
    method = str(config.get("quant_method", "")).lower()
    group = _optional(config, "group_size") or _optional(config, "q_group_size")
    match method:
        case "fp8":
            block = _list(config, "weight_block_size")
            shape = (int(block[0]), int(block[1])) if len(block) == 2 and all(map(_is_count, block)) else None
            return Quantisation(method="fp8", precision="fp8", block=shape, bits=8)
        case "awq" | "gptq" | "auto-round" | "awq_marlin" | "gptq_marlin":
            bits = _optional(config, "bits") or _optional(config, "w_bit") or 4
            return Quantisation(
                method=method.split("_")[0],
                precision="int4" if bits <= 4 else "int8",
                group=group if group > 0 else None,
                bits=bits,
            )
        case "mxfp4":
            return MXFP4
        case "modelopt" | "compressed-tensors" | "modelopt_fp4":
            return _grouped(config, method, repository)
        case _:
            raise ConfigurationError(
                f"{repository} is stored as {method or 'something without a name'}, which the planner does not know.",
                hint="Known: fp8, awq, gptq, auto-round, mxfp4, modelopt, compressed-tensors.",
            )


def _grouped(config: Config, method: str, repository: str) -> Quantisation:
    """The formats that describe their weights in groups; the one that most bytes are stored in counts."""
    groups = _mapping(config, "config_groups")
    weights = [_mapping(_mapping(groups, name), "weights") for name in groups]
    best = min(weights, key=lambda each: _optional(each, "num_bits") or 16, default={})
    algorithm = str(config.get("quant_algo", "")).upper()
    bits = _optional(best, "num_bits") or (4 if "FP4" in algorithm else 8 if "FP8" in algorithm else 0)
    is_float = best.get("type", "float") == "float"
    group = _optional(best, "group_size") or (16 if "FP4" in algorithm else 0)
    if bits not in (4, 8):
        raise ConfigurationError(f"{repository}: {method} does not say how many bits its weights have.")
    block = _list(best, "block_structure")
    # Such checkpoints leave attention and whatever else is not an expert as it was.
    only_experts = any("self_attn" in str(each) for each in _list(config, "ignore"))
    match bits, is_float:
        case 4, True:
            return Quantisation(method=method, precision="fp4", group=group or 16, bits=4, only_experts=only_experts)
        case 4, False:
            return Quantisation(method=method, precision="int4", group=group or None, bits=4, only_experts=only_experts)
        case 8, True:
            shape = (int(block[0]), int(block[1])) if len(block) == 2 and all(map(_is_count, block)) else None
            return Quantisation(method=method, precision="fp8", block=shape, bits=8)
        case _:
            return Quantisation(method=method, precision="int8", bits=8)


def _layer_kinds(text: Config, layers: int) -> dict[str, int]:
    """How many layers of each kind of attention."""
    kinds = {"full_attention": 0, "linear_attention": 0, "sliding_attention": 0}
    listed = _list(text, "layer_types")
    if listed:
        for kind in listed:
            if kind not in kinds:
                raise ConfigurationError(f"The planner has no formula for layers of the kind {kind}.")
            kinds[kind] += 1
        return kinds
    interval = _optional(text, "full_attention_interval")
    if interval > 0 and text.get("linear_num_value_heads"):
        kinds["full_attention"] = layers // interval
        kinds["linear_attention"] = layers - kinds["full_attention"]
        return kinds
    if text.get("model_type") == "gpt_oss":
        kinds["sliding_attention"] = layers // 2
        kinds["full_attention"] = layers - layers // 2
        return kinds
    kinds["full_attention"] = layers
    return kinds


def _attention(text: Config, repository: str, kinds: Mapping[str, int]) -> Attention:
    heads = _number(text, "num_attention_heads", repository)
    model_type = str(text.get("model_type", ""))
    rank = _optional(text, "kv_lora_rank")
    if rank:
        rotary = _optional(text, "qk_rope_head_dim")
        return Attention(
            layers=kinds["full_attention"],
            heads=heads,
            key_value_heads=1,
            head_size=_number(text, "qk_nope_head_dim", repository),
            latent=rank + rotary,
            latent_rank=rank,
            query_latent=_optional(text, "q_lora_rank"),
            head_size_rotary=rotary,
            head_size_value=_number(text, "v_head_dim", repository),
        )
    return Attention(
        layers=kinds["full_attention"],
        heads=heads,
        key_value_heads=_optional(text, "num_key_value_heads") or heads,
        head_size=_optional(text, "head_dim") or _number(text, "hidden_size", repository) // heads,
        gated=bool(text.get("attn_output_gate", model_type.startswith("qwen3_next"))),
        biased=bool(text.get("attention_bias", False)) or model_type.startswith("qwen2"),
        biased_output=bool(text.get("attention_bias", False)) and model_type != "glm4_moe",
        normed=model_type.startswith("qwen3") or bool(text.get("use_qk_norm")),
        sliding_layers=kinds["sliding_attention"],
        sliding_window=_optional(text, "sliding_window") if kinds["sliding_attention"] else 0,
    )


def _linear(text: Config, repository: str, layers: int) -> LinearAttention | None:
    if not layers:
        return None
    return LinearAttention(
        layers=layers,
        key_heads=_number(text, "linear_num_key_heads", repository),
        value_heads=_number(text, "linear_num_value_heads", repository),
        key_size=_number(text, "linear_key_head_dim", repository),
        value_size=_number(text, "linear_value_head_dim", repository),
        convolution=_number(text, "linear_conv_kernel_dim", repository),
    )


def _experts(text: Config, repository: str, layers: int) -> Experts | None:
    count = (
        _optional(text, "num_experts") or _optional(text, "n_routed_experts") or _optional(text, "num_local_experts")
    )
    if not count:
        return None
    dense = _optional(text, "first_k_dense_replace") + len(_list(text, "mlp_only_layers"))
    width = _optional(text, "moe_intermediate_size") or _number(text, "intermediate_size", repository)
    shared = _optional(text, "shared_expert_intermediate_size")
    return Experts(
        layers=layers - dense,
        count=count,
        active=_number(text, "num_experts_per_tok", repository),
        width=width,
        shared_width=shared or _optional(text, "n_shared_experts") * width,
        biased=text.get("model_type") == "gpt_oss",
        shared_gate=bool(shared),
    )


def _vision(config: Config, repository: str) -> int:
    """Numbers of the vision part of the Qwen3-VL and Qwen3.5 lines; 0 for a model that cannot see."""
    if "depth" not in config:
        return 0

    def number(field: str) -> int:
        return _number(config, field, f"{repository} (vision_config)")

    width, inner, out = number("hidden_size"), number("intermediate_size"), number("out_hidden_size")
    merged = width * number("spatial_merge_size") ** 2
    block = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    patch = number("in_channels") * number("temporal_patch_size") * number("patch_size") ** 2
    merger = merged * merged + merged + merged * out + out
    deep = len(_list(config, "deepstack_visual_indexes"))
    return (
        number("depth") * block
        + patch * width
        + width
        + number("num_position_embeddings") * width
        + merger
        + 2 * width
        + deep * (merger + 2 * merged)
    )


def _decoded(data: bytes, place: str) -> Config:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as problem:
        raise ConfigurationError(f"{place} is not a JSON object: {problem}.") from problem


def _own_tokenizer(config: Config) -> str:
    """Why the tokenizer needs code of the download, or nothing. Models and their settings are built into engines."""
    if not _mapping(config, "auto_map").get("AutoTokenizer"):
        return ""
    return "its tokenizer is code that comes with the model (auto_map in tokenizer_config.json)"


def _total_size(index: Config) -> int | None:
    return _optional(_mapping(index, "metadata"), "total_size") or None


def _mapping(config: Config, field: str) -> Config:
    value = config.get(field)
    return value if isinstance(value, dict) else {}


def _list(config: Config, field: str) -> list[Any]:
    value = config.get(field)
    return value if isinstance(value, list) else []


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(config: Config, field: str, repository: str) -> int:
    value = config.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ConfigurationError(
            f"{repository}: config.json does not say {field}, which the sum needs.",
            hint="Is it a text model in the form of Hugging Face transformers?",
        )
    return int(value)


def _optional(config: Config, field: str) -> int:
    value = config.get(field)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0
