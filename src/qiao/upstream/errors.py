"""Every way in which an upstream can fail, as a `Fault`: the one place that knows what a transport raises.

The engine's words are read by `policies.refusal`, its lengths by `policies.overflow`. What the client caused keeps
the engine's sentence, cleaned; what it did not cause (the gateway's key, a dead server) is never blamed on it.
"""

from __future__ import annotations

import email.utils
import socket
import ssl
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from qiao.core.fault import Fault, Kind, Party
from qiao.policies import overflow, refusal, remedies
from qiao.policies.refusal import Refusal
from qiao.upstream.http import ConnectTimeout, HttpError, TruncatedAnswer

TRANSPORT_ERRORS: tuple[type[Exception], ...] = (HttpError, OSError)
"""What an exchange with an upstream can raise; `from_exception` takes every one of them."""

_LOADING = ("loading model", "model is loading", "is starting", "not ready")
_NO_MODEL = ("invalid model name", "model_not_found", "model not found", "could not find base model")
_BUSY = ("overloaded", "queue is full", "too many requests", "at capacity", "admission")

_UNREADABLE_IMAGE = ("failed to load image", "cannot identify image file")

# Claude Code mends its own history when a refusal carries these words (reference: its capability refusals).
_CLIENT_WORDS = {
    "no_images": "Could not process image",
    "image_limit": "Could not process image",
    "fold_system": "role 'system' is not supported",
    "no_reasoning_effort": "This model does not support the effort parameter",
}


def translate(
    status: int,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    address: str,
    window: int | None = None,
    true_count: int | None = None,
    secrets: Sequence[str] = (),
    now: float | None = None,
) -> Fault:
    """The fault in an upstream's error answer, see `fault_of`; `now`: Unix time to compare HTTP dates with."""
    return fault_of(
        refusal.read(status, body),
        address=address,
        retry_after=retry_after(headers or {}, now=now),
        window=window,
        true_count=true_count,
        secrets=secrets,
    )


def fault_of(
    refused: Refusal,
    *,
    address: str,
    retry_after: float | None = None,
    window: int | None = None,
    true_count: int | None = None,
    secrets: Sequence[str] = (),
) -> Fault:
    """The fault that a refusal stands for.

    `address`: the upstream's URL, named where a person has to look. `window`: the model's, as the upstream lists it,
    for a refusal that names none. `true_count`: the prompt's tokens by the engine's tokenizer, where the caller asked
    it: newer engines tell only a lower bound. `secrets`: keys in use.
    """
    excess = overflow.find_excess(refused.text)
    if excess and refused.status not in (401, 402, 403, 429):
        message = overflow.too_long(overflow.within(excess, window, true_count), true_count)
        return Fault("invalid_request", message, upstream_status=refused.status)
    said = refusal.cleaned(refused.text, secrets=secrets)
    kind, party, message = _classified(refused, said, shown_address(address))
    return Fault(kind, message, party=party, retry_after=retry_after, upstream_status=refused.status)


def explained(fault: Fault, *, window: int | None = None) -> Fault:
    """A fault that an engine told within its answer, in the words that clients act on. `window`: the model's.

    Some engines accept a prompt and find it too long afterwards; only the sentence that says so makes a client compact.
    """
    if fault.party != "upstream" or fault.kind != "api":
        return fault
    excess = overflow.find_excess(refusal.own_words(fault.message))
    if excess is None:
        return fault
    message = overflow.too_long(overflow.within(excess, window))
    return Fault("invalid_request", message, upstream_status=fault.upstream_status)


