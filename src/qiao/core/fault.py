"""A rule that was broken during a request, and by whom.

Every function of the core that meets bad input raises (or carries in a `Failed` event) a `Fault` and nothing else,
so that the edge needs one handler, and each protocol writes it in its own shape.
"""

from __future__ import annotations

from typing import Literal

Party = Literal["client", "upstream", "ours"]

Kind = Literal[
    "invalid_request",
    "authentication",
    "billing",
    "permission",
    "not_found",
    "timeout",
    "conflict",
    "too_large",
    "rate_limit",
    "api",
    "overloaded",
    "unavailable",
]


class Fault(Exception):
    """One broken rule.

    * `kind`: what it is, in the neutral words above; a protocol maps it to its status and type.
    * `message`: one sentence for a person, starting with the path when a field is wrong (`messages.0.content: …`).
    * `party`: who broke the rule: the client, the upstream, or we ourselves.
    * `error_code`: Anthropic's `error.details.error_code`, where one exists.
    * `retry_after`: seconds after which a retry makes sense, if known.
    * `upstream_status`: the HTTP status that the engine answered with, if it answered.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        party: Party = "client",
        error_code: str | None = None,
        retry_after: float | None = None,
        upstream_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message
        self.party: Party = party
        self.error_code = error_code
        self.retry_after = retry_after
        self.upstream_status = upstream_status

    def __repr__(self) -> str:
        return f"Fault({self.kind!r}, {self.message!r}, party={self.party!r})"


def invalid(path: str, problem: str, *, error_code: str | None = None) -> Fault:
    """The client's field at `path` (dotted, list positions as numbers) is wrong."""
    return Fault("invalid_request", f"{path}: {problem}" if path else problem, error_code=error_code)
