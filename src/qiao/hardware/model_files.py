"""The model files that lie on this machine: reads what the planner's readers need, and no more."""

from __future__ import annotations

from pathlib import Path

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.config_reader import read_config
from qiao.planner.gguf import HeaderCutError, read_gguf
from qiao.planner.model import ModelFacts

_CONFIG, _INDEX, _TOKENIZER = "config.json", "model.safetensors.index.json", "tokenizer_config.json"
_FIRST_READ, _MOST_READ = 2 * 2**20, 128 * 2**20


def is_local(name: str) -> bool:
    """Whether a model's name is a path: something is there, or it is written as one."""
    return Path(name).expanduser().exists() or name.startswith((".", "/", "~"))


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
    index = (folder / _INDEX).read_bytes() if (folder / _INDEX).is_file() else None
    tokenizer = (folder / _TOKENIZER).read_bytes() if (folder / _TOKENIZER).is_file() else None
    facts = read_config(
        config,
        str(folder.resolve()),
        index=index,
        tokenizer=tokenizer,
        sources=(str(folder / _CONFIG),),
        is_local=True,
    )
    if facts.published_bytes is not None:
        return facts
    files = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    return msgspec.structs.replace(facts, published_bytes=files) if files else facts


def _gguf(path: Path) -> ModelFacts:
    size = path.stat().st_size
    wanted = _FIRST_READ
    with path.open("rb") as stream:
        while True:
            stream.seek(0)
            data = stream.read(wanted)
            try:
                return read_gguf(data, size, str(path.resolve()))
            except HeaderCutError:
                if len(data) < wanted or wanted >= _MOST_READ:
                    raise ConfigurationError(
                        f"{path} ends within its header.", hint="A download that was cut has to be repeated."
                    ) from None
                wanted *= 4
