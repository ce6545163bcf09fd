"""Kubernetes: the engine as a Deployment on one node, or as a LeaderWorkerSet over several, and the gateway before it.

What has to be there: the NVIDIA device plugin; for several nodes the LeaderWorkerSet controller; for the autoscaler the
Prometheus adapter with the rule that is written beside.
"""

from __future__ import annotations

from collections.abc import Mapping

from qiao.exports.compose import dockerfile
from qiao.exports.pods import engine_pod, gateway_pod
from qiao.exports.settings import Settings
from qiao.exports.words import about, model_folder
from qiao.exports.yaml import Commented, Node, documents
from qiao.planner.machine import GIB
from qiao.planner.plan import Plan
from qiao.planner.weights import total_bytes

QUEUE_METRIC = "vllm_num_requests_waiting"
_QUEUE_PER_POD = "4"
# The namespace in which Prometheus is expected; it reads the queue at the engine's own port.
_MONITORING = "monitoring"
# A model is not worth starting anew for a wave of a minute.
_CALM_SECONDS = 600


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """engine.yaml, gateway.yaml, the adapter's rule, and the gateway's Dockerfile."""
    return {
        "engine.yaml": _engine(plan, settings),
        "gateway.yaml": _gateway(plan, settings),
        "prometheus-adapter-values.yaml": _adapter_rule(),
        "gateway.Dockerfile": dockerfile(),
    }


def _engine(plan: Plan, settings: Settings) -> str:
    name = f"{settings.name}-engine"
    workload = _leader_worker_set(plan, settings, name) if plan.nodes > 1 else _deployment(plan, settings, name)
    folder = model_folder(plan)
    comment = (
        f"{about(plan)}\nApply with: kubectl apply -f engine.yaml -f gateway.yaml\n"
        f"Prometheus is expected in the namespace {_MONITORING}; the NetworkPolicy at the end lets it in."
    )
    if folder is not None:
        comment += f"\nEvery node with such GPUs has to have {folder}: the engine's pod does not start on another."
    parts = [workload] if folder is not None else [_claim(plan, name), workload]
    return documents(
        Commented(comment, parts[0]),
        *parts[1:],
        _service(name, settings.engine_port, _selector(plan, name)),
        _disruption(name, _labels(name), {"maxUnavailable": 1}),
        _autoscaler(plan, name),
        _only_from_gateway(plan, settings, name),
    )


def _deployment(plan: Plan, settings: Settings, name: str) -> Mapping[str, Node]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _labels(name)},
            # The GPUs hold one engine: the old one goes before the new one comes.
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": 7200,
            "template": {
                "metadata": {"labels": _labels(name)},
                "spec": engine_pod(plan, settings, gpus=plan.division.gpus, claim=name),
            },
        },
    }


def _leader_worker_set(plan: Plan, settings: Settings, name: str) -> Mapping[str, Node]:
    gpus = plan.division.gpus // plan.nodes
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "replicas": 1,
            "leaderWorkerTemplate": {
                "size": plan.nodes,
                # The computers of an engine only work together: one that is gone starts all anew.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": {
                    "metadata": {"labels": {**_labels(name), "role": "leader"}},
                    "spec": engine_pod(plan, settings, gpus=gpus, claim=name, part="leader"),
                },
                "workerTemplate": {
                    "metadata": {"labels": _labels(name)},
                    "spec": engine_pod(plan, settings, gpus=gpus, claim=name, part="worker"),
                },
            },
        },
    }


def _selector(plan: Plan, name: str) -> Mapping[str, Node]:
    return {**_labels(name), "role": "leader"} if plan.nodes > 1 else _labels(name)


def _claim(plan: Plan, name: str) -> Mapping[str, Node]:
    size = int(total_bytes(plan.model) / GIB * 1.2) + 10
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "accessModes": ["ReadWriteMany" if plan.nodes > 1 or plan.replicas > 1 else "ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{size}Gi"}},
        },
    }


def _service(name: str, port: int, selector: Mapping[str, Node]) -> Mapping[str, Node]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [{"name": "http", "port": port, "targetPort": "http"}],
        },
    }


def _disruption(name: str, selector: Mapping[str, Node], limit: Mapping[str, Node]) -> Mapping[str, Node]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {**limit, "selector": {"matchLabels": selector}},
    }


def _autoscaler(plan: Plan, name: str) -> Mapping[str, Node]:
    """More engines when requests wait in the engine's queue."""
    target: Mapping[str, Node] = (
        {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": name}
        if plan.nodes > 1
        else {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    )
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": 1,
            "maxReplicas": max(plan.replicas, 1),
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": QUEUE_METRIC},
                        "target": {"type": "AverageValue", "averageValue": _QUEUE_PER_POD},
                    },
                }
            ],
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 60,
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 300}],
                },
                "scaleDown": {"stabilizationWindowSeconds": _CALM_SECONDS},
            },
        },
    }


def _only_from_gateway(plan: Plan, settings: Settings, name: str) -> Mapping[str, Node]:
    """The engine asks for no key: only the gateway may reach it, and the engine's own pods each other."""
    del plan
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "podSelector": {"matchLabels": _labels(name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": _labels(f"{settings.name}-gateway")}}],
                    "ports": [{"port": settings.engine_port}],
                },
                {"from": [{"podSelector": {"matchLabels": _labels(name)}}]},
                {
                    "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": _MONITORING}}}],
                    "ports": [{"port": settings.engine_port}],
                },
            ],
        },
    }


def _gateway(plan: Plan, settings: Settings) -> str:
    name = f"{settings.name}-gateway"
    comment = (
        "The gateway. Its key comes from a secret that you make once:\n"
        f'  kubectl create secret generic {settings.name}-key --from-literal=api-key="$(openssl rand -hex 24)"\n'
        f"Then: kubectl port-forward service/{name} {settings.gateway_port}:80, or an Ingress with TLS."
    )
    deployment: Mapping[str, Node] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": _labels(name)},
            "template": {"metadata": {"labels": _labels(name)}, "spec": gateway_pod(plan, settings)},
        },
    }
    service: Mapping[str, Node] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": _labels(name)},
        "spec": {
            "type": "ClusterIP",
            "selector": _labels(name),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }
    return documents(Commented(comment, deployment), service, _disruption(name, _labels(name), {"minAvailable": 1}))


def _adapter_rule() -> str:
    comment = (
        "Values for the Helm chart prometheus-adapter: the engine's queue as a metric of its pods.\n"
        "  helm upgrade --install prometheus-adapter prometheus-community/prometheus-adapter "
        "-f prometheus-adapter-values.yaml"
    )
    rule: Mapping[str, Node] = {
        "seriesQuery": 'vllm:num_requests_waiting{namespace!="",pod!=""}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"as": QUEUE_METRIC},
        "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
    }
    return documents(Commented(comment, {"rules": {"custom": [rule]}}))


def _labels(name: str) -> dict[str, Node]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "qiao-export"}
