"""The Qwen models. How to read an entry: see `family`; where its figures come from: `source`.

"config.json (aiconfigurator)" is the published file as ai-dynamo/aiconfigurator keeps it (git, 2026-08-21).
"""

from __future__ import annotations

from typing import Any

from qiao.planner.family import Checkpoint, Family
from qiao.planner.model import Stretch
from qiao.planner.quantisation import AWQ, FP8_BLOCKS, GPTQ, NVFP4

_SHAPES = "config.json (aiconfigurator)"
_CARD = "model card"
_SINCE_NEXT = ((0, 11), "vLLM 0.11.2, models/registry.py; 0.9.2 has it not")
_SINCE_35 = ((0, 17), "vllm-project/recipes, min_vllm_version; 0.16.0 has it not, 0.24.0 has (models/registry.py)")
_SINCE_38_MOE = ((0, 28), "vLLM 0.28.0, models/registry.py; recipes: absent in 0.26.0")
_THIRD = "its name and 4-bit groups of 128 from its model card; size from the shapes"


def _dense(hidden: int, layers: int, heads: int, groups: int, width: int, *, tied: bool = False) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 128,
        "intermediate_size": width,
        "vocab_size": 151936,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 40960,
    }


def _moe(
    hidden: int, layers: int, heads: int, groups: int, *, experts: int, active: int, width: int, window: int = 262144
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": 128,
        "num_experts": experts,
        "num_experts_per_tok": active,
        "moe_intermediate_size": width,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
        "max_position_embeddings": window,
    }


_VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "in_channels": 3,
    "temporal_patch_size": 2,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "num_position_embeddings": 2304,
}


def _hybrid(
    hidden: int,
    layers: int,
    heads: int,
    groups: int,
    value_heads: int,
    *,
    dense: int = 0,
    experts: tuple[int, int, int] | None = None,
    sees: bool = True,
    tied: bool = False,
) -> dict[str, Any]:
    """The shapes of Qwen3.5 and later; `experts`: count, active, width (the shared expert is as wide)."""
    text: dict[str, Any] = {
        "model_type": "qwen3_5_moe_text" if experts else "qwen3_5_text",
        "attn_output_gate": True,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": value_heads,
        "mtp_num_hidden_layers": 1,
        "vocab_size": 248320,
        "max_position_embeddings": 262144,
        "tie_word_embeddings": tied,
    }
    if experts:
        count, active, width = experts
        text |= {
            "num_experts": count,
            "num_experts_per_tok": active,
            "moe_intermediate_size": width,
            "shared_expert_intermediate_size": width,
        }
    else:
        text["intermediate_size"] = dense
    kind = "Qwen3_5Moe" if experts else "Qwen3_5"
    if not sees:
        return {"architectures": [f"{kind}ForCausalLM"], **text}
    return {
        "architectures": [f"{kind}ForConditionalGeneration"],
        "tie_word_embeddings": tied,
        "text_config": text,
        "vision_config": {**_VISION, "out_hidden_size": hidden},
    }


def _plain(repository: str, published: int | None = None, source: str = _CARD, **config: Any) -> Checkpoint:
    return Checkpoint(repository=repository, published_bytes=published, source=source, config=config)


def _fp8(repository: str, published: int | None = None, source: str = _CARD, **config: Any) -> Checkpoint:
    return Checkpoint(
        repository=repository, quantisation=FP8_BLOCKS, published_bytes=published, source=source, config=config
    )


def _awq(repository: str, **config: Any) -> Checkpoint:
    return Checkpoint(repository=repository, quantisation=AWQ, is_by_third_party=True, source=_THIRD, config=config)


def _gptq(repository: str, **config: Any) -> Checkpoint:
    return Checkpoint(
        repository=repository,
        quantisation=GPTQ,
        is_by_third_party=not repository.startswith("Qwen/"),
        source=_THIRD,
        config=config,
    )


def _nvfp4(repository: str, published: int | None = None, source: str = _CARD) -> Checkpoint:
    return Checkpoint(
        repository=repository,
        quantisation=NVFP4,
        is_by_third_party=True,
        published_bytes=published,
        source=source,
    )


