"""What the embedded engine is started with: its window, its name, its file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from qiao.engines.gguf import read_facts
from qiao.engines.llamacpp import EmbeddedEngine, EngineSettings, model_name
from qiao.engines.llamacpp_child import ChildSettings
from qiao.errors import ConfigurationError
from tests.engines.test_gguf import entry, gguf, text


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("Qwen2.5-Coder-7B-Instruct-Q4_K_M.gguf", "qwen2.5-coder-7b-instruct"),
        ("gemma-3-270m-it-F16.gguf", "gemma-3-270m-it"),
        ("model.IQ3_XS.gguf", "model"),
        ("plain", "plain"),
        (".gguf", "model"),
    ],
)
def test_names(file: str, name: str) -> None:
    assert model_name(Path("/somewhere") / file) == name


def prepared(folder: Path, own: int | None, **settings: object) -> ChildSettings:
    file = folder / "Tiny-Q4_0.gguf"
    entries = [entry("general.architecture", 8, text("llama"))]
    if own is not None:
        entries.append(entry("llama.context_length", 4, struct.pack("<I", own)))
    file.write_bytes(gguf(*entries))
    engine = EmbeddedEngine(EngineSettings(model=file, cache=folder / "cache", **settings), environment={})  # type: ignore[arg-type]
    return engine.prepare()


def test_the_models_own_window(tmp_path: Path) -> None:
    child = prepared(tmp_path, 8192)
    assert (child.context, child.original_context, child.alias) == (8192, None, "tiny")
    assert child.model == str(tmp_path / "Tiny-Q4_0.gguf")
    assert len(child.key) > 20
    assert child.decode_threads == 1


def test_a_large_window_has_to_be_asked_for(tmp_path: Path) -> None:
    assert prepared(tmp_path, 131_072).context == 32_768
    assert prepared(tmp_path, 131_072, context=65_536).context == 65_536
    assert prepared(tmp_path, None).context == 8192


def test_more_than_the_models_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="made for 8192 tokens, and --context asks for 9000") as raised:
        prepared(tmp_path, 8192, context=9000)
    assert "--yarn" in (raised.value.hint or "")


def test_yarn_doubles_it_in_a_copy(tmp_path: Path) -> None:
    child = prepared(tmp_path, 8192, yarn=True)
    assert (child.context, child.original_context) == (16_384, 8192)
    assert Path(child.model).parent == tmp_path / "cache"
    assert read_facts(Path(child.model)).context == 16_384
    with pytest.raises(ConfigurationError, match="more than YaRN gives"):
        prepared(tmp_path, 8192, yarn=True, context=20_000)
