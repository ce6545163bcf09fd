"""Why an address could not be listened on, said so that a person can act on it."""

from __future__ import annotations

import errno

from qiao.errors import StartError
from qiao.hardware.ports import owner_of


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