_INDEX_235B = "config.json and index total 470,187,269,120 bytes of Qwen3-235B-A22B, the same shapes"
_SHORT = {"max_position_embeddings": 40960}
# Of the models of April 2025 from 4B on; those of 2507 have their long window by training, 0.6B and 1.7B have none.
_YARN = Stretch(
    window=131_072, original=32_768, base=1_000_000, source="model card, Processing Long Texts; rope_theta: config.json"
)

QWEN3_235B = Family(
    name="qwen3-235b",
    aliases=("qwen3-235b-a22b-instruct-2507", "qwen3-235b-instruct", "qwen3-235b-2507"),
    parameters=235_093_634_560,
    config=_moe(4096, 94, 64, 4, experts=128, active=8, width=1536),
    checkpoints=(
        _fp8("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"),
        _plain("Qwen/Qwen3-235B-A22B-Instruct-2507", 470_187_269_120, _INDEX_235B),
        _awq("QuantTrio/Qwen3-235B-A22B-Instruct-2507-AWQ"),
        _nvfp4("nvidia/Qwen3-235B-A22B-Instruct-2507-NVFP4", source="vllm-project/recipes"),
    ),
    not_there={
        "Qwen/Qwen3-235B-A22B-Instruct": "it is Qwen/Qwen3-235B-A22B-Instruct-2507, or …-2507-FP8 for FP8.",
        "Qwen/Qwen3-235B-A22B-Instruct-FP8": "it is Qwen/Qwen3-235B-A22B-Instruct-2507-FP8.",
        "Qwen/Qwen3-235B": "the instruction model is Qwen/Qwen3-235B-A22B-Instruct-2507.",
    },
    source=_SHAPES,
)

QWEN3_235B_THINKING = Family(
    name="qwen3-235b-thinking",
    aliases=("qwen3-235b-a22b-thinking-2507", "qwen3-235b-a22b-thinking"),
    parameters=235_093_634_560,
    config=_moe(4096, 94, 64, 4, experts=128, active=8, width=1536),
    checkpoints=(
        _fp8("Qwen/Qwen3-235B-A22B-Thinking-2507-FP8"),
        _plain("Qwen/Qwen3-235B-A22B-Thinking-2507", 470_187_269_120, _INDEX_235B),
        _awq("QuantTrio/Qwen3-235B-A22B-Thinking-2507-AWQ"),
    ),
    not_there={
        "Qwen/Qwen3-235B-A22B-Thinking": "it is Qwen/Qwen3-235B-A22B-Thinking-2507, or …-2507-FP8 for FP8.",
        "Qwen/Qwen3-235B-A22B-Thinking-FP8": "it is Qwen/Qwen3-235B-A22B-Thinking-2507-FP8.",
    },
    source=_SHAPES,
)

QWEN3_235B_HYBRID = Family(
    name="qwen3-235b-a22b",
    parameters=235_093_634_560,
    config=_moe(4096, 94, 64, 4, experts=128, active=8, width=1536, window=40960),
    stretch=_YARN,
    checkpoints=(
        _fp8("Qwen/Qwen3-235B-A22B-FP8"),
        _plain(
            "Qwen/Qwen3-235B-A22B", 470_187_269_120, "config.json and index total (byte for byte the sum of its shapes)"
        ),
        _gptq("Qwen/Qwen3-235B-A22B-GPTQ-Int4"),
        _nvfp4("nvidia/Qwen3-235B-A22B-NVFP4", source=_SHAPES),
    ),
    source=_SHAPES,
)

QWEN3_CODER_480B = Family(
    name="qwen3-coder-480b",
    aliases=("qwen3-coder", "qwen3-coder-480b-a35b", "qwen3-coder-480b-a35b-instruct"),
    parameters=480_154_875_392,
    config=_moe(6144, 62, 96, 8, experts=160, active=8, width=2560),
    checkpoints=(
        _fp8("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8"),
        _plain("Qwen/Qwen3-Coder-480B-A35B-Instruct"),
        _awq("QuantTrio/Qwen3-Coder-480B-A35B-Instruct-AWQ"),
        _nvfp4("nvidia/Qwen3-Coder-480B-A35B-Instruct-NVFP4", source="vllm-project/recipes"),
    ),
    source=_SHAPES,
)


