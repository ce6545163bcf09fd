"""bash: start_vllm.sh for the engine, start_gateway.sh for the gateway. For one computer or for several."""

from __future__ import annotations

from qiao.exports.settings import Settings
from qiao.exports.words import about, engine_arguments, lines_of, quoted
from qiao.planner.plan import Plan


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """The two scripts."""
    return {"start_vllm.sh": _engine(plan), "start_gateway.sh": _gateway(plan, settings)}


def _engine(plan: Plan) -> str:
    arguments = engine_arguments(plan, host="HOST", port=0, without=("--host", "--port"))[5:]
    command = ['exec vllm serve "$MODEL" \\', '  --host "$HOST" --port "$PORT" \\']
    command += [f"  {' '.join(map(quoted, line))} \\" for line in lines_of(arguments)]
    if plan.nodes > 1:
        command.append('  "${NODE[@]}" \\')
    command.append('  "$@"')
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {about(plan)}",
            "# Further flags of vLLM may be given to this script; they come last and win.",
            "set -euo pipefail",
            "",
            f"MODEL=${{MODEL:-{quoted(plan.model.repository)}}}",
            "HOST=${HOST:-127.0.0.1}",
            f"PORT=${{PORT:-{_port(plan)}}}",
            *_environment(plan),
            *(_nodes(plan) if plan.nodes > 1 else []),
            "",
            "if ! command -v vllm >/dev/null; then",
            '  echo "vllm is not installed, or its virtual environment is not active: pip install vllm" >&2',
            "  exit 127",
            "fi",
            "",
            *command,
            "",
        ]
    )


def _port(plan: Plan) -> str:
    return plan.arguments[plan.arguments.index("--port") + 1]


def _environment(plan: Plan) -> list[str]:
    lines = [f"export {name}=${{{name}:-{quoted(value)}}}" for name, value in plan.environment.items()]
    return [*lines, "# From ModelScope instead of Hugging Face: export VLLM_USE_MODELSCOPE=True"]


def _nodes(plan: Plan) -> list[str]:
    return [
        "",
        f"# The same script runs on each of the {plan.nodes} computers; the first one answers requests.",
        f': "${{NODE_RANK:?set it to the number of this computer, 0 to {plan.nodes - 1}}}"',
        ': "${HEAD_ADDRESS:?set it to the address of computer 0}"',
        ': "${NCCL_SOCKET_IFNAME:?set it to the network card that connects the computers, such as eth0}"',
        'export NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$NCCL_SOCKET_IFNAME}"',
        'NODE=(--node-rank "$NODE_RANK" --master-addr "$HEAD_ADDRESS")',
        'if [ "$NODE_RANK" != 0 ]; then NODE+=(--headless); fi',
    ]


def _gateway(plan: Plan, settings: Settings) -> str:
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# The gateway in front of {plan.served_name}: Claude Code connects here, with `qiao claude`.",
            "set -euo pipefail",
            "",
            f"UPSTREAM=${{UPSTREAM:-http://127.0.0.1:{settings.engine_port}/v1}}",
            "",
            "if ! command -v qiao >/dev/null; then",
            '  echo "qiao is not installed, or its virtual environment is not active" >&2',
            "  exit 127",
            "fi",
            "",
            f'exec qiao serve --upstream "$UPSTREAM" --port {settings.gateway_port} "$@"',
            "",
        ]
    )
