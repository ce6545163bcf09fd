"""The traps that a plan knows, one test each, each with where it was seen.

What is only arithmetic stands in tests/golden/plans; here is what a plan decides, warns of or finds in a script.
"""

from __future__ import annotations

import itertools

import msgspec
import pytest

from qiao.planner import specification
from qiao.planner.choose import plan
from qiao.planner.explain import as_json
from qiao.planner.machine import Machine, Node
from qiao.planner.plan import Plan, Refusal
from qiao.planner.review import review
from qiao.profiles.claude_code import USEFUL_WINDOW
from tests.planner.cases import a_plan, made, request

# A script with the mistakes of the guide that people follow today.
GUIDE = """\
# Windows/WSL
python -m vllm.entrypoints.openai.api_server `
    --model Qwen/Qwen3-235B-A22B-Instruct `
    --trust-remote-code `
    --tensor-parallel-size 4 `
    --max-model-len 32768 \\
    --enable-auto-tool-choice \\
    --tool-call-parser hermes `
    --quantization fp8 \\
    --port 8000
"""


def codes(script: str) -> set[str]:
    return {fault.code for fault in review(script)}


def reason(plan: Plan, about: str) -> str:
    return next(each.text for each in plan.reasons if each.about == about)


def test_the_repository_without_2507_does_not_exist() -> None:
    plan = a_plan(gpus="4xH20-96G", model="Qwen/Qwen3-235B-A22B-Instruct")
    assert plan.model.repository == "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
    assert any("does not exist" in warning.text for warning in plan.warnings)


def test_the_fp8_repository_instead_of_online_quantisation() -> None:
    plan = a_plan(gpus="4xH20-96G")
    assert plan.model.repository.endswith("-FP8")
    assert "--quantization" not in plan.arguments
    assert "437.9" in reason(plan, "model")  # GiB that online quantisation would read: 470 GB
    assert as_json(plan)["memory"]["weights_bytes_bf16"] == 470_187_269_120


def test_naming_the_bf16_repository_says_so() -> None:
    plan = a_plan(gpus="8xH200", model="Qwen/Qwen3-235B-A22B-Instruct-2507")
    assert plan.model.quantisation.precision == "bf16"
    assert any("-2507-FP8" in warning.text for warning in plan.warnings)


@pytest.mark.parametrize("version", ["0.24", "0.33"])
def test_tensor_parallel_8_of_fp8_needs_expert_parallel(version: str) -> None:
    """vllm#17569."""
    plan = a_plan(gpus="8xH100", model="Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", vllm_version=version)
    assert plan.division.tensor == plan.division.expert == 8
    assert "--enable-expert-parallel" in plan.arguments
    assert "192" in reason(plan, "--enable-expert-parallel")


def test_tensor_parallel_4_does_not() -> None:
    plan = a_plan(gpus="4xH20-96G", model="Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", vllm_version="0.24")
    assert "--enable-expert-parallel" not in plan.arguments


def test_four_bit_experts_are_dealt_whole_where_the_fast_kernel_wants_it() -> None:
    plan = a_plan(gpus="8x4090-24G")
    assert plan.model.quantisation.method == "awq"
    assert plan.division.expert == 8
    assert "Marlin" in reason(plan, "--enable-expert-parallel")


def test_a_shared_expert_that_cannot_be_cut_limits_tensor_parallel() -> None:
    plan = a_plan(gpus="8xH100", model="Qwen/Qwen3-Next-80B-A3B-Instruct-FP8")
    assert plan.division.tensor == 4


def test_more_gpus_than_key_value_heads_keep_copies() -> None:
    plan = a_plan(gpus="8xH100")
    found = as_json(plan)["memory"]
    assert found["kv_replication"] == 2
    assert found["kv_bytes_per_token_per_gpu"] == found["kv_bytes_per_token_total"] // 4
    assert any("4 key-value heads" in warning.text for warning in plan.warnings)


def test_a100_has_no_fp8_arithmetic() -> None:
    plan = a_plan(gpus="4xA100-80G")
    assert plan.model.quantisation.precision == "fp8"
    assert any("Marlin" in warning.text for warning in plan.warnings)
    assert not any("Marlin" in warning.text for warning in a_plan(gpus="4xH20-96G").warnings)


