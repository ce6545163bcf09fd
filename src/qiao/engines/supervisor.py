"""One engine process kept alive by one owner task.

The task starts the process, reads what it says, notices its end, and starts it again after a growing pause; nobody
else touches the process. The process tells its state in JSON lines on stdout (`Report`); what it writes to stderr is
its log, of which the end is kept for the error message. Used for the embedded engine, and made for any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from qiao.engines.base import EngineEvent, OnEvent, State, ignore
from qiao.errors import StartError

_LOG_LINES = 40
_LINE_LIMIT = 256 * 1024


class Report(msgspec.Struct, frozen=True):
    """One line that the process says of itself.

    `state` "ready" comes with `address`; "failed" says why the process is about to end, and `hint` what would change
    that. `is_final`: starting again would not.
    """

    state: State
    message: str = ""
    fraction: float | None = None
    address: str | None = None
    hint: str | None = None
    is_final: bool = True


class Command(msgspec.Struct, frozen=True):
    """How to start the process. `first_input` is written to its stdin, which then stays open as long as we live."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    first_input: bytes = b""


class Policy(msgspec.Struct, frozen=True):
    """Times in seconds.

    * `first_pause`, `longest_pause`: before a restart; each is twice the one before.
    * `most_restarts`: in a row; a process that was ready for `healthy_after` starts the count anew.
    * `ready_within`: for loading, before it counts as hung.
    * `stop_grace`: between the polite request to end and the end.
    """

    first_pause: float = 0.5
    longest_pause: float = 30.0
    most_restarts: int = 6
    healthy_after: float = 60.0
    ready_within: float = 600.0
    stop_grace: float = 5.0


class _Ended(msgspec.Struct, frozen=True):
    """How one run of the process ended. `final`: another run would end the same way."""

    reason: str
    hint: str | None = None
    final: bool = False
    was_healthy: bool = False


class _Life:
    """What is known of the run that is under way."""

    def __init__(self) -> None:
        self.ready_at: float | None = None
        self.failed: Report | None = None


