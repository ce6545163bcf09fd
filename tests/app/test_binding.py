"""Why an address could not be listened on, from the operating system's own refusals."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from qiao.app.binding import cannot_listen, check_free
from qiao.errors import StartError


def test_in_use_by_this_process() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = cannot_listen("127.0.0.1", port, OSError(errno.EADDRINUSE, "Address already in use"))
    assert f"Port {port} on 127.0.0.1 is in use by process {os.getpid()} (" in error.message
    assert error.exit_status == 3


def test_what_is_free_is_found_free() -> None:
    check_free("127.0.0.1", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for host in ("127.0.0.1", "localhost", "0.0.0.0", ""):
        check_free(host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_what_is_taken_is_told_before_anything_starts(host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartError, match="is in use by process"):
            check_free(host, taken.getsockname()[1])
    with pytest.raises(StartError, match="no address of this machine"):
        check_free("192.0.2.7", 4000)


def test_in_use_by_nobody_known() -> None:
    error = cannot_listen("127.0.0.1", 1, OSError(errno.EADDRINUSE, "Address already in use"))
    assert error.message == "Port 1 on 127.0.0.1 is in use by another process."


def test_other_refusals() -> None:
    assert "above 1023" in (cannot_listen("127.0.0.1", 80, PermissionError(errno.EACCES, "no")).hint or "")
    assert "no address of this machine" in cannot_listen("192.0.2.7", 80, OSError(errno.EADDRNOTAVAIL, "no")).message
    assert cannot_listen("::1", 80, OSError(errno.EAFNOSUPPORT, "not supported")).message.endswith("not supported.")
    # A name that does not resolve: getaddrinfo has numbers and words of its own.
    assert "Name or service" in cannot_listen("nowhere", 80, socket.gaierror(-2, "Name or service not known")).message
