"""The options of a request: thinking, output, sampling, context edits, session, and the fields that are refused.

A field is refused only where ignoring it would break a promise (where the data is processed, who pays, which
messages exist); everything else that this gateway cannot do is ignored and counted.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qiao.core.anthropic import wire
from qiao.core.body import session_of
from qiao.core.conversation import ClearThinking, ClearToolUses, Edit, Thinking
from qiao.core.fault import Fault, invalid
from qiao.core.fields import read, shown
from qiao.core.json_text import is_null, object_text

MIN_THINKING_BUDGET: Final = 1024

EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})

_RAW_LIST: msgspec.json.Decoder[list[msgspec.Raw] | None] = msgspec.json.Decoder(list[msgspec.Raw] | None)
_STRING: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_STRINGS: msgspec.json.Decoder[list[str] | None] = msgspec.json.Decoder(list[str] | None)
_CONTAINER: msgspec.json.Decoder[str | wire.ContainerWithSkills] = msgspec.json.Decoder(str | wire.ContainerWithSkills)
_BILLING: msgspec.json.Decoder[wire.BillingPolicy] = msgspec.json.Decoder(wire.BillingPolicy)
_KEEP: msgspec.json.Decoder[str | wire.Amount] = msgspec.json.Decoder(str | wire.Amount)
_AMOUNT: msgspec.json.Decoder[wire.Amount] = msgspec.json.Decoder(wire.Amount)
_FLAG_OR_NAMES: msgspec.json.Decoder[bool | list[str]] = msgspec.json.Decoder(bool | list[str])
_IDENTITY: msgspec.json.Decoder[wire.UserIdentity] = msgspec.json.Decoder(wire.UserIdentity)


def refuse_unsupported(fields: dict[str, msgspec.Raw], *, counting: bool) -> None:
    """Raise a Fault for a field that must not be ignored. `counting`: for count_tokens, which may ignore more."""
    for name, raw in fields.items():
        if is_null(raw):
            continue
        match name:
            case "inference_geo":
                where = shown(read(_STRING, raw, name))
                raise invalid(name, f"{where} is not available on this gateway.")
            case "mcp_servers" if read(_RAW_LIST, raw, name):
                problem = "the MCP connector is not supported by this gateway; connect the MCP server from your client."
                raise invalid(name, problem)
            case "compaction" if not counting:
                raise invalid(name, "server-side compaction is not supported by this gateway.")
            case "thread":
                problem = "threads are not supported; send the full conversation."
                raise invalid(name, problem, error_code="thread_unsupported_request")
            case "container":
                container = read(_CONTAINER, raw, name)
                if isinstance(container, wire.ContainerWithSkills) and container.skills:
                    raise invalid("container.skills", "Agent Skills are not supported by this gateway.")
            case "billing_policy" if read(_BILLING, raw, name).bill_to == "user_profile":
                raise invalid("billing_policy.bill_to", "'user_profile' is not supported.")


def thinking(requested: wire.Thinking | None, effort: str | None, max_tokens: int | None) -> Thinking:
    """Whether and how much to think.

    `effort`: the last one that the conversation names. `max_tokens`: None or 0 where the answer has no length.
    """
    if requested is None:
        return Thinking(effort=effort)
    is_shown = requested.display != "omitted"
    match requested.type:
        case "disabled" | "between_tools":
            return Thinking(mode="off")
        case "adaptive":
            return Thinking(mode="on", effort=effort, shown=is_shown)
        case "enabled":
            return Thinking(mode="on", budget=_budget(requested, max_tokens), effort=effort, shown=is_shown)
        case other:
            problem = f"expected 'enabled', 'adaptive', 'between_tools' or 'disabled', got {shown(other)}"
            raise invalid("thinking.type", problem)


def _budget(requested: wire.Thinking, max_tokens: int | None) -> int | None:
    path = "thinking.budget_tokens"
    budget = requested.budget_tokens
    if budget is None:
        raise invalid(path, "Field required")
    if budget < MIN_THINKING_BUDGET:
        raise invalid(path, f"must be at least {MIN_THINKING_BUDGET}, got {budget}")
    if max_tokens and budget >= max_tokens and budget == MIN_THINKING_BUDGET:
        # Claude Code with an output limit under 1024 has no smaller budget to send; the limit itself is tighter.
        return None
    if max_tokens and budget >= max_tokens:
        raise invalid(path, f"must be less than max_tokens ({max_tokens}), got {budget}")
    return budget


def output_schema(config: wire.OutputConfig | None, legacy: wire.OutputFormat | None) -> str | None:
    """The JSON Schema text that the answer has to fit, from `output_config.format` or the older `output_format`."""
    current = config.format if config is not None else None
    if current is not None and legacy is not None:
        raise Fault("invalid_request", "Both output_format and output_config.format were provided.")
    wanted, path = (current, "output_config.format") if legacy is None else (legacy, "output_format")
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        raise invalid(f"{path}.type", f"expected 'json_schema', got {shown(wanted.type)}")
    return object_text(wanted.schema, f"{path}.schema")


def session(metadata: wire.Metadata | None) -> tuple[str | None, bool]:
    """A stable id of the client's session, from which its user cannot be read, and whether a session was named.

    `user_id` is the id of a person, but what Claude Code writes into it names its session as well.
    """
    user_id = metadata.user_id if metadata is not None else None
    if not user_id:
        return None, False
    try:
        identity = _IDENTITY.decode(user_id)
    except (msgspec.DecodeError, RecursionError):
        named = None
    else:
        named = identity.session_id
    return session_of(named or user_id), bool(named)


def edits(management: wire.ContextManagement | None) -> tuple[tuple[Edit, ...] | None, list[str]]:
    """The context edits asked for, and the names of those that are not known here."""
    if management is None:
        return None, []
    known: list[Edit] = []
    ignored: list[str] = []
    for index, edit in enumerate(management.edits or ()):
        path = f"context_management.edits.{index}"
        match edit.type:
            case "clear_thinking_20251015":
                known.append(_clear_thinking(edit, path))
            case "clear_tool_uses_20250919":
                known.append(_clear_tool_uses(edit, path))
            case "compact_20260112":
                raise invalid(path, "compact_20260112 is not supported by this gateway")
            case other:
                ignored.append(f"context_management.edits.{other}")
    return tuple(known), ignored


def _clear_thinking(edit: wire.Edit, path: str) -> ClearThinking:
    if is_null(edit.keep):
        return ClearThinking(keep=1)
    keep = read(_KEEP, edit.keep, f"{path}.keep")
    match keep:
        case "all" | wire.Amount(type="all"):
            return ClearThinking(keep=None)
        case wire.Amount(type="thinking_turns", value=int(turns)):
            return ClearThinking(keep=turns)
        case _:
            raise invalid(f"{path}.keep", 'expected \'all\' or {"type": "thinking_turns", "value": N}')


def _clear_tool_uses(edit: wire.Edit, path: str) -> ClearToolUses:
    default = ClearToolUses()
    trigger_kind, trigger = default.trigger_kind, default.trigger
    if not is_null(edit.trigger):
        amount = read(_AMOUNT, edit.trigger, f"{path}.trigger")
        match amount:
            case wire.Amount(type="input_tokens" | "tool_uses", value=int(trigger)):
                trigger_kind = "tool_uses" if amount.type == "tool_uses" else "input_tokens"
            case _:
                raise invalid(f"{path}.trigger", 'expected {"type": "input_tokens" or "tool_uses", "value": N}')
    keep = _value(edit.keep, "tool_uses", f"{path}.keep")
    inputs = (
        False
        if is_null(edit.clear_tool_inputs)
        else read(_FLAG_OR_NAMES, edit.clear_tool_inputs, f"{path}.clear_tool_inputs")
    )
    names = None if is_null(edit.exclude_tools) else read(_STRINGS, edit.exclude_tools, f"{path}.exclude_tools")
    return ClearToolUses(
        trigger_kind=trigger_kind,
        trigger=trigger,
        keep=default.keep if keep is None else keep,
        clear_at_least=_value(edit.clear_at_least, "input_tokens", f"{path}.clear_at_least"),
        exclude_tools=tuple(names or ()),
        clear_inputs=tuple(inputs) if isinstance(inputs, list) else inputs,
    )


def _value(raw: msgspec.Raw, kind: str, path: str) -> int | None:
    if is_null(raw):
        return None
    amount = read(_AMOUNT, raw, path)
    if amount.type != kind or amount.value is None:
        raise invalid(path, f'expected {{"type": "{kind}", "value": N}}')
    return amount.value
