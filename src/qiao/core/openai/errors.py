"""A `Fault` in OpenAI's words: HTTP status, `error.type`, `error.code`, `error.param`, body.

Clients act on three things: the status (their SDK repeats 408, 409, 429 and 5xx), `code`
(`context_length_exceeded`, `model_not_found`, `invalid_api_key`, `rate_limit_exceeded`), and the words "maximum context
length is N tokens", by which they learn the window and shorten the conversation.
"""

from __future__ import annotations

import re
from typing import Any

from qiao.core.fault import Fault, Kind
from qiao.core.json_text import encode_json

_STATUS_TYPE_CODE: dict[Kind, tuple[int, str, str | None]] = {
    "invalid_request": (400, "invalid_request_error", None),
    "authentication": (401, "invalid_request_error", "invalid_api_key"),
    "billing": (402, "insufficient_quota", "insufficient_quota"),
    "permission": (403, "invalid_request_error", "permission_denied"),
    "not_found": (404, "invalid_request_error", None),
    "timeout": (504, "server_error", "timeout"),
    "conflict": (409, "invalid_request_error", "conflict"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded"),
    "api": (500, "server_error", None),
    "overloaded": (503, "server_error", "overloaded"),
    "unavailable": (503, "server_error", "unavailable"),
}

# How faults name the field that is wrong: `messages.0.content: Field required`.
_PATH = re.compile(r"(?P<path>[a-z_]+(?:\.[A-Za-z0-9_]+)*): (?P<problem>.+)", re.DOTALL)
_POSITION = re.compile(r"\.(\d+)(?=\.|$)")
# What `policies.overflow.too_long` says, the one sentence that all engines' refusals for length become.
_TOO_LONG = re.compile(r"prompt is too long(?:: (?P<prompt>\d+) tokens(?: > (?P<window>\d+) maximum)?)?\Z")
_UNKNOWN_MODEL = re.compile(r"model: (?P<name>.*)\Z", re.DOTALL)


def status(fault: Fault) -> int:
    """The HTTP status. What the upstream broke is a bad gateway (502), what the client was slow with a 408."""
    if fault.kind == "timeout" and fault.party == "client":
        return 408
    if fault.kind == "api" and fault.party == "upstream":
        return 502
    return _STATUS_TYPE_CODE[fault.kind][0]


def error_object(fault: Fault) -> dict[str, Any]:
    """The value of `error`: always all four keys."""
    _, kind, code = _STATUS_TYPE_CODE[fault.kind]
    message, param = fault.message, None
    if fault.kind == "invalid_request" and (too_long := _TOO_LONG.match(message)):
        message, param, code = _too_long(too_long), "messages", "context_length_exceeded"
    elif fault.kind == "not_found" and (unknown := _UNKNOWN_MODEL.match(message)):
        message = f"The model `{unknown['name']}` does not exist here; GET /v1/models lists those that do."
        param, code = "model", "model_not_found"
    elif fault.kind == "invalid_request" and (placed := _PATH.match(message)):
        param = _POSITION.sub(r"[\1]", placed["path"])
        message = f"{param}: {placed['problem']}"
    return {"message": message, "type": kind, "param": param, "code": fault.error_code or code}


def body(fault: Fault) -> bytes:
    """The whole error body."""
    return encode_json({"error": error_object(fault)})


def _too_long(match: re.Match[str]) -> str:
    prompt, window = match["prompt"], match["window"]
    if window is None:
        counted = f" ({prompt} tokens)" if prompt else ""
        return f"The messages{counted} exceed the model's maximum context length. Please reduce their length."
    return (
        f"This model's maximum context length is {window} tokens. However, your messages resulted in {prompt} tokens. "
        "Please reduce the length of the messages."
    )
