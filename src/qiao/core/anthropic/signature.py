"""Signatures of thinking blocks. They prove nothing; when the client asked not to see the words, they carry them.

A client sends thinking blocks back as it got them. With `display: "omitted"` the block's text is empty, so the only
way to give the model its own reasoning back is to seal the text into the signature.
"""

from __future__ import annotations

import base64
import binascii

_PREFIX = "qiao1."


def seal(reasoning: str) -> str:
    """A signature that holds `reasoning` (empty when the block itself shows the words)."""
    return _PREFIX + base64.urlsafe_b64encode(reasoning.encode("utf-8", "replace")).decode("ascii")


def unseal(signature: str | None) -> str | None:
    """The reasoning inside one of our signatures; None for any other."""
    if not signature or not signature.startswith(_PREFIX):
        return None
    try:
        return base64.urlsafe_b64decode(signature[len(_PREFIX) :]).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