@pytest.mark.parametrize(
    ("gpus", "name", "needed"),
    [
        ("8xV100-32G", "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "7.5"),
        ("8xV100-32G", "Qwen/Qwen3-32B-AWQ", "7.5"),
        ("8xV100-32G", "Qwen/Qwen3-30B-A3B-GPTQ-Int4", "7.5"),
        ("8xV100-32G", "gpt-oss-20b", "8.0"),
        ("8xT4", "gpt-oss-20b", "8.0"),
    ],
)
def test_weights_that_no_kernel_multiplies_are_refused(gpus: str, name: str, needed: str) -> None:
    """vLLM 0.33: get_min_capability of fp8, auto_awq and mxfp4; verify_marlin_supported of auto_gptq."""
    refused = made(gpus=gpus, model=name)
    assert isinstance(refused, Refusal)
    assert "does not run on" in refused.message
    assert all(f"from compute capability {needed} on" in each.text for each in refused.reasons)
    assert refused.reasons
    assert refused.nearest


def test_an_old_gpu_gets_the_weights_that_it_multiplies() -> None:
    whole = a_plan(gpus="8xV100-32G", model="qwen3-30b")
    assert whole.model.quantisation.precision == "bf16"
    assert whole.arguments[whole.arguments.index("--dtype") + 1] == "half"
    # vLLM 0.16 still has a kernel for GPTQ alone.
    a_plan(gpus="8xV100-32G", model="Qwen/Qwen3-30B-A3B-GPTQ-Int4", vllm_version="0.16")
    a_plan(gpus="8xT4", model="Qwen/Qwen3-32B-AWQ")


def mixed(*gpus: str, name: str) -> Plan:
    """The plan for GPUs that differ, in one computer."""
    found = tuple(specification.gpus(each).gpus[0] for each in gpus)
    outcome = plan(
        msgspec.structs.replace(request(gpus=gpus[0], model=name), machine=Machine(nodes=(Node(gpus=found),)))
    )
    assert isinstance(outcome, Plan)
    return outcome


def test_gpus_that_differ_get_what_the_least_able_can_do() -> None:
    old = mixed("4090-24G", "V100-32G", name="qwen3-8b")
    assert old.arguments[old.arguments.index("--dtype") + 1] == "half"
    assert old.model.quantisation.precision == "bf16"
    for order in (("A100-80G", "H100-80G"), ("H100-80G", "A100-80G")):
        warned = " ".join(each.text for each in mixed(*order, name="Qwen/Qwen3-30B-A3B-Instruct-2507-FP8").warnings)
        assert "A100 has no FP8 arithmetic" in warned


def test_a100_prefers_bf16_where_it_fits() -> None:
    assert a_plan(gpus="8xA100-80G").model.quantisation.precision == "bf16"
    assert a_plan(gpus="8xH100-80G").model.quantisation.precision == "fp8"


def test_instruct_gets_hermes_and_no_reasoning_parser() -> None:
    plan = a_plan(gpus="4xH20-96G")
    assert plan.tool_parser == "hermes"
    assert plan.reasoning_parser is None
    assert "--reasoning-parser" not in plan.arguments
    assert "taken for reasoning" in reason(plan, "--reasoning-parser")


@pytest.mark.parametrize(("version", "parser"), [("0.16", "deepseek_r1"), ("0.24", "qwen3"), ("0.33", "qwen3")])
def test_thinking_gets_a_reasoning_parser_that_takes_its_template(version: str, parser: str) -> None:
    """vLLM 0.11.2 and 0.16.0: the parser qwen3 wants both tags, and the template writes the first one itself."""
    plan = a_plan(gpus="4xH20-96G", model="qwen3-235b-thinking", vllm_version=version)
    assert plan.reasoning_parser == parser


@pytest.mark.parametrize(
    ("name", "parser"),
    [
        ("qwen3-coder-30b", "qwen3_coder"),
        ("qwen3.8-27b", "qwen3_coder"),
        ("qwen3-30b", "hermes"),
        ("kimi-k2", "kimi_k2"),
    ],
)
def test_the_tool_parser_follows_the_family(name: str, parser: str) -> None:
    outcome = a_plan(gpus="8xB300", model=name)
    assert outcome.tool_parser == parser


def test_the_window_is_what_memory_allows() -> None:
    assert a_plan(gpus="4xH20-96G").window == 262_144
    small = a_plan(gpus="2xH100-80G")
    assert small.window < 262_144
    assert small.window % 1024 == 0
    assert "as many as the memory allows" in reason(small, "--max-model-len")


def _refused(name: str, window: int, **more: str) -> str:
    outcome = made(gpus="8xH100", model=name, window=window, **more)
    assert not isinstance(outcome, Plan)
    return outcome.message


def test_a_window_beyond_the_native_one_is_refused() -> None:
    for name, window in (("qwen3-32b", 262_144), ("qwen3-1.7b", 131_072), ("qwen3-235b", 300_000)):
        assert "was trained for" in _refused(name, window)
    assert "goes to 131,072 by YaRN" in _refused("qwen3-32b", 262_144)
    assert "with vLLM 0.24 and later" in _refused("qwen3-32b", 131_072, vllm_version="0.16")


@pytest.mark.parametrize(("window", "factor"), [(65_536, "2.0"), (65_537, "4.0"), (131_072, "4.0")])
def test_a_window_beyond_the_native_one_is_reached_by_yarn(window: int, factor: str) -> None:
    made_plan = a_plan(gpus="8xH100", model="qwen3-32b", window=window)
    words = made_plan.arguments
    told = {name: value for name, value in itertools.pairwise(words) if name.startswith("--hf-overrides.")}
    assert told["--hf-overrides.rope_parameters.factor"] == factor
    assert told["--hf-overrides.rope_parameters.rope_type"] == "yarn"
    assert int(told["--hf-overrides.max_position_embeddings"]) == 32_768 * float(factor) >= window
    assert "stretched_window" in {warning.code for warning in made_plan.warnings}
    assert "YaRN" in reason(made_plan, "--max-model-len")


def test_a_window_that_the_model_was_trained_for_is_not_stretched() -> None:
    for window in (None, 40_960):
        made_plan = a_plan(gpus="8xH100", model="qwen3-32b", window=window)
        assert made_plan.window == 40_960
        assert not [word for word in made_plan.arguments if word.startswith("--hf-overrides")]


def test_prefix_caching_and_token_details_are_on() -> None:
    for name in ("qwen3-235b", "qwen3.8-27b"):
        arguments = a_plan(gpus="8xH100", model=name).arguments
        assert "--enable-prefix-caching" in arguments
        assert "--enable-prompt-tokens-details" in arguments


def test_no_code_from_the_download_is_trusted() -> None:
    assert "--trust-remote-code" not in a_plan(gpus="4xH20-96G").arguments


def test_the_engine_listens_on_this_computer_only() -> None:
    arguments = a_plan(gpus="4xH20-96G").arguments
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"


def test_a_small_window_is_warned_of() -> None:
    plan = a_plan(gpus="1xH100", model="qwen3-32b", window=USEFUL_WINDOW - 1)
    assert "small_window" in {warning.code for warning in plan.warnings}
    plan = a_plan(gpus="1xH100", model="qwen3-32b", window=USEFUL_WINDOW)
    assert "small_window" not in {warning.code for warning in plan.warnings}


# Scripts that others wrote


def test_the_guides_script() -> None:
    assert codes(GUIDE) == {
        "mixed_continuation",
        "no_such_repository",
        "online_quantisation",
        "trust_remote_code",
        "small_window",
        "no_token_details",
    }
    mixed = [fault for fault in review(GUIDE) if fault.code == "mixed_continuation"]
    assert [fault.line for fault in mixed] == [6, 7, 9]
    assert all(fault.mend for fault in review(GUIDE))


def test_a_bash_script_with_a_backtick() -> None:
    faults = review("vllm serve Qwen/Qwen3-8B \\\n  --port 1 `\n  --max-model-len 40960 \\\n")
    assert next((fault.line, fault.code) for fault in faults) == (2, "mixed_continuation")


def test_wrong_parsers_are_found() -> None:
    script = "vllm serve Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8 --tool-call-parser hermes --reasoning-parser qwen3\n"
    assert {"wrong_tool_parser", "reasoning_parser_on_instruct"} <= codes(script)
    assert "no_tool_parser" in codes("vllm serve Qwen/Qwen3-235B-A22B-Instruct-2507-FP8 --tensor-parallel-size 4\n")


def test_a_window_beyond_the_native_one_is_found() -> None:
    assert "beyond_window" in codes("vllm serve Qwen/Qwen3-8B --max-model-len 131072\n")


def test_what_a_plan_writes_has_no_fault() -> None:
    for name in ("qwen3-235b", "qwen3-235b-thinking", "qwen3-coder-30b", "qwen3.8-27b"):
        plan = a_plan(gpus="8xH100", model=name)
        assert review(" ".join(plan.command)) == ()
    assert review(" ".join(a_plan(gpus="8xH100", model="qwen3-32b", window=131_072).command)) == ()


COMPLETE = "--enable-prompt-tokens-details --enable-auto-tool-choice --tool-call-parser hermes"
INSTRUCT = "Qwen/Qwen3-235B-A22B-Instruct-2507"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f"vllm serve \\\n  Qwen/Qwen3-235B-A22B-Instruct \\\n  {COMPLETE}", {2: "no_such_repository"}),
        (f"vllm serve {INSTRUCT} {COMPLETE} \\\n  --quantization \\\n  fp8", {2: "online_quantisation"}),
        (f"vllm serve {INSTRUCT} -tp 4 -q fp8 {COMPLETE}", {1: "online_quantisation"}),
        (f"vllm serve {INSTRUCT} {COMPLETE} \\\n --max_model_len 16384", {2: "small_window"}),
        (f"vllm serve {INSTRUCT} {COMPLETE} --max_model_len=16384", {1: "small_window"}),
        (f"vllm serve --port 8000 Qwen/Qwen3-235B-A22B-Instruct {COMPLETE}", {1: "no_such_repository"}),
        (f"vllm serve --enable-prefix-caching Qwen/Qwen3-235B-A22B-Instruct {COMPLETE}", {1: "no_such_repository"}),
        (f"vllm serve --api-key 'a b' \"Qwen/Qwen3-235B-A22B-Instruct\" {COMPLETE}", {1: "no_such_repository"}),
        (f"cd /x && /opt/bin/vllm serve Qwen/Qwen3-235B-A22B-Instruct {COMPLETE} &", {1: "no_such_repository"}),
        (f"vllm serve {INSTRUCT} {COMPLETE} --no-enable-prefix-caching", {1: "prefix_caching_off"}),
        (f"vllm serve {INSTRUCT}-FP8 {COMPLETE} \\\n  -tp 8", {2: "fp8_blocks"}),
        (f"vllm serve {INSTRUCT}-FP8 {COMPLETE} --tensor_parallel_size 4 -dp 2", {1: "fp8_blocks"}),
        (f"vllm serve {INSTRUCT}-FP8 {COMPLETE} -tp 8 -ep", {}),
        (f"vllm serve {INSTRUCT}-FP8 {COMPLETE} -tp 4", {}),
        (f"vllm serve {INSTRUCT} {COMPLETE} -tp 8", {}),
        (f"docker run vllm/vllm-openai:v0.11.2 --model {INSTRUCT}-FP8 {COMPLETE} -tp 8", {1: "fp8_blocks"}),
        (f"pip install vllm>=0.7.0\nvllm serve {INSTRUCT} {COMPLETE}", {1: "unquoted_version"}),
        (f"uv pip install -U vllm<1 --torch-backend=auto\nvllm serve {INSTRUCT} {COMPLETE}", {1: "unquoted_version"}),
        (f"pip install 'vllm>=0.7.0' \"x<2\" > log.txt\nvllm serve {INSTRUCT} {COMPLETE}", {}),
        (f"ExecStart=/bin/bash -c 'vllm serve {INSTRUCT}-FP8 {COMPLETE} -tp 8'", {1: "fp8_blocks"}),
        (f"wsl -- vllm serve {INSTRUCT}-FP8 {COMPLETE} -tp 8", {1: "fp8_blocks"}),
        (f"grep -q fp8 x; vllm serve {INSTRUCT} {COMPLETE}", {}),
    ],
)
def test_scripts_as_people_write_them(script: str, expected: dict[int, str]) -> None:
    assert {fault.line: fault.code for fault in review(script)} == expected


