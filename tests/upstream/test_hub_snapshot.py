"""Whole models for vLLM from both kinds of hub: a file server on loopback that cuts connections and lies."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from qiao.errors import StartError
from qiao.upstream.hub import Hub, is_finished, needed
from qiao.upstream.hub_cache import cache_folder, cached
from qiao.upstream.hub_routes import HubFile, HubKind, kind_of
from tests.support.listening import listening
from tests.support.partial import send_from

REPOSITORY = "org/Tiny-8B"
FILES = {
    "config.json": b'{"model_type": "qwen3"}\n',
    "model-00001-of-00002.safetensors": bytes(range(256)) * 9_000,
    "model-00002-of-00002.safetensors": bytes(reversed(range(256))) * 7_000,
    "model.safetensors.index.json": b"{}",
    "tokenizer.json": b"{}" * 500,
    "chat_template.jinja": b"{{ messages }}",
    "merges.txt": b"",
}
IGNORED = {"README.md": b"# model", ".gitattributes": b"x", "original/consolidated.safetensors": b"0" * 100}


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class HubServer:
    """One repository under the routes of either kind. `cuts`: how many answers break off after `cut` bytes."""

    kind: HubKind
    url: str = ""
    content: dict[str, bytes] = field(default_factory=lambda: {**FILES, **IGNORED})
    listed: dict[str, bytes] = field(default_factory=lambda: {**FILES, **IGNORED})
    cut: int = 0
    cuts: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def tree(self, request: web.Request) -> web.StreamResponse:
        assert request.match_info["repository"] == REPOSITORY
        return web.json_response(self._listing())

    def _listing(self) -> Any:
        if self.kind == "modelscope":
            files = [
                {"Path": path, "Name": path.rpartition("/")[2], "Size": len(data), "Type": "blob",
                 "Sha256": hashlib.sha256(data).hexdigest()}
                for path, data in self.listed.items()
            ]  # fmt: skip
            return {"Code": 200, "Data": {"Files": [*files, {"Path": "original", "Size": 0, "Type": "tree"}]}}
        listed: list[dict[str, Any]] = [{"type": "directory", "path": "original", "size": 0}]
        for path, data in self.listed.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
            if path.endswith(".safetensors"):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
            listed.append(entry)
        return listed

    async def file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        asked = request.headers.get("Range", "")
        self.asked.append((path, asked))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        content = self.content[path]
        is_cut = self.cuts > 0 and len(content) - start > self.cut
        self.cuts -= is_cut
        return await send_from(request, content, start=start, cut=self.cut if is_cut else None)


@contextlib.asynccontextmanager
async def serving(server: HubServer) -> AsyncIterator[HubServer]:
    app = web.Application()
    if server.kind == "modelscope":
        app.router.add_get("/api/v1/models/{repository:.+}/repo/files", server.tree)
        app.router.add_get("/models/{owner}/{name}/resolve/master/{path:.+}", server.file)
    else:
        app.router.add_get("/api/models/{repository:.+}/tree/main", server.tree)
        app.router.add_get("/{owner}/{name}/resolve/main/{path:.+}", server.file)
    async with listening(web.AppRunner(app)) as server.url:
        yield server


async def fetch(server: HubServer, folder: Path, seen: list[tuple[int, int]] | None = None) -> Path:
    told = seen if seen is not None else []
    async with Hub(server.url, kind=server.kind, pause=0.01) as hub:
        return await hub.snapshot(REPOSITORY, folder, on_bytes=lambda done, total: told.append((done, total)))


@pytest.mark.parametrize("kind", ["huggingface", "modelscope"])
async def test_a_model_comes_whole_in_spite_of_cuts_and_only_once(tmp_path: Path, kind: HubKind) -> None:
    seen: list[tuple[int, int]] = []
    async with serving(HubServer(kind, cut=700_000, cuts=3)) as server:
        folder = await fetch(server, tmp_path, seen)
        assert folder == tmp_path / "org--Tiny-8B"
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".qiao-model.json"}
        assert files == FILES
        total = sum(map(len, FILES.values()))
        assert seen[-1] == (total, total)
        assert all(before <= after for (before, _), (after, _) in itertools.pairwise(seen))
        resumed = [asked for _, asked in server.asked if asked]
        assert resumed
        count = len(server.asked)
        assert await fetch(server, tmp_path) == folder
        assert len(server.asked) == count
    assert await fetch(server, tmp_path) == folder, "a finished model needs no hub"


@pytest.mark.parametrize("damaged", ["model-00001-of-00002.safetensors", "tokenizer.json"])
async def test_what_came_damaged_is_not_taken(tmp_path: Path, damaged: str) -> None:
    server = HubServer("huggingface")
    server.content[damaged] = b"x" + server.content[damaged][1:]
    async with serving(server):
        with pytest.raises(StartError, match=f"{damaged} of org/Tiny-8B came damaged"):
            await fetch(server, tmp_path)
        assert not (tmp_path / "org--Tiny-8B" / damaged).exists()
        server.content[damaged] = FILES[damaged]
        folder = await fetch(server, tmp_path)
    assert (folder / damaged).read_bytes() == FILES[damaged]


async def test_another_run_keeps_what_was_finished(tmp_path: Path) -> None:
    server = HubServer("huggingface", cut=10, cuts=1000)
    async with serving(server):
        small = {path: data for path, data in FILES.items() if len(data) < 10_000}
        for path in FILES:
            if path not in small:
                del server.content[path]
        with pytest.raises(StartError):
            await fetch(server, tmp_path)
        server.content.update(FILES)
        server.cuts = 0
        server.asked.clear()
        folder = await fetch(server, tmp_path)
    assert is_finished(folder)
    (folder / "config.json").unlink()
    assert not is_finished(folder)


async def test_a_disk_that_is_too_small_is_found_before_a_byte_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 2**20))
    async with serving(HubServer("huggingface")) as server:
        with pytest.raises(StartError, match="has 1 MiB left, and the model needs 68 MiB") as raised:
            await fetch(server, tmp_path)
        assert server.asked == []
    assert "--cache" in (raised.value.hint or "")


def test_only_what_vllm_reads_is_fetched() -> None:
    listed = [HubFile(path, 1) for path in (*FILES, *IGNORED, "model.gguf", "pytorch_model.bin")]
    assert {file.path for file in needed(listed, repository=REPOSITORY)} == set(FILES)
    with pytest.raises(StartError, match="no weights as safetensors") as raised:
        needed([HubFile("config.json", 1), HubFile("a.gguf", 1)], repository=REPOSITORY)
    assert "qiao up --model org/Tiny-8B" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("endpoint", "wanted", "kind"),
    [
        ("https://www.modelscope.cn", "auto", "modelscope"),
        ("https://hf-mirror.com", "auto", "huggingface"),
        ("http://127.0.0.1:1", "modelscope", "modelscope"),
    ],
)
def test_the_kind_of_a_hub(endpoint: str, wanted: HubKind, kind: HubKind) -> None:
    assert kind_of(endpoint, wanted) == kind


def test_what_hugging_faces_programs_have_fetched_is_used(tmp_path: Path) -> None:
    cache = cache_folder({"HF_HOME": str(tmp_path)})
    assert cache == tmp_path / "hub"
    assert cache_folder({"HF_HUB_CACHE": "/x", "HF_HOME": "/y"}) == Path("/x")
    folder = cache / "models--org--Tiny-8B"
    snapshot = folder / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert cached(REPOSITORY, cache) is None
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text("{}")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {f"layer.{name}": name for name in names}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / names[0]).write_bytes(b"0")
    assert cached(REPOSITORY, cache) is None, "a shard is missing"
    (snapshot / names[1]).symlink_to(folder / "blobs" / "gone")
    assert cached(REPOSITORY, cache) is None, "a link to what is not there"
    (snapshot / names[1]).unlink()
    (snapshot / names[1]).write_bytes(b"0")
    assert cached(REPOSITORY, cache) == snapshot
    assert cached("org/Other", cache) is None
