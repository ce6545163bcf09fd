"""Model files from a hub that speaks Hugging Face's two routes: the list of a repository's files, and a file.

A download that was cut goes on where it stopped, in this run or the next; a file is in place only when its SHA-256 is
the one that the hub lists. Only GGUF files, which the embedded engine takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import aiohttp
import msgspec

from qiao.errors import ConfigurationError, StartError

OnBytes: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many are there."""

_PREFERRED = ("q4_k_m", "q4_k_s", "q4_1", "q4_0", "q5_k_m", "q8_0")
_BLOCK = 1024 * 1024
_MARGIN = 64 * 2**20
_CONNECT_TIMEOUT = 15.0
_SILENCE_TIMEOUT = 60.0
_MOST_CUTS = 5
_PAUSE = 0.5
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_OWN_FILE = "Or take a model file that you have: `qiao up --gguf FILE`."


class HubFile(msgspec.Struct, frozen=True):
    """A file of a repository. `sha256` None: the hub does not tell."""

    path: str
    size: int
    sha256: str | None = None


class Hub:
    """One hub. `endpoint`: its address; `token`: for repositories that ask for one. Use it as a context manager."""

    def __init__(self, endpoint: str, *, token: str | None = None, pause: float = _PAUSE) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._pause = pause
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Hub:
        headers = {"User-Agent": "qiao", "Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT, sock_read=_SILENCE_TIMEOUT),
            # Downloads go the way that the machine's administrator set for them.
            trust_env=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def download(self, name: str, folder: Path, *, on_bytes: OnBytes | None = None) -> Path:
        """The model `name` (`owner/repository`, with `:FILE` or `:Q4_K_M` to choose) as a file in `folder`.

        Raises `StartError`, or `ConfigurationError` for a name that means nothing.
        """
        repository, wanted = parse(name)
        file = choose(await self.files(repository), wanted, repository=repository)
        target = folder / repository.replace("/", "--") / Path(file.path).name
        if target.is_file() and target.stat().st_size == file.size:
            return target
        partial = target.with_name(f"{target.name}.{(file.sha256 or 'unchecked')[:16]}.part")
        _make_room(target.parent, partial, file.size)
        tell = on_bytes or _say_nothing
        await self._fetch(repository, file, partial, tell)
        if file.sha256 is not None and await asyncio.to_thread(_sha256, partial) != file.sha256:
            _remove(partial)
            raise StartError(
                f"{file.path} of {repository} came damaged: its SHA-256 is not the one that {self.endpoint} lists.",
                hint="Start again; if it stays so, the hub or a proxy before it is broken.",
            )
        partial.replace(target)
        return target

    async def files(self, repository: str) -> tuple[HubFile, ...]:
        """The GGUF files of a repository."""
        url = f"{self.endpoint}/api/models/{quote(repository)}/tree/main?recursive=true"
        try:
            async with self._open().get(url) as response:
                self._check(response, repository)
                listed = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        entries = listed if isinstance(listed, list) else []
        return tuple(
            _file(entry) for entry in entries if isinstance(entry, dict) and str(entry.get("path")).endswith(".gguf")
        )

    async def _fetch(self, repository: str, file: HubFile, partial: Path, tell: OnBytes) -> None:
        """Append to `partial` until it is as long as `file`; goes on after a cut as long as something comes."""
        cuts = 0
        while (have := _length(partial)) < file.size:
            try:
                await self._fetch_rest(repository, file, partial, have, tell)
                reason: Exception | None = None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, OSError) and not isinstance(error, aiohttp.ClientError | TimeoutError):
                    raise StartError(
                        f"{partial} cannot be written: {error.strerror}.", hint="Is the disk full?"
                    ) from error
                reason = error
            cuts = 0 if _length(partial) > have else cuts + 1
            if cuts > _MOST_CUTS:
                raise self._unreachable(reason or aiohttp.ClientPayloadError("the file ends too early"))
            if _length(partial) < file.size:
                await asyncio.sleep(self._pause)
        if _length(partial) > file.size:
            _remove(partial)
            raise StartError(f"{self.endpoint} sent more of {file.path} than it lists.", hint="Start again.")

    async def _fetch_rest(self, repository: str, file: HubFile, partial: Path, have: int, tell: OnBytes) -> None:
        url = f"{self.endpoint}/{quote(repository)}/resolve/main/{quote(file.path)}"
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with self._open().get(url, headers=headers) as response:
            self._check(response, repository, file.path)
            goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            done = have if goes_on else 0
            with partial.open("ab" if goes_on else "wb") as writer:
                async for block in response.content.iter_chunked(_BLOCK):
                    writer.write(block)
                    done += len(block)
                    tell(done, file.size)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use `async with`")
        return self._session

    def _check(self, response: aiohttp.ClientResponse, repository: str, path: str = "") -> None:
        place = f"{repository}/{path}" if path else repository
        match response.status:
            case 200 | 206:
                return
            case 401 | 403:
                raise StartError(
                    f"{self.endpoint} does not give out {place} without permission.",
                    hint="Accept the model's terms there, and set HF_TOKEN to a token of yours.",
                )
            case 404:
                raise StartError(f"There is no {place} at {self.endpoint}.", hint=f"Check the name. {_OWN_FILE}")
            case status if status >= 500 or status in (416, 429):
                raise aiohttp.ClientPayloadError(f"status {status}")
            case status:
                raise StartError(f"{self.endpoint} answers {status} for {place}.", hint=_OWN_FILE)

    def _unreachable(self, error: Exception) -> StartError:
        said = str(error) or type(error).__name__
        return StartError(
            f"The hub at {self.endpoint} cannot be reached: {said}.",
            hint=f"Check the network, or name another hub with HF_ENDPOINT. {_OWN_FILE}",
        )


