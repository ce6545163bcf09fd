"""What the embedded engine wants to know of a model file, and a copy of it with another context length."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.gguf import UINT32, Entry, check_whole, read_header

_COPY_BYTES = 4 * 2**20


class GgufFacts(msgspec.Struct, frozen=True):
    """`architecture`: llama, qwen2, …; `name`: what its maker calls it; `context`: tokens it was made for."""

    architecture: str
    name: str | None
    context: int | None
    has_template: bool


def read_facts(path: Path) -> GgufFacts:
    """Facts of a model file. Raises `ConfigurationError` when it is none."""
    entries = _entries(path)
    with path.open("rb") as stream:
        check_whole(stream, str(path))
    architecture = _text(entries, "general.architecture") or "unknown"
    length = entries.get(f"{architecture}.context_length")
    return GgufFacts(
        architecture,
        _text(entries, "general.name"),
        length.value if length is not None and isinstance(length.value, int) else None,
        "tokenizer.chat_template" in entries,
    )


def copy_with_context(source: Path, target: Path, tokens: int) -> None:
    """A copy of a model file that claims a context of `tokens`: the engine refuses prompts beyond what the file says.

    Raises `ConfigurationError` when the file has no such entry.
    """
    entries = _entries(source)
    architecture = _text(entries, "general.architecture")
    entry = entries.get(f"{architecture}.context_length")
    if entry is None or entry.kind != UINT32:
        raise ConfigurationError(f"{source} does not say its context length, so it cannot be stretched.")
    partial = target.with_name(target.name + ".part")
    with source.open("rb") as reader, partial.open("wb") as writer:
        while block := reader.read(_COPY_BYTES):
            writer.write(block)
        writer.seek(entry.offset)
        writer.write(struct.pack("<I", tokens))
    partial.replace(target)


def _text(entries: dict[str, Entry], key: str) -> str | None:
    entry = entries.get(key)
    return entry.value if entry is not None and isinstance(entry.value, str) else None


def _entries(path: Path) -> dict[str, Entry]:
    try:
        with path.open("rb") as stream:
            return read_header(stream, str(path))
    except OSError as error:
        raise ConfigurationError(
            f"The model file {path} cannot be read: {error.strerror}.", hint="Check the path given to --gguf."
        ) from None
