"""Model files from a hub: a file server on loopback that cuts, redirects, refuses and lies."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from qiao.errors import ConfigurationError, StartError
from qiao.upstream.hub import Hub, HubFile, choose, parse
from tests.support.listening import listening
from tests.support.partial import send_from

CONTENT = bytes(range(251)) * 20_000
REPOSITORY = "owner/Tiny-GGUF"


@dataclass
class FileServer:
    """One repository. `cut`: bytes after which the connection breaks, for the first `cuts` requests."""

    url: str = ""
    content: bytes = CONTENT
    sha256: str | None = hashlib.sha256(CONTENT).hexdigest()
    listed_size: int = len(CONTENT)
    cut: int = 0
    cuts: int = 0
    status: int = 200
    ignores_range: bool = False
    redirects_to: str = ""
    ranges: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    async def tree(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers.get("Authorization"))
        if request.match_info["repository"] != REPOSITORY:
            return web.json_response({"error": "Repository not found"}, status=404)
        lfs = {"oid": self.sha256, "size": self.listed_size} if self.sha256 else None
        files = [
            {"type": "file", "path": "README.md", "size": 10},
            {"type": "file", "path": "tiny.Q8_0.gguf", "size": 2 * self.listed_size},
            {"type": "file", "path": "tiny.Q4_K_M.gguf", "size": self.listed_size, "lfs": lfs},
        ]
        return web.json_response(files)

    async def file(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        self.tokens.append(request.headers.get("Authorization"))
        if self.redirects_to:
            raise web.HTTPFound(f"{self.redirects_to}{request.path}")
        if self.status != 200:
            return web.Response(status=self.status)
        start = 0 if self.ignores_range or not asked else int(asked.removeprefix("bytes=").removesuffix("-"))
        is_cut = self.cuts > 0
        self.cuts -= is_cut
        return await send_from(request, self.content, start=start, cut=self.cut if is_cut else None)


@contextlib.asynccontextmanager
async def serving(server: FileServer) -> AsyncIterator[FileServer]:
    app = web.Application()
    app.router.add_get("/api/models/{repository:.+}/tree/main", server.tree)
    app.router.add_get("/{repository:.+}/resolve/main/{path}", server.file)
    async with listening(web.AppRunner(app)) as server.url:
        yield server


async def fetch(server: FileServer, folder: Path, name: str = REPOSITORY, token: str | None = None) -> Path:
    async with Hub(server.url, token=token, pause=0.01) as hub:
        return await hub.download(name, folder)


async def test_the_usual_quantization_comes_whole_and_only_once(tmp_path: Path) -> None:
    async with serving(FileServer()) as server:
        seen: list[tuple[int, int]] = []
        async with Hub(server.url) as hub:
            path = await hub.download(REPOSITORY, tmp_path, on_bytes=lambda done, total: seen.append((done, total)))
        assert path == tmp_path / "owner--Tiny-GGUF" / "tiny.Q4_K_M.gguf"
        assert path.read_bytes() == CONTENT
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert [entry.name for entry in path.parent.iterdir()] == ["tiny.Q4_K_M.gguf"]
        assert await fetch(server, tmp_path) == path
        assert len(server.ranges) == 1


async def test_a_download_that_is_cut_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with serving(FileServer(cut=1_000_000, cuts=3)) as server:
        path = await fetch(server, tmp_path)
        assert path.read_bytes() == CONTENT
        starts = [int(asked.removeprefix("bytes=").removesuffix("-") or 0) for asked in server.ranges]
        assert len(starts) == 4
        assert starts == sorted(starts)
        assert starts[-1] > 0


async def test_another_run_goes_on_too(tmp_path: Path) -> None:
    async with serving(FileServer(cut=500_000, cuts=1)) as server:
        server.status = 200
        part = tmp_path / "owner--Tiny-GGUF" / f"tiny.Q4_K_M.gguf.{(server.sha256 or '')[:16]}.part"
        part.parent.mkdir()
        part.write_bytes(CONTENT[:700_000])
        server.cuts = 0
        assert (await fetch(server, tmp_path)).read_bytes() == CONTENT
        assert server.ranges == ["bytes=700000-"]


async def test_a_server_without_ranges_starts_again(tmp_path: Path) -> None:
    async with serving(FileServer(cut=300_000, cuts=2, ignores_range=True)) as server:
        assert (await fetch(server, tmp_path)).read_bytes() == CONTENT


async def test_a_server_that_always_cuts_at_once_is_given_up(tmp_path: Path) -> None:
    async with serving(FileServer(cut=0, cuts=99)) as server:
        with pytest.raises(StartError, match="cannot be reached"):
            await fetch(server, tmp_path)
        assert 5 < len(server.ranges) < 12


async def test_a_damaged_file_is_refused_and_not_kept(tmp_path: Path) -> None:
    damaged = b"x" + CONTENT[1:]
    async with serving(FileServer(content=damaged)) as server:
        with pytest.raises(StartError, match="came damaged"):
            await fetch(server, tmp_path)
        assert list((tmp_path / "owner--Tiny-GGUF").iterdir()) == []
        server.content = CONTENT
        assert (await fetch(server, tmp_path)).read_bytes() == CONTENT


async def test_a_file_longer_than_listed_is_refused(tmp_path: Path) -> None:
    async with serving(FileServer(content=CONTENT + b"more")) as server:
        with pytest.raises(StartError, match="more of"):
            await fetch(server, tmp_path)


async def test_the_token_stays_with_the_hub(tmp_path: Path) -> None:
    async with serving(FileServer()) as store, serving(FileServer(redirects_to=store.url)) as server:
        assert (await fetch(server, tmp_path, token="hf_secret")).read_bytes() == CONTENT
        assert server.tokens == ["Bearer hf_secret", "Bearer hf_secret"]
        assert store.tokens == [None]


@pytest.mark.parametrize(
    ("status", "words"), [(401, "permission"), (403, "permission"), (404, "There is no"), (418, "answers 418")]
)
async def test_refusals_are_told(tmp_path: Path, status: int, words: str) -> None:
    async with serving(FileServer(status=status)) as server:
        with pytest.raises(StartError, match=words):
            await fetch(server, tmp_path)
        assert len(server.ranges) == 1


async def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    async with serving(FileServer()) as server:
        with pytest.raises(StartError, match="There is no owner/other"):
            await fetch(server, tmp_path, "owner/other")


async def test_no_hub_at_all(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be reached") as raised:
        await fetch(FileServer(url="http://127.0.0.1:9"), tmp_path)
    assert "--gguf" in (raised.value.hint or "")


async def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    async with serving(FileServer()) as server:
        with pytest.raises(StartError, match="10 MiB left, and the model needs 69 MiB"):
            await fetch(server, tmp_path)
        assert server.ranges == []


def test_names() -> None:
    assert parse("a/b") == ("a/b", None)
    assert parse("a/b-1.5_c:Q4_K_M") == ("a/b-1.5_c", "Q4_K_M")
    for name in ("plain", "a/b/c", "../x", "a/", "http://x/y", "a b/c", ""):
        with pytest.raises(ConfigurationError, match="no name of a model"):
            parse(name)


def test_choosing_a_file() -> None:
    def files(*names: str) -> list[HubFile]:
        return [HubFile(name, 10 + number) for number, name in enumerate(names)]

    usual = files("m-f16.gguf", "m-Q8_0.gguf", "m-Q4_K_M.gguf")
    assert choose(usual, None, repository="r").path == "m-Q4_K_M.gguf"
    assert choose(usual, "q8_0", repository="r").path == "m-Q8_0.gguf"
    assert choose(usual, "m-f16.gguf", repository="r").path == "m-f16.gguf"
    assert choose(files("sub/m.gguf"), None, repository="r").path == "sub/m.gguf"
    with pytest.raises(StartError, match="has no q2_k"):
        choose(usual, "q2_k", repository="r")
    with pytest.raises(StartError, match="has no GGUF file"):
        choose([], None, repository="r")
    with pytest.raises(StartError, match="cut into parts"):
        choose(files("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"), None, repository="r")
