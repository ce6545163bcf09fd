"""Which upstream model a client means by the name it sends.

| a client sends | it reaches |
|---|---|
| a name in `[models]` of qiao.toml (any spelling of it) | what is written there |
| an upstream's own name | that model |
| a plain id (`qwen3-235b`) | the model it stands for |
| `claude-…` of class haiku, or `haiku` | the small model, else the main one |
| `claude-…` of any other class, `sonnet`, `opus`, `default`, `best`, … | the main model |
| the same from a sub-agent | the model for sub-agents, else as above |
| anything else | nothing: 404 `model: NAME` |

"Any spelling": letter case, a `[1m]` suffix, a dated or versioned ending, a provider's prefix (`anthropic/claude-…`,
`us.anthropic.claude-…-v1:0`, `vertex_ai/claude-…@20250514`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

# What Claude Code and its Agent tool say instead of a model id.
_ALIASES = frozenset({"best", "default", "fable", "haiku", "inherit", "opus", "opusplan", "small", "sonnet"})
_SMALL = re.compile(r"haiku|(?:^|-)instant|^small$")
# `claude`, wherever a provider's prefix ends.
_CLAUDE = re.compile(r"(?:^|[./:])claude(?:$|[-_.@\d])")
_WINDOW_SUFFIX = re.compile(r"\s*\[[^\]]*\]$")


class Names(msgspec.Struct, frozen=True):
    """Names by which models are known, all of them optional.

    * `main`: upstream model for everything; None takes the first that is served.
    * `small`: upstream model for haiku-class names; `subagent`: for sub-agents.
    * `plain`: upstream name by plain id; `exact`: upstream name (or plain id) by any name a client may send.
    """

    main: str | None = None
    small: str | None = None
    subagent: str | None = None
    plain: Mapping[str, str] = {}
    exact: Mapping[str, str] = {}


def resolve(requested: str, served: Sequence[str], names: Names, *, is_subagent: bool = False) -> str | None:
    """The upstream's name of the model that `requested` means, or None when nobody knows it."""
    spellings = _spellings(requested)
    for spelling in spellings:
        found = _lookup(spelling, names.exact)
        if found is not None:
            return _known(found, served, names) or found
    for spelling in spellings:
        found = _known(spelling, served, names)
        if found is not None:
            return found
    bare = spellings[-1].lower()
    if bare not in _ALIASES and not _CLAUDE.search(bare):
        return None
    wanted = names.subagent if is_subagent and names.subagent is not None else None
    if wanted is None and _SMALL.search(bare):
        wanted = names.small
    if wanted is None:
        wanted = names.main
    if wanted is None:
        return served[0] if served else None
    return _known(wanted, served, names) or wanted


def _spellings(requested: str) -> tuple[str, ...]:
    """The name as sent, and without the suffix that only speaks of the window."""
    name = requested.strip()
    return (name, _WINDOW_SUFFIX.sub("", name))


def _known(name: str, served: Sequence[str], names: Names) -> str | None:
    """`name` as an upstream's own name, by a plain id or in another letter case."""
    if name in served:
        return name
    plain = _lookup(name, names.plain)
    if plain is not None:
        return plain
    return next((own for own in served if own.lower() == name.lower()), None)


def _lookup(name: str, table: Mapping[str, str]) -> str | None:
    if name in table:
        return table[name]
    lowered = name.lower()
    return next((value for key, value in table.items() if key.lower() == lowered), None)