def _without_date(checkpoints: tuple[Checkpoint, ...]) -> dict[str, str]:
    """The names of the releases of July 2025 as they are often written: nobody published these."""
    return {
        each.repository.replace("-2507", ""): f"it is {each.repository}."
        for each in checkpoints
        if "-2507" in each.repository
    }


_THIRTY = _moe(2048, 48, 32, 4, experts=128, active=8, width=768)

QWEN3_30B = tuple(
    Family(
        name=name,
        aliases=aliases,
        parameters=30_532_122_624,
        config=_THIRTY | changes,
        checkpoints=checkpoints,
        not_there=_without_date(checkpoints),
        source=_SHAPES,
        stretch=_YARN if changes is _SHORT else None,
    )
    for name, aliases, changes, checkpoints in (
        (
            "qwen3-coder-30b",
            ("qwen3-coder-30b-a3b", "qwen3-coder-30b-a3b-instruct"),
            {},
            (_fp8("Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8"), _plain("Qwen/Qwen3-Coder-30B-A3B-Instruct")),
        ),
        (
            "qwen3-30b",
            ("qwen3-30b-a3b-instruct-2507", "qwen3-30b-instruct"),
            {},
            (_fp8("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"), _plain("Qwen/Qwen3-30B-A3B-Instruct-2507")),
        ),
        (
            "qwen3-30b-thinking",
            ("qwen3-30b-a3b-thinking-2507",),
            {},
            (_fp8("Qwen/Qwen3-30B-A3B-Thinking-2507-FP8"), _plain("Qwen/Qwen3-30B-A3B-Thinking-2507")),
        ),
        (
            "qwen3-30b-a3b",
            (),
            _SHORT,
            (
                _fp8("Qwen/Qwen3-30B-A3B-FP8"),
                _plain("Qwen/Qwen3-30B-A3B"),
                _gptq("Qwen/Qwen3-30B-A3B-GPTQ-Int4"),
            ),
        ),
    )
)

_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "mtp_num_hidden_layers": 1,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 262144,
}

QWEN3_NEXT = tuple(
    Family(
        name=name,
        aliases=aliases,
        parameters=81_300_000_000,
        config=_NEXT,
        checkpoints=tuple(make(repository) for make, repository in checkpoints),
        source=_SHAPES,
        since=_SINCE_NEXT,
    )
    for name, aliases, checkpoints in (
        (
            "qwen3-coder-next",
            ("qwen3-coder-next-80b",),
            ((_fp8, "Qwen/Qwen3-Coder-Next-FP8"), (_plain, "Qwen/Qwen3-Coder-Next")),
        ),
        (
            "qwen3-next",
            ("qwen3-next-80b", "qwen3-next-80b-a3b-instruct"),
            (
                (_fp8, "Qwen/Qwen3-Next-80B-A3B-Instruct-FP8"),
                (_plain, "Qwen/Qwen3-Next-80B-A3B-Instruct"),
                (_nvfp4, "nvidia/Qwen3-Next-80B-A3B-Instruct-NVFP4"),
            ),
        ),
        (
            "qwen3-next-thinking",
            ("qwen3-next-80b-a3b-thinking",),
            ((_fp8, "Qwen/Qwen3-Next-80B-A3B-Thinking-FP8"), (_plain, "Qwen/Qwen3-Next-80B-A3B-Thinking")),
        ),
    )
)