def from_exception(error: Exception, *, address: str) -> Fault:
    """The fault that a failed exchange stands for; `error` is one of `TRANSPORT_ERRORS`."""
    place = shown_address(address)
    match error:
        case ConnectTimeout():
            return Fault("unavailable", f"the upstream at {place} took no connection in time", party="upstream")
        case TimeoutError():
            return Fault("timeout", f"the upstream at {place} did not answer in time", party="upstream")
        case OSError():
            return Fault("unavailable", _connection(error, place), party="upstream")
        case TruncatedAnswer():
            return Fault("api", f"the upstream at {place} ended in the middle of its answer", party="upstream")
        case HttpError():
            problem = f"the upstream at {place} does not speak HTTP as it should: {_reason(error)}"
            return Fault("api", problem, party="upstream")
        case _:
            name = type(error).__name__
            return Fault("api", f"the exchange with the upstream at {place} failed ({name})", party="upstream")


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that an upstream asks to wait: `retry-after-ms`, or `retry-after` as a number or as an HTTP date."""
    lowered = {name.lower(): value for name, value in headers.items()}
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = lowered.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = _until(value, now)
        if 0 < seconds < 86_400:
            return seconds
    return None


def shown_address(url: str) -> str:
    """Scheme, host and port of `url`: no credentials, no query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "(unreadable address)"
    if not parts.scheme or host is None:
        return url.rpartition("@")[2].partition("?")[0] or "(no address)"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def _classified(refused: Refusal, said: str, place: str) -> tuple[Kind, Party, str]:
    words = f": {said}" if said else ""
    status = refused.status
    if remedy := remedies.find(refused.text, status):
        # A known lack of the engine is a refusal, whatever its status: a 5xx would be repeated in vain.
        known = _CLIENT_WORDS.get(remedy.quirk, "the engine refused the request")
        mend = f" ({remedy.mend})" if remedy.mend else ""
        return "invalid_request", "client", f"{known}: {said}{mend}"
    if _has(refused.text, _UNREADABLE_IMAGE):
        return "invalid_request", "client", f"{_CLIENT_WORDS['no_images']}: {said}"
    if status == 404 or _has(refused.text, _NO_MODEL):
        return _missing(said, place)
    match status:
        case 400 | 406 | 411 | 414 | 415 | 422 | 431 | 501:
            return (
                "invalid_request",
                "client",
                f"the engine refused the request: {said or 'it did not say why'}",
            )
        case 401 | 407:
            return (
                "api",
                "upstream",
                f"the upstream at {place} refused the gateway's key ({status}){words} (set --upstream-key)",
            )
        case 402:
            return "billing", "upstream", f"the upstream at {place} wants to be paid first{words}"
        case 403:
            return (
                "api",
                "upstream",
                f"the upstream at {place} refused the gateway's key or address (403){words}",
            )
        case 405:
            return "api", "upstream", f"the upstream at {place} has no such route (405): is its URL right?"
        case 408 | 504 | 524:
            return "timeout", "upstream", f"the upstream at {place} did not finish in time ({status}){words}"
        case 413:
            return "too_large", "client", f"the upstream takes no request of this size{words}"
        case 429:
            return "rate_limit", "upstream", f"the upstream at {place} limits its requests{words}"
        case 529:
            return "overloaded", "upstream", f"the upstream at {place} is overloaded{words}"
        case 502 | 503:
            return _unserving(refused, words, place)
        case _ if _has(refused.text, _BUSY):
            return "overloaded", "upstream", f"the upstream at {place} is overloaded{words}"
        case _:
            return "api", "upstream", f"the upstream at {place} failed ({status}){words}"


def _missing(said: str, place: str) -> tuple[Kind, Party, str]:
    # "Not Found" alone is a web framework's word for a path that it does not have.
    if said.lower().strip(" .!") in (
        "",
        "not found",
        "404 not found",
        "file not found",
        "404 page not found",
    ):
        message = f"the upstream at {place} has no such route (404): is its URL right, /v1 included?"
        return "api", "upstream", message
    if "model" in said.lower():
        return "not_found", "upstream", f"the upstream at {place} does not have this model: {said}"
    return "api", "upstream", f"the upstream at {place} did not find what was asked for: {said}"


def _unserving(refused: Refusal, words: str, place: str) -> tuple[Kind, Party, str]:
    if _has(refused.text, _LOADING):
        return "unavailable", "upstream", f"the upstream at {place} is still loading its model{words}"
    if refused.status == 503:
        return "overloaded", "upstream", f"the upstream at {place} takes no requests now (503){words}"
    return (
        "api",
        "upstream",
        f"the upstream at {place} stands behind a proxy that cannot reach it (502){words}",
    )


def _has(text: str, phrases: Sequence[str]) -> bool:
    lowered = text.lower()
    return any(phrase in lowered for phrase in phrases)


def _connection(error: OSError, place: str) -> str:
    match error:
        case socket.gaierror():
            return f"the upstream's name in {place} is not known to DNS"
        case ssl.SSLError():
            return f"no trusted TLS connection to the upstream at {place}: {_reason(error)}"
        case ConnectionRefusedError():
            return f"nothing answers at the upstream's address {place} (connection refused): is the engine running?"
        case ConnectionResetError() | BrokenPipeError():
            return f"the upstream at {place} closed the connection without an answer"
        case _:
            return f"no connection to the upstream at {place}: {_reason(error)}"


def _reason(error: BaseException) -> str:
    said = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return refusal.cleaned(str(said)) or type(error).__name__


def _until(date: str, now: float | None) -> float:
    if now is None:
        return 0.0
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - now
    except ValueError:
        return 0.0
