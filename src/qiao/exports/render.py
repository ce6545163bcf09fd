"""The formats by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from qiao.exports import compose, kubernetes, litellm, powershell, ray, shell, systemd
from qiao.exports.settings import Settings
from qiao.exports.stamp import stamped
from qiao.planner.plan import Plan

Format = Literal["shell", "powershell", "systemd", "compose", "kubernetes", "ray", "litellm"]

FORMATS: dict[Format, str] = {
    "shell": "bash scripts for the engine and the gateway",
    "powershell": "start_vllm.ps1: runs on Windows, starts the engine in WSL",
    "systemd": "two units for one computer",
    "compose": "Docker Compose for one computer",
    "kubernetes": "manifests: a Deployment, or a LeaderWorkerSet for several computers",
    "ray": "Ray Serve LLM for one or several computers",
    "litellm": "litellm_config.yaml, for LiteLLM in front of the gateway",
}

# What starts an engine for each data-parallel rank in its own way; its plan has to do without.
WITHOUT_DATA_PARALLEL: frozenset[Format] = frozenset({"ray"})

_RENDERERS: dict[Format, Callable[[Plan, Settings], dict[str, str]]] = {
    "shell": shell.render,
    "powershell": powershell.render,
    "systemd": systemd.render,
    "compose": compose.render,
    "kubernetes": kubernetes.render,
    "ray": ray.render,
    "litellm": litellm.render,
}


def render(plan: Plan, kind: Format, settings: Settings | None = None) -> dict[str, str]:
    """File names and their texts, each with its mark."""
    files = _RENDERERS[kind](plan, settings or Settings())
    return {name: stamped(text, kind) for name, text in files.items()}


def is_program(name: str) -> bool:
    """Whether a file is to be executable."""
    return name.endswith(".sh")
