"""Checks of an address: whether a server answers there, takes the key, and is what it should be."""

from __future__ import annotations

import re

import msgspec

from qiao.doctor.facts import Access
from qiao.doctor.finding import Check, Finding, Grade
from qiao.policies.log_hints import hint

_OF_THE_CHAIN = ("no_tool_parser", "tool_choice_refused", "system_position")
"""Refusals of the engine that stop a session, whoever passes them on."""


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks here look at. `anthropic`: it is to serve /v1/messages. `errors`: what it said to requests."""

    access: Access
    anthropic: bool
    errors: tuple[str, ...] = ()


def _finding(door: Door, check: str, grade: Grade, evidence: str, mend: str | None = None) -> Finding:
    return Finding(check=check, grade=grade, about=door.access.asked, evidence=evidence, mend=mend)


def server_down(door: Door) -> Finding | None:
    """Nothing answers at the address."""
    access = door.access
    if access.failure is None:
        return _finding(door, "server_down", "ok", f"{access.server or 'A server'} answers at {access.address}.")
    reason = re.search(r"\((connection refused|[^()]*)\)", access.failure)
    evidence = f"Nothing answers at {access.address}: {reason[1] if reason else access.failure}."
    if access.owner == "nobody":
        evidence += " No process listens on that port of this machine."
    elif access.owner:
        evidence += f" The port belongs to {access.owner}."
    if "SSL" in access.failure or "certificate" in access.failure.lower():
        mend = "Write http:// instead of https:// if the server has no certificate."
    elif door.anthropic:
        mend = "Start the gateway (`qiao up`), or check host and port."
    else:
        mend = (
            "Start the engine, or check host and port; its log (`qiao doctor --log FILE`) says why it does not start."
        )
    return _finding(door, "server_down", "problem", evidence, mend)


def wrong_url(door: Door) -> Finding | None:
    """The address has a part too much or too little: /v1, a path, the wrong kind of server."""
    access = door.access
    if access.failure is not None:
        return None
    if access.better is not None:
        evidence = f"Nothing useful is at {access.asked}; {access.better} is the address."
        return _finding(door, "wrong_url", "problem", evidence, f"Use {access.better}.")
    if door.anthropic and access.has_messages is False:
        if access.has_chat:
            return _finding(
                door,
                "wrong_url",
                "problem",
                "This server speaks OpenAI's protocol (/v1/chat/completions) and not Anthropic's (/v1/messages).",
                f"Put qiao in front: `qiao up --upstream {access.address}/v1`; or check the port.",
            )
        return _finding(
            door, "wrong_url", "problem", "There is no /v1/messages at this address.", "Check host, port and path."
        )
    if not door.anthropic and access.has_chat is False:
        mend = "Check host, port and path."
        return _finding(door, "wrong_url", "problem", "There is no /v1/chat/completions at this address.", mend)
    if door.anthropic and re.search(r"/v1/?$", access.asked):
        return _finding(
            door,
            "wrong_url",
            "problem",
            f"The address ends in /v1, and Claude Code adds /v1 itself: it would ask {access.asked.rstrip('/')}"
            "/v1/messages.",
            f"ANTHROPIC_BASE_URL={access.address}",
        )
    return _finding(door, "wrong_url", "ok", f"The address is right: {access.address}.")


def wrong_key(door: Door) -> Finding | None:
    """The key is refused, or missing."""
    access = door.access
    if access.failure is not None or access.status is None:
        return None
    no_database = "no connected db" in access.said.lower()
    if access.status not in (401, 403) and not no_database:
        return _finding(door, "wrong_key", "ok", "The key is taken." if access.has_key else "No key is asked for.")
    said = f" ({access.said})" if access.said else ""
    what = "refuses this key" if access.has_key else "asks for a key"
    if no_database:
        mend = "LiteLLM without a database says so of every wrong key: give its master key with --key."
    elif access.kind == "qiao":
        mend = "`qiao key` prints the gateway's key on its machine; give it with --key or QIAO_API_KEY."
    elif door.anthropic:
        mend = "Give the gateway's key with --key (for Claude Code: ANTHROPIC_AUTH_TOKEN)."
    else:
        mend = (
            "Give the engine's key (vLLM: --api-key, VLLM_API_KEY) with --key; for the gateway set QIAO_UPSTREAM_KEY."
        )
    return _finding(
        door, "wrong_key", "problem", f"{access.server or 'The server'} {what}: {access.status}{said}", mend
    )


def litellm_sample_key(door: Door) -> Finding | None:
    """The key sk-1234 of the guides, which today's LiteLLM refuses to start with."""
    access = door.access
    if not access.key_is_sample or (access.failure is None and access.kind != "LiteLLM"):
        return None
    return _finding(
        door,
        "litellm_sample_key",
        "problem",
        "The key is one that guides print (sk-1234): LiteLLM 1.109 refuses to start with it, and where an older one "
        "runs, everybody knows it.",
        "Make an own one: LITELLM_MASTER_KEY=sk-$(openssl rand -hex 24); `qiao export litellm` writes a configuration.",
    )


def litellm_in_between(door: Door) -> Finding | None:
    """LiteLLM answers: worth knowing, since it changes requests."""
    if door.access.kind != "LiteLLM":
        return None
    evidence = f"{door.access.server} stands in between."
    mend = "Claude Code can talk to qiao directly; where LiteLLM has to stay, `qiao export litellm` configures it."
    return _finding(door, "litellm_in_between", "note", evidence, mend)


def litellm_errors(door: Door) -> Finding | None:
    """LiteLLM refuses Claude Code's requests for a reason that lies in its configuration."""
    if door.access.kind != "LiteLLM":
        return None
    for error in door.errors:
        found = hint(error)
        if found is not None and (found.name.startswith("litellm_") or found.name in _OF_THE_CHAIN):
            return _finding(door, "litellm_errors", "problem", f"{found.cause} It said: {error[:200]}", found.mend)
    return None


def requests_refused(door: Door) -> Finding | None:
    """The server refuses Claude Code's requests for a reason that is known, and can be mended."""
    if door.access.kind in ("LiteLLM", "qiao"):
        return None
    for error in door.errors:
        found = hint(error)
        if found is not None and found.name in _OF_THE_CHAIN:
            return _finding(door, "requests_refused", "problem", f"{found.cause} It said: {error[:200]}", found.mend)
    return None


CHECKS: tuple[Check[Door], ...] = (
    Check("server_down", "a server that is down", server_down),
    Check("wrong_url", "a wrong address: with or without /v1, another path, the wrong kind of server", wrong_url),
    Check("wrong_key", "a key that is wrong or missing", wrong_key),
    Check("litellm_sample_key", "the key sk-1234, with which LiteLLM does not start", litellm_sample_key),
    Check("litellm_in_between", "LiteLLM in between", litellm_in_between),
    Check(
        "litellm_errors",
        "LiteLLM's traps: drop_params in the wrong section, the prefix openai/, unknown models",
        litellm_errors,
    ),
    Check("requests_refused", "an endpoint that refuses requests for want of a parser or a template", requests_refused),
)
