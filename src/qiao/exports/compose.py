"""Docker Compose: the engine and the gateway on one computer, and the Dockerfile of the gateway."""

from __future__ import annotations

from qiao.exports.settings import Settings
from qiao.exports.words import about, container_variables, engine_arguments, engine_image, model_folder, single_node
from qiao.exports.yaml import Commented, Node, documents
from qiao.planner.plan import Plan

# Reading the weights and recording the graphs; from a slow disk this takes long.
_START_SECONDS = 3600


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """compose.yaml and gateway.Dockerfile."""
    single_node(plan, "Compose")
    return {"compose.yaml": _compose(plan, settings), "gateway.Dockerfile": dockerfile()}


def _compose(plan: Plan, settings: Settings) -> str:
    comment = (
        f"{about(plan)}\n"
        "Needs the NVIDIA Container Toolkit. Write the gateway's key into a file .env beside this one first:\n"
        '  echo "QIAO_API_KEY=$(openssl rand -hex 24)" > .env && docker compose up -d --build'
    )
    return documents(
        Commented(
            comment,
            {
                "name": settings.name,
                "services": {"engine": _engine(plan, settings), "gateway": _gateway(plan, settings)},
                "volumes": {"models": {}, "state": {}},
            },
        )
    )


def _engine(plan: Plan, settings: Settings) -> Node:
    visible = plan.environment.get("CUDA_VISIBLE_DEVICES")
    which: dict[str, Node] = {"device_ids": list(visible.split(","))} if visible else {"count": plan.division.gpus}
    devices: Node = [{"driver": "nvidia", **which, "capabilities": ["gpu"]}]
    arguments = engine_arguments(plan, host="0.0.0.0", port=settings.engine_port)  # noqa: S104 - inside its container
    volumes: list[Node] = ["models:/models"]
    folder = model_folder(plan)
    if folder is not None:
        volumes += _doubled([f"{folder}:{folder}:ro"])
    return {
        "image": engine_image(plan, settings.engine_image),
        "command": list(_doubled(arguments)),
        "environment": {**container_variables(plan), "HF_HOME": "/models", "HF_TOKEN": "${HF_TOKEN:-}"},
        "volumes": volumes,
        # NCCL exchanges data through shared memory.
        "ipc": "host",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "deploy": {"resources": {"reservations": {"devices": devices}}},
        "expose": [str(settings.engine_port)],
        "healthcheck": {
            "test": ["CMD", "curl", "--fail", "--silent", f"http://127.0.0.1:{settings.engine_port}/health"],
            "interval": "10s",
            "timeout": "5s",
            "retries": 6,
            "start_period": f"{_START_SECONDS}s",
        },
        "restart": "unless-stopped",
        "stop_grace_period": "2m",
    }


def _gateway(plan: Plan, settings: Settings) -> Node:
    del plan
    port = settings.gateway_port
    return {
        "image": settings.gateway_image,
        "build": {"context": ".", "dockerfile": "gateway.Dockerfile"},
        "command": ["serve", "--host", "0.0.0.0", "--port", str(port)],  # noqa: S104 - published on loopback only
        "environment": {
            "QIAO_UPSTREAM": f"http://engine:{settings.engine_port}/v1",
            "QIAO_API_KEY": "${QIAO_API_KEY:?write it into .env}",
            "QIAO_STATE": "/state",
        },
        "volumes": ["state:/state"],
        "ports": [f"127.0.0.1:{port}:{port}"],
        "depends_on": {"engine": {"condition": "service_healthy"}},
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }


def _doubled(words: list[str]) -> list[str]:
    """Compose expands a single dollar."""
    return [word.replace("$", "$$") for word in words]


def dockerfile() -> str:
    """The gateway's image, from a wheel that lies beside."""
    return "\n".join(
        [
            "# Put qiao's wheel beside this file first: pip wheel --no-deps --wheel-dir . qiao",
            "FROM python:3.13-slim",
            "COPY qiao-*.whl /tmp/",
            "RUN pip install --no-cache-dir /tmp/qiao-*.whl && rm /tmp/qiao-*.whl \\",
            " && mkdir /state && chown 10001:10001 /state",
            "USER 10001:10001",
            "ENV QIAO_STATE=/state",
            "EXPOSE 4000",
            'ENTRYPOINT ["qiao"]',
            "",
        ]
    )
