"""Models of other makers. How to read an entry: see `family`; where its figures come from: `source`."""

from __future__ import annotations

from typing import Any

from qiao.planner.family import Checkpoint, Family
from qiao.planner.quantisation import AWQ, FP8_BLOCKS, GPTQ, MXFP4, Quantisation

_SHAPES = "config.json (aiconfigurator, git 2026-08-21)"
_GLM_SHAPES = "THUDM/slime, scripts/models/glm4.5-*.sh; window and names: vllm-project/recipes, models/zai-org"
_QWEN_SHAPES = "model card; config.json of Qwen2.5 (ModelScope and Hugging Face), sum of the shapes as published"

FP8_CHANNELS = Quantisation(method="compressed-tensors", precision="fp8", bits=8)
# 4-bit experts in groups of 32; everything else stays BF16 (the `ignore` list of Kimi-K2.5's config.json).
_INT4_EXPERTS = Quantisation(method="compressed-tensors", precision="int4", group=32, bits=4, only_experts=True)

_KIMI_CODE = (
    "its tokenizer is code that comes with the model (vllm-project/recipes#116: without the flag it does not start)"
)


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


def _glm(hidden: int, layers: int, dense: int, width: int, experts: int, inner: int, window: int) -> dict[str, Any]:
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "attention_bias": True,
        "head_dim": 128,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "intermediate_size": width,
        "first_k_dense_replace": dense,
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": inner,
        "num_nextn_predict_layers": 1,
        "vocab_size": 151552,
        "tie_word_embeddings": False,
        "max_position_embeddings": window,
    }


# Without the embedding and the head that the draft layer of GLM-4.5 and GLM-4.5-Air repeats.
_GLM, _GLM_AIR = 356_785_898_368, 109_227_310_848


def _glm_family(name: str, title: str, parameters: int, config: dict[str, Any]) -> Family:
    return Family(
        name=name,
        parameters=parameters,
        config=config,
        checkpoints=(
            Checkpoint(repository=f"zai-org/{title}", source="vllm-project/recipes, GLM/GLM.md"),
            Checkpoint(
                repository=f"zai-org/{title}-FP8", quantisation=FP8_CHANNELS, source="vllm-project/recipes, GLM/GLM.md"
            ),
        ),
        source=_GLM_SHAPES,
        since=((0, 11), "vLLM 0.11.2, models/registry.py"),
    )


def _qwen2(hidden: int, layers: int, heads: int, key_values: int, width: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_values,
        "intermediate_size": width,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    }


def _qwen2_family(name: str, title: str, parameters: int, config: dict[str, Any]) -> Family:
    return Family(
        name=name,
        parameters=parameters,
        config=config,
        checkpoints=(
            Checkpoint(repository=f"Qwen/{title}", source="model card"),
            Checkpoint(repository=f"Qwen/{title}-AWQ", quantisation=AWQ, source="model card"),
            Checkpoint(repository=f"Qwen/{title}-GPTQ-Int4", quantisation=GPTQ, source="model card"),
        ),
        source=_QWEN_SHAPES,
    )


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
        remote_code=_KIMI_CODE,
        source=_SHAPES,
    ),
    Family(
        name="kimi-k2-thinking",
        parameters=1_026_400_000_000,
        config=_latent(64, 384, 1, 163840, 262144, 0),
        checkpoints=(
            Checkpoint(
                repository="moonshotai/Kimi-K2-Thinking",
                quantisation=_INT4_EXPERTS,
                source="vllm-project/recipes, moonshotai/Kimi-K2-Think.md: INT4, 600 GB; groups as in Kimi-K2.5",
            ),
        ),
        remote_code=_KIMI_CODE,
        source="config.json of Kimi-K2-Instruct (aiconfigurator), the same shapes; window: vllm-project/recipes",
        since=((0, 12), "vllm-project/recipes, models/moonshotai/Kimi-K2-Thinking.yaml"),
    ),
    _glm_family("glm-4.7", "GLM-4.7", _GLM, _glm(5120, 92, 3, 12288, 160, 1536, 202752)),
    _glm_family("glm-4.6", "GLM-4.6", _GLM, _glm(5120, 92, 3, 12288, 160, 1536, 202752)),
    _glm_family("glm-4.5", "GLM-4.5", _GLM, _glm(5120, 92, 3, 12288, 160, 1536, 131072)),
    _glm_family("glm-4.5-air", "GLM-4.5-Air", _GLM_AIR, _glm(4096, 46, 1, 10944, 128, 1408, 131072)),
    _qwen2_family("qwen2.5-72b", "Qwen2.5-72B-Instruct", 72_706_203_648, _qwen2(8192, 80, 64, 8, 29568)),
    _qwen2_family("qwen2.5-coder-32b", "Qwen2.5-Coder-32B-Instruct", 32_763_876_352, _qwen2(5120, 64, 40, 8, 27648)),
    _qwen2_family("qwen2.5-7b", "Qwen2.5-7B-Instruct", 7_615_616_512, _qwen2(3584, 28, 28, 4, 18944)),
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
