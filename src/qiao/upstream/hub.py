"""Models from a hub that speaks two routes: the list of a repository's files, and a file.

A download that was cut goes on where it stopped, in this run or the next; a file is in place only when its checksum is
the one that the hub lists. `download` gets a GGUF file for the embedded engine, `snapshot` a folder for vLLM.
Why not a hub's own library: see docs/reference/planner.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import aiohttp
import msgspec

from qiao.errors import ConfigurationError, StartError
from qiao.upstream import hub_routes
from qiao.upstream.hub_routes import HubFile, HubKind

OnBytes: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many are there."""

_PREFERRED = ("q4_k_m", "q4_k_s", "q4_1", "q4_0", "q5_k_m", "q8_0")
_BLOCK = 1024 * 1024
_MARGIN = 64 * 2**20
_CONNECT_TIMEOUT = 15.0
_SILENCE_TIMEOUT = 60.0
_MOST_CUTS = 5
_PAUSE = 0.5
_AT_ONCE = 4
_MANIFEST = ".qiao-model.json"
_NEEDED = {".safetensors", ".json", ".txt", ".model", ".jinja", ".py", ".tiktoken"}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_OWN_FILE = "Or take a model file that you have: `qiao up --gguf FILE`."


class Hub:
    """One hub. `endpoint`: its address; `token`: for repositories that ask for one. Use it as a context manager."""

    def __init__(
        self, endpoint: str, *, token: str | None = None, kind: HubKind = "auto", pause: float = _PAUSE
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._kind = hub_routes.kind_of(endpoint, kind)
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
        files = [file for file in await self.files(repository) if file.path.endswith(".gguf")]
        file = choose(files, wanted, repository=repository)
        target = folder / folder_name(repository) / Path(file.path).name
        if target.is_file() and target.stat().st_size == file.size:
            return target
        _make_room(target.parent, file.size - _length(_partial(target, file)))
        await self._obtain(repository, file, target, on_bytes or _say_nothing)
        return target

    async def snapshot(self, repository: str, folder: Path, *, on_bytes: OnBytes | None = None) -> Path:
        """All that vLLM needs of `repository`, as a folder in `folder`. Raises `StartError`, `ConfigurationError`.

        A folder that was finished once is used as it is, without asking the hub: it works where there is no network.
        """
        parse(repository)
        target = folder / folder_name(repository)
        if is_finished(target):
            return target
        wanted = needed(await self.files(repository), repository=repository)
        missing = [file for file in wanted if not _is_there(target / file.path, file.size)]
        partials = [_length(_partial(target / file.path, file)) for file in missing]
        total, there = sum(file.size for file in wanted), sum(partials)
        _make_room(target, sum(file.size for file in missing) - there)
        counter = _Counter(total, total - sum(file.size for file in missing), on_bytes or _say_nothing)
        await self._obtain_all(repository, missing, target, counter)
        manifest = {
            "repository": repository,
            "endpoint": self.endpoint,
            "files": {each.path: each.size for each in wanted},
        }
        (target / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        return target

    async def _obtain_all(self, repository: str, files: Sequence[HubFile], folder: Path, counter: _Counter) -> None:
        """Several at once, largest first; the first failure ends all."""
        waiting = sorted(files, key=lambda file: -file.size)[::-1]

        async def work() -> None:
            while waiting:
                file = waiting.pop()
                await self._obtain(repository, file, folder / file.path, counter.of(file))

        workers = [asyncio.ensure_future(work()) for _ in range(min(_AT_ONCE, len(files)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _obtain(self, repository: str, file: HubFile, target: Path, tell: OnBytes) -> None:
        """Fetch one file beside its place, check it, and move it there."""
        partial = _partial(target, file)
        if file.size == 0:
            partial.touch()
        await self._fetch(repository, file, partial, tell)
        if not await asyncio.to_thread(file.is_right, partial):
            _remove(partial)
            raise StartError(
                f"{file.path} of {repository} came damaged: its checksum is not the one that {self.endpoint} lists.",
                hint="Start again; if it stays so, the hub or a proxy before it is broken.",
            )
        partial.replace(target)

    async def files(self, repository: str) -> tuple[HubFile, ...]:
        """The files of a repository."""
        url = self.endpoint + hub_routes.listing(self._kind, repository)
        try:
            async with self._open().get(url) as response:
                self._check(response, repository)
                listed = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._unreachable(error) from error
        return hub_routes.files(self._kind, listed)

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
        url = self.endpoint + hub_routes.file(self._kind, repository, file.path)
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
        raise StartError(
            f"{repository} {problem}.",
            hint="The embedded engine takes one GGUF file; vLLM takes the folder of a model: --model FOLDER.",
        )
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


def folder_name(repository: str) -> str:
    """The folder of a repository among the downloaded models."""
    return repository.replace("/", "--")


def is_finished(folder: Path) -> bool:
    """Whether a snapshot was finished, and all its files are still there in full."""
    try:
        manifest = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError):
        return False
    return all(_is_there(folder / path, size) for path, size in manifest.files.items())


def needed(files: Sequence[HubFile], *, repository: str) -> tuple[HubFile, ...]:
    """What vLLM reads: weights as safetensors, configuration, tokenizer, template, and code of the model's own.

    Raises `StartError` where there are no such weights. Folders hold the same weights in other forms.
    """
    found = tuple(file for file in files if "/" not in file.path and Path(file.path).suffix in _NEEDED)
    if not any(file.path.endswith(".safetensors") for file in found):
        has_gguf = any(file.path.endswith(".gguf") for file in files)
        hint = f"It has GGUF files: `qiao up --model {repository}`." if has_gguf else "Check the name."
        raise StartError(f"{repository} has no weights as safetensors, which vLLM reads.", hint=hint)
    return found


class _Manifest(msgspec.Struct):
    files: dict[str, int]


class _Counter:
    """One count over files that come at the same time."""

    def __init__(self, total: int, done: int, tell: OnBytes) -> None:
        self._total = total
        self._finished = done
        self._tell = tell
        self._done: dict[str, int] = {}

    def of(self, file: HubFile) -> OnBytes:
        """What to call with the bytes of this file."""

        def tell(done: int, _: int) -> None:
            self._done[file.path] = done
            self._tell(self._finished + sum(self._done.values()), self._total)

        return tell


def _partial(target: Path, file: HubFile) -> Path:
    return target.with_name(f"{target.name}.{(file.checksum or 'unchecked')[:16]}.part")


def _make_room(folder: Path, size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"The folder {folder} cannot be made: {error.strerror}.", hint="Name another one with --cache."
        ) from None
    free, wanted = shutil.disk_usage(folder).free, size + _MARGIN
    if free < wanted:
        raise StartError(
            f"{folder} has {_size_text(free)} left, and the model needs {_size_text(wanted)}.",
            hint="Make room, or name another folder with --cache.",
        )


def _size_text(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 10 * 2**30 else f"{size / 2**20:.0f} MiB"


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _length(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _remove(path: Path) -> None:
    path.unlink()


def _say_nothing(done: int, total: int) -> None:
    """For callers who do not want to know."""
