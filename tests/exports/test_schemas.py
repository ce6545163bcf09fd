"""Exported files, held against what the programs that read them publish: schemas and grammars.

Kubernetes: the schemas of its API, as kubernetes-validate carries them (what kubeconform reads), strict. Compose: the
Compose Specification's models. PowerShell: the tree-sitter grammar of the language.
"""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pydantic
import pytest
import tree_sitter
import tree_sitter_powershell
import yaml
from compose_spec import ComposeSpecification

from qiao.exports import render
from qiao.planner.plan import Plan
from tests.planner.cases import a_plan

KUBERNETES = ("1.30", "1.34", "1.37")
WISHES: tuple[dict[str, Any], ...] = (
    {"gpus": "8xH100"},
    {"gpus": "1xT4", "model": "qwen3-8b"},
    {"gpus": "4xH20-96G", "users": 10},
    {"nodes": "3x8xH100-80G"},
    {"nodes": "2x8xA100-40G", "preference": "quality"},
)


@pytest.fixture(params=WISHES, ids=lambda wish: " ".join(map(str, wish.values())))
def made(request: pytest.FixtureRequest) -> Plan:
    return a_plan(**request.param)


@pytest.fixture(params=[wish for wish in WISHES if "nodes" not in wish], ids=lambda wish: str(wish["gpus"]))
def one(request: pytest.FixtureRequest) -> Plan:
    """A plan for one computer."""
    plan = a_plan(**request.param)
    assert plan.nodes == plan.replicas == 1
    return plan


def validate(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def manifests(made: Plan) -> list[dict[str, Any]]:
    texts = [text for name, text in render(made, "kubernetes").items() if name.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if "kind" in each]


def pods_of_a_group(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a LeaderWorkerSet, whose own schema is not part of Kubernetes, each as a Deployment."""
    parts = manifest["spec"]["leaderWorkerTemplate"]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "pods"},
            "spec": {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template},
        }
        for template in (parts["leaderTemplate"], parts["workerTemplate"])
    ]


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(made: Plan, version: str) -> None:
    found = manifests(made)
    assert len(found) >= 8
    for manifest in found:
        for each in pods_of_a_group(manifest) if manifest["kind"] == "LeaderWorkerSet" else [manifest]:
            validate(each, version)


def test_a_field_that_kubernetes_does_not_know_is_found(made: Plan) -> None:
    (manifest, *_) = [each for each in manifests(made) if each["kind"] == "Deployment"]
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        validate(manifest, KUBERNETES[-1])


def compose_of(made: Plan) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(render(made, "compose")["compose.yaml"])
    return found


def test_compose_follows_its_specification(one: Plan) -> None:
    ComposeSpecification.model_validate(compose_of(one))


def test_a_wrong_compose_file_is_found() -> None:
    found = compose_of(a_plan(gpus="8xH100"))
    found["services"]["engine"]["ports"] = "8000"
    with pytest.raises(pydantic.ValidationError):
        ComposeSpecification.model_validate(found)


def powershell_faults(text: str) -> list[str]:
    """The places that the grammar of PowerShell does not take."""
    language = tree_sitter.Language(tree_sitter_powershell.language())
    waiting, found = [tree_sitter.Parser(language).parse(text.encode()).root_node], []
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            found.append(f"line {node.start_point[0] + 1}: {node.text!r}")
        waiting += node.children
    return found


def test_powershell_takes_the_script(one: Plan) -> None:
    (text,) = render(one, "powershell").values()
    assert powershell_faults(text) == []


@pytest.mark.parametrize(
    "text", ["if ($a) {", "$a = @('x'", "'open", "python -m vllm `\n --max-model-len 1 \\\n --x 'y\n"]
)
def test_a_script_that_powershell_would_refuse_is_found(text: str) -> None:
    assert powershell_faults(text)
