"""The head of a GGUF file: enough to tell what it is, and to write a copy with another context length.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

from qiao.errors import ConfigurationError

_MAGIC = b"GGUF"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_LONGEST_KEY = 65_535
_MOST_ENTRIES = 100_000
_LONGEST_STRING = 64 * 2**20
_COPY_BYTES = 4 * 2**20


class GgufFacts(msgspec.Struct, frozen=True):
    """`architecture`: llama, qwen2, …; `name`: what its maker calls it; `context`: tokens it was made for."""

    architecture: str
    name: str | None
    context: int | None
    has_template: bool


class _Entry(msgspec.Struct, frozen=True):
    value: str | int | float | bool | None
    offset: int
    kind: int


def read_facts(path: Path) -> GgufFacts:
    """Facts of a model file. Raises `ConfigurationError` when it is none."""
    entries = _entries(path)
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
    if entry is None or entry.kind != _UINT32:
        raise ConfigurationError(f"{source} does not say its context length, so it cannot be stretched.")
    partial = target.with_name(target.name + ".part")
    with source.open("rb") as reader, partial.open("wb") as writer:
        while block := reader.read(_COPY_BYTES):
            writer.write(block)
        writer.seek(entry.offset)
        writer.write(struct.pack("<I", tokens))
    partial.replace(target)


def _text(entries: dict[str, _Entry], key: str) -> str | None:
    entry = entries.get(key)
    return entry.value if entry is not None and isinstance(entry.value, str) else None


def _entries(path: Path) -> dict[str, _Entry]:
    try:
        with path.open("rb") as stream:
            return _read_head(stream)
    except OSError as error:
        raise ConfigurationError(
            f"The model file {path} cannot be read: {error.strerror}.", hint="Check the path given to --gguf."
        ) from None
    except (ValueError, struct.error) as error:
        raise ConfigurationError(
            f"{path} is no GGUF model file: {error}.",
            hint="The embedded engine takes GGUF files; a download that was cut has to be repeated.",
        ) from None


def _read_head(stream: BinaryIO) -> dict[str, _Entry]:
    if stream.read(4) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = _number(stream, _UINT32)
    if version not in (2, 3):
        raise ValueError(f"it is of version {version}")
    _number(stream, 10)
    count = int(_number(stream, 10))
    if count > _MOST_ENTRIES:
        raise ValueError(f"it announces {count} entries")
    entries: dict[str, _Entry] = {}
    for _ in range(count):
        key = _string(stream, _LONGEST_KEY)
        kind = int(_number(stream, _UINT32))
        offset = stream.tell()
        entries[key] = _Entry(_value(stream, kind), offset, kind)
    return entries


def _value(stream: BinaryIO, kind: int) -> str | int | float | bool | None:
    if kind == _STRING:
        return _string(stream, _LONGEST_STRING)
    if kind != _ARRAY:
        return _number(stream, kind)
    inner, count = int(_number(stream, _UINT32)), int(_number(stream, 10))
    if inner == _STRING:
        for _ in range(count):
            stream.seek(int(_number(stream, 10)), 1)
    elif inner in _SIZES:
        stream.seek(_SIZES[inner] * count, 1)
    else:
        raise ValueError(f"it holds an array of kind {inner}")
    return None


def _number(stream: BinaryIO, kind: int) -> int | float | bool:
    if kind not in _FORMATS:
        raise ValueError(f"it holds a value of kind {kind}")
    data = stream.read(_SIZES[kind])
    if len(data) < _SIZES[kind]:
        raise ValueError("it ends too early")
    value: int | float | bool = struct.unpack(_FORMATS[kind], data)[0]
    return value


def _string(stream: BinaryIO, longest: int) -> str:
    length = int(_number(stream, 10))
    if length > longest:
        raise ValueError(f"it holds a text of {length} bytes")
    data = stream.read(length)
    if len(data) < length:
        raise ValueError("it ends too early")
    return data.decode("utf-8", "replace")