@pytest.mark.parametrize(
    "text",
    ["", "#", "--model", "'", '-tp "', "vllm serve -tp x -dp y", "vllm serve", "echo hello\n" * 3, "--max-model-len x"],
)
def test_any_script_can_be_read(text: str) -> None:
    assert isinstance(review(text), tuple)


def test_code_from_the_download_is_run_only_where_it_must_be() -> None:
    """vllm-project/recipes#116: the tokenizer of Kimi K2 is such code; nothing of Qwen3 is."""
    kimi = a_plan(gpus="8xH200", model="kimi-k2-thinking")
    assert "--trust-remote-code" in kimi.arguments
    assert "recipes#116" in reason(kimi, "--trust-remote-code")
    script = "vllm serve moonshotai/Kimi-K2-Thinking --trust-remote-code --tool-call-parser kimi_k2"
    assert "trust_remote_code" not in codes(script)
    qwen = a_plan(gpus="8xH200")
    assert "--trust-remote-code" not in qwen.arguments
    assert "left out" in reason(qwen, "--trust-remote-code")


@pytest.mark.parametrize(("version", "parser"), [("0.11.2", "glm45"), ("0.16", "glm47"), ("0.33", "glm47")])
def test_glm_47_has_a_parser_of_its_own(version: str, parser: str) -> None:
    """vllm-project/recipes, models/zai-org/GLM-4.7.yaml."""
    assert a_plan(gpus="8xH200", model="glm-4.7", vllm_version=version).tool_parser == parser
    assert a_plan(gpus="8xH200", model="glm-4.6", vllm_version=version).tool_parser == "glm45"
