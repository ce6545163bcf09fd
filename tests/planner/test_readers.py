"""Model figures from the files that models come with."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.app.planning import request_of
from qiao.errors import ConfigurationError
from qiao.hardware import model_files
from qiao.planner.choose import plan
from qiao.planner.config_reader import read_config
from qiao.planner.gguf import read_gguf
from qiao.planner.machine import GIB, Machine, Node, System
from qiao.planner.plan import Goal, Plan, Refusal
from qiao.planner.request import Request
from qiao.planner.weights import summed_bytes
from tests.planner.cases import made, request

# The published file of Qwen3-235B-A22B-FP8, without what nothing reads.
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "num_key_value_heads": 4,
    "rope_scaling": None,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
}


def changed(**fields: Any) -> bytes:
    return json.dumps({**CONFIG, **fields}).encode()


def test_a_config_gives_what_the_catalogue_has() -> None:
    facts = read_config(changed(), "here")
    theirs = request(gpus="1xH100", model="Qwen/Qwen3-235B-A22B-FP8").models[0]
    assert summed_bytes(facts) == summed_bytes(theirs)
    assert facts.quantisation == theirs.quantisation
    assert facts.attention == theirs.attention
    assert facts.experts == theirs.experts


def test_the_index_is_truer_than_the_sum() -> None:
    facts = read_config(changed(), "here", index=b'{"metadata": {"total_size": 236000000000}, "weight_map": {}}')
    assert facts.published_bytes == 236_000_000_000
    assert read_config(changed(), "here", index=b'{"metadata": {}}').published_bytes is None


@pytest.mark.parametrize(
    ("stored", "precision", "bits"),
    [
        (None, "bf16", 16),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8),
        ({"quant_method": "fp8"}, "fp8", 8),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", 4),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "int8", 8),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "int4", 4),
        ({"quant_method": "mxfp4"}, "fp4", 4),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4", 4),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8", 8),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
            },
            "int4",
            4,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
            8,
        ),
    ],
)
def test_stored_forms(stored: dict[str, Any] | None, precision: str, bits: int) -> None:
    facts = read_config(changed(quantization_config=stored), "here")
    assert (facts.quantisation.precision, facts.quantisation.bits) == (precision, bits)
    assert facts.quantisation.name


def test_formats_that_store_the_experts_alone() -> None:
    """As in the config.json of Kimi-K2.5: under `text_config`, and all but the experts ignored."""
    stored = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"],
    }
    outer = read_config(json.dumps({"text_config": CONFIG | {"quantization_config": stored}}).encode(), "here")
    assert outer.quantisation.only_experts
    assert outer.quantisation.group == 32
    everything = read_config(changed(quantization_config={**stored, "ignore": ["lm_head"]}), "here")
    assert summed_bytes(everything) < summed_bytes(outer)


@pytest.mark.parametrize(
    ("tokenizer", "is_needed"),
    [
        (b'{"auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", null]}}', True),
        (b'{"tokenizer_class": "Qwen2Tokenizer"}', False),
        (b'{"auto_map": {"AutoProcessor": "x"}}', False),
        (b"", False),
        (None, False),
    ],
)
def test_a_tokenizer_that_is_code(tokenizer: bytes | None, is_needed: bool) -> None:
    assert bool(read_config(changed(), "here", tokenizer=tokenizer).remote_code) is is_needed


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"index_topk": 2048}, "sparse attention"),
        ({"ssm_state_size": 128}, "Mamba"),
        ({"layer_types": ["full_attention", "moebius"]}, "moebius"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "modelopt"}}, "bits"),
    ],
)
def test_what_cannot_be_summed_is_refused_by_name(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        read_config(changed(**fields), "here")


@pytest.mark.parametrize("data", [b"", b"[]", b"nothing", b"{", b"\xff\xfe", b"null", b"3"])
def test_what_is_no_config(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        read_config(data, "here")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(CONFIG)), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), _JSON, max_size=4))
def test_garbage_in_a_config_is_an_error_of_ours(fields: dict[str, Any]) -> None:
    try:
        facts = read_config(changed(**fields), "here")
    except ConfigurationError:
        return
    assert summed_bytes(facts) > 0


# GGUF


def gguf(pairs: dict[str, tuple[int, Any]]) -> bytes:
    """A header with these keys; values as (type, value)."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def one(kind: int, value: Any) -> bytes:
        if kind == 8:
            return text(value)
        if kind == 9 and isinstance(value[0], int):
            return struct.pack("<IQ", 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
        if kind == 9:
            return struct.pack("<IQ", 8, len(value)) + b"".join(map(text, value))
        return struct.pack("<" + {4: "I", 6: "f", 10: "Q"}[kind], value)

    body = b"".join(text(key) + struct.pack("<I", kind) + one(kind, value) for key, (kind, value) in pairs.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body


HEADER = {
    "general.architecture": (8, "qwen3moe"),
    "qwen3moe.block_count": (4, 48),
    "qwen3moe.context_length": (4, 262144),
    "qwen3moe.embedding_length": (4, 2048),
    "qwen3moe.attention.head_count": (4, 32),
    "qwen3moe.attention.head_count_kv": (4, 4),
    "qwen3moe.attention.key_length": (4, 128),
    "qwen3moe.expert_count": (4, 128),
    "qwen3moe.expert_used_count": (4, 8),
    "qwen3moe.expert_feed_forward_length": (4, 768),
    "qwen3moe.rope.freq_base": (6, 1e7),
    "tokenizer.ggml.tokens": (9, ["a", "b", "c"] * 400),
}


def test_a_gguf_header() -> None:
    facts = read_gguf(io.BytesIO(gguf(HEADER)), 18_000_000_000, "model.gguf")
    assert (facts.layers, facts.window, facts.vocabulary) == (48, 262144, 1200)
    assert facts.attention.key_value_heads == 4
    assert facts.experts is not None
    assert facts.experts.count == 128
    assert facts.published_bytes == 18_000_000_000


def test_a_header_that_is_cut_is_refused() -> None:
    whole = gguf(HEADER)
    for end in (10, 30, 100, len(whole) - 1):
        with pytest.raises(ConfigurationError, match="ends too early"):
            read_gguf(io.BytesIO(whole[:end]), 1, "model.gguf")


@given(st.binary(max_size=200))
def test_garbage_is_no_gguf(data: bytes) -> None:
    for start in (b"", b"GGUF\x03\x00\x00\x00"):
        with pytest.raises(ConfigurationError):
            read_gguf(io.BytesIO(start + data), 1, "model.gguf")


# Files


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(changed(max_position_embeddings=262144))
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"\0" * 1000)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"\0" * 500)
    facts = model_files.read(str(tmp_path))
    assert facts.published_bytes == 1500
    assert facts.is_local
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 236416915456}}')
    facts = model_files.read(str(tmp_path))
    assert facts.published_bytes == 236416915456
    theirs = request(gpus="4xH20-96G")
    outcome = made_with(theirs, facts)
    assert isinstance(outcome, Plan)
    assert outcome.arguments[0] == str(tmp_path.resolve())
    assert outcome.environment["HF_HUB_OFFLINE"] == "1"


