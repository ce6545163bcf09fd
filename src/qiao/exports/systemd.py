"""systemd: qiao-engine.service and qiao-gateway.service for one computer."""

from __future__ import annotations

from qiao.exports.settings import Settings
from qiao.exports.words import about, engine_arguments, lines_of, model_folder, simple, single_node
from qiao.planner.plan import Plan

_STARTED_BY_HAND = "# Edit with `systemctl edit`, not here: then a new export may replace this file."


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """The two units."""
    single_node(plan, "systemd")
    return {
        f"{settings.name}-engine.service": "\n".join(_engine(plan, settings)),
        f"{settings.name}-gateway.service": "\n".join(_gateway(plan, settings)),
    }


def _engine(plan: Plan, settings: Settings) -> list[str]:
    words = simple(engine_arguments(plan, host="127.0.0.1", port=settings.engine_port), "systemd")
    rows = [" ".join(_escaped(word) for word in line) for line in lines_of(words)]
    return [
        f"# {about(plan)}",
        _STARTED_BY_HAND,
        "[Unit]",
        f"Description=vLLM with {plan.model.name}",
        "After=network-online.target nvidia-persistenced.service",
        "Wants=network-online.target",
        "StartLimitIntervalSec=1800",
        "StartLimitBurst=3",
        "",
        "[Service]",
        "User=vllm",
        "Group=vllm",
        "StateDirectory=vllm",
        "Environment=HOME=/var/lib/vllm",
        "# Where vLLM is installed comes first.",
        "Environment=PATH=/opt/vllm/bin:/usr/local/bin:/usr/bin:/bin",
        *(f"Environment={name}={_escaped(value)}" for name, value in plan.environment.items()),
        "EnvironmentFile=-/etc/qiao/engine.env",
        "ExecStart=/usr/bin/env vllm serve " + " \\\n  ".join(rows),
        "Restart=on-failure",
        "RestartSec=15",
        "TimeoutStopSec=120",
        "LimitNOFILE=1048576",
        "LimitMEMLOCK=infinity",
        "OOMScoreAdjust=-500",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        *_homes(plan),
        "PrivateTmp=yes",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]


def _homes(plan: Plan) -> list[str]:
    """No home is seen, but for a model that lies in one, or in a folder for what is temporary."""
    folder = model_folder(plan)
    if folder is None:
        return ["ProtectHome=yes"]
    (path,) = simple([folder], "systemd")
    colon = "\\:"  # a bare one would name another place to show it at
    return [
        "# Of homes and temporary folders nothing is seen but the model; the user above has to be able to read it.",
        "ProtectHome=tmpfs",
        f"BindReadOnlyPaths={_specifiers(path).replace(':', colon)}",
    ]


def _gateway(plan: Plan, settings: Settings) -> list[str]:
    return [
        f"# The gateway in front of {plan.served_name}.",
        _STARTED_BY_HAND,
        "[Unit]",
        f"Description=qiao, the gateway for {plan.served_name}",
        f"After=network-online.target {settings.name}-engine.service",
        "Wants=network-online.target",
        "",
        "[Service]",
        "DynamicUser=yes",
        f"StateDirectory={settings.name}",
        f"Environment=QIAO_STATE=/var/lib/{settings.name}",
        f"Environment=QIAO_UPSTREAM=http://127.0.0.1:{settings.engine_port}/v1",
        "Environment=PATH=/opt/qiao/bin:/usr/local/bin:/usr/bin:/bin",
        "# QIAO_API_KEY=… in this file; without it the gateway makes a key in its state folder.",
        "EnvironmentFile=-/etc/qiao/gateway.env",
        f"ExecStart=/usr/bin/env qiao serve --port {settings.gateway_port} --json-logs",
        "Restart=on-failure",
        "RestartSec=2",
        "# Wrong configuration does not get better by trying again.",
        "RestartPreventExitStatus=2 3",
        "TimeoutStopSec=30",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "MemoryDenyWriteExecute=no",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]


def _escaped(word: str) -> str:
    """systemd expands % and, in commands, $."""
    return _specifiers(word).replace("$", "$$")


def _specifiers(word: str) -> str:
    return word.replace("%", "%%")
