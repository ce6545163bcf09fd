"""The pods of the Kubernetes export: what runs in them, when they count as started, ready, dead. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qiao.exports.settings import Settings
from qiao.exports.words import container_variables, engine_arguments, engine_image, model_folder
from qiao.exports.yaml import Node
from qiao.planner.plan import Plan

Part = Literal["alone", "leader", "worker"]

_MODELS = "/models"
# An hour in steps of ten seconds: reading hundreds of GiB from a slow volume.
_STARTUP_TRIES = 360


def engine_pod(plan: Plan, settings: Settings, *, gpus: int, claim: str, part: Part = "alone") -> Mapping[str, Node]:
    """The engine's pod: alone, or one of several computers of a group."""
    arguments = engine_arguments(plan, host="0.0.0.0", port=settings.engine_port)  # noqa: S104 - inside its pod
    if part != "alone":
        # The controller sets these three in every pod of a group.
        arguments += ["--node-rank", "$(LWS_WORKER_INDEX)", "--master-addr", "$(LWS_LEADER_ADDRESS)"]
    if part == "worker":
        arguments.append("--headless")
    volumes, mounts = _volumes(plan, gpus, claim)
    container: dict[str, Node] = {
        "name": "engine",
        "image": engine_image(plan, settings.engine_image),
        "args": list(arguments),
        "env": [
            *({"name": name, "value": value} for name, value in container_variables(plan).items()),
            {"name": "HF_HOME", "value": _MODELS},
            {
                "name": "HF_TOKEN",
                "valueFrom": {
                    "secretKeyRef": {"name": f"{settings.name}-hugging-face", "key": "token", "optional": True}
                },
            },
        ],
        "resources": {
            "requests": {"cpu": "8", "nvidia.com/gpu": str(gpus)},
            "limits": {"nvidia.com/gpu": str(gpus)},
        },
        "volumeMounts": mounts,
    }
    if part != "worker":
        container["ports"] = [{"name": "http", "containerPort": settings.engine_port}]
        container |= _engine_probes()
    return {
        "terminationGracePeriodSeconds": 120,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": volumes,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }


def _volumes(plan: Plan, gpus: int, claim: str) -> tuple[list[Node], list[Node]]:
    """What the engine sees of disks: the place for downloads, or the model's folder of the node; shared memory."""
    folder = model_folder(plan)
    # NCCL exchanges data through shared memory; the usual 64 MiB are too few.
    shared: Node = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(2, 2 * gpus)}Gi"}}
    mounts: list[Node] = [{"name": "models", "mountPath": _MODELS}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    if folder is None:
        return [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}, shared], mounts
    own: Node = {"name": "model", "hostPath": {"path": folder, "type": "Directory"}}
    mounts.append({"name": "model", "mountPath": folder, "readOnly": True})
    return [{"name": "models", "emptyDir": {}}, shared, own], mounts


def _engine_probes() -> dict[str, Node]:
    health: Mapping[str, Node] = {"path": "/health", "port": "http"}
    return {
        "startupProbe": {"httpGet": health, "periodSeconds": 10, "failureThreshold": _STARTUP_TRIES},
        "readinessProbe": {"httpGet": health, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {"httpGet": health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def gateway_pod(plan: Plan, settings: Settings) -> Mapping[str, Node]:
    """The gateway's pod."""
    del plan
    container: Mapping[str, Node] = {
        "name": "gateway",
        "image": settings.gateway_image,
        "args": ["serve", "--host", "0.0.0.0", "--port", str(settings.gateway_port), "--json-logs"],  # noqa: S104
        "env": [
            {
                "name": "QIAO_UPSTREAM",
                "value": f"http://{settings.name}-engine:{settings.engine_port}/v1",
            },
            {"name": "QIAO_STATE", "value": "/state"},
            {
                "name": "QIAO_API_KEY",
                "valueFrom": {"secretKeyRef": {"name": f"{settings.name}-key", "key": "api-key"}},
            },
        ],
        "ports": [{"name": "http", "containerPort": settings.gateway_port}],
        # It answers within 8 seconds, also before an engine that is busy.
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": 10,
            "timeoutSeconds": 10,
        },
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "state", "mountPath": "/state"}],
    }
    return {
        "terminationGracePeriodSeconds": 60,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "state", "emptyDir": {}}],
    }
