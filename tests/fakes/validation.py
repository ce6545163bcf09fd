"""What vLLM 0.32.0 refuses, with the bodies it refuses with (reference: recorded from a running server).

The order is the server's: shape of the JSON, then the rules about fields, then the model's name, then the
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.fakes.behaviour import Behaviour
from tests.fakes.script import error_body

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
CONTENT_PARTS = (
    "audio_embeds, audio_url, image_embeds, image_pil, image_url, input_audio, input_image, input_text, "
    "output_text, prompt_embeds, refusal, text, thinking, tool_reference, video_embeds, video_url"
)
_IMAGES = ("image_url", "input_image", "image_embeds", "image_pil")


class RefusedError(Exception):
    """The request is refused with this status and body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {json.dumps(body)[:300]}")
        self.status = status
        self.body = body


def bad(message: str, param: str | None = None, value: object = None) -> RefusedError:
    """vLLM's own 400; with `param` its name (and `value`) stand at the end of the message."""
    if param is not None:
        message += f" (parameter={param}" + (f", value={value})" if value is not None else ")")
    return RefusedError(400, error_body(400, message, "BadRequestError", param=param))


def malformed(*problems: dict[str, Any], param: str | None = None) -> RefusedError:
    """A 400 of the JSON shape checks, as pydantic words it."""
    listed = "\n".join(f"  {problem!r}" for problem in problems)
    head = f"{len(problems)} validation error" + ("s" if len(problems) > 1 else "")
    where = param or problems[0]["loc"]
    return RefusedError(400, error_body(400, f"{head}:\n{listed}", "Bad Request", param=where))


def described(value: object) -> str:
    """How the server names a value that it does not like."""
    if isinstance(value, (dict, list)):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)


def parse(raw: bytes, content_type: str) -> dict[str, Any]:
    """The body as an object."""
    if content_type != "application/json":
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise RefusedError(400, error_body(400, text, "Bad Request"))
    if not raw:
        raise malformed({"type": "missing", "loc": "body", "msg": "Field required", "input": "None"})
    try:
        body = json.loads(raw.decode())
    except UnicodeDecodeError:
        raise RefusedError(400, {"detail": "There was an error parsing the body"}) from None
    except json.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": f"body.{error.pos}", "msg": "JSON decode error"}
        raise malformed(problem | {"input": "<dict of 0 items>", "ctx": {"error": error.msg}}) from None
    if not isinstance(body, dict):
        text = "Input should be a valid dictionary or object to extract fields from"
        raise malformed({"type": "model_attributes_type", "loc": "body", "msg": text, "input": described(body)})
    return body


def check_shape(body: Mapping[str, Any]) -> None:
    """Fields of the wrong JSON type."""
    if "messages" not in body:
        raise _missing("body.messages", body)
    messages = body["messages"]
    if not isinstance(messages, list):
        raise malformed(_problem("list_type", "body.messages", "Input should be a valid list", messages))
    for number, message in enumerate(messages):
        _check_message(number, message)
    for number, tool in enumerate(body.get("tools") or ()):
        _check_tool(number, tool)
    _check_stop(body.get("stop"))
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        expected = ", ".join(f"'{word}'" for word in EFFORTS[:-1]) + f" or '{EFFORTS[-1]}'"
        problem = _problem("literal_error", "body.reasoning_effort", f"Input should be {expected}", effort)
        raise malformed(problem | {"ctx": {"expected": expected}})
    for name in ("max_tokens", "max_completion_tokens", "top_k", "n", "thinking_token_budget"):
        value = body.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise malformed(_problem("int_type", f"body.{name}", "Input should be a valid integer", value))