def parse(name: str) -> tuple[str, str | None]:
    """`owner/repository:choice` → both parts. Raises `ConfigurationError`."""
    repository, _, wanted = name.partition(":")
    if not _NAME.fullmatch(repository):
        raise ConfigurationError(
            f"{name!r} is no name of a model on a hub.",
            hint="Write it as owner/repository, with :FILE.gguf or :Q4_K_M behind it to choose a file.",
        )
    return repository, wanted or None


def choose(files: Sequence[HubFile], wanted: str | None, *, repository: str) -> HubFile:
    """The file that is meant: the one named, or the usual quantization. Raises `StartError`."""
    whole = [file for file in files if not _PART.search(file.path)]
    if not whole:
        problem = "only has GGUF files that are cut into parts" if files else "has no GGUF file"
        raise StartError(f"{repository} {problem}.", hint="The embedded engine takes one GGUF file; choose another.")
    names = ", ".join(sorted(Path(file.path).name for file in whole)[:12])
    if wanted is not None:
        exact = [file for file in whole if wanted in (file.path, Path(file.path).name)]
        found = exact or [file for file in whole if _has(file, wanted.lower())]
        if not found:
            raise StartError(f"{repository} has no {wanted}.", hint=f"It has {names}.")
        return min(found, key=lambda file: file.size)
    for quantization in _PREFERRED:
        found = [file for file in whole if _has(file, quantization)]
        if found:
            return min(found, key=lambda file: file.size)
    return min(whole, key=lambda file: file.size)


def _has(file: HubFile, quantization: str) -> bool:
    return re.search(rf"[-_.]{re.escape(quantization)}(?=[-_.])", Path(file.path).name.lower()) is not None


def _file(entry: dict[str, Any]) -> HubFile:
    lfs = entry.get("lfs")
    large: dict[str, Any] = lfs if isinstance(lfs, dict) else {}
    oid = large.get("oid")
    size = large.get("size", entry.get("size"))
    return HubFile(
        str(entry["path"]),
        size if isinstance(size, int) else 0,
        oid.removeprefix("sha256:") if isinstance(oid, str) else None,
    )


def _make_room(folder: Path, partial: Path, size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"The folder {folder} cannot be made: {error.strerror}.", hint="Name another one with --cache."
        ) from None
    free, needed = shutil.disk_usage(folder).free, size - _length(partial) + _MARGIN
    if free < needed:
        raise StartError(
            f"{folder} has {free / 2**20:.0f} MiB left, and the model needs {needed / 2**20:.0f} MiB.",
            hint="Make room, or name another folder with --cache.",
        )


def _length(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _remove(path: Path) -> None:
    path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say_nothing(done: int, total: int) -> None:
    """For callers who do not want to know."""
