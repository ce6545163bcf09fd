"""Lines that a serving vLLM or a LiteLLM writes when requests fail. Pure data."""

from __future__ import annotations

from qiao.policies.log_rule import rule

_REQUESTS = (
    rule(
        "template_items",
        "The chat template calls .items() on a tool call's arguments that are a text, not an object.",
        "qiao always sends objects; without it, update the model's template (Qwen3-Coder#444).",
        r"Can only get item pairs from a mapping",
        r"'str' object has no attribute 'items'",
        severity="refused",
    ),
    rule(
        "parser_failed",
        "The tool parser of vLLM failed on what the model wrote: the call is lost or broken.",
        "Let qiao read the calls: `qiao up --upstream URL --tool-parser hermes`.",
        r"Error in extracting tool call from response",
        r"Error trying to handle streaming tool call",
        severity="refused",
    ),
    rule(
        "preempted",
        "Requests were pushed out of the KV cache and computed again: it is too small for so many at once.",
        "Lower --max-num-seqs, raise --gpu-memory-utilization, or use --kv-cache-dtype fp8.",
        r"is preempted by PreemptionMode",
        severity="warning",
    ),
    rule(
        "shm_wait",
        "A worker was silent for a minute: it compiles, loads, or hangs.",
        "Normal while loading. While serving, a GPU or NCCL hangs: look at `nvidia-smi` and `dmesg`.",
        r"No available shared memory broadcast block found",
        severity="warning",
    ),
    rule(
        "engine_dead",
        "The engine's process ended; the server has nothing to answer with.",
        "The cause stands further up; where it does not, `dmesg` tells whether the kernel killed it.",
        r"EngineDeadError",
        r"EngineCore (?:encountered an issue|died unexpectedly)",
        severity="echo",
    ),
    rule(
        "start_failed",
        "The engine did not start.",
        "The cause stands further up, in the first traceback.",
        r"Engine core initialization failed",
        r"WorkerProc initialization failed",
        severity="echo",
    ),
)

_LITELLM = (
    rule(
        "litellm_master_key",
        "LiteLLM does not start with this key: `sk-1234`, of most guides, is publicly known (or it is empty).",
        (
            "Make your own: LITELLM_MASTER_KEY=sk-$(openssl rand -hex 24), and "
            "`master_key: os.environ/LITELLM_MASTER_KEY` in general_settings."
        ),
        r"LiteLLM proxy refused to start",
        r"UnsafeMasterKeyError",
        source="LiteLLM",
    ),
    rule(
        "litellm_responses_api",
        "LiteLLM sends /v1/messages to the Responses API: the prefix openai/ of the model does that.",
        (
            "Write hosted_vllm/NAME for a vLLM, or anthropic/NAME with qiao's address; `qiao export litellm` writes "
            "the whole file."
        ),
        r"/v1/responses[\"' ].{0,60}\b404\b",
        r"(?:OpenAIException|openai\.NotFoundError).{0,200}/v1/responses",
        r"404 Not Found.{0,40}/v1/responses",
        r"Not Found LiteLLM: model group",
        severity="refused",
        source="LiteLLM",
    ),
    rule(
        "litellm_no_database",
        "A wrong key was shown to a LiteLLM without database: it says 'No connected db.' instead of 401.",
        "Give the client LiteLLM's own master key.",
        r"No connected db\.?",
        r"no_db_connection",
        severity="refused",
        source="LiteLLM",
    ),
    rule(
        "litellm_unsupported_params",
        "LiteLLM refuses a field that the model behind it does not have.",
        "`drop_params: true` belongs into litellm_settings, not into general_settings.",
        r"UnsupportedParamsError",
        r"does not support parameters: \[",
        severity="refused",
        source="LiteLLM",
    ),
    rule(
        "litellm_unknown_model",
        "The client asks for a model name that the configuration does not list.",
        "Name it in model_list, or add a model_name '*'; Claude Code also asks for haiku.",
        r"Invalid model name passed in model=",
        r"There are no healthy deployments for this model",
        severity="refused",
        source="LiteLLM",
    ),
    rule(
        "litellm_cannot_connect",
        "LiteLLM does not reach the engine.",
        "Check api_base (with /v1 for a vLLM) and that the engine runs; in Docker, localhost is the container.",
        r"litellm\.(?:InternalServerError|APIConnectionError).{0,120}Connection error",
        r"Cannot connect to host \S+",
        severity="refused",
        source="LiteLLM",
    ),
    rule(
        "litellm_proxy_missing",
        "LiteLLM was installed without its server.",
        "`pip install 'litellm[proxy]'` (with the quotes).",
        r"Missing dependency .{0,60}Run `?pip install 'litellm\[proxy\]'",
        source="LiteLLM",
    ),
)

RULES = (*_LITELLM, *_REQUESTS)
"""In the order in which they are tried."""

GENERAL = (
    rule(
        "template_error",
        "The chat template refused a conversation.",
        "The line says why; a wrong --chat-template for this model is the usual cause: leave the flag out.",
        r"jinja2\.exceptions\.(?:TemplateError|UndefinedError|TemplateSyntaxError)",
        r"An error occurred in `transformers` while applying chat template",
        severity="refused",
    ),
)
"""Asked last: a refusal that the gateway knows says more."""