QWEN3_DENSE = tuple(
    Family(
        name=f"qwen3-{size}",
        parameters=parameters,
        config=config,
        checkpoints=(_fp8(f"Qwen/Qwen3-{size.upper()}-FP8"), _plain(f"Qwen/Qwen3-{size.upper()}"))
        + (
            (Checkpoint(repository=f"Qwen/Qwen3-{size.upper()}-AWQ", quantisation=AWQ, source=_CARD),)
            if has_awq
            else ()
        ),
        source=source,
        stretch=_YARN if parameters > 4_000_000_000 else None,
    )
    for size, parameters, config, has_awq, source in (
        ("32b", 32_762_123_264, _dense(5120, 64, 64, 8, 25600), True, _SHAPES),
        ("14b", 14_768_307_200, _dense(5120, 40, 40, 8, 17408), True, _CARD),
        ("8b", 8_190_735_360, _dense(4096, 36, 32, 8, 12288), True, _SHAPES),
        ("4b", 4_022_468_096, _dense(2560, 36, 32, 8, 9728, tied=True), True, _CARD),
        ("1.7b", 1_720_574_976, _dense(2048, 28, 16, 8, 6144, tied=True), False, _SHAPES),
        ("0.6b", 596_049_920, _dense(1024, 28, 16, 8, 3072, tied=True), False, _SHAPES),
    )
)

QWEN3_4B_2507 = tuple(
    Family(
        name=f"qwen3-4b-{kind.lower()}",
        aliases=(f"qwen3-4b-{kind.lower()}-2507", *more),
        parameters=4_022_468_096,
        config=_dense(2560, 36, 32, 8, 9728, tied=True) | {"max_position_embeddings": 262144},
        checkpoints=(_fp8(f"Qwen/Qwen3-4B-{kind}-2507-FP8"), _plain(f"Qwen/Qwen3-4B-{kind}-2507")),
        source="model card: the shapes of Qwen3-4B, 262,144 tokens natively",
    )
    for kind, more in (("Instruct", ("qwen3-4b-2507",)), ("Thinking", ()))
)

_DISK_27B = "vllm-project/recipes, Qwen3.8-27B: {} bytes on disk"
_INDEX_24T = "vllm-project/recipes, Qwen3.8-2.4T-A95B: index total_size"
_27B = _hybrid(5120, 64, 24, 4, 48, dense=17408)