def made_with(asked: Request, facts: Any) -> Any:
    return plan(Request(machine=asked.machine, models=(facts,), goal=asked.goal, wanted=facts.repository))


def test_a_gguf_file_is_for_the_other_engine(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(HEADER) + b"\0" * 100)
    facts = model_files.read(str(path))
    outcome = made_with(request(gpus="1xH100"), facts)
    assert isinstance(outcome, Refusal)
    (near, _) = outcome.nearest
    assert near.command == f"qiao up --gguf {path.resolve()}"
    # 48 layers x 4 heads x 128 numbers x 2 (keys, values) x 2 bytes x 32,768 tokens
    assert "0.0 GiB of weights and 3.0 GiB for 32,768 tokens" in near.text
    here = Machine(nodes=(Node(system=System(free_memory=2 * GIB)),))
    outcome = plan(Request(machine=here, models=(facts,), goal=Goal(), wanted="model.gguf"))
    assert isinstance(outcome, Refusal)
    assert "llama.cpp's format" in outcome.message, "also where there is no GPU"
    assert outcome.nearest[0].text.endswith("2.0 GiB of memory are free here, which is not enough)")


def test_numbers_by_layer_count_by_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(HEADER | {"qwen3moe.attention.head_count_kv": (9, [1, 4, 2])}))
    assert model_files.read(str(path)).attention.key_value_heads == 4


@pytest.mark.parametrize("make", ["nothing", "empty folder", "cut"])
def test_what_is_no_model(tmp_path: Path, make: str) -> None:
    path = tmp_path / "model.gguf"
    match make:
        case "cut":
            path.write_bytes(gguf(HEADER)[:50])
        case "empty folder":
            path = tmp_path / "folder"
            path.mkdir()
    with pytest.raises(ConfigurationError) as caught:
        model_files.read(str(path))
    assert caught.value.hint


