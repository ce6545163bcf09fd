"""Where Hugging Face's own programs keep what they downloaded: a model that lies there is not fetched again.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Only read, never written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def cache_folder(variables: Mapping[str, str]) -> Path:
    """Where it is, by the variables that its owner reads."""
    if variables.get("HF_HUB_CACHE"):
        return Path(variables["HF_HUB_CACHE"])
    home = variables.get("HF_HOME")
    if home:
        return Path(home) / "hub"
    base = variables.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"


def cached(repository: str, cache: Path) -> Path | None:
    """The folder of a repository's newest snapshot, if all its weights are there."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if _is_whole(snapshot) else None


def _is_whole(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    try:
        names = set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values())
    except (OSError, msgspec.DecodeError):
        return False
    return bool(names) and all((folder / name).is_file() for name in names)
