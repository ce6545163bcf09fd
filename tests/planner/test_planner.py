"""Laws of the planner: sums that add up, names that resolve, flags that every version takes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiao.errors import ConfigurationError
from qiao.planner import catalogue, specification, vllm
from qiao.planner.cache import cache_of
from qiao.planner.explain import as_json, explain
from qiao.planner.gpu_table import GPUS, by_driver_name, known_names
from qiao.planner.machine import GIB, MIB
from qiao.planner.plan import Plan, Refusal
from qiao.planner.weights import Division, gpu_bytes, layers_of_stage, parameters, parts, summed_bytes
from qiao.profiles import find
from tests.planner.cases import FOLDER, a_plan, made, model

MACHINES = ("4xH20-96G", "4xA100-80G", "8xH100-80G", "2xH100-80G", "1x5090-32G", "8x4090-24G", "8xB200", "1xL40S")
VERSIONS = sorted(path.stem for path in (FOLDER / "flags").glob("*.txt"))


# Names


@pytest.mark.parametrize("family", catalogue.FAMILIES, ids=lambda family: family.name)
def test_every_entry_is_whole(family: Any) -> None:
    assert family.source
    for checkpoint in family.checkpoints:
        facts = catalogue.facts(family, checkpoint)
        assert parameters(facts) == pytest.approx(family.parameters, rel=0.004)
        assert facts.sources
        assert all(facts.sources)
        assert find(facts.name).family != "unknown", f"profiles know nothing of {facts.name}"
        assert facts.attention.layers > 0
    assert [catalogue.find(family.name).family] == [family]


def test_a_full_name_gives_that_one_alone() -> None:
    (only,) = catalogue.find("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8").models
    assert only.quantisation.precision == "fp8"
    assert len(catalogue.find("qwen3-235b").models) > 2


@pytest.mark.parametrize("name", ["Qwen/Qwen3-235B-A22B-Instruct", "qwen3-235b-a22b-instruct", "Qwen/Qwen3-235B"])
def test_a_repository_that_does_not_exist_is_said(name: str) -> None:
    found = catalogue.find(name)
    assert found.family.name == "qwen3-235b"
    if "/" in name:
        assert "does not exist" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Qwen/Qwen3-235B-A22B-Thinking-FP8", "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8"),
        ("Qwen/Qwen3-30B-A3B-Instruct", "Qwen/Qwen3-30B-A3B-Instruct-2507"),
        ("Qwen/Qwen3-30B-A3B-Thinking-FP8", "Qwen/Qwen3-30B-A3B-Thinking-2507-FP8"),
    ],
)
def test_a_release_without_its_date_does_not_exist(name: str, meant: str) -> None:
    found = catalogue.find(name)
    assert found.notes == (f"{name} does not exist: it is {meant}.",)
    assert meant in {each.repository for each in found.models}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("qwen3.5", "qwen3.5-397b"),
        ("qwen3.6", "qwen3.6-35b"),
        ("qwen3.8", "qwen3.8-2.4t"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b-instruct"),
        ("qwen3-4b-thinking-2507", "qwen3-4b-thinking"),
        ("https://huggingface.co/Qwen/Qwen3-8B", "qwen3-8b"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "qwen3-8b"),
        ("huggingface.co/Qwen/Qwen3-8B?library=vllm", "qwen3-8b"),
        ("https://www.modelscope.cn/models/Qwen/Qwen3-8B/summary", "qwen3-8b"),
        ("modelscope.cn/models/Qwen/Qwen3-8B", "qwen3-8b"),
    ],
)
def test_names_that_people_use(name: str, family: str) -> None:
    assert catalogue.find(name).family.name == family


def test_the_small_models_of_2507_have_their_long_window() -> None:
    assert a_plan(gpus="1x4090", model="qwen3-4b-instruct", window=65_536).tool_parser == "hermes"
    assert {model(f"Qwen/Qwen3-4B-{kind}-2507").window for kind in ("Instruct", "Thinking")} == {262_144}


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        catalogue.find("qwen3-236b")
    assert "qwen3-235b" in str(caught.value.hint)


# Machines


def test_every_gpu_can_be_written_and_is_found_by_its_driver() -> None:
    for name in known_names():
        (gpu,) = specification.gpus(f"1x{name}").gpus
        assert gpu.usable is not None
        assert gpu.source
    for facts in GPUS:
        assert facts.usable < facts.memory
        found = by_driver_name(f"NVIDIA {facts.name}", facts.memory)
        assert found is not None
        assert found.capability == facts.capability


@pytest.mark.parametrize(
    ("driver", "mebibytes", "name", "gigabytes"),
    [
        ("NVIDIA H20", 97871, "H20", 96),
        ("NVIDIA H20-3e", 143771, "H20", 141),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100", 80),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100", 40),
        ("NVIDIA A100-PCIE-40GB", 40960, "A100", 40),
        ("NVIDIA H100 80GB HBM3", 81559, "H100", 80),
        ("NVIDIA H100 NVL", 95830, "H100 NVL", 94),
        ("NVIDIA GeForce RTX 5090 D", 32607, "RTX 5090", 32),
        ("NVIDIA L40S", 46068, "L40S", 48),
        ("Tesla V100-SXM2-16GB", 16384, "V100", 16),
    ],
)
def test_driver_names(driver: str, mebibytes: int, name: str, gigabytes: int) -> None:
    found = by_driver_name(driver, mebibytes * MIB)
    assert found is not None
    assert (found.name, found.gigabytes) == (name, gigabytes)


def test_a_driver_name_that_nobody_knows() -> None:
    assert by_driver_name("AMD Instinct MI300X", 192 * GIB) is None


@pytest.mark.parametrize(
    ("text", "count", "written"),
    [
        ("4xH20-96G", 4, "H20-96G"),
        ("4XH20-96G", 4, "H20-96G"),
        ("8 H100-80G", 8, "H100-80G"),
        ("4张H20-96G", 4, "H20-96G"),
        ("4 卡 H20-96G", 4, "H20-96G"),
        ("4块H20-96G", 4, "H20-96G"),
        ("4×H20-96G", 4, "H20-96G"),
        ("4 x H20 96GB", 4, "H20-96G"),
        ("4xh20-96g", 4, "H20-96G"),
        ("4xH20 96G", 4, "H20-96G"),
        ("4xH20(96GB)", 4, "H20-96G"),
        ("8xH20-3e", 8, "H20-141G"),
        ("8xH100-SXM5-80GB", 8, "H100-80G"),
        ("8xH100-SXM", 8, "H100-80G"),
        ("8xH100-80GB-HBM3", 8, "H100-80G"),
        ("8x NVIDIA H100 80GB HBM3", 8, "H100-80G"),
        ("H100-80GB x8", 8, "H100-80G"),
        ("H100-80G*8", 8, "H100-80G"),
        ("8xH100-PCIE-80GB", 8, "H100-PCIE-80G"),
        ("4xH100-NVL", 4, "H100-NVL-94G"),
        ("8xNVIDIA-A100-SXM4-80GB", 8, "A100-80G"),
        ("8xA100 80GB", 8, "A100-80G"),
        ("4xA100-PCIE-40GB", 4, "A100-PCIE-40G"),
        ("2xH200-NVL", 2, "H200-141G"),
        ("4xA6000", 4, "RTX-A6000-48G"),
        ("1xA10G", 1, "A10-24G"),
        ("4090 24G", 1, "RTX-4090-24G"),
        ("RTX4090", 1, "RTX-4090-24G"),
        ("2 4090", 2, "RTX-4090-24G"),
        ("6000 Ada-48G", 1, "RTX-6000-Ada-48G"),
    ],
)
def test_a_gpu_may_be_written_as_others_write_it(text: str, count: int, written: str) -> None:
    given = specification.gpus(text).gpus
    assert len(given) == count
    (meant,) = specification.gpus(f"1x{written}").gpus
    assert given == (meant,) * count
    assert meant.capability is not None
    assert specification.nodes(f"3X{count}X{written}").gpus == (meant,) * count * 3


def test_a_name_like_a_known_one_is_not_taken_for_it() -> None:
    (gpu,) = specification.gpus("1xRTX-A1000-8G").gpus
    assert gpu.capability is None
    assert by_driver_name("NVIDIA RTX A1000", 8 * GIB) is None


def test_a_description_of_several_computers_is_not_one_gpu() -> None:
    with pytest.raises(ConfigurationError) as caught:
        specification.gpus("1x8xH100-80G")
    assert "--nodes 1x8xH100-80G" in str(caught.value.hint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "8xA100",
        "8xH20",
        "0xH100",
        "8xH300",
        "8xA100-60G",
        "9999xH100",
        "8x",
        "-1xH100",
        "2x 4x H20-96G",
        "80G 4xH100",
        "1xNew-0G",
    ],
)
def test_a_machine_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        specification.gpus(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["8xH100-80G", "2x", "0x8xH100", "2xx8", "8x4090 24G"])
def test_nodes_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigurationError):
        specification.nodes(text)


@given(st.text(max_size=30))
def test_any_text_is_a_machine_or_an_error(text: str) -> None:
    for read in (specification.gpus, specification.nodes):
        try:
            assert read(text).gpus
        except ConfigurationError:
            continue


# Sums

_DIVISIONS = st.builds(
    Division,
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 3, 4]),
    data=st.sampled_from([1, 2]),
)
_MODELS = st.sampled_from(["qwen3-235b", "qwen3-coder-480b", "qwen3.8-27b", "qwen3-next", "qwen3-32b", "gpt-oss-120b"])


@given(_MODELS, _DIVISIONS, st.booleans())
def test_the_parts_on_all_gpus_hold_the_whole_model(name: str, division: Division, dealt: bool) -> None:
    facts = model(catalogue.find(name).models[0].repository)
    if dealt and facts.experts:
        division = msgspec.structs.replace(division, expert=division.tensor * division.data)
    each = [sum(gpu_bytes(facts, division, stage)) for stage in range(division.pipeline)]
    everywhere = sum(each) * division.tensor * division.data
    drafts = sum(part.rows * part.columns * part.count for part in parts(facts) if part.place == "draft") * 2
    assert everywhere >= 0.99 * (summed_bytes(facts) - drafts)


@given(st.integers(1, 128), st.integers(1, 16))
def test_stages_share_all_layers(layers: int, stages: int) -> None:
    division = Division(pipeline=min(stages, layers))
    shares = [layers_of_stage(layers, division, stage) for stage in range(division.pipeline)]
    assert sum(shares) == layers
    assert max(shares) - min(shares) <= 1


@given(_MODELS, st.sampled_from([1, 2, 4, 8]), st.integers(0, 200 * GIB), st.integers(1, 20), st.booleans())
def test_the_longest_window_fits_and_one_more_block_does_not(
    name: str, tensor: int, available: int, requests: int, prefix_caching: bool
) -> None:
    cache = cache_of(catalogue.find(name).models[0], Division(tensor=tensor), prefix_caching=prefix_caching)
    window = cache.longest_window(available, requests)
    if window:
        assert cache.request_bytes(window) * requests <= available
        assert cache.concurrency(available, window) >= requests
    longer = window + cache.block_tokens
    assert cache.request_bytes(longer) * requests > available or cache.blocks(available) // requests == 0


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["qwen3-235b", "qwen3-30b", "qwen3.8-27b", "qwen3-coder-next", "gpt-oss-120b"])
def test_every_term_is_named_and_the_sum_is_right(machine: str, name: str) -> None:
    outcome = made(gpus=machine, model=name)
    found = as_json(outcome)
    assert json.loads(msgspec.json.encode(found)) == found
    assert found["schema"] == "qiao.plan/1"
    assert found["fits"] is isinstance(outcome, Plan)
    if not isinstance(outcome, Plan):
        return
    for each in found["memory"]["per_gpu"]:
        terms = sum(each[f"{term}_bytes"] for term in each["how"])
        assert terms + each["kv_cache_bytes"] == each["allowed_bytes"]
        assert each["allowed_bytes"] + each["headroom_bytes"] == each["total_bytes"]
        assert all(term["text"] and term["source"] for term in each["how"].values())
        assert each["kv_cache_bytes"] > 0
    assert found["concurrency"] >= 1
    assert found["window"] <= outcome.model.window
    words = explain(outcome)
    for term in ("weights", "activations", "cuda graphs", "communication", "margin", "cache"):
        assert term in words


def test_the_schema_keeps_its_names() -> None:
    found = as_json(a_plan(gpus="4xH20-96G"))
    assert found["model"]["repository"] == "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
    assert set(found["parallel"]) >= {"tensor", "pipeline", "data", "expert"}
    assert set(found) >= {"fits", "args", "env", "memory", "window", "concurrency", "reasons", "warnings"}
    assert found["memory"]["weights_bytes_total"] == 236_416_915_456
    assert found["memory"]["kv_bytes_per_token_total"] == 94 * 4 * 128 * 2 * 2
    assert isinstance(found["args"], list)


# Refusals


def test_a_refusal_says_what_is_missing() -> None:
    outcome = made(gpus="1xH100")
    assert isinstance(outcome, Refusal)
    assert outcome.missing is not None
    smallest = min(outcome.closest, key=lambda each: each.cache)
    assert outcome.missing >= -smallest.cache
    assert f"{outcome.missing / GIB:.1f} GiB are missing" in outcome.message


# Flags


def _flags(version: str) -> tuple[dict[str, str], set[str]]:
    lines = (FOLDER / "flags" / f"{version}.txt").read_text("utf-8").splitlines()
    flags = dict(line.split(" ", 1) if " " in line else (line, "") for line in lines if line.startswith("-"))
    return flags, {line for line in lines if not line.startswith("-")}


def test_flags_of_the_newest_and_of_older_versions_are_recorded() -> None:
    assert vllm.version_text(vllm.NEWEST) in VERSIONS
    assert vllm.version_text(vllm.OLDEST) in VERSIONS
    assert len(VERSIONS) >= 6


@pytest.mark.parametrize("version", VERSIONS)
def test_every_plan_speaks_flags_that_the_real_parser_takes(version: str) -> None:
    flags, parsers = _flags(version)
    seen = 0
    wishes: list[dict[str, Any]] = [
        *({"gpus": "8xB300", "model": family.name} for family in catalogue.FAMILIES),
        *({"gpus": machine} for machine in MACHINES),
        {"gpus": "4xH20-96G", "users": 10},
        {"nodes": "2x8xA100-40G", "preference": "quality"},
        {"gpus": "8xH100", "model": "qwen3-next"},
        {"gpus": "1xT4", "model": "qwen3-8b"},
        {"gpus": "8xH100", "model": "qwen3-32b", "window": 131_072},
    ]
    for wish in wishes:
        outcome = made(vllm_version=version, **wish)
        if not isinstance(outcome, Plan):
            continue
        seen += 1
        words = list(outcome.arguments[1:])
        while words:
            # A flag that takes JSON is also taken field by field.
            flag = words.pop(0).partition(".")[0]
            assert flag in flags, f"{version}: {flag}"
            takes = flags[flag]
            has_value = bool(words) and not words[0].startswith("--")
            assert has_value is bool(takes), f"{version}: {flag}"
            if has_value:
                value = words.pop(0)
                assert takes == "VALUE" or value in takes.split("|"), f"{version}: {flag} {value}"
        for kind, name in (("tool-parser", outcome.tool_parser), ("reasoning-parser", outcome.reasoning_parser)):
            assert name is None or f"{kind} {name}" in parsers, f"{version}: {kind} {name}"
    assert seen > 20


@pytest.mark.parametrize("text", ["0.9.2", "newest", "", "1"])
def test_versions_that_cannot_be_planned_for(text: str) -> None:
    with pytest.raises(ConfigurationError):
        vllm.parse_version(text)
