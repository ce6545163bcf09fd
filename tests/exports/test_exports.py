"""Exported files, read by the tools that will read them: bash, shellcheck and systemd where they are, YAML, parsers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qiao.errors import ConfigurationError
from qiao.exports import FORMATS, Format, Settings, render
from qiao.exports.stamp import is_ours, is_untouched, stamped
from qiao.exports.words import simple
from qiao.exports.yaml import document
from qiao.planner.choose import plan as planned
from qiao.planner.plan import Plan
from tests.exports import powershell
from tests.exports.manifests import check
from tests.planner.cases import a_plan, request

ONE = {"gpus": "8xH100"}
SEVERAL = {"nodes": "2x8xA100-40G", "preference": "quality"}
MULTI_NODE: tuple[Format, ...] = ("shell", "kubernetes", "ray", "litellm")


@pytest.fixture(scope="module")
def one() -> Plan:
    return a_plan(**ONE)


@pytest.fixture(scope="module")
def several() -> Plan:
    plan = a_plan(**SEVERAL)
    assert plan.nodes == 2
    return plan


def every(one: Plan, several: Plan) -> Iterator[tuple[str, str, str]]:
    for kind in FORMATS:
        for name, text in render(one, kind).items():
            yield kind, name, text
    for kind in MULTI_NODE:
        for name, text in render(several, kind).items():
            yield kind, name, text


def test_every_file_is_stamped_and_has_no_place_of_this_machine(one: Plan, several: Plan) -> None:
    for kind, name, text in every(one, several):
        assert is_untouched(text), f"{kind}: {name}"
        assert text.endswith("\n"), name
        assert "\t" not in text, name


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - set(MULTI_NODE)))
def test_formats_for_one_computer_refuse_several(kind: Any, several: Plan) -> None:
    with pytest.raises(ConfigurationError) as caught:
        render(several, kind)
    assert "kubernetes" in str(caught.value.hint)


def test_files_are_the_same_each_time(one: Plan) -> None:
    for kind in FORMATS:
        assert render(one, kind) == render(a_plan(**ONE), kind)


# shell


def scripts(one: Plan, several: Plan) -> Iterator[tuple[str, str]]:
    for kind, name, text in every(one, several):
        if name.endswith(".sh"):
            yield f"{kind} {name}", text


def test_bash_reads_the_scripts(one: Plan, several: Plan) -> None:
    seen = 0
    for name, text in scripts(one, several):
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        seen += 1
    assert seen >= 6


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(one: Plan, several: Plan) -> None:
    for name, text in scripts(one, several):
        done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout}"


def run_script(tmp_path: Path, files: dict[str, str], name: str, program: str, *words: str, **variables: str) -> str:
    """Run a script with a program of ours that prints its arguments and some variables."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    (tools / program).write_text(
        '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n'
        'printf "variable %s %s %s\\n" "$VLLM_ENGINE_READY_TIMEOUT_S" "$NCCL_SOCKET_IFNAME" "$GLOO_SOCKET_IFNAME"\n'
    )
    (tools / program).chmod(0o755)
    for each, text in files.items():
        (tmp_path / each).write_text(text)
    done = subprocess.run(
        ["bash", str(tmp_path / name), *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PATH": f"{tools}:/usr/bin:/bin", **variables},
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def test_the_engine_is_started_with_the_plans_words(one: Plan, tmp_path: Path) -> None:
    told = run_script(tmp_path, render(one, "shell"), "start_vllm.sh", "vllm", "--seed", "7 8").splitlines()
    assert told[0] == "0"
    words = told[1:-1]
    assert words[0] == "serve"
    assert words[-2:] == ["--seed", "7 8"]
    assert sorted(words[1:-2]) == sorted(one.arguments)
    assert told[-1] == "variable 3600  "


def test_settings_of_the_caller_win(one: Plan, tmp_path: Path) -> None:
    told = run_script(
        tmp_path, render(one, "shell"), "start_vllm.sh", "vllm", PORT="9", VLLM_ENGINE_READY_TIMEOUT_S="5"
    )
    assert "\n--port\n9\n" in told
    assert "variable 5 " in told


def test_without_the_program_the_mend_is_said(one: Plan, tmp_path: Path) -> None:
    files = render(one, "shell")
    for name, program in (("start_vllm.sh", "vllm"), ("start_gateway.sh", "qiao")):
        told = run_script(tmp_path, files, name, "other")
        assert told.startswith("127\n")
        assert f"{program} is not installed" in told


@pytest.mark.parametrize(("rank", "is_headless"), [("0", False), ("1", True)])
def test_each_computer_knows_its_number(several: Plan, tmp_path: Path, rank: str, is_headless: bool) -> None:
    told = run_script(
        tmp_path,
        render(several, "shell"),
        "start_vllm.sh",
        "vllm",
        NODE_RANK=rank,
        HEAD_ADDRESS="10.0.0.1",
        NCCL_SOCKET_IFNAME="eth7",
    )
    assert f"--node-rank\n{rank}\n--master-addr\n10.0.0.1" in told
    assert ("--headless" in told) is is_headless
    assert told.rstrip().endswith("eth7 eth7")


def test_a_computer_that_is_not_told_its_number_says_so(several: Plan, tmp_path: Path) -> None:
    told = run_script(tmp_path, render(several, "shell"), "start_vllm.sh", "vllm")
    assert not told.startswith("0\n")
    assert "NODE_RANK" in told


def test_the_gateway_is_started(one: Plan, tmp_path: Path) -> None:
    told = run_script(tmp_path, render(one, "shell"), "start_gateway.sh", "qiao", "--json-logs")
    assert told.startswith("0\nserve\n--upstream\nhttp://127.0.0.1:8000/v1\n--port\n4000\n--json-logs\n")


@pytest.mark.parametrize(("words", "expected"), [((), "usage"), (("worker",), "address of the first computer")])
def test_ray_says_how_it_is_used(one: Plan, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    told = run_script(tmp_path, render(one, "ray"), "start_ray.sh", "ray", *words)
    assert not told.startswith("0\n")
    assert expected in told


# PowerShell


def test_powershell_reads_the_script(one: Plan) -> None:
    (text,) = render(one, "powershell").values()
    assert text.isascii()
    assert "\r\n" in text
    assert text.count("\n") == text.count("\r\n")
    commands = powershell.parse(text)
    (last,) = [command for command in commands if command[:2] == ["&", "wsl.exe"] and "env" in command]
    assert last[2:5] == ["@Target", "--exec", "env"]
    assert last[-2:] == ["@Arguments", "@MoreArguments"]
    words = powershell.array(text, "Arguments")
    host = words.index("--host")
    assert words[host + 1] == "0.0.0.0"
    assert [each for each in words if each != "0.0.0.0"] == [
        one.arguments[0],
        "--host",
        "--port",
        "8000",
        *[each for each in one.arguments[1:] if each not in ("--host", "127.0.0.1", "--port", "8000")],
    ]
    assert powershell.array(text, "Variables") == ["VLLM_ENGINE_READY_TIMEOUT_S=3600"]


def test_the_parser_of_the_test_refuses_the_guides_script() -> None:
    guide = "python -m vllm `\r\n  --max-model-len 32768 \\\r\n  --enable-auto-tool-choice\r\n"
    with pytest.raises(powershell.ParseError):
        powershell.parse(guide)


@pytest.mark.parametrize("broken", ["$a = @('x'", "if ($a) {", "'open", "$a = 'x''", "}"])
def test_the_parser_of_the_test_refuses_what_is_broken(broken: str) -> None:
    with pytest.raises(powershell.ParseError):
        powershell.parse(broken)


def test_words_that_two_shells_would_change_are_refused() -> None:
    for word in ("a b", "it's", 'x"y', "a;b", "a|b", "ä"):
        with pytest.raises(ConfigurationError):
            simple([word], "here")
    assert simple(["Qwen/Qwen3-8B", "--port", "0.92", "A=b"], "here")


# systemd


def test_systemd_units_have_their_parts(one: Plan) -> None:
    files = render(one, "systemd")
    for name, text in files.items():
        sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
        assert sections == ["Unit", "Service", "Install"], name
        logical = text.replace("\\\n", " ")
        for line in logical.splitlines():
            assert line == "" or line.startswith(("#", "[")) or re.match(r"^[A-Za-z]+=", line), f"{name}: {line}"
    engine = files["qiao-engine.service"].replace("\\\n", " ")
    start = next(line for line in engine.splitlines() if line.startswith("ExecStart="))
    assert sorted(start.split()[3:]) == sorted(one.arguments)
    assert "RestartPreventExitStatus=2 3" in files["qiao-gateway.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("model", [None, "/home/me/100%:new"])
def test_systemd_accepts_the_units(one: Plan, tmp_path: Path, model: str | None) -> None:
    files = render(local(model) if model else one, "systemd")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / name) for name in files)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "qiao-" not in done.stderr, done.stderr


# YAML


def test_every_yaml_is_read(one: Plan, several: Plan) -> None:
    for kind, name, text in every(one, several):
        if name.endswith(".yaml"):
            assert all(isinstance(each, dict) for each in yaml.safe_load_all(text)), f"{kind}: {name}"


_NODES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029\ufeff]")


@example({"": 5e-324})
@given(st.dictionaries(st.text(max_size=6), _NODES, min_size=1, max_size=4))
def test_yaml_comes_back_as_it_went(node: dict[str, Any]) -> None:
    assume(not _CONTROL.search(repr_of(node)))
    assert yaml.safe_load(document(node)) == node


def repr_of(node: Any) -> str:
    """All text in a node."""
    match node:
        case dict():
            return "".join(map(repr_of, [*node.keys(), *node.values()]))
        case list():
            return "".join(map(repr_of, node))
        case str():
            return node
        case _:
            return ""


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\nb\n", "a\n", "\n", "\n\n", "a\n\n", " a\nb", "a\n  b\n", "a \nb", "a\n\nb", "a\r\nb\n", "\na\n"],
)
def test_yaml_keeps_every_line_as_it_is(text: str) -> None:
    assert yaml.safe_load(document({"key": text, "list": [text]})) == {"key": text, "list": [text]}


