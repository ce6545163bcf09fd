"""The head of model files, written here byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qiao.engines.gguf import GgufFacts, copy_with_context, read_facts
from qiao.errors import ConfigurationError


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ENTRIES = (
    entry("general.architecture", 8, text("llama")),
    entry("general.name", 8, text("Tiny")),
    entry("a.bool", 7, b"\x01"),
    entry("a.double", 12, struct.pack("<d", 1.5)),
    entry("a.texts", 9, struct.pack("<IQ", 8, 2) + text("x") + text("yy")),
    entry("a.numbers", 9, struct.pack("<IQ", 6, 3) + struct.pack("<3f", 1, 2, 3)),
    entry("llama.context_length", 4, struct.pack("<I", 8192)),
    entry("tokenizer.chat_template", 8, text("{{ messages }}")),
)


def gguf(*entries: bytes, version: int = 3, tail: bytes = b"tensors") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(entries)) + b"".join(entries) + tail


def test_facts(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf(*ENTRIES))
    assert read_facts(file) == GgufFacts("llama", "Tiny", 8192, has_template=True)
    file.write_bytes(gguf())
    assert read_facts(file) == GgufFacts("unknown", None, None, has_template=False)


def tensor(name: str, offset: int) -> bytes:
    return text(name) + struct.pack("<IQQIQ", 2, 64, 64, 2, offset)


@pytest.mark.parametrize("missing", [0, 1, 4096])
def test_a_file_that_was_cut(tmp_path: Path, missing: int) -> None:
    """At the last tensor's first byte at the latest; what each one takes is the engine's to know."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, len(ENTRIES)) + b"".join(ENTRIES)
    head += tensor("a", 4096) + tensor("b", 0)
    head += bytes(-len(head) % 32)
    file = tmp_path / "m.gguf"
    file.write_bytes((head + bytes(4096) + b"x")[: len(head) + 4097 - missing])
    if not missing:
        assert read_facts(file).name == "Tiny"
        return
    with pytest.raises(ConfigurationError, match=f"it was cut: it ends after {len(head) + 4097 - missing} bytes"):
        read_facts(file)


def test_a_copy_with_another_context(tmp_path: Path) -> None:
    file, copy = tmp_path / "m.gguf", tmp_path / "copy.gguf"
    file.write_bytes(gguf(*ENTRIES))
    copy_with_context(file, copy, 16_384)
    assert read_facts(copy).context == 16_384
    assert read_facts(file).context == 8192
    assert len(copy.read_bytes()) == len(file.read_bytes())
    changed = [one != other for one, other in zip(copy.read_bytes(), file.read_bytes(), strict=True)]
    assert sum(changed) <= 4
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_file_without_a_context_cannot_be_stretched(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf(*ENTRIES[:2]))
    with pytest.raises(ConfigurationError, match="does not say its context length"):
        copy_with_context(file, tmp_path / "copy.gguf", 9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin with GGUF"),
        (b"PK\x03\x04 a wheel", "does not begin with GGUF"),
        (b"GGUF\x01\x00\x00\x00", "version 1"),
        (gguf(*ENTRIES)[:60], "ends too early"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "announces"),
        (gguf(text("k") + struct.pack("<I", 99)), "kind 99"),
        (gguf(struct.pack("<Q", 2**40)), "text of"),
    ],
)
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=reason):
        read_facts(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_facts(tmp_path / "none.gguf")


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_refused_and_nothing_else(tmp_path: Path, garbage: bytes, cut: int) -> None:
    file = tmp_path / "m.gguf"
    whole = gguf(*ENTRIES)
    for content in (garbage, b"GGUF" + garbage, whole[:cut] + garbage):
        file.write_bytes(content)
        try:
            read_facts(file)
        except ConfigurationError:
            continue
