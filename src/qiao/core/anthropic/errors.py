"""A `Fault` in Anthropic's words: HTTP status, `error.type`, body."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qiao.core.fault import Fault, Kind
from qiao.core.json_text import encode_json

_STATUS_AND_TYPE: dict[Kind, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "authentication": (401, "authentication_error"),
    "billing": (402, "billing_error"),
    "permission": (403, "permission_error"),
    "not_found": (404, "not_found_error"),
    "timeout": (504, "timeout_error"),
    "conflict": (409, "conflict_error"),
    "too_large": (413, "request_too_large"),
    "rate_limit": (429, "rate_limit_error"),
    "api": (500, "api_error"),
    "overloaded": (529, "overloaded_error"),
    "unavailable": (503, "api_error"),
}


def status(fault: Fault) -> int:
    """The HTTP status. What the upstream broke is a bad gateway (502), what the client was slow with a 408."""
    if fault.kind == "timeout" and fault.party == "client":
        return 408
    if fault.kind == "api" and fault.party == "upstream":
        return 502
    return _STATUS_AND_TYPE[fault.kind][0]


def type_of(fault: Fault) -> str:
    """The `error.type`."""
    return _STATUS_AND_TYPE[fault.kind][1]


def error_object(fault: Fault) -> dict[str, Any]:
    """The value of `error`."""
    error: dict[str, Any] = {"type": type_of(fault), "message": fault.message}
    if fault.error_code is not None:
        error["details"] = {"error_code": fault.error_code}
    return error


def body(fault: Fault, request_id: str, beside: Mapping[str, Any] = MappingProxyType({})) -> bytes:
    """The whole error body; `beside` are more keys of `error`, for clients of another protocol."""
    return encode_json({"type": "error", "error": {**error_object(fault), **beside}, "request_id": request_id})
