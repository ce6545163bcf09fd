"""What can be mended in a request that an engine refused: one table, used by the gateway, the doctor and the docs.

Pure: an error text in, a `Remedy` out. The gateway mends the request (`quirks.mend`), sends it once more, at most
`MAX_HEALINGS` times by what is news (`upstream.lessons`), and keeps the lessons that are `lasting`. A remedy whose
quirk is already in force is not found; one that another has taken back is, until that goes in a circle.
"""

from __future__ import annotations

import re

import msgspec

from qiao.policies.overflow import find_excess, room
from qiao.policies.quirks import Quirks, Remedy

MAX_HEALINGS = 2
"""How often one request is mended and sent again by what no other model has taught before."""

ANSWER_TOO_LONG = "answer_too_long"
"""The remedy after which the window is what limits the answer."""

HEALABLE_STATUSES = frozenset({400, 404, 422, 500, 501})
"""404: OpenRouter and Ollama refuse features with it. 500 and 501: llama.cpp and chat templates that raise."""

_FIELD_QUIRKS = {
    "stream_options": "no_stream_options",
    "continuous_usage_stats": "no_continuous_usage",
    "tool_choice": "no_tool_choice",
    "tools": "no_tools",
    "parallel_tool_calls": "no_parallel_tool_calls",
    "reasoning_effort": "no_reasoning_effort",
    "thinking_token_budget": "no_thinking_budget",
    "chat_template_kwargs": "no_template_kwargs",
    "reasoning": "no_reasoning_history",
    "reasoning_content": "no_reasoning_history",
    "continue_final_message": "no_prefill",
    "add_generation_prompt": "no_prefill",
    "strict": "no_strict",
    "response_format": "no_response_format",
}
"""Fields whose refusal is a quirk of its own, by the last name of their path."""

_KEEP_FIELDS = frozenset({"messages", "model", "stream", "content", "role", "type", "function", "name", "arguments"})
"""Fields without which there is no request: their refusal is not mended by leaving them out."""

_FIELD = r"[`'\"\[(]{0,4}(?P<value>[A-Za-z_][\w.\[\]]*)"

_PYDANTIC_PATH = r"'loc': [\[(](?:'body', )?(?:'\w+', |\d+, )*'(?P<value>\w+)'[,\])]+"

UNKNOWN_FIELD_WORDINGS: tuple[tuple[str, str], ...] = (
    ("OpenAI", rf"Unrecognized request arguments? supplied: {_FIELD}"),
    ("OpenAI", rf"(?:Unknown|Unsupported|Unrecognized|Unexpected) (?:parameter|field|argument|key)s?:? {_FIELD}"),
    ("OpenAI", rf"Unsupported value: {_FIELD}"),
    ("pydantic in vLLM", rf"'loc': '(?:body\.)?{_FIELD}', 'msg': 'Extra inputs are not permitted"),
    ("pydantic in FastAPI", rf"{_PYDANTIC_PATH}[^}}]{{0,40}}Extra inputs are not permitted"),
    ("pydantic, read out", r"(?:^|[\s;])(?P<value>[A-Za-z_][\w.]*): Extra inputs are not permitted"),
    ("vLLM, older", rf"Extra inputs are not permitted, field: {_FIELD}"),
    ("Groq", r"property '(?P<value>[\w.]+)' is unsupported"),
    ("LiteLLM", rf"does not support parameters: \[{_FIELD}"),
    ("servers in Rust", rf"unknown field {_FIELD}"),
    ("servers in Python", rf"got an unexpected keyword argument {_FIELD}"),
)
"""(who says it, pattern): a field that the engine does not take."""

_GRAMMAR = (
    r"Invalid grammar specification",
    r"Invalid (?:\w+ )?structural[ _]tag specification",
    r"Grammar error:",
    r"failed to parse grammar",
    r"Failed to (?:convert|compile).{0,40}(?:grammar|schema)",
    r"Unsupported JSON schema",
)