def check_fields(body: Mapping[str, Any]) -> None:
    """Fields that do not go together, and words that do not exist."""
    if body.get("stream_options") is not None and not body.get("stream"):
        raise bad("Stream options can only be defined when `stream=True`.", "stream_options")
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        raise bad(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
            "tools",
        )
    if choice is not None and not tools:
        raise bad("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise bad(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )
    if isinstance(choice, dict):
        _check_named(choice, tools or [])
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema" and "json_schema" not in wanted:
        raise bad(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
            "response_format",
        )


def check_conversation(body: Mapping[str, Any], model: str, behaviour: Behaviour) -> None:
    """What the model or its chat template does not take."""
    choice = body.get("tool_choice")
    if body.get("tools") and behaviour.no_tools:
        raise bad(f"{model} does not support tools")
    if body.get("tools") and choice != "none" and not behaviour.tool_parser and behaviour.server != "sglang":
        if choice in (None, "auto"):
            text = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        elif choice == "required":
            text = 'tool_choice="required" requires --tool-call-parser to be set'
        else:
            text = f'tool_choice=function "{choice["function"]["name"]}" requires --tool-call-parser to be set'
        raise bad(text)
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema" and not behaviour.schemas:
        raise bad("response_format of type json_schema is not supported")
    if wanted.get("type") == "structural_tag" and not behaviour.structural_tags:
        expected = "'text', 'json_object' or 'json_schema'"
        problem = _problem("literal_error", "body.response_format.type", f"Input should be {expected}", wanted["type"])
        raise malformed(problem | {"ctx": {"expected": expected}})
    messages = body["messages"]
    if not messages:
        raise bad("Cannot apply chat template to an empty conversation. Provide at least one message.")
    for number, message in enumerate(messages):
        if message.get("role") == "system" and number and not behaviour.system_anywhere:
            raise bad("System message must be at the beginning.")
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            if part.get("type") in _IMAGES and not behaviour.multimodal:
                raise bad(f"{model} is not a multimodal model")
            if part.get("type") not in CONTENT_PARTS.split(", "):
                kind = part.get("type")
                raise bad(
                    f"Unsupported chat content part type: '{kind}'. Supported types: {CONTENT_PARTS}.",
                    "type",
                    kind,
                )
    if body.get("continue_final_message") and body.get("add_generation_prompt", True):
        raise bad(
            "continue_final_message and add_generation_prompt are not compatible. "
            "Use continue_final_message when you want the model to continue the final message, and "
            "add_generation_prompt when you want to add a header that will prompt it to start a new assistant "
            "message instead."
        )


def check_sampling(body: Mapping[str, Any], max_model_len: int) -> None:
    """Numbers out of range, and stop strings that are empty."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if value < 1:
            raise bad(f"max_tokens must be at least 1, got {value}.", "max_tokens", value)
        if value > max_model_len:
            text = f"{name}={value} cannot be greater than max_model_len={max_model_len}."
            raise bad(f"{text} Please request fewer output tokens.", name, value)
    stops = body.get("stop")
    if stops == "" or (isinstance(stops, list) and "" in stops):
        raise bad("stop cannot contain an empty string.")
    top_k, top_p, temperature = body.get("top_k"), body.get("top_p"), body.get("temperature")
    if top_k is not None and top_k < -1:
        raise bad(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise bad(f"top_p must be in (0, 1], got {float(top_p)}.", "top_p", float(top_p))
    if temperature is not None and not 0 <= temperature <= 2:
        raise bad(f"temperature must be in [0, 2], got {float(temperature)}.", "temperature", float(temperature))
    if body.get("n") is not None and body["n"] < 1:
        raise bad(f"n must be at least 1, got {body['n']}.")
    for tool in body.get("tools") or ():
        if tool["function"].get("strict") and not _compiles(tool["function"].get("parameters")):
            raise bad("Invalid grammar specification: 'triggers'")
    _check_output_schema(body.get("response_format") or {})


def check_length(prompt_tokens: int, max_model_len: int) -> None:
    """The prompt must leave room in the window; the true length is not told."""
    if prompt_tokens > max_model_len:
        raise bad(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains "
            f"at least {max_model_len + 1} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt.",
            "input_tokens",
            max_model_len + 1,
        )


def unknown_model(model: str, served: list[str]) -> RefusedError:
    text = f"The model `{model}` does not exist. Valid aliases: {', '.join(served)}."
    return RefusedError(404, error_body(404, text, "NotFoundError", param="model"))


def as_ray(refused: RefusedError, request_id: str) -> RefusedError:
    """The same refusal as Ray Serve LLM wraps it."""
    error = refused.body.get("error")
    if refused.status == 404 and error:
        name = error["message"].split("`")[1]
        text = f'Got request for model "{name}". Could not find base model with ID "{name}".'
        return RefusedError(404, {"detail": text})
    if not error:
        return refused
    if "json_invalid" in error["message"]:
        text = f"Invalid request format: JSON decode error at ('body', {error['param'].removeprefix('body.')})"
        body = {"message": text, "type": "json_invalid", "param": {}, "code": "invalid_parameter"}
        return RefusedError(400, {"error": body})
    identity = f"(Request ID: {request_id})"
    if error.get("param") in ("tools", "tool_choice", "tool_choice.function", "stream_options"):
        kind, original = "VLLMValidationError", error["message"]
        inner = f"vllm.exceptions.VLLMValidationError: {original}"
        outer = inner
    else:
        kind = "OpenAIHTTPException"
        inner = f"ray.llm._internal.serve.core.configs.openai_api_models.{kind}"
        outer, original = error["message"], ""
    text = f"Message: {outer} {identity}, Internal exception: {inner} {identity}, original exception: {original}"
    return RefusedError(refused.status, error_body(refused.status, text, kind))


def _missing(where: str, inside: object) -> RefusedError:
    return malformed(_problem("missing", where, "Field required", inside))


def _problem(kind: str, where: str, text: str, value: object) -> dict[str, Any]:
    return {"type": kind, "loc": where, "msg": text, "input": described(value)}


def _check_message(number: int, message: Any) -> None:
    where = f"body.messages.{number}"
    if not isinstance(message, dict):
        raise malformed(_problem("dict_type", where, "Input should be a valid dictionary", message))
    role, content = message.get("role"), message.get("content")
    if content is None and role != "assistant":
        if "content" not in message:
            raise _missing(f"{where}.content", message)
        text = "Input should be a valid string"
        problem = {"type": "string_type", "loc": f"{where}.content", "msg": text, "input": "None"}
        raise malformed(*[problem] * 19)
    if content is not None and not isinstance(content, (str, list)):
        raise malformed(_problem("string_type", f"{where}.content", "Input should be a valid string", content))
    try:
        json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad("TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]") from None
    for called in message.get("tool_calls") or ():
        function = called.get("function", {})
        if not isinstance(function.get("arguments"), str):
            kind = "ChatCompletionMessageFunctionToolCallParam.function"
            custom = "body.0.ChatCompletionMessageCustomToolCallParam"
            raise malformed(
                _problem(
                    "string_type",
                    f"body.0.{kind}",
                    "Input should be a valid string",
                    function.get("arguments"),
                ),
                _problem("missing", f"{custom}.custom", "Field required", called),
                _problem("literal_error", f"{custom}.type", "Input should be 'custom'", "function")
                | {"ctx": {"expected": "'custom'"}},
            )


def _check_tool(number: int, tool: Any) -> None:
    where = f"body.tools.{number}"
    problems: list[dict[str, Any]] = []
    if tool.get("type", "function") != "function":
        problem = _problem("literal_error", f"{where}.type", "Input should be 'function'", tool["type"])
        problems.append(problem | {"ctx": {"expected": "'function'"}})
    if "function" not in tool:
        problems.append(_problem("missing", f"{where}.function", "Field required", tool))
    elif "name" not in tool["function"]:
        problems.append(_problem("missing", f"{where}.function.name", "Field required", tool["function"]))
    elif not isinstance(tool["function"].get("parameters") or {}, dict):
        text = "Input should be a valid dictionary"
        problems.append(_problem("dict_type", f"{where}.function.parameters", text, tool["function"]["parameters"]))
    if problems:
        raise malformed(*problems)


def _check_stop(stop: Any) -> None:
    if isinstance(stop, list) and len(stop) > 4:
        text = f"List should have at most 4 items after validation, not {len(stop)}"
        context = {"ctx": {"field_type": "List", "max_length": 4, "actual_length": len(stop)}}
        raise malformed(
            _problem("string_type", "body.stop", "Input should be a valid string", stop),
            _problem("too_long", "body.stop", text, stop) | context,
        )


def _check_named(choice: Mapping[str, Any], tools: list[Any]) -> None:
    named = choice.get("function")
    if named is None:
        raise bad(
            "Invalid value for `function`: `None` in `tool_choice`! Correct usage: "
            '`{"type": "function", "function": {"name": "my_function"}}`',
            "tool_choice.function",
        )
    if named.get("name") not in [tool["function"]["name"] for tool in tools]:
        raise bad("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice")


def _check_output_schema(wanted: Mapping[str, Any]) -> None:
    if wanted.get("type") == "structural_tag" and not all(map(_compiles, _bound_schemas(wanted.get("format")))):
        raise bad("Invalid response_format structural_tag specification.", "response_format")
    if wanted.get("type") != "json_schema":
        return
    schema = wanted["json_schema"].get("schema") or {}
    for reference in _references(schema):
        place = reference.removeprefix("#/$defs/")
        if place == reference or place not in (schema.get("$defs") or {}):
            raise bad(f"Grammar error: Pointer '{reference.removeprefix('#')}' does not exist")
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in (
        "object",
        "array",
        "string",
        "number",
        "integer",
        "boolean",
        "null",
    ):
        raise bad(f"Grammar error: Invalid type: {kind}")


def _compiles(schema: Any) -> bool:
    """Whether the grammar of a strict tool can be made of this schema."""
    if not isinstance(schema, dict):
        return True
    references = [found for found in _references(schema) if found.startswith("#/$defs/")]
    known = schema.get("$defs") or {}
    return isinstance(schema.get("properties", {}), dict) and all(
        reference.removeprefix("#/$defs/").split("/")[0] in known for reference in references
    )


def _bound_schemas(form: Any) -> list[Any]:
    """The schemas in a structural tag."""
    if isinstance(form, list):
        return [found for item in form for found in _bound_schemas(item)]
    if not isinstance(form, dict):
        return []
    if form.get("type") == "json_schema":
        return [form["json_schema"]]
    return [found for value in form.values() for found in _bound_schemas(value)]


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [found for item in schema for found in _references(item)]
    if not isinstance(schema, dict):
        return []
    found = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return found + [inner for value in schema.values() for inner in _references(value)]