QWEN3_5 = (
    Family(
        name="qwen3.8-2.4t",
        aliases=("qwen3.8-2.4t-a95b", "qwen3.8"),
        parameters=2_446_000_000_000,
        config=_hybrid(8192, 92, 64, 4, 128, experts=(512, 10, 2048), sees=False),
        checkpoints=(
            _fp8("Qwen/Qwen3.8-2.4T-A95B-FP8", 2_496_154_358_768, _INDEX_24T),
            _plain("Qwen/Qwen3.8-2.4T-A95B", 4_892_388_705_238, _INDEX_24T),
            _nvfp4("Inferact/Qwen3.8-2.4T-A95B-NVFP4", 1_447_265_951_488, _INDEX_24T),
        ),
        source="config.json, quoted in open notes on the model; the sum meets the index total within 0.001 %",
        since=_SINCE_38_MOE,
    ),
    Family(
        name="qwen3.8-27b",
        parameters=27_781_427_952,
        config=_27B,
        checkpoints=(
            _fp8("Qwen/Qwen3.8-27B-FP8", 30_866_866_928, _DISK_27B.format("30,866,866,928")),
            _plain("Qwen/Qwen3.8-27B", 55_563_006_776, _DISK_27B.format("55,563,006,776")),
            _nvfp4("Inferact/Qwen3.8-27B-NVFP4", 26_381_249_312, _DISK_27B.format("26,381,249,312")),
        ),
        source="the shapes of Qwen3.5-27B, whose sum meets the published size within 0.001 %",
        since=_SINCE_35,
    ),
    Family(
        name="qwen3.6-35b",
        aliases=("qwen3.6-35b-a3b", "qwen3.6"),
        parameters=35_951_822_704,
        config=_hybrid(2048, 40, 16, 2, 32, experts=(256, 8, 512)),
        checkpoints=(_fp8("Qwen/Qwen3.6-35B-A3B-FP8"), _plain("Qwen/Qwen3.6-35B-A3B")),
        source=_SHAPES,
        since=_SINCE_35,
    ),
    Family(
        name="qwen3.6-27b",
        parameters=27_781_427_952,
        config=_27B,
        checkpoints=(
            _fp8("Qwen/Qwen3.6-27B-FP8"),
            _plain("Qwen/Qwen3.6-27B"),
            _gptq("Qwen/Qwen3.6-27B-GPTQ-Int4"),
        ),
        source=_SHAPES,
        since=_SINCE_35,
    ),
    Family(
        name="qwen3.5-397b",
        aliases=("qwen3.5-397b-a17b", "qwen3.5"),
        parameters=403_397_928_944,
        config=_hybrid(4096, 60, 32, 2, 64, experts=(512, 10, 1024)),
        checkpoints=(
            _fp8("Qwen/Qwen3.5-397B-A17B-FP8"),
            _plain("Qwen/Qwen3.5-397B-A17B"),
            _gptq("Qwen/Qwen3.5-397B-A17B-GPTQ-Int4"),
            _nvfp4("nvidia/Qwen3.5-397B-A17B-NVFP4"),
        ),
        source=_SHAPES,
        since=_SINCE_35,
    ),
    Family(
        name="qwen3.5-122b",
        aliases=("qwen3.5-122b-a10b",),
        parameters=125_086_497_008,
        config=_hybrid(3072, 48, 32, 2, 64, experts=(256, 8, 1024)),
        checkpoints=(
            _fp8("Qwen/Qwen3.5-122B-A10B-FP8"),
            _plain("Qwen/Qwen3.5-122B-A10B"),
            _nvfp4("nvidia/Qwen3.5-122B-A10B-NVFP4"),
        ),
        source=_SHAPES,
        since=_SINCE_35,
    ),
    Family(
        name="qwen3.5-35b",
        aliases=("qwen3.5-35b-a3b",),
        parameters=35_951_822_704,
        config=_hybrid(2048, 40, 16, 2, 32, experts=(256, 8, 512)),
        checkpoints=(_fp8("Qwen/Qwen3.5-35B-A3B-FP8"), _plain("Qwen/Qwen3.5-35B-A3B")),
        source=_SHAPES,
        since=_SINCE_35,
    ),
    Family(
        name="qwen3.5-27b",
        parameters=27_781_427_952,
        config=_27B,
        checkpoints=(_fp8("Qwen/Qwen3.5-27B-FP8"), _plain("Qwen/Qwen3.5-27B")),
        source=_SHAPES,
        since=_SINCE_35,
    ),
)

QWEN3_VL = tuple(
    Family(
        name=name,
        aliases=(alias,),
        parameters=parameters,
        config={
            "architectures": ["Qwen3VLMoeForConditionalGeneration"],
            "tie_word_embeddings": False,
            "text_config": config,
            "vision_config": {
                **_VISION,
                "deepstack_visual_indexes": [8, 16, 24],
                "out_hidden_size": config["hidden_size"],
            },
        },
        checkpoints=(_fp8(f"{repository}-FP8"), _plain(repository)),
        source=_SHAPES,
        since=_SINCE_NEXT,
    )
    for name, alias, parameters, config, repository in (
        (
            "qwen3-vl-235b",
            "qwen3-vl-235b-a22b-instruct",
            235_670_022_896,
            _moe(4096, 94, 64, 4, experts=128, active=8, width=1536),
            "Qwen/Qwen3-VL-235B-A22B-Instruct",
        ),
        ("qwen3-vl-30b", "qwen3-vl-30b-a3b-instruct", 31_070_754_032, _THIRTY, "Qwen/Qwen3-VL-30B-A3B-Instruct"),
    )
)

QWEN: tuple[Family, ...] = (
    QWEN3_235B,
    QWEN3_235B_THINKING,
    QWEN3_235B_HYBRID,
    QWEN3_CODER_480B,
    *QWEN3_30B,
    *QWEN3_NEXT,
    *QWEN3_DENSE,
    *QWEN3_4B_2507,
    *QWEN3_5,
    *QWEN3_VL,
)