TABLE: tuple[Remedy, ...] = (
    Remedy(
        "no_tool_parser",
        (r"(?:\"auto\" tool choice requires|tool_choice=.{0,80}requires) .{0,40}--tool-call-parser",),
        "no_tool_parser",
        "vLLM was started without --enable-auto-tool-choice and --tool-call-parser; "
        "tools are sent with tool_choice none",
        needs="tools",
        says='"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        mend="nothing is lost; or start vLLM with --enable-auto-tool-choice --tool-call-parser NAME",
    ),
    Remedy(
        "tools_unsupported",
        (
            r"does not support tools",
            r"tools param requires --jinja",
            r"tool (?:use|calling) is not (?:supported|enabled)",
            r"No endpoints found that support tool use",
        ),
        "no_tools",
        "the model or its chat template has no tools (Ollama, llama.cpp without --jinja); they are left out",
        needs="tools",
        says="tools param requires --jinja flag",
        mend="start llama-server with --jinja, or take a model whose chat template has tools",
    ),
    Remedy(
        "tool_choice_refused",
        (
            r"Invalid (?:value for )?[`'\"]?tool_choice\b",
            r"tool_choice.{0,40}(?:not supported|unsupported)",
            r"does not support (?:this )?tool_choice",
        ),
        "no_tool_choice",
        "the engine does not take this tool_choice; the model chooses by itself",
        needs="tool_choice",
        says='Invalid value for `tool_choice`: any! Only named tools, "none", "auto" or "required" are supported.',
        mend="update the engine: forced calls need a newer version",
    ),
    Remedy(
        "forced_tool_missing",
        (
            r"The tool specified in `tool_choice` does not match any of the specified `tools`",
            r"Invalid value for `function`: .{0,40} in `tool_choice`",
            r"When using `tool_choice`, `tools` must be set",
        ),
        "no_tool_choice",
        "the tool that must be called is not among those that were sent; the model chooses by itself",
        needs="tool_choice",
        lasting=False,
        says="The tool specified in `tool_choice` does not match any of the specified `tools`",
        mend="offer the tool in the same request",
    ),
    Remedy(
        "text_model",
        (
            r"is not a multimodal model",
            r"At most 0 image",
            r"image input is not supported",
            r"does not support image",
            r"images? (?:inputs? )?(?:is|are) not supported",
            r"unknown variant `image_url`",
            r"Only 'text' content type is supported",
            r"No endpoints found that support image",
        ),
        "no_images",
        "the model reads text only (vLLM, llama.cpp without mmproj); images become notes",
        needs="images",
        says="qwen3-235b is not a multimodal model",
        mend="serve a model that sees, if images matter",
    ),
    Remedy(
        "image_limit",
        (r"At most (?P<value>[1-9]\d*) image\(s\) may be provided",),
        "image_limit",
        "the engine takes fewer pictures in one prompt (vLLM: --limit-mm-per-prompt); the newest are sent, "
        "earlier ones become notes",
        needs="images",
        says="At most 1 image(s) may be provided in one prompt.",
        mend="start vLLM with a higher --limit-mm-per-prompt",
    ),
    Remedy(
        "system_position",
        (
            r"System message must be (?:at the beginning|the first)",
            r"Unexpected role \\?[\"'`]system",
            r"role \\?[\"'`]?system\\?[\"'`]? (?:is )?not supported",
            r"only the first message can (?:be|have).{0,20}system",
            r"Conversation roles must alternate",
        ),
        "fold_system",
        "the chat template refuses system turns inside the conversation (some Qwen templates); "
        "they become reminders in user turns",
        says="System message must be at the beginning.",
        mend="give the engine a chat template that takes system turns anywhere (vLLM: --chat-template)",
    ),
    Remedy(
        "stop_limit",
        (
            r"'loc': '(?:body\.)?stop(?:_sequences)?', 'msg': 'List should have at most (?P<value>\d+) item",
            r"\bstop(?:_sequences)?\b[^\n]{0,120}?(?:at most|maximum length|up to) (?P<value>\d+)",
        ),
        "stop_limit",
        "the engine takes fewer stop strings (vLLM: VLLM_MAX_STOP_STRINGS, 4; OpenAI: 4); the rest is matched here",
        needs="stop",
        says="'loc': 'body.stop', 'msg': 'List should have at most 4 items after validation, not 5'",
        mend="set VLLM_MAX_STOP_STRINGS higher, if you like; nothing is lost without it",
    ),
    Remedy(
        "answer_limit",
        (
            r"max_(?:completion_)?tokens=\d+ cannot be greater than max_model_len=(?P<value>\d+)",
            r"max_(?:completion_)?tokens is too large: \d+\. This model supports at most (?P<value>\d+)",
            r"max_tokens: \d+ > (?P<value>\d+), which is the maximum allowed number of output tokens",
            r"valid range of max_tokens is \[\d+, ?(?P<value>\d+)\]",
            r"max_(?:completion_)?tokens\W{1,3}must be less than or equal to \W?(?P<value>\d+)",
        ),
        "max_tokens",
        "the model gives shorter answers than the client asked for; max_tokens is lowered to its limit",
        needs="max_tokens",
        says="max_tokens=40961 cannot be greater than max_model_len=40960. Please request fewer output tokens.",
        mend="set a lower limit in the client (Claude Code: CLAUDE_CODE_MAX_OUTPUT_TOKENS, as `qiao claude` does)",
    ),
    Remedy(
        "max_tokens_name",
        (r"'max_tokens' is not supported with this model\. Use '(?P<value>max_completion_tokens)'",),
        "max_tokens_field",
        "newer OpenAI models know the limit only by its new name; it is sent as max_completion_tokens",
        needs="max_tokens",
        says="'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ),
    Remedy(
        "stream_options",
        (r"Stream options can only be defined when `stream=True`",),
        "no_stream_options",
        "stream_options went to a request that does not stream; it is left out",
        lasting=False,
        says="Stream options can only be defined when `stream=True`. (parameter=stream_options)",
    ),
    Remedy(
        "effort",
        (
            r"loc': '(?:body\.)?reasoning_effort'",
            r"reasoning[._]effort.{0,60}(?:not supported|unsupported|Input should be|invalid|is not one of)",
            r"(?:unsupported|invalid) value.{0,20}reasoning[._]effort",
            r"does not support (?:the )?(?:reasoning_effort|effort|thinking)",
        ),
        "no_reasoning_effort",
        "the engine does not know this reasoning_effort; it is left out",
        needs="effort",
        says="'loc': 'body.reasoning_effort', 'msg': \"Input should be 'none', 'minimal', 'low', 'medium', 'high', …",
        mend="choose another effort in the client, or update the engine",
    ),
    Remedy(
        "thinking_budget",
        (r"thinking_token_budget (?:is set but|needs)",),
        "no_thinking_budget",
        "vLLM limits thinking only with --reasoning-parser or --reasoning-config; the budget is left out",
        needs="thinking_budget",
        says="thinking_token_budget is set but reasoning_config is not configured.",
        mend="start vLLM with --reasoning-parser",
    ),
    Remedy(
        "template_arguments",
        (
            r"chat_template_kwargs.{0,80}(?:not supported|not allowed|invalid)",
            r"chat_template is not supported for Mistral tokenizers",
        ),
        "no_template_kwargs",
        "the engine does not take chat_template_kwargs; they are left out",
        says="chat_template is not supported for Mistral tokenizers.",
        mend="start vLLM without --tokenizer-mode mistral",
    ),
    Remedy(
        "prefill",
        (
            r"continue_final_message and add_generation_prompt are not compatible",
            r"continue_final_message.{0,60}not supported",
            r"prefill is incompatible",
            r"does not support assistant message prefill",
            r"Cannot have 2 or more assistant messages at the end",
            r"(?:last|final) message (?:cannot|must not) be (?:from the )?assistant",
        ),
        "no_prefill",
        "the engine cannot continue an assistant turn; it answers in a turn of its own",
        needs="prefill",
        says="continue_final_message and add_generation_prompt are not compatible.",
        mend="end the conversation with a user turn",
    ),
    Remedy(
        "reasoning_history",
        (
            r"messages?[\w.\[\]]*\.reasoning(?:_content)?\b.{0,40}(?:not permitted|not supported|unknown)",
            r"property 'reasoning(?:_content)?' is unsupported",
        ),
        "no_reasoning_history",
        "the engine refuses reasoning in earlier turns; it is left out",
        says="'messages.1.reasoning_content' : property 'reasoning_content' is unsupported",
    ),
    Remedy(
        "strict_schema",
        (*_GRAMMAR, r"Invalid schema for function"),
        "no_strict",
        "the grammar refuses a strict tool's schema (vLLM: one bad schema breaks the request); strict is left out",
        needs="strict",
        lasting=False,
        says="Invalid grammar specification: 'triggers'",
        mend="mend the tool's schema, or leave `strict` out",
    ),
    Remedy(
        "call_structure",
        (*_GRAMMAR, r"(?:Input should be|is not one of|unsupported|not supported).{0,200}json_schema"),
        "no_structure",
        "structural tags are refused, as such or for one schema (vLLM, older and newer); calls are asked for without",
        needs="structure",
        lasting=False,
        says="Invalid response_format structural_tag specification. (parameter=response_format)",
        mend="mend the tool's schema; which one it is, qiao finds out and leaves only that tool unbound",
    ),
    Remedy(
        "answer_schema",
        (
            *_GRAMMAR,
            r"Invalid schema for response_format",
            r"response_format.{0,80}(?:unavailable|not supported|unsupported)",
            r"Cannot use custom grammar constraints with tools",
        ),
        "no_response_format",
        "the grammar refuses the answer's schema; the answer is not constrained",
        needs="response_format",
        lasting=False,
        says="Grammar error: Invalid type: objectt",
        mend="mend the schema of the answer",
    ),
    Remedy(
        "forced_call_schema",
        _GRAMMAR,
        "no_tool_choice",
        "the grammar refuses a tool's schema in a forced call (vLLM, legacy tool calling); the model chooses by itself",
        needs="tool_choice",
        lasting=False,
        says='Grammar error: Unimplemented keys: ["uniqueItems"]',
        mend="mend the tool's schema, or start vLLM without VLLM_ENFORCE_STRICT_TOOL_CALLING=0",
    ),
    Remedy(
        "long_tool_names",
        (
            r"name[`'\"]?: string too long",
            r"name\b.{0,80}at most 64 characters",
            r"(?:tool|function) name.{0,80}\b64\b",
        ),
        "no_long_names",
        "the engine takes names of tools up to 64 characters (OpenAI); longer ones are sent shortened and given back",
        needs="long_names",
        says="Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64, but got a "
        "string with length 71 instead.",
    ),
    Remedy(
        "priority",
        (r"Got (?P<value>priority) .{0,20}but priority scheduling is not enabled", r"(?P<value>priority) is disabled"),
        "unknown_fields",
        "the engine has no --scheduling-policy priority and refuses the field; side requests wait in line like others",
        needs="priority",
        says="Got priority 1 but Priority scheduling is not enabled.",
        mend="start vLLM with --scheduling-policy priority",
    ),
    Remedy(
        "sampling_value",
        (r"(?<![\w.])(?P<value>temperature|top_p|top_k|min_p|presence_penalty|frequency_penalty) must be\b",),
        "unknown_fields",
        "a sampling value is outside the engine's range; the engine's own default is used",
        lasting=False,
        says="top_k must be 0 (disable), or at least 1, got -2.",
        mend="correct the value in the client",
    ),
)
"""Tried in this order; fields that an engine does not know come after (`UNKNOWN_FIELD_WORDINGS`)."""


def find(
    error_text: str,
    status: int,
    *,
    used: frozenset[str] | None = None,
    quirks: Quirks | None = None,
    true_count: int | None = None,
) -> Remedy | None:
    """The first remedy for a refusal, with its value, or None where nothing can be mended.

    `used`: the request's `features`; None: unknown, nothing is ruled out. `quirks`: what is already in force.
    `true_count`: the prompt's tokens, where the caller asked the engine's tokenizer.
    """
    if status not in HEALABLE_STATUSES:
        return None
    in_force = Quirks() if quirks is None else quirks
    if excess := find_excess(error_text):
        left = room(excess, true_count)
        return None if left is None else _new(_shorter(left), in_force)
    for remedy in TABLE:
        if used is not None and remedy.needs and remedy.needs not in used:
            continue
        for pattern in remedy.patterns:
            match = re.search(pattern, error_text, re.IGNORECASE)
            if match and (found := _new(_filled(remedy, match), in_force)):
                return found
    return _unknown_field(error_text, in_force)


def _filled(remedy: Remedy, match: re.Match[str]) -> Remedy:
    """`remedy` with the value that its pattern caught, if it catches one."""
    caught = match.groupdict().get("value")
    if caught is None:
        return remedy
    value: int | str = int(caught[:15]) if caught.isdecimal() else caught
    return msgspec.structs.replace(remedy, value=value)


def _new(remedy: Remedy, in_force: Quirks) -> Remedy | None:
    return None if in_force.has(remedy) else remedy


def _shorter(left: int) -> Remedy:
    return Remedy(
        ANSWER_TOO_LONG,
        (),
        "max_tokens",
        "prompt and answer together exceed the context window; max_tokens is lowered to what is left",
        needs="max_tokens",
        lasting=False,
        value=left,
    )


def _unknown_field(error_text: str, in_force: Quirks) -> Remedy | None:
    for who, pattern in UNKNOWN_FIELD_WORDINGS:
        match = re.search(pattern, error_text, re.IGNORECASE)
        if match is None:
            continue
        field = re.split(r"[.\[\]]+", match["value"].rstrip(".[]"))[-1]
        if field in _KEEP_FIELDS or field.isdecimal():
            continue
        explanation = f"the engine does not take the field `{field}` ({who}); it is left out"
        if field in ("max_tokens", "max_completion_tokens"):
            other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
            found = Remedy("max_tokens_name", (pattern,), "max_tokens_field", explanation, value=other)
        elif field in _FIELD_QUIRKS:
            found = Remedy(f"unknown_{field}", (pattern,), _FIELD_QUIRKS[field], explanation)
        else:
            found = Remedy("unknown_field", (pattern,), "unknown_fields", explanation, value=field)
        if new := _new(found, in_force):
            return new
    return None