QWEN3_TEMPLATE = '{%- if tools %}<tool_call>\\n{"name": <function-name>, "arguments": <args>}\\n</tool_call>{% endif %}'
CODER_TEMPLATE = "{%- if tools %}<tool_call>\\n<function=example>\\n<parameter=a>{%- endif %}"


def in_folder(folder: Path, config: dict[str, Any], files: dict[str, str]) -> Plan:
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(changed(max_position_embeddings=262144, **config))
    for name, text in files.items():
        (folder / name).write_text(text)
    outcome = plan(request_of(model=str(folder), gpus="8xH100-80G"))
    assert isinstance(outcome, Plan)
    return outcome


@pytest.mark.parametrize(
    ("folder", "parser", "served"),
    [
        (
            "models--Qwen--Qwen3-30B-A3B-Instruct-2507/snapshots/0d7cf23991f47feeb3a57ecb4c9cee8ea4a1",
            "hermes",
            "qwen3-30b",
        ),
        ("models--Qwen--Qwen3-Coder-30B-A3B-Instruct/snapshots/main", "qwen3_coder", "qwen3-coder-30b"),
        ("models/Qwen/Qwen3___5-35B-A3B", "qwen3_coder", "qwen3.5-35b"),
    ],
)
def test_a_cache_of_downloads_tells_the_model(tmp_path: Path, folder: str, parser: str, served: str) -> None:
    made_plan = in_folder(tmp_path / folder, {}, {})
    assert (made_plan.tool_parser, made_plan.served_name) == (parser, served)


@pytest.mark.parametrize(
    ("config", "files", "parser", "served"),
    [
        ({"_name_or_path": "Qwen/Qwen3-Coder-30B-A3B-Instruct"}, {}, "qwen3_coder", "qwen3-coder-30b"),
        ({"_name_or_path": "/data/checkpoint-100"}, {"chat_template.jinja": CODER_TEMPLATE}, "qwen3_coder", "m"),
        ({}, {"chat_template.jinja": QWEN3_TEMPLATE}, "hermes", "m"),
        ({}, {"tokenizer_config.json": json.dumps({"chat_template": CODER_TEMPLATE})}, "qwen3_coder", "m"),
        (
            {},
            {"tokenizer_config.json": json.dumps({"chat_template": [{"name": "default", "template": QWEN3_TEMPLATE}]})},
            "hermes",
            "m",
        ),
        ({}, {"chat_template.jinja": "{{ messages }}"}, None, "m"),
        ({}, {}, "hermes", "m"),
        ({"architectures": ["MysteryForCausalLM"]}, {}, None, "m"),
    ],
)
def test_a_folder_without_a_telling_name(
    tmp_path: Path, config: dict[str, Any], files: dict[str, str], parser: str | None, served: str
) -> None:
    made_plan = in_folder(tmp_path / "m", config, files)
    assert (made_plan.tool_parser, made_plan.served_name) == (parser, served)
    warned = {each.code for each in made_plan.warnings}
    assert ("no_tool_parser" in warned) is (parser is None)
    assert ("guessed_tool_parser" in warned) is (parser is not None and not config and not files)


def test_a_folder_that_only_has_a_models_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `qiao export shell --out qwen3-235b` makes it."""
    monkeypatch.chdir(tmp_path)
    for name in ("qwen3-235b", "Qwen/Qwen3-8B"):
        Path(name).mkdir(parents=True)
        assert request_of(model=name, gpus="8xH100-80G").models[0].is_local is False
        (Path(name) / "config.json").write_bytes(changed())
        assert request_of(model=name, gpus="8xH100-80G").models[0].is_local is True
    Path("qwen3-32b").write_text("a file")
    assert not model_files.is_local("qwen3-32b")
    Path("model.gguf").write_bytes(gguf(HEADER))
    assert model_files.is_local("model.gguf")


def test_names_and_paths_are_told_apart(tmp_path: Path) -> None:
    assert model_files.is_local(str(tmp_path))
    assert model_files.is_local("./not-there")
    assert not model_files.is_local("Qwen/Qwen3-8B")
    assert not model_files.is_local("qwen3-235b")
    assert isinstance(made(gpus="1xH100", model="qwen3-8b"), Plan)
