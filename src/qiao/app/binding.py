"""Why an address could not be listened on, said so that a person can act on it."""

from __future__ import annotations

import errno
import os
import socket

from qiao.errors import StartError
from qiao.hardware.ports import owner_of


def check_free(host: str, port: int) -> None:
    """Raises `StartError` when nobody could listen there now: told before minutes go into starting an engine."""
    if port == 0:
        return
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                if os.name == "posix":
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as problem:
        raise cannot_listen(host, port, problem) from None


def cannot_listen(host: str, port: int, problem: OSError) -> StartError:
    """The refusal of the operating system, with the owner of the port where the system tells it."""
    match problem.errno:
        case errno.EADDRINUSE:
            owner = owner_of(port)
            used_by = f"in use by {owner}" if owner else "in use by another process"
            return StartError(
                f"Port {port} on {host} is {used_by}.",
                hint="Stop it, or choose another port: --port 0 takes a free one.",
            )
        case errno.EACCES | errno.EPERM:
            return StartError(f"Port {port} on {host} is not allowed to this user.", hint="Choose a port above 1023.")
        case errno.EADDRNOTAVAIL:
            return StartError(
                f"{host} is no address of this machine.",
                hint="--host takes 127.0.0.1, 0.0.0.0 for all, or one of its addresses.",
            )
        case _:
            reason = problem.strerror or str(problem)
            return StartError(f"{host}:{port} cannot be listened on: {reason}.", hint="Check --host and --port.")
