"""Logs, start scripts and configurations, whole; those of the usual guide among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qiao.doctor.check_log import of_file
from qiao.doctor.finding import Finding
from qiao.exports import litellm as litellm_export
from qiao.policies import log_reading

FOLDER = Path(__file__).parent.parent / "golden" / "log_hints"


def read(name: str) -> list[Finding]:
    return of_file(name, (FOLDER / name).read_text("utf-8"))


def names(found: list[Finding]) -> list[str]:
    return [finding.check for finding in found]


def test_a_healthy_start() -> None:
    text = (FOLDER / "quiet_vllm.log").read_text("utf-8").replace('" 400 Bad Request', '" 200 OK')
    (found,) = of_file("vllm.log", text)
    assert (found.check, found.grade) == ("log_quiet", "ok")
    assert "vLLM 0.32.0" in found.evidence


def test_the_cause_is_told_and_not_its_echoes() -> None:
    found = read("vllm_out_of_memory.log")
    assert names(found)[0] == "log_line.out_of_memory"
    assert found[0].about == "vllm_out_of_memory.log:8"
    assert "(2 times)" in found[0].evidence
    assert "GPU 1 has a total capacity" in found[0].evidence
    assert "log_line.start_failed" not in names(found)
    assert "token_details_off" in names(found)


def test_a_restart_begins_anew() -> None:
    failed = (FOLDER / "vllm_out_of_memory.log").read_text("utf-8")
    healthy = (FOLDER / "quiet_vllm.log").read_text("utf-8")
    reading = log_reading.read((failed + "(APIServer pid=1) ERROR nothing known\n" + healthy).splitlines())
    assert reading.version == "0.32.0"
    # Nothing is wrong since, so what was wrong before is still told.
    assert reading.lines[0].hint.name == "out_of_memory"
    both = log_reading.read((failed + healthy + "OSError: [Errno 28] No space left on device\n").splitlines())
    assert [line.hint.name for line in both.lines] == ["disk_full"]


@pytest.mark.parametrize(
    ("phrase", "check"),
    [
        ("context length exceeded", "log_line.context_exceeded"),
        ("Invalid tool_choice", "log_line.tool_choice_refused"),
    ],
)
def test_what_the_original_guide_says_to_look_for(phrase: str, check: str) -> None:
    (found,) = of_file("vllm.log", f"ERROR 11-22 10:00:00 [serving_chat.py:200] {phrase}\n")
    assert (found.check, found.grade) == (check, "problem")


def test_the_original_guides_400_without_a_reason() -> None:
    (found,) = of_file("vllm.log", 'INFO:     127.0.0.1:40112 - "POST /v1/chat/completions HTTP/1.1" 400 Bad Request\n')
    assert (found.check, found.grade) == ("log_requests", "warning")


def test_a_warning_does_not_stand_before_the_cause() -> None:
    warned = "WARNING 11-22 10:00:00 [a.py:1] PermissionError: [Errno 13] Permission denied: '/x/usage_stats.json'\n"
    reading = log_reading.read(f"{warned}torch.OutOfMemoryError: CUDA out of memory.\n".splitlines())
    assert [(line.hint.name, line.hint.severity) for line in reading.lines] == [
        ("out_of_memory", "fatal"),
        ("permission", "warning"),
    ]


def test_what_was_a_warning_first_is_told_by_the_line_that_ended_it() -> None:
    log = (
        "WARNING 11-22 10:00:00 [a.py:1] OSError: [Errno 28] No space left on device: '/a'\n"
        "OSError: [Errno 28] No space left on device: '/b'\n"
    )
    (line,) = log_reading.read(log.splitlines()).lines
    assert (line.number, line.times, line.hint.severity) == (2, 2, "fatal")


def test_litellm_with_the_guides_key() -> None:
    found = read("litellm_sample_key.log")
    assert names(found) == ["log_line.litellm_master_key"]
    assert "LITELLM_MASTER_KEY" in (found[0].mend or "")


def test_litellm_with_the_guides_prefix() -> None:
    found = read("litellm_openai_prefix.log")
    assert names(found)[0] == "log_line.litellm_responses_api"
    assert "hosted_vllm/" in (found[0].mend or "")


def test_the_guides_litellm_configuration() -> None:
    found = read("guide_litellm_config.yaml")
    assert [(each.check, each.about.rpartition(":")[2]) for each in found] == [
        ("litellm_config.openai_prefix", "4"),
        ("litellm_config.drop_params_section", "7"),
        ("litellm_config.sample_key", "10"),
        ("litellm_config.drop_params_section", "11"),
    ]
    assert all(each.grade == "problem" and each.mend for each in found)


def test_our_own_litellm_configuration_is_well() -> None:
    good = (
        "model_list:\n  - model_name: qwen3-235b\n    litellm_params:\n      model: anthropic/qwen3-235b\n"
        "litellm_settings:\n  drop_params: true\ngeneral_settings:\n  master_key: os.environ/LITELLM_MASTER_KEY\n"
    )
    assert litellm_export.__doc__
    assert [(each.check, each.grade) for each in of_file("litellm_config.yaml", good)] == [("litellm_config", "ok")]


def test_the_guides_start_script() -> None:
    found = read("guide_start_vllm.ps1")
    assert {"start_script.mixed_continuation", "start_script.no_such_repository"} <= set(names(found))
    assert all(each.mend for each in found)


def test_a_start_script_without_traps() -> None:
    good = "vllm serve Qwen/Qwen3-235B-A22B-Instruct-2507-FP8 --tensor-parallel-size 4 --max-model-len 131072 \\\n"
    good += "  --enable-auto-tool-choice --tool-call-parser hermes --enable-prompt-tokens-details\n"
    assert [(each.check, each.grade) for each in of_file("start.sh", good)] == [("start_script", "ok")]


ARGUMENTS = (
    "INFO 11-22 10:25:17 [api_server.py:1] vLLM API server version 0.32.0\n"
    "INFO 11-22 10:25:17 [utils.py:1] non-default args: {%s}\n"
)
GOOD = (
    "'model': 'Qwen/Qwen3-235B-A22B-Instruct-2507', 'enable_auto_tool_choice': True, 'tool_call_parser': 'hermes', "
    "'enable_prompt_tokens_details': True"
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (GOOD, ["log_quiet"]),
        ("'model': 'Qwen/Qwen3-235B-A22B-Instruct-2507', 'enable_prompt_tokens_details': True", ["parser_missing"]),
        (GOOD.replace("hermes", "qwen3_coder"), ["parser_wrong"]),
        (f"{GOOD}, 'reasoning_parser': 'qwen3'", ["reasoning_swallows_text"]),
        (f"{GOOD}, 'enable_prefix_caching': False", ["prefix_caching_off"]),
        (GOOD.removesuffix(", 'enable_prompt_tokens_details': True"), ["token_details_off"]),
        (f"{GOOD}, 'compilation_config': <Config object>", ["log_quiet"]),
    ],
)
def test_the_options_in_a_log(arguments: str, expected: list[str]) -> None:
    assert names(of_file("vllm.log", ARGUMENTS % arguments)) == expected


def test_the_window_and_the_hit_rate_in_a_log() -> None:
    log = ARGUMENTS % GOOD
    log += "INFO 11-22 10:26:25 [kv_cache_utils.py:1] Maximum concurrency for 8,192 tokens per request: 51.20x\n"
    log += "INFO 11-22 11:24:58 [loggers.py:335] Engine 000: Running: 1 reqs, Prefix cache hit rate: 2.3%\n"
    assert names(of_file("vllm.log", log)) == ["window_too_small", "prefix_caching_off"]


def test_refusals_without_a_reason() -> None:
    log = 'INFO:     127.0.0.1:1 - "POST /v1/chat/completions HTTP/1.1" 400 Bad Request\n' * 3
    (found,) = of_file("vllm.log", log)
    assert (found.check, found.grade) == ("log_requests", "warning")
    assert "3 × /v1/chat/completions 400" in found.evidence


@pytest.mark.parametrize("text", ["", "\n\n", "\x00\xff", "model_list:", "{" * 5_000])
def test_any_file_is_read(text: str) -> None:
    assert of_file("x", text)


@pytest.mark.parametrize(
    "script",
    [
        "pip install vllm>=0.7.0\n",
        "vllm \\\n  serve Qwen/Qwen3-235B-A22B-Instruct\n",
        "vllm serve Qwen/Qwen3-8B -q fp8\n",
    ],
)
def test_start_scripts_are_told_from_logs(script: str) -> None:
    found = of_file("start.sh", script)
    assert "problem" in {each.grade for each in found}
    assert all(name.startswith("start_script.") for name in names(found))
