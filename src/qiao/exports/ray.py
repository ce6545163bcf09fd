"""Ray Serve LLM for one or several computers, with the gateway in front: serve_config.yaml and start_ray.sh."""

from __future__ import annotations

from qiao.errors import ConfigurationError
from qiao.exports.settings import Settings
from qiao.exports.shell import render as shell_files
from qiao.exports.words import about, container_variables, engine_arguments
from qiao.exports.yaml import Commented, Node, documents
from qiao.planner.plan import Plan

# Ray says these in its own words, or decides them itself.
_RAYS_OWN = (
    "--host",
    "--port",
    "--served-model-name",
    "--distributed-executor-backend",
    "--nnodes",
    "--data-parallel-size",
)
_RAY_PORT = 6379


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """The application's configuration, the script that starts the cluster, and the gateway's script."""
    if plan.division.data > 1:
        raise ConfigurationError(
            f"This plan cuts the model by {plan.division}, which Ray Serve LLM starts in another way.",
            hint="Plan without data parallel, as `qiao export ray` does, or use `qiao export shell`.",
        )
    return {
        "serve_config.yaml": _config(plan, settings),
        "start_ray.sh": _script(plan),
        "start_gateway.sh": shell_files(plan, settings)["start_gateway.sh"],
    }


def _config(plan: Plan, settings: Settings) -> str:
    config: Node = {
        "model_loading_config": {"model_id": plan.served_name, "model_source": plan.model.repository},
        "engine_kwargs": _keywords(plan),
        # One bundle for each GPU; PACK keeps the GPUs of a layer on one computer where they fit.
        "placement_group_config": {
            "bundles": [{"GPU": 1, "CPU": 1} for _ in range(plan.division.tensor * plan.division.pipeline)],
            "strategy": "PACK",
        },
        "deployment_config": {
            "autoscaling_config": {"min_replicas": 1, "max_replicas": plan.replicas},
            "max_ongoing_requests": plan.load.sequences * 4,
        },
        "runtime_env": {"env_vars": container_variables(plan)},
    }
    return documents(
        Commented(
            about(plan),
            {
                "http_options": {"host": "127.0.0.1", "port": settings.engine_port},
                "applications": [
                    {
                        "name": settings.name,
                        "route_prefix": "/",
                        "import_path": "ray.serve.llm:build_openai_app",
                        "args": {"llm_configs": [config]},
                    }
                ],
            },
        )
    )


def _keywords(plan: Plan) -> dict[str, Node]:
    """The engine's flags as keyword arguments."""
    words = engine_arguments(plan, host="", port=0, without=_RAYS_OWN)[5:]
    found: dict[str, Node] = {}
    index = 0
    while index < len(words):
        name = words[index].removeprefix("--").replace("-", "_")
        if index + 1 < len(words) and not words[index + 1].startswith("--"):
            _put(found, name.split("."), _value(words[index + 1]))
            index += 2
        else:
            found[name] = True
            index += 1
    found["distributed_executor_backend"] = "ray"
    return found


def _put(into: dict[str, Node], path: list[str], value: Node) -> None:
    """A flag with dots in its name is a field of a field."""
    for name in path[:-1]:
        inner = into.setdefault(name, {})
        assert isinstance(inner, dict)
        into = inner
    into[path[-1]] = value


def _value(word: str) -> Node:
    if word.isdigit():
        return int(word)
    try:
        return float(word)
    except ValueError:
        return word


def _script(plan: Plan) -> str:
    others = plan.nodes - 1
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {about(plan)}",
            "# On the first computer: ./start_ray.sh head",
            f"# On the {others} other{'s' if others != 1 else ''}: ./start_ray.sh worker FIRST_ADDRESS",
            "# Then on the first: ./start_ray.sh deploy, and ./start_gateway.sh",
            "# Ray's ports are for its cluster only: keep them behind a firewall, whoever reaches them runs code.",
            "set -euo pipefail",
            'here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)',
            "",
            'case "${1:-}" in',
            "  head)",
            f"    ray start --head --port {_RAY_PORT} --dashboard-host 127.0.0.1 \\",
            '      --node-ip-address "${HEAD_ADDRESS:?set it to the address of this computer}"',
            "    ;;",
            "  worker)",
            f'    ray start --address "${{2:?the address of the first computer}}:{_RAY_PORT}"',
            "    ;;",
            "  deploy)",
            '    serve deploy "$here/serve_config.yaml"',
            "    ;;",
            "  *)",
            '    echo "usage: start_ray.sh head | worker FIRST_ADDRESS | deploy" >&2',
            "    exit 2",
            "    ;;",
            "esac",
            "",
        ]
    )
