"""Which requests may wait: those that a client sends beside its conversation. Pure.

Claude Code asks for titles, summaries of pages and safety checks on the side. They offer no tools and ask for no
reasoning, which its conversations always do one of. An engine that knows priorities serves the conversation first.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from qiao.core.conversation import Conversation

SIDE_PRIORITY = 1
"""vLLM: a lower number is served first, 0 is what a request has that names none."""

_CLASSES = ("x-claude-code-request-class", "x-claude-1p-request-class")


def is_side(conversation: Conversation, headers: Mapping[str, str]) -> bool:
    """Whether this is beside a conversation. Only of a client that names its session: others send what they send."""
    for name in _CLASSES:
        if said := headers.get(name):
            return said != "main"
    return conversation.names_session and not conversation.tools and conversation.thinking.mode != "on"


def ranked(conversation: Conversation) -> Conversation:
    """The same conversation, to be served after others; a client's own `priority` stays."""
    if "priority" in conversation.extras:
        return conversation
    extras = {**conversation.extras, "priority": msgspec.Raw(b"%d" % SIDE_PRIORITY)}
    return msgspec.structs.replace(conversation, extras=extras)
