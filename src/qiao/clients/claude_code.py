"""What Claude Code needs to know to work well with a model it has never heard of. Pure: facts in, settings out.

Verified with Claude Code 2.1.330. Each variable carries its reason, which `qiao env` prints beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from qiao.clients.connection import Connection
from qiao.profiles.claude_code import USEFUL_WINDOW

SMALL_WINDOW = 32_000
"""Tokens. Below, Claude Code's own prompt (11 500 tokens with its tools) leaves no room for work."""

MEDIUM_WINDOW = 64_000
"""Tokens. Below, Claude Code compacts so early that its full tool set is not worth its place."""

_COMPACTION_RESERVE = 13_000
"""Tokens that Claude Code keeps free beside the longest answer. In a small window the gateway's exact refusal does."""

_FULL_OUTPUT_WINDOW = 128_000
_DEFAULT_OUTPUT = 32_000
_PATIENCE_MS = "1800000"

MEDIUM_TOOLS = "Bash,Edit,Glob,Grep,Read,Write"


class Variable(msgspec.Struct, frozen=True):
    """One variable for Claude Code: `value` None removes it. `why` is one clause for a person.

    `is_firm`: it must hold or the session goes elsewhere; others yield to what the user has set.
    """

    name: str
    value: str | None
    why: str
    is_firm: bool = False


# Each of these would send the session, or its key, somewhere else.
_RIVALS: tuple[tuple[str, str], ...] = (
    ("ANTHROPIC_API_KEY", "would be sent beside the gateway's key, and asks for approval in the terminal"),
    ("CLAUDE_CODE_OAUTH_TOKEN", "belongs to an account at Anthropic, which is not used here"),
    ("CLAUDE_CODE_USE_BEDROCK", "would send everything to AWS"),
    ("CLAUDE_CODE_USE_VERTEX", "would send everything to Google Cloud"),
    ("CLAUDE_CODE_USE_FOUNDRY", "would send everything to Azure"),
    ("CLAUDE_CODE_USE_GATEWAY", "would ask for a sign-in that the gateway does not have"),
    ("ANTHROPIC_CUSTOM_MODEL_OPTION", "would offer a model that the gateway does not know"),
)

REROUTING = tuple(name for name, _ in _RIVALS if name.startswith("CLAUDE_CODE_USE_"))
"""Variables that send a session to another provider, whatever ANTHROPIC_BASE_URL says."""


def variables(connection: Connection) -> tuple[Variable, ...]:
    """Everything to set and to remove, in the order in which a person wants to read it."""
    return (*_identity(connection), *_models(connection), *_limits(connection), *_manners(), *_removals())


def _identity(connection: Connection) -> Iterator[Variable]:
    yield Variable("ANTHROPIC_BASE_URL", connection.url, "the gateway; Claude Code adds /v1 itself", is_firm=True)
    # Not ANTHROPIC_API_KEY: the terminal asks to approve each new one, and headless runs then never start.
    yield Variable("ANTHROPIC_AUTH_TOKEN", connection.token, "the gateway's key, sent as Bearer", is_firm=True)


def _models(connection: Connection) -> Iterator[Variable]:
    main = connection.model
    yield Variable("ANTHROPIC_MODEL", main, "the model to talk to", is_firm=True)
    for alias in ("OPUS", "SONNET", "FABLE"):
        why = f"what /model {alias.lower()} and agents that ask for it get"
        yield Variable(f"ANTHROPIC_DEFAULT_{alias}_MODEL", main, why, is_firm=True)
    why = "what /model haiku and small side requests get"
    yield Variable("ANTHROPIC_DEFAULT_HAIKU_MODEL", connection.small, why, is_firm=True)
    why = "the same for page summaries and for older versions"
    yield Variable("ANTHROPIC_SMALL_FAST_MODEL", connection.small, why, is_firm=True)
    yield Variable("CLAUDE_CODE_SUBAGENT_MODEL", connection.subagent, "what sub-agents use", is_firm=True)


def _limits(connection: Connection) -> Iterator[Variable]:
    window = connection.window
    if window is None:
        why = "the window is not known here: 200 000 is nearer than the million assumed of unknown models"
        yield Variable("CLAUDE_CODE_DISABLE_1M_CONTEXT", "1", why)
        return
    yield _window(window)
    why = "the longest answer; it also decides how early the conversation is compacted"
    yield Variable("CLAUDE_CODE_MAX_OUTPUT_TOKENS", str(output_limit(window, connection.output_limit)), why)
    if window >= 100_000:
        why = "the same window for names that Claude Code knows (claude-…), where the line above has no effect"
        yield Variable("CLAUDE_CODE_AUTO_COMPACT_WINDOW", str(window), why)
    if window < SMALL_WINDOW:
        why = "lets the gateway decide what fits: Claude Code would refuse or compact in so small a window"
        yield Variable("CLAUDE_CODE_DISABLE_UNKNOWN_MODEL_WINDOW_ENFORCEMENT", "1", why)


def _window(window: int) -> Variable:
    name = "CLAUDE_CODE_MAX_CONTEXT_TOKENS"
    if not SMALL_WINDOW <= window < USEFUL_WINDOW:
        return Variable(name, str(window), "the model's true window; a million is assumed of unknown models")
    why = f"the true window is {window}: so it compacts when no answer of full length fits any more, not at half of it"
    return Variable(name, str(window + _COMPACTION_RESERVE), why)


