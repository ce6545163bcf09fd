"""The routes of the two hubs, as data: where a repository's files are listed, where a file is, what a listing says.

Hugging Face's are also those of its mirrors. ModelScope's were taken from its own client (modelscope/hub/api.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

HubKind = Literal["auto", "huggingface", "modelscope"]


class HubFile(msgspec.Struct, frozen=True):
    """A file of a repository. `sha256`, `git_oid`: checksums of its content; None: the hub does not tell this one."""

    path: str
    size: int
    sha256: str | None = None
    git_oid: str | None = None

    @property
    def checksum(self) -> str | None:
        """The best one that is known; a part of it marks the unfinished file."""
        return self.sha256 or self.git_oid

    def is_right(self, path: Path) -> bool:
        """Whether `path` holds it, as far as the hub's listing can tell. Reads the whole file."""
        if path.stat().st_size != self.size:
            return False
        with path.open("rb") as stream:
            if self.sha256 is not None:
                return hashlib.file_digest(stream, "sha256").hexdigest() == self.sha256
            if self.git_oid is None:
                return True
            digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
            while block := stream.read(2**20):
                digest.update(block)
            return digest.hexdigest() == self.git_oid


def kind_of(endpoint: str, wanted: HubKind) -> HubKind:
    """Which routes the hub at `endpoint` has."""
    if wanted != "auto":
        return wanted
    return "modelscope" if "modelscope" in (urlsplit(endpoint).hostname or "") else "huggingface"


def listing(kind: HubKind, repository: str) -> str:
    """Where the files are listed."""
    if kind == "modelscope":
        return f"/api/v1/models/{quote(repository)}/repo/files?Revision=master&Recursive=true"
    return f"/api/models/{quote(repository)}/tree/main?recursive=true"


def file(kind: HubKind, repository: str, path: str) -> str:
    """Where a file is."""
    if kind == "modelscope":
        return f"/models/{quote(repository)}/resolve/master/{quote(path)}"
    return f"/{quote(repository)}/resolve/main/{quote(path)}"


def files(kind: HubKind, listed: Any) -> tuple[HubFile, ...]:
    """The files that a listing names."""
    if kind == "modelscope":
        data = listed.get("Data") if isinstance(listed, dict) else None
        return tuple(_modelscope_files((data or {}).get("Files")))
    return tuple(_huggingface_files(listed))


def _huggingface_files(listed: Any) -> Iterator[HubFile]:
    for entry in _objects(listed):
        if entry.get("type", "file") != "file":
            continue
        lfs = entry.get("lfs")
        large: dict[str, Any] = lfs if isinstance(lfs, dict) else {}
        sha256, oid = _text(large.get("oid")), _text(entry.get("oid"))
        yield HubFile(
            str(entry.get("path")),
            _size(large.get("size", entry.get("size"))),
            sha256.removeprefix("sha256:") if sha256 else None,
            oid if not large else None,
        )


def _modelscope_files(listed: Any) -> Iterator[HubFile]:
    for entry in _objects(listed):
        if entry.get("Type") != "tree":
            yield HubFile(str(entry.get("Path")), _size(entry.get("Size")), _text(entry.get("Sha256")) or None)


def _objects(listed: Any) -> Iterator[dict[str, Any]]:
    return (entry for entry in (listed if isinstance(listed, list) else ()) if isinstance(entry, dict))


def _size(value: object) -> int:
    return value if isinstance(value, int) else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
