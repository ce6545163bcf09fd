"""The process between us and vLLM: `python -m qiao.engines.vllm_child`.

vLLM is a tree of processes that tells nothing but a log. This one starts it in a process group of its own, keeps its
log in a file, turns what the log says into `Report`s on stdout, asks `/health` until it answers, and ends the whole
group when it is told to (SIGTERM), or when stdin ends: then whoever started us is gone, and no GPU may stay taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from qiao.core.fault import Fault
from qiao.engines import vllm_log
from qiao.engines.parent import ask_for_the_end
from qiao.engines.supervisor import Report
from qiao.upstream.client import Client

_POLL_SECONDS = 0.5
_HEALTH_TIMEOUT = 5.0
_BLOCK = 64 * 1024
_LONGEST_LINE = 64 * 1024
_KEPT_LINES = 2000
_LAST_WORDS_SECONDS = 60.0
_LOG_BYTES = 64 * 2**20
_ENDS = re.compile(rb"[\r\n]+")


class KeeperSettings(msgspec.Struct, frozen=True):
    """What the parent asks for.

    * `argv`: vLLM's command line. `address`: where it will answer, without a path.
    * `log`: the file that keeps all that it writes; what earlier runs wrote stays.
    * `grace`: seconds between the polite request to end and the end.
    """

    argv: tuple[str, ...]
    address: str
    log: str
    grace: float = 15.0


def main() -> int:
    """The whole life; the exit status is vLLM's own, 0 after an ordered end."""
    # Ctrl-C reaches every process of the terminal; the parent ends us in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=KeeperSettings)
    with contextlib.closing(LogFile(Path(settings.log))) as log:
        return asyncio.run(_Keeper(settings, log).keep())


class LogFile:
    """A file that does not grow for ever: beyond `most` bytes it becomes FILE.1, and a new one begins.

    A disk that is full ends the log, not the engine: its output has to be read on, or it would stand still.
    """

    def __init__(self, path: Path, most: int = _LOG_BYTES) -> None:
        self._path = path
        self._most = most
        self._stream: BinaryIO | None = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(data)
            if self._stream.tell() > self._most:
                self._stream.close()
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                self._stream = self._path.open("ab", buffering=0)
        except OSError as error:
            sys.stderr.write(f"{self._path} cannot be written any more: {error.strerror}\n")
            self.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Keeper:
    def __init__(self, settings: KeeperSettings, log: LogFile) -> None:
        self._settings = settings
        self._log = log
        self._ordered = asyncio.Event()
        self._is_ready = False
        self._told = Report("starting", "")
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    async def keep(self) -> int:
        self._listen()
        _tell(Report("starting", "Starting vLLM."))
        # A pipe of our own: asyncio would count vLLM as running for as long as an orphaned worker holds its output.
        output, its_output = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._settings.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=its_output,
                stderr=its_output,
                start_new_session=True,
                preexec_fn=ask_for_the_end,
            )
        except OSError as error:
            _tell(Report("failed", f"could not be started: {self._settings.argv[0]}: {error.strerror}"))
            return 3
        finally:
            os.close(its_output)
        with os.fdopen(output, "rb") as pipe:
            return await self._watch(process, pipe)

    def _listen(self) -> None:
        """The two orders to end: SIGTERM, and the end of stdin."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ordered.set)

        def wait() -> None:
            # Not through sys.stdin: its lock, held by a thread that waits, aborts the interpreter at its end.
            while os.read(sys.stdin.fileno(), 4096):
                pass
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                loop.call_soon_threadsafe(self._ordered.set)

        threading.Thread(target=wait, daemon=True).start()

    async def _watch(self, process: asyncio.subprocess.Process, output: BinaryIO) -> int:
        reading = asyncio.create_task(self._read(output))
        asking = asyncio.create_task(self._ask())
        ended = asyncio.create_task(process.wait())
        ordered = asyncio.create_task(self._ordered.wait())
        try:
            await asyncio.wait((ended, ordered), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
            await _end_group(process, self._settings.grace)
            # A grandchild that kept the pipe open is gone now; what it wrote is still read, since it may say why.
            await asyncio.wait((reading,), timeout=5 if self._ordered.is_set() else _LAST_WORDS_SECONDS)
            for task in (reading, ended, ordered):
                task.cancel()
            await asyncio.gather(asking, reading, ended, ordered, return_exceptions=True)
        if self._ordered.is_set():
            return 0
        status = _status(process.returncode)
        self._explain(status)
        return status

    async def _read(self, output: BinaryIO) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), output
        )
        try:
            await self._read_lines(stream)
        finally:
            transport.close()

    async def _read_lines(self, stream: asyncio.StreamReader) -> None:
        async for line in _lines(stream, self._log):
            step = vllm_log.step_of(line)
            if not vllm_log.is_progress_bar(line):
                self._lines.append(line)
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            if step is not None and not self._is_ready:
                report = Report("loading", step.message, step.fraction)
                if report != self._told:
                    _tell(report)
                self._told = report

    async def _ask(self) -> None:
        client = Client(self._settings.address)
        try:
            while True:
                if await _is_healthy(client):
                    break
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            await client.close()
        self._is_ready = True
        _tell(Report("ready", "vLLM is ready.", address=self._settings.address))

    def _explain(self, status: int) -> None:
        """Why it did not start. What struck a running engine may pass: it is started again."""
        if self._is_ready:
            return
        cause = vllm_log.cause_of(tuple(self._lines))
        where = f"All that it wrote is in {self._settings.log}."
        if cause is None:
            _tell(Report("failed", f"ended with status {status}", hint=where, is_final=False))
            return
        hint = f"{cause.hint} {where}" if cause.hint else where
        _tell(Report("failed", f"could not start: {cause.text}", hint=hint, is_final=cause.is_final))


async def _lines(stream: asyncio.StreamReader, log: LogFile) -> AsyncIterator[str]:
    """What comes, cut at line ends and at the carriage returns of progress bars; all of it goes to `log` as it is."""
    rest = b""
    while block := await stream.read(_BLOCK):
        log.write(block)
        *whole, rest = _ENDS.split(rest + block)
        rest = rest[-_LONGEST_LINE:]
        for line in whole:
            if line.strip():
                yield line.decode("utf-8", "replace")
    if rest.strip():
        yield rest.decode("utf-8", "replace")


async def _is_healthy(client: Client) -> bool:
    try:
        return (await client.get("/health", timeout=_HEALTH_TIMEOUT)).status == 200
    except Fault:
        return False


async def _end_group(process: asyncio.subprocess.Process, grace: float) -> None:
    """vLLM first, which ends its workers in order; after `grace` seconds whatever is left of the group."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _status(code: int | None) -> int:
    """As a shell says it: 128 and the number of the signal."""
    return 128 - code if code is not None and code < 0 else code or 0


def _tell(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
