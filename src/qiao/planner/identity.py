"""What a folder's model is, where the folder's name does not say: from what lies in it. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import msgspec

from qiao import profiles
from qiao.planner import catalogue
from qiao.planner.model import Dialect, ModelFacts

# What a template writes around a call, and the dialect that this is; the first that it has all of counts.
_MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<tool_call>", "<arg_key>"), "glm45"),
    (("<tool_call>", "<function="), "qwen3_coder"),
    (("<tool_call>",), "hermes"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("[TOOL_CALLS]",), "mistral"),
)


class _Config(msgspec.Struct):
    name: Any = msgspec.field(default=None, name="_name_or_path")


class _Tokenizer(msgspec.Struct):
    chat_template: Any = None


def identified(model: ModelFacts, config: bytes, *, template: str | None, tokenizer: bytes | None) -> ModelFacts:
    """`model` with what tells its family, or at least how it writes tool calls.

    `config`, `tokenizer`: its config.json and tokenizer_config.json; `template`: its chat_template.jinja.
    """
    if _is_known(model.name):
        return model
    name = _read(config, _Config()).name
    if isinstance(name, str) and _is_known(name):
        return msgspec.structs.replace(model, known_as=name)
    if template is None and tokenizer is not None:
        template = _text(_read(tokenizer, _Tokenizer()).chat_template)
    dialect = _by_architecture(model.architecture) if template is None else _by_template(template)
    return msgspec.structs.replace(model, dialect=dialect)


def _is_known(name: str) -> bool:
    return profiles.find(name).family != profiles.UNKNOWN.family


def _by_template(template: str) -> Dialect | None:
    for marks, dialect in _MARKS:
        if all(mark in template for mark in marks):
            return Dialect(dialect, f"its chat template has {' and '.join(marks)}")
    return None


def _by_architecture(architecture: str) -> Dialect | None:
    """The dialect of most models of the catalogue with this architecture."""
    dialects = Counter(
        profiles.find(family.checkpoints[0].repository).dialect
        for family in catalogue.FAMILIES
        if architecture in family.config.get("architectures", ())
    )
    dialect = next((each for each, _ in dialects.most_common(1)), None)
    if dialect is None:
        return None
    others = [each for each in dialects if each not in (dialect, None)]
    but = f", though some write {' or '.join(map(str, others))}" if others else ""
    return Dialect(dialect, f"as models of the architecture {architecture} do{but}", is_guess=bool(others))


_Read = TypeVar("_Read", bound=msgspec.Struct)


def _read(data: bytes, otherwise: _Read) -> _Read:
    try:
        return msgspec.json.decode(data, type=type(otherwise))
    except msgspec.DecodeError:  # the reader of the figures says so
        return otherwise


def _text(template: object) -> str | None:
    """A template is one text, or several with names."""
    match template:
        case str():
            return template
        case [*several]:
            return "\n".join(str(each.get("template", "")) for each in several if isinstance(each, dict))
        case _:
            return None
