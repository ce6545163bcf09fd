"""Whether the gateway reads calls and reasoning out of the text itself, and in which dialect.

An engine with a tool parser reads them; one that was started without is sent `tool_choice: "none"`, which it takes all
the same and for which its chat template still renders the tools, and what the model then writes is read here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qiao.core.conversation import Conversation, ToolChoice
from qiao.core.dialects import DIALECTS
from qiao.policies.quirks import Quirks
from qiao.profiles import Profile

AUTO, ENGINE = "auto", "engine"
DEFAULT_DIALECT = "hermes"
"""What a model of no known family is taken to write: the commonest form, also in what small models imitate."""

# Dialects that mark reasoning in a way of their own; an engine for them splits it, or nobody can.
_WITHOUT_TAGS = frozenset({"harmony"})


def dialect_of(profile: Profile) -> str:
    """The dialect of a model's family, as far as there is a reader for it."""
    return profile.dialect if profile.dialect in DIALECTS else DEFAULT_DIALECT


def choose_dialect(conversation: Conversation, profile: Profile, quirks: Quirks, parser: str) -> str | None:
    """The dialect in which this answer is read here; None where the engine reads calls, or none are wanted.

    `parser`: "auto" (the engine until it turns out to have no parser), "engine", or the name of a dialect.
    """
    if parser == ENGINE:
        return None
    if not conversation.tools or conversation.tool_choice.mode == "none":
        return None
    if parser != AUTO:
        return parser
    return dialect_of(profile) if quirks.no_tool_parser else None


def reads_reasoning(conversation: Conversation, profile: Profile) -> Literal["tag", "open"] | None:
    """How reasoning may stand in the text where the engine does not split it; see `dialects.text_tools`."""
    if profile.reasoning == "none":
        return None
    if profile.dialect in _WITHOUT_TAGS:
        return None
    # A grammar begins with the answer's first token, and a prefilled answer has begun already.
    begins_open = profile.reasoning == "always" and conversation.output_schema is None and not conversation.is_prefill
    return "open" if begins_open else "tag"


def without_choice(conversation: Conversation) -> Conversation:
    """The same request as an engine without a parser takes it."""
    return msgspec.structs.replace(conversation, tool_choice=ToolChoice(mode="none"))