@pytest.mark.parametrize(
    "word", ["yes", "No", "null", "~", "1.0", "0x10", "2026-01-01", "1e3", "", " x", "a: b", "#x", "-"]
)
def test_yaml_quotes_what_would_be_misread(word: str) -> None:
    assert yaml.safe_load(document({"key": word, "list": [word]})) == {"key": word, "list": [word]}


def documents(files: dict[str, str]) -> list[dict[str, Any]]:
    return [each for name, text in files.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text)]


# Kubernetes


def test_manifests_fit_together(one: Plan, several: Plan) -> None:
    for plan in (one, several):
        found = check(documents(render(plan, "kubernetes")))
        expected = "LeaderWorkerSet" if plan.nodes > 1 else "Deployment"
        assert expected in found
        assert {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "PersistentVolumeClaim"} <= set(
            found
        )


def test_the_engines_of_a_group_know_each_other(several: Plan) -> None:
    (group,) = [each for each in documents(render(several, "kubernetes")) if each.get("kind") == "LeaderWorkerSet"]
    template = group["spec"]["leaderWorkerTemplate"]
    assert template["size"] == several.nodes
    leader = template["leaderTemplate"]["spec"]["containers"][0]["args"]
    worker = template["workerTemplate"]["spec"]["containers"][0]["args"]
    assert worker == [*leader, "--headless"]
    assert leader[-4:] == ["--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)"]
    gpus = template["leaderTemplate"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert int(gpus) * several.nodes == several.division.gpus


def test_the_queue_decides_how_many_engines() -> None:
    plan = a_plan(nodes="3x8xH100-80G")
    assert plan.replicas == 3
    files = render(plan, "kubernetes")
    (scaler,) = [each for each in documents(files) if each.get("kind") == "HorizontalPodAutoscaler"]
    metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert scaler["spec"]["maxReplicas"] == 3
    (rule,) = yaml.safe_load(files["prometheus-adapter-values.yaml"])["rules"]["custom"]
    assert rule["name"]["as"] == metric
    assert rule["seriesQuery"].startswith("vllm:num_requests_waiting")


# A model that lies here

SNAPSHOT = "/home/me/.cache/huggingface/hub/models--Qwen--Qwen3-32B/snapshots/9216db5781bf"


def local(folder: str) -> Plan:
    plan = a_plan(gpus="8xH100", model="Qwen/Qwen3-32B")
    model = msgspec.structs.replace(plan.model, repository=folder, is_local=True)
    return msgspec.structs.replace(plan, model=model, arguments=(folder, *plan.arguments[1:]))


@pytest.mark.parametrize(
    ("folder", "seen"),
    [
        ("/data/my-model", "/data/my-model"),
        ("/home/me/models/my-model", "/home/me/models/my-model"),
        # The files of a snapshot are links to a folder beside it.
        (SNAPSHOT, "/home/me/.cache/huggingface/hub/models--Qwen--Qwen3-32B"),
        ("/data/snapshots/my-model", "/data/snapshots/my-model"),
    ],
)
def test_a_model_that_lies_here_is_seen_in_containers_and_units(folder: str, seen: str) -> None:
    plan = local(folder)
    compose = yaml.safe_load(render(plan, "compose")["compose.yaml"])
    assert f"{seen}:{seen}:ro" in compose["services"]["engine"]["volumes"]
    found = documents(render(plan, "kubernetes"))
    assert "PersistentVolumeClaim" not in check(found), "nothing is downloaded"
    (deployment,) = [
        each for each in found if each.get("kind") == "Deployment" and each["metadata"]["name"] == "qiao-engine"
    ]
    pod = deployment["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if "hostPath" in each]
    assert volume["hostPath"] == {"path": seen, "type": "Directory"}
    (container,) = pod["containers"]
    assert {"name": volume["name"], "mountPath": seen, "readOnly": True} in container["volumeMounts"]
    assert container["args"][0] == folder
    unit = render(plan, "systemd")["qiao-engine.service"].splitlines()
    assert "ProtectHome=tmpfs" in unit
    assert f"BindReadOnlyPaths={seen}" in unit


def test_what_is_downloaded_needs_no_folder_of_the_computer(one: Plan) -> None:
    assert "hostPath" not in render(one, "kubernetes")["engine.yaml"]
    unit = render(one, "systemd")["qiao-engine.service"]
    assert "ProtectHome=yes" in unit
    assert "BindReadOnlyPaths" not in unit


# Compose, Ray, LiteLLM


def test_compose_has_engine_and_gateway(one: Plan) -> None:
    found = yaml.safe_load(render(one, "compose")["compose.yaml"])
    engine, gateway = found["services"]["engine"], found["services"]["gateway"]
    (device,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert device["count"] == one.division.gpus
    assert engine["image"] == "vllm/vllm-openai:v0.33.0"
    assert "ports" not in engine
    assert gateway["ports"] == ["127.0.0.1:4000:4000"]
    assert gateway["depends_on"]["engine"]["condition"] == "service_healthy"
    used = {volume.split(":")[0] for service in (engine, gateway) for volume in service["volumes"]}
    assert used == set(found["volumes"])


def test_an_engine_that_is_kept_to_some_gpus() -> None:
    """Where MIG splits the others: by variables on the computer itself, by its GPUs in a container."""
    two = a_plan(gpus="2x4090-24G", model="qwen3-8b")
    plan = msgspec.structs.replace(two, environment={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1,2"})
    assert "export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-1,2}" in render(plan, "shell")["start_vllm.sh"]
    assert "Environment=CUDA_VISIBLE_DEVICES=1,2" in "".join(render(plan, "systemd").values())
    engine = yaml.safe_load(render(plan, "compose")["compose.yaml"])["services"]["engine"]
    (device,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert (device["device_ids"], device.get("count")) == (["1", "2"], None)
    assert "CUDA_VISIBLE_DEVICES" not in engine["environment"]
    for kind in ("kubernetes", "ray"):
        assert "CUDA_VISIBLE_DEVICES" not in "".join(render(plan, kind).values())


def test_ray_gets_the_same_engine(one: Plan, several: Plan) -> None:
    for plan in (one, several):
        found = yaml.safe_load(render(plan, "ray")["serve_config.yaml"])
        (application,) = found["applications"]
        (config,) = application["args"]["llm_configs"]
        keywords = config["engine_kwargs"]
        assert application["import_path"] == "ray.serve.llm:build_openai_app"
        assert config["model_loading_config"] == {"model_id": plan.served_name, "model_source": plan.model.repository}
        assert keywords["tensor_parallel_size"] == plan.division.tensor
        assert keywords.get("pipeline_parallel_size", 1) == plan.division.pipeline
        assert keywords["max_model_len"] == plan.window
        assert keywords["enable_auto_tool_choice"] is True
        assert len(config["placement_group_config"]["bundles"]) == plan.division.gpus
        assert "host" not in keywords


def test_a_stretched_window_goes_through_every_format() -> None:
    """Its flags have names with dots: words for a shell, fields of a field for Ray."""
    plan = a_plan(gpus="4xH100", model="qwen3-32b", window=131_072)
    fields = [word for word in plan.arguments if word.startswith("--hf-overrides.")]
    assert len(fields) == 5
    for name in ("shell", "powershell", "systemd", "compose", "kubernetes"):
        written = "\n".join(render(plan, name).values())
        assert all(field in written for field in fields), name
    found = yaml.safe_load(render(plan, "ray")["serve_config.yaml"])
    keywords = found["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]
    assert keywords["hf_overrides"] == {
        "max_position_embeddings": 131_072,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1_000_000,
            "factor": 4.0,
            "original_max_position_embeddings": 32_768,
        },
    }


def test_ray_refuses_what_it_starts_otherwise() -> None:
    asked = request(gpus="8xH100", model="qwen3-coder-next")
    made = planned(asked)
    assert isinstance(made, Plan)
    assert made.division.data > 1
    with pytest.raises(ConfigurationError):
        render(made, "ray")
    other = planned(msgspec.structs.replace(asked, data_parallel=False))
    assert isinstance(other, Plan)
    assert other.division.data == 1
    assert render(other, "ray")


def test_litellm_gets_what_todays_litellm_accepts(one: Plan) -> None:
    """Run with LiteLLM 1.109.1: the proxy starts, and /v1/messages reaches the gateway as it was sent."""
    text = render(one, "litellm")["litellm_config.yaml"]
    found = yaml.safe_load(text)
    (model,) = found["model_list"]
    assert model["litellm_params"]["model"] == f"anthropic/{one.served_name}"
    assert not model["litellm_params"]["api_base"].endswith("/v1")
    assert found["litellm_settings"]["drop_params"] is True
    assert "drop_params" not in found["general_settings"]
    assert found["general_settings"]["master_key"] == "os.environ/LITELLM_MASTER_KEY"
    assert "sk-1234" not in text
    assert model["model_info"]["max_input_tokens"] == one.window


def test_images_and_ports_can_be_chosen(one: Plan) -> None:
    settings = Settings(engine_image="registry.example/vllm:1", gateway_image="registry.example/qiao:1", engine_port=81)
    text = "".join(render(one, "kubernetes", settings).values())
    assert "registry.example/vllm:1" in text
    assert "registry.example/qiao:1" in text
    assert "http://qiao-engine:81/v1" in text


# The mark


@given(st.text(st.characters(exclude_characters="\r\x00", codec="utf-8"), max_size=60), st.booleans())
def test_a_written_file_is_known_and_an_edited_one_too(text: str, is_program: bool) -> None:
    written = stamped(f"#!/bin/sh\n{text}" if is_program else text, "shell")
    assert is_ours(written)
    assert is_untouched(written)
    assert is_untouched(written.replace("\n", "\r\n"))
    assert not is_untouched(f"{written}# mine\n")
    assert not is_untouched(text)
