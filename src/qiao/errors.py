"""The one error tree for everything that is not a request: start-up, configuration, engines, clients.

A fault in a request or an answer is a `qiao.core.fault.Fault`; what stops a command is a `QiaoError`.
"""

from __future__ import annotations


class QiaoError(Exception):
    """Something that ends a command, said so that a person can act on it.

    `code` is a stable snake_case word, `message` one sentence that names the place, `hint` the mend,
    `exit_status` the exit status of the process: 1 the answer is no, 2 wrong usage or configuration,
    3 could not start (supervisors should not restart on 3).
    """

    code = "error"
    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigurationError(QiaoError):
    """A flag, variable or file says something that cannot be used."""

    code = "configuration"
    exit_status = 2


class StartError(QiaoError):
    """A server or an engine could not be started."""

    code = "could_not_start"
    exit_status = 3


class UpstreamError(QiaoError):
    """The upstream does not answer, or answers something that no engine says."""

    code = "upstream"
    exit_status = 1


class ClientMissingError(QiaoError):
    """The client program that was asked for is not installed, or too old."""

    code = "client_missing"
    exit_status = 1
