"""A gateway that listens tells of itself: to the person who started it, and to `qiao claude` by a note."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from qiao.app.server import Listening
from qiao.config import Config
from qiao.ledger.running import Running, client_url, noted


@contextlib.contextmanager
def announcing(config: Config, tell: Callable[[Running], None]) -> Iterator[Callable[[Listening], Running]]:
    """A callback for the moment when the gateway listens. The note stays until the block ends."""
    with contextlib.ExitStack() as stack:

        def ready(listening: Listening) -> Running:
            gateway = Running(
                url=client_url(listening.host, listening.port),
                key=None if config.auth.no_auth else config.auth.api_key,
                process=os.getpid(),
                started=time.time(),
                small=config.models.small,
                subagent=config.models.subagent,
            )
            stack.enter_context(noted(config.folders.state, gateway))
            tell(gateway)
            return gateway

        yield ready
