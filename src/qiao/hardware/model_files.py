"""The model files that lie on this machine: reads what the planner's readers need, and no more."""

from __future__ import annotations

from pathlib import Path

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.config_reader import read_config
from qiao.planner.gguf import read_gguf
from qiao.planner.identity import identified
from qiao.planner.model import ModelFacts

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
_TOKENIZER, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"


def is_local(name: str) -> bool:
    """Whether a model's name is a path: a model is there, or it is written as one.

    A folder that only has a model's name is none: `qiao export --out qwen3-235b` makes such a one.
    """
    path = Path(name).expanduser()
    is_file = path.is_file() and (path.suffix == ".gguf" or path.name == _CONFIG)
    return is_file or (path / _CONFIG).is_file() or name.startswith((".", "/", "~"))


def read(name: str) -> ModelFacts:
    """Facts of a model folder or a .gguf file."""
    path = Path(name).expanduser()
    try:
        if path.is_file() and path.suffix == ".gguf":
            return _gguf(path)
        folder = path if path.is_dir() else path.parent
        return _folder(folder)
    except FileNotFoundError as problem:
        raise ConfigurationError(
            f"{name} holds no {_CONFIG}.",
            hint="Name the folder that has the model's config.json, or a .gguf file.",
        ) from problem
    except OSError as problem:
        raise ConfigurationError(f"{name} cannot be read: {problem.strerror}.") from problem


def _folder(folder: Path) -> ModelFacts:
    config = (folder / _CONFIG).read_bytes()
    index, tokenizer, template = (_bytes(folder / name) for name in (_INDEX, _TOKENIZER, _TEMPLATE))
    facts = read_config(
        config,
        str(folder.resolve()),
        index=index,
        tokenizer=tokenizer,
        sources=(str(folder / _CONFIG),),
        is_local=True,
    )
    text = template.decode("utf-8", "replace") if template is not None else None
    facts = identified(facts, config, template=text, tokenizer=tokenizer)
    if facts.published_bytes is not None:
        return facts
    files = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    return msgspec.structs.replace(facts, published_bytes=files) if files else facts


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _gguf(path: Path) -> ModelFacts:
    with path.open("rb") as stream:
        return read_gguf(stream, path.stat().st_size, str(path.resolve()))