def output_limit(window: int, allowed: int | None) -> int:
    """The longest answer to ask for, in tokens.

    Claude Code compacts at window − min(output limit, 20 000) − 13 000 (measured), so in a smaller window a long
    answer is paid for with half of the conversation.
    """
    wanted = _DEFAULT_OUTPUT if window >= _FULL_OUTPUT_WINDOW else max(1024, window // 8)
    return min(wanted, allowed) if allowed else wanted


def _manners() -> Iterator[Variable]:
    why = "no block that differs in each conversation at the head of the prompt, so the prefix cache is hit"
    yield Variable("CLAUDE_CODE_ATTRIBUTION_HEADER", "0", why)
    why = "an own model may think long before its first word: 30 minutes"
    yield Variable("API_TIMEOUT_MS", _PATIENCE_MS, why)
    yield Variable("CLAUDE_STREAM_IDLE_TIMEOUT_MS", _PATIENCE_MS, "the same for silence within an answer")
    yield Variable("API_FORCE_IDLE_TIMEOUT", "0", "no limit of 6 minutes to the first byte, whatever stands above")
    why = "no requests to others than the gateway, and none besides the conversation"
    yield Variable("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1", why)


def _removals() -> Iterator[Variable]:
    for name, why in _RIVALS:
        yield Variable(name, None, why, is_firm=True)


class Environment(msgspec.Struct, frozen=True):
    """The environment to run Claude Code in, and what a person should know of how it came about."""

    values: dict[str, str]
    notices: tuple[str, ...] = ()


def environment(connection: Connection, base: Mapping[str, str]) -> Environment:
    """`base` (the user's environment) with what the gateway needs. A firm variable wins over theirs, and says so."""
    values = dict(base)
    notices = []
    for variable in variables(connection):
        theirs = base.get(variable.name)
        if variable.value is None:
            if theirs:
                notices.append(f"{variable.name} is set and left out here: it {variable.why}.")
            values.pop(variable.name, None)
        elif not theirs or theirs == variable.value:
            values[variable.name] = variable.value
        elif variable.is_firm:
            secret = variable.name == "ANTHROPIC_AUTH_TOKEN"
            was = "your value" if secret else theirs
            now = "the gateway's key" if secret else variable.value
            notices.append(f"{variable.name}: {now} instead of {was}.")
            values[variable.name] = variable.value
    values.update(_past_proxies(connection, base))
    return Environment(values, tuple(notices))


def _past_proxies(connection: Connection, base: Mapping[str, str]) -> dict[str, str]:
    """Exceptions that keep the way to the gateway out of a proxy. Claude Code sends loopback through it otherwise."""
    if not any(
        base.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    ):
        return {}
    # Both spellings: the small one alone is read where both exist.
    known = base.get("no_proxy") or base.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if connection.host not in hosts and "*" not in hosts:
        hosts.append(connection.host)
    return {"NO_PROXY": ",".join(hosts), "no_proxy": ",".join(hosts)}


class Trim(msgspec.Struct, frozen=True):
    """Arguments that make Claude Code send less, and the sentence that says so."""

    arguments: tuple[str, ...] = ()
    notice: str | None = None


_OWN_TRIMMING = ("--bare", "--tools", "--system-prompt", "--system-prompt-file", "--safe-mode", "--agent")
_OWN_MODE = ("--permission-mode", "--dangerously-skip-permissions", "--settings")
_SUBCOMMANDS = frozenset(
    {
        *("agents", "attach", "auth", "auto-mode", "doctor", "gateway", "import", "install", "logs", "mcp"),
        *("plugin", "plugins", "purge", "respawn", "rm", "setup-token", "stop", "kill", "ultrareview", "update"),
        "upgrade",
    }
)
_NO_SESSION = frozenset({"--version", "-v", "--help", "-h"})


def is_session(arguments: Sequence[str]) -> bool:
    """Whether these arguments start a conversation, and not one of Claude Code's own commands."""
    options = list(itertools.takewhile(lambda each: each != "--", arguments))
    return not (options and options[0] in _SUBCOMMANDS) and _NO_SESSION.isdisjoint(options)


def trim(window: int | None, arguments: Sequence[str]) -> Trim:
    """What to add for a window of this size; nothing where the user has chosen own tools or an own prompt."""
    if window is None or window >= MEDIUM_WINDOW or not is_session(arguments) or _has(arguments, _OWN_TRIMMING):
        return Trim()
    if window < SMALL_WINDOW:
        return Trim(
            ("--bare",),
            f"The model's window has only {window} tokens, so Claude Code starts with --bare: the tools Bash, Edit and "
            "Read, a short prompt, no CLAUDE.md, hooks or plug-ins. Give --tools to choose yourself.",
        )
    return Trim(
        # The equals sign keeps the list from taking the prompt behind it for a tool.
        (f"--tools={MEDIUM_TOOLS}",),
        f"The model's window has only {window} tokens, so Claude Code starts with the tools {MEDIUM_TOOLS}. "
        "Give --tools to choose yourself.",
    )


def wants_own_mode(arguments: Sequence[str]) -> bool:
    """Whether the user chose how permissions are asked for."""
    return not is_session(arguments) or _has(arguments, _OWN_MODE)


def _has(arguments: Sequence[str], names: Sequence[str]) -> bool:
    return any(argument == name or argument.startswith(f"{name}=") for argument in arguments for name in names)
