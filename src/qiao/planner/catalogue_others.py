"""Models of other makers. How to read an entry: see `family`; where its figures come from: `source`."""

from __future__ import annotations

from typing import Any

from qiao.planner.family import Checkpoint, Family
from qiao.planner.quantisation import FP8_BLOCKS, MXFP4

_SHAPES = "config.json (aiconfigurator, git 2026-08-21)"


def _llama(hidden: int, layers: int, heads: int, width: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "intermediate_size": width,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    }


def _latent(heads: int, experts: int, dense_layers: int, vocabulary: int, window: int, draft: int) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": heads,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "first_k_dense_replace": dense_layers,
        "intermediate_size": 18432,
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "num_nextn_predict_layers": draft,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "max_position_embeddings": window,
    }


def _oss(layers: int, experts: int) -> dict[str, Any]:
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "head_dim": 64,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "vocab_size": 201088,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
    }


def _fp8(repository: str) -> tuple[Checkpoint, ...]:
    return (Checkpoint(repository=repository, quantisation=FP8_BLOCKS, source="published in FP8 only"),)


OTHERS: tuple[Family, ...] = (
    Family(
        name="gpt-oss-120b",
        parameters=116_829_156_672,
        config=_oss(36, 128),
        checkpoints=(
            Checkpoint(repository="openai/gpt-oss-120b", quantisation=MXFP4, source="published in MXFP4 only"),
        ),
        source=_SHAPES,
        since=((0, 11), "vLLM 0.11.2, models/registry.py"),
    ),
    Family(
        name="gpt-oss-20b",
        parameters=20_914_757_184,
        config=_oss(24, 32),
        checkpoints=(
            Checkpoint(repository="openai/gpt-oss-20b", quantisation=MXFP4, source="published in MXFP4 only"),
        ),
        source=_SHAPES,
        since=((0, 11), "vLLM 0.11.2, models/registry.py"),
    ),
    Family(
        name="deepseek-v3.1",
        parameters=684_500_000_000,
        config=_latent(128, 256, 3, 129280, 163840, 1),
        checkpoints=_fp8("deepseek-ai/DeepSeek-V3.1"),
        source=_SHAPES,
    ),
    Family(
        name="deepseek-r1",
        parameters=684_500_000_000,
        config=_latent(128, 256, 3, 129280, 163840, 1),
        checkpoints=_fp8("deepseek-ai/DeepSeek-R1-0528"),
        source=_SHAPES,
    ),
    Family(
        name="kimi-k2",
        parameters=1_026_400_000_000,
        config=_latent(64, 384, 1, 163840, 131072, 0),
        checkpoints=_fp8("moonshotai/Kimi-K2-Instruct"),
        source=_SHAPES,
    ),
    Family(
        name="llama-3.3-70b",
        parameters=70_553_706_496,
        config=_llama(8192, 80, 64, 28672),
        checkpoints=(Checkpoint(repository="meta-llama/Llama-3.3-70B-Instruct", source="model card"),),
        source="config.json of Llama 3.1 70B (aiconfigurator), the same shapes",
    ),
    Family(
        name="llama-3.1-8b",
        parameters=8_030_261_248,
        config=_llama(4096, 32, 32, 14336),
        checkpoints=(Checkpoint(repository="meta-llama/Llama-3.1-8B-Instruct", source="model card"),),
        source=_SHAPES,
    ),
)
