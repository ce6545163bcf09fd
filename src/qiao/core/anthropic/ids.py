"""Tool call ids that every Anthropic client accepts, and back again.

Anthropic's ids match `[A-Za-z0-9_-]+`; some engines write others (Kimi: `functions.read:0`) and want them back as they
wrote them. An id that does not match travels as its own bytes in base64url behind a prefix, so no table is needed.
"""

from __future__ import annotations

import base64
import binascii
import re

_GOOD = re.compile(r"[A-Za-z0-9_-]+\Z")
_PREFIX = "toolu_q64_"


def to_client(call_id: str) -> str:
    """The engine's id as the client sees it."""
    if _GOOD.match(call_id) and not call_id.startswith(_PREFIX):
        return call_id
    encoded = base64.urlsafe_b64encode(call_id.encode("utf-8", "surrogatepass")).decode("ascii")
    return _PREFIX + encoded.rstrip("=")


def from_client(call_id: str) -> str:
    """The client's id as the engine wrote it."""
    if not call_id.startswith(_PREFIX):
        return call_id
    encoded = call_id[len(_PREFIX) :]
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return call_id
