"""What every engine under a supervisor tells of itself, and how it is waited for and stopped."""

from __future__ import annotations

from qiao.engines.base import State
from qiao.engines.supervisor import Supervisor
from qiao.errors import StartError


class Supervised:
    """An engine whose process `supervisor` keeps."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def state(self) -> State:
        return self._supervisor.state

    @property
    def pid(self) -> int | None:
        """Of the process that is kept."""
        return self._supervisor.pid

    @property
    def failure(self) -> StartError | None:
        """Why it was given up."""
        return self._supervisor.failure

    async def wait_until(self, *states: State) -> State:
        return await self._supervisor.wait_until(*states)

    async def stop(self) -> None:
        await self._supervisor.stop()
