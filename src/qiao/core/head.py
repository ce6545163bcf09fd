"""The head of the prompt: the one place where a changed byte costs every client its prefix cache."""

from __future__ import annotations

from typing import Final

_BILLING_HEADER: Final = "x-anthropic-billing-header"


def without_billing_line(text: str) -> str:
    """`text` without the line that Claude Code puts first, also when another gateway translated it on its way.

    The line differs from session to session, so that with it no new session could reuse a prefix.
    """
    return text.partition("\n")[2].lstrip() if text.startswith(_BILLING_HEADER) else text
