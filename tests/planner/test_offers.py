"""What a refusal offers: each command line is run as it is offered, and fits."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from qiao.app.planning import request_of
from qiao.cli.plan import command
from qiao.planner import catalogue
from qiao.planner.choose import plan
from qiao.planner.plan import Outcome, Refusal
from tests.planner.cases import Case, cases, made


def offered(outcome: Outcome) -> list[str]:
    """The commands that a refusal offers; each is run as it stands and fits."""
    assert isinstance(outcome, Refusal), outcome
    assert outcome.nearest
    commands = [near.command for near in outcome.nearest]
    for text in commands:
        words = shlex.split(text)
        if words[:2] != ["qiao", "plan"]:
            continue
        done = CliRunner().invoke(command, words[2:], standalone_mode=False)
        assert (done.exception, done.return_value) == (None, 0), f"{text}: {done.output}"
    return commands


@pytest.mark.parametrize("path", cases("machines"), ids=lambda path: path.stem)
def test_every_offer_of_a_refusal_fits(path: Path) -> None:
    asked = dict(Case(path).given)
    outcome = made(vllm_version=asked.pop("vllm", None), **asked)
    if isinstance(outcome, Refusal):
        offered(outcome)


def test_an_offer_is_for_the_machine_that_was_described() -> None:
    for described in ("1x8xH100-80G", "1x8xH100-PCIE-80G"):
        assert any(
            f"--nodes {described} --model qwen3-coder-480b" in each
            for each in offered(made(nodes=described, model="deepseek-v3.1"))
        )
    assert "qiao plan --gpus '1xNew One-20G' --model gpt-oss-20b" in offered(made(gpus="1xNew One-20G"))
    assert any("xH100-PCIe-80G --model qwen3-235b" in each for each in offered(made(gpus="1xH100-PCIE-80G")))


def test_an_offer_is_quoted_for_a_shell(tmp_path: Path) -> None:
    folder = tmp_path / "my models" / "qwen3-32b"
    folder.mkdir(parents=True)
    fields = msgspec.json.encode(next(each for each in catalogue.FAMILIES if each.name == "qwen3-32b").config)
    (folder / "config.json").write_bytes(fields)
    asked = request_of(model=str(folder), gpus="1xL4-24G", window=32768)
    assert f"qiao plan --gpus 4xL4-24G --model '{folder}' --window 32768" in offered(plan(asked))


def test_the_same_model_in_another_precision_is_offered_first() -> None:
    first = offered(made(gpus="4xA100-80G", model="Qwen/Qwen3-235B-A22B-Instruct-2507"))[0]
    assert first == "qiao plan --gpus 4xA100-80G --model Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"


def test_where_no_wish_can_be_kept_alone_both_are_let_go() -> None:
    (only,) = offered(made(gpus="2xA100-40G", model="Qwen/Qwen3-32B", window=131_072, users=20))
    assert only == "qiao plan --gpus 2xA100-40G --model Qwen/Qwen3-32B --window 25600"
    assert offered(made(gpus="2xA100-40G", window=131_072, users=20)), "not even a smaller model fits with both"


def test_a_window_that_no_model_has_is_answered_by_what_fits() -> None:
    first = offered(made(gpus="4xA100-80G", model="Qwen/Qwen3-235B-A22B-Instruct-2507", window=300_000))[0]
    assert first == "qiao plan --gpus 4xA100-80G --model Qwen/Qwen3-235B-A22B-Instruct-2507-FP8"
    small = offered(made(gpus="1xL40S", model="qwen3-32b", window=262_144))
    assert any("--window" in each for each in small)