class Supervisor:
    """Owns one process. `command(address)` makes the command; `address` is that of the last run, None at first."""

    def __init__(
        self,
        name: str,
        command: Callable[[str | None], Command],
        *,
        policy: Policy | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self.name = name
        self.state: State = "stopped"
        self.address: str | None = None
        self.restarts = 0
        self._command = command
        self._policy = policy or Policy()
        self._on_event = on_event
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._owner: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Condition()
        self.failure: StartError | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None else None

    @property
    def log(self) -> Sequence[str]:
        """The last lines that the process wrote to stderr."""
        return tuple(self._log)

    async def start(self) -> str:
        """Start the process and wait until it is ready; returns its address. Raises `StartError`."""
        if self._owner is None:
            self.state = "starting"
            self._stopping.clear()
            self._owner = asyncio.create_task(self._own(), name=f"supervisor of {self.name}")
        async with self._changed:
            await self._changed.wait_for(lambda: self.state in ("ready", "failed", "stopped"))
        if self.state == "ready" and self.address is not None:
            return self.address
        raise self.failure or StartError(f"The {self.name} was stopped before it was ready.")

    async def wait_until(self, *states: State) -> State:
        """Wait for one of these states; returns the one that came."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state in states)
            return self.state

    async def stop(self) -> None:
        """End the process: SIGTERM, then SIGKILL. Returns when it is gone. Safe to call twice."""
        self._stopping.set()
        if self._owner is not None:
            await asyncio.gather(self._owner, return_exceptions=True)
            self._owner = None
        if self.state not in ("failed", "stopped"):
            await self._tell("stopped", f"The {self.name} is stopped.")

    async def _tell(self, state: State, message: str, fraction: float | None = None) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()
        self._on_event(EngineEvent(state, message, fraction))

    # -- the owner ------------------------------------------------------------------------------------------------

    async def _own(self) -> None:
        try:
            await self._keep_alive()
        except Exception as error:  # whoever waits for the engine must not wait for ever
            self.failure = StartError(f"The {self.name} cannot be supervised any more: {error!r}.")
            async with self._changed:
                self.state = "failed"
                self._changed.notify_all()
            raise

    async def _keep_alive(self) -> None:
        pause, in_a_row = self._policy.first_pause, 0
        await self._tell("starting", f"Starting the {self.name}.")
        while True:
            ended = await self._run_once()
            if self._stopping.is_set():
                return
            if ended.was_healthy:
                pause, in_a_row = self._policy.first_pause, 0
            if ended.final or in_a_row >= self._policy.most_restarts:
                await self._give_up(ended, in_a_row)
                return
            in_a_row += 1
            self.restarts += 1
            await self._tell("restarting", f"The {self.name} {ended.reason}; starting it again in {pause:g} s.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            if self._stopping.is_set():
                return
            pause = min(pause * 2, self._policy.longest_pause)

    async def _give_up(self, ended: _Ended, tries: int) -> None:
        message = f"The {self.name} {ended.reason}."
        if tries:
            message = f"The {self.name} {ended.reason}, the last of {tries + 1} tries."
        if self._log and not ended.final:
            message += " Its last words:\n  " + "\n  ".join(list(self._log)[-8:])
        self.failure = StartError(message, hint=ended.hint)
        await self._tell("failed", message)

    async def _run_once(self) -> _Ended:
        """One life of the process, from its start to its end."""
        life = _Life()
        self._log.clear()
        command = self._command(self.address)
        try:
            process = await asyncio.create_subprocess_exec(
                *command.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(command.environment),
                limit=_LINE_LIMIT,
            )
        except OSError as error:
            return _Ended(f"could not be started: {command.argv[0]}: {error.strerror}", final=True)
        self._process = process
        loop = asyncio.get_running_loop()
        readers = [
            asyncio.create_task(self._read_reports(process, life)),
            asyncio.create_task(self._read_log(process)),
        ]
        try:
            await _hand_over(process, command.first_input)
            hung = await self._watch(process, life)
        finally:
            await self._end(process)
            await asyncio.gather(*readers)
            self._process = None
        is_healthy = life.ready_at is not None and loop.time() - life.ready_at >= self._policy.healthy_after
        if life.failed is not None:
            return _Ended(life.failed.message or "failed", life.failed.hint, final=life.failed.is_final)
        if hung:
            return _Ended(f"was not ready within {self._policy.ready_within:g} s")
        return _Ended(_ending(process.returncode), was_healthy=is_healthy)

    async def _watch(self, process: asyncio.subprocess.Process, life: _Life) -> bool:
        """Wait for the end of the process, or the order to stop it; True if it never became ready."""
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                (ended, stopping), timeout=self._policy.ready_within, return_when=asyncio.FIRST_COMPLETED
            )
            if not (ended.done() or stopping.done()) and life.ready_at is None:
                return True
            await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
            return False
        finally:
            for task in (ended, stopping):
                task.cancel()
            await asyncio.gather(ended, stopping, return_exceptions=True)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._policy.stop_grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # -- what the process says ------------------------------------------------------------------------------------

    async def _read_reports(self, process: asyncio.subprocess.Process, life: _Life) -> None:
        async for line in _lines(process.stdout):
            try:
                report = msgspec.json.decode(line, type=Report)
            except msgspec.DecodeError:
                self._log.append(line.decode("utf-8", "replace").rstrip())
                continue
            if report.state == "failed":
                life.failed = report
                continue
            if report.state == "ready":
                self.address = report.address or self.address
                life.ready_at = asyncio.get_running_loop().time()
            await self._tell(report.state, report.message, report.fraction)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        async for line in _lines(process.stderr):
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._log.append(text)


async def _hand_over(process: asyncio.subprocess.Process, first_input: bytes) -> None:
    """Write to stdin and leave it open: its end tells the process that we are gone."""
    if process.stdin is None or not first_input:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(first_input)
        await process.stdin.drain()


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """Lines up to the end; of a line beyond all measure only pieces."""
    if stream is None:
        return
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # longer than the limit: asyncio has dropped it
        if not line:
            return
        yield line


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was ended by {name}"
    return f"ended with status {code}"
