"""LiteLLM in front of the gateway, for houses that have it already: a configuration that today's LiteLLM accepts.

What the usual guides get wrong: the key `sk-1234` is refused, `drop_params` belongs to litellm_settings, and the prefix
`openai/` sends /v1/messages to the Responses API. The prefix `anthropic/` hands Claude Code's requests on as they are.
"""

from __future__ import annotations

from qiao.exports.settings import Settings
from qiao.exports.words import about
from qiao.exports.yaml import Commented, Node, documents
from qiao.planner.plan import Plan


def render(plan: Plan, settings: Settings) -> dict[str, str]:
    """litellm_config.yaml."""
    comment = (
        f"{about(plan)}\n"
        "Two keys, both from the environment: QIAO_API_KEY is the gateway's (`qiao key`), LITELLM_MASTER_KEY the one\n"
        "that clients show LiteLLM; it must begin with sk- and be your own:\n"
        '  export QIAO_API_KEY="$(qiao key)" LITELLM_MASTER_KEY="sk-$(openssl rand -hex 24)"\n'
        f"  litellm --config litellm_config.yaml --port {settings.gateway_port + 1}"
    )
    model: Node = {
        "model_name": plan.served_name,
        "litellm_params": {
            "model": f"anthropic/{plan.served_name}",
            "api_base": f"http://127.0.0.1:{settings.gateway_port}",
            "api_key": "os.environ/QIAO_API_KEY",
        },
        "model_info": {"max_input_tokens": plan.window, "max_tokens": min(plan.window, 32_000)},
    }
    return {
        "litellm_config.yaml": documents(
            Commented(
                comment,
                {
                    "model_list": [model],
                    "litellm_settings": {"drop_params": True, "request_timeout": 3600, "num_retries": 0},
                    "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
                },
            )
        )
    }
