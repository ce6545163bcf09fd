"""What must hold between and inside Kubernetes manifests, as far as it can be said offline.

`test_schemas.py` holds the same files against the published schemas. By hand, once: the LeaderWorkerSet against its own
definition (kubernetes-sigs/lws, 2026-08-21).
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_QUANTITY = re.compile(r"^\d+(?:m|Ki|Mi|Gi|Ti)?$")
_VERSIONS = {
    "PersistentVolumeClaim": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
    "LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1",
}


def check(documents: list[dict[str, Any]]) -> list[str]:
    """Check every manifest; the kinds that were there."""
    manifests = [each for each in documents if "kind" in each]
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    assert len(names) == len(manifests), "two of one kind and name"
    pods = [labels for each in manifests for labels in _pod_labels(each)]
    for manifest in manifests:
        kind = manifest["kind"]
        assert manifest["apiVersion"] == _VERSIONS[kind], kind
        assert _NAME.match(manifest["metadata"]["name"]), manifest["metadata"]["name"]
        for spec in _pod_specs(manifest):
            _check_pod(spec, names)
        _check_selectors(manifest, pods, names)
    return [each["kind"] for each in manifests]


def _templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    match manifest["kind"]:
        case "Deployment":
            return [manifest["spec"]["template"]]
        case "LeaderWorkerSet":
            template = manifest["spec"]["leaderWorkerTemplate"]
            return [template["leaderTemplate"], template["workerTemplate"]]
        case _:
            return []


def _pod_specs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [template["spec"] for template in _templates(manifest)]


def _pod_labels(manifest: dict[str, Any]) -> list[dict[str, str]]:
    return [template["metadata"]["labels"] for template in _templates(manifest)]


def _check_pod(spec: dict[str, Any], names: set[tuple[str, str]]) -> None:
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim")
        assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in names
    for container in spec["containers"]:
        assert all(isinstance(word, str) for word in container["args"])
        assert all(isinstance(each.get("value", ""), str) for each in container["env"])
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["port"] in ports
        resources = container["resources"]
        for amounts in resources.values():
            assert all(_QUANTITY.match(amount) for amount in amounts.values())
        gpus = resources.get("limits", {}).get("nvidia.com/gpu")
        assert gpus == resources["requests"].get("nvidia.com/gpu"), "GPUs are asked for and limited alike"
        if gpus is not None:
            assert spec["terminationGracePeriodSeconds"] >= 60


def _check_selectors(manifest: dict[str, Any], pods: list[dict[str, str]], names: set[tuple[str, str]]) -> None:
    spec = manifest["spec"]
    match manifest["kind"]:
        case "Service":
            wanted = spec["selector"]
        case "Deployment" | "PodDisruptionBudget":
            wanted = spec["selector"]["matchLabels"]
        case "NetworkPolicy":
            wanted = spec["podSelector"]["matchLabels"]
        case "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
            assert spec["minReplicas"] <= spec["maxReplicas"]
            return
        case _:
            return
    assert any(wanted.items() <= labels.items() for labels in pods), f"{manifest['kind']} selects nothing"
