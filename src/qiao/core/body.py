"""A request body, field by field, for every protocol in which clients ask.

Each top-level field is cut out first and then read by its own decoder, so that unknown fields cost nothing, are known
by name, and never fail a request. What a field means is said where its protocol is read, not here.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from qiao.core.fault import Fault, invalid
from qiao.core.fields import read
from qiao.core.json_text import MAX_DEPTH, check_depth, is_null, kind_of, mend_surrogates

T = TypeVar("T")

_LONGEST_KNOWN_NAME: Final = 1024

EXTRAS: Final = frozenset(
    {
        "cache_salt",
        "chat_template_kwargs",
        "frequency_penalty",
        "logit_bias",
        "min_p",
        "min_tokens",
        "presence_penalty",
        "priority",
        "repetition_detection",
        "repetition_penalty",
        "seed",
        "vllm_xargs",
    }
)
"""Engine options that a client may pass through. They shape the sampling and nothing that other clients share."""

MAX_DROPPED: Final = 64
"""Names of ignored fields that are kept for the record; a hostile body can hold a million."""

MAX_NAME: Final = 80
"""Characters of one such name."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_BODY: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level fields, each as the JSON text that the client wrote. All of it is valid JSON after this.

    Raises `Fault`, or `UnicodeDecodeError` where a field's name is not UTF-8; a field's value is only decoded where it
    is read, and may raise the same there (see `not_utf8`).
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if not body or body.isspace():
        raise Fault("invalid_request", "The request body is empty; a JSON object is required.")
    try:
        try:
            return _BODY.decode(body)
        except msgspec.DecodeError:
            mended = mend_surrogates(body)
            if mended is body:
                raise
            return _BODY.decode(mended)
    except msgspec.ValidationError as error:
        kind = kind_of(body.lstrip()[:1])
        raise Fault("invalid_request", f"The request body must be a JSON object, not {kind}.") from error
    except msgspec.DecodeError as error:
        problem = str(error).removeprefix("JSON is malformed: ")
        raise Fault("invalid_request", f"The request body is not valid JSON: {problem}.") from error
    except RecursionError as error:
        problem = f"The request body is nested too deeply; at most {MAX_DEPTH} levels are supported."
        raise Fault("invalid_request", problem) from error


def not_utf8(body: bytes) -> Fault:
    """Raised late: strings are only decoded where they are read, and a check of its own would cost every request."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return Fault("invalid_request", f"The request body is not valid UTF-8 at byte {error.start}.")
    return Fault("invalid_request", "The request body is not valid UTF-8.")


def optional(fields: dict[str, msgspec.Raw], name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    """The field's value; None if it was not sent, or sent as null."""
    raw = fields.get(name)
    return None if raw is None or is_null(raw) else read(decoder, raw, name)


def model_of(fields: dict[str, msgspec.Raw]) -> str:
    """The name in `model`, which every request has to tell."""
    model = optional(fields, "model", _STRING)
    if not model:
        raise invalid("model", "Field required")
    return model


def extras_of(fields: dict[str, msgspec.Raw], allowed: frozenset[str] = EXTRAS) -> dict[str, msgspec.Raw]:
    """The engine options among the fields, as the client wrote them."""
    extras: dict[str, msgspec.Raw] = {}
    for name, raw in fields.items():
        # An empty salt is none, and vLLM refuses it.
        if name in allowed and not is_null(raw) and not (name == "cache_salt" and bytes(raw) == b'""'):
            text = bytes(raw)
            check_depth(text, name)
            extras[name] = msgspec.Raw(text.decode())
    return extras


def dropped_of(fields: dict[str, msgspec.Raw], known: frozenset[str], ignored: list[str]) -> tuple[str, ...]:
    """Names of what is ignored: the fields outside `known`, and `ignored`. Bounded in number and length."""
    names = [name for name, raw in fields.items() if name not in known and not is_null(raw)]
    return tuple(name[:MAX_NAME] for name in (names + ignored)[:MAX_DROPPED])


def session_of(name: str) -> str:
    """A stable id of a client's session, from which its user cannot be read."""
    return _digest(name) if len(name) <= _LONGEST_KNOWN_NAME else _digest.__wrapped__(name)


@lru_cache(1024)
def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
