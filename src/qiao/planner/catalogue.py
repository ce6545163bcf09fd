"""The models that can be planned without having them here: how a name finds its checkpoint.

`find("qwen3-235b")` gives the checkpoints that the name can mean, in each precision that somebody publishes; a full
repository name gives that one alone. The figures are in `catalogue_qwen` and `catalogue_others`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.catalogue_others import OTHERS
from qiao.planner.catalogue_qwen import QWEN
from qiao.planner.config_reader import read_fields
from qiao.planner.family import Checkpoint, Family
from qiao.planner.model import ModelFacts

FAMILIES: tuple[Family, ...] = QWEN + OTHERS


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a name means: the checkpoints to choose from, and what has to be said about the name."""

    family: Family
    models: tuple[ModelFacts, ...]
    notes: tuple[str, ...] = ()


def find(name: str) -> Found:
    """The checkpoints that `name` can mean: a repository or its page, its plain name, or a family's short name."""
    wanted = _plain(name)
    for family, checkpoint in _every():
        if wanted == _plain(checkpoint.repository):
            return _found(family, (checkpoint,), _exact_notes(family, checkpoint))
    for family in FAMILIES:
        if wanted in (_plain(family.name), *map(_plain, family.aliases)):
            return _found(family, family.checkpoints, ())
    for family, checkpoint in _every():
        if wanted == _plain(checkpoint.repository.rsplit("/", 1)[-1]):
            return _found(family, (checkpoint,), _exact_notes(family, checkpoint))
    for family in FAMILIES:
        for wrong, why in family.not_there.items():
            if wanted in (_plain(wrong), _plain(wrong.rsplit("/", 1)[-1])):
                return _found(family, family.checkpoints, (f"{wrong} does not exist: {why}",))
    raise ConfigurationError(f"The catalogue has no model {name}.", hint=_nearest(wanted))


def facts(family: Family, checkpoint: Checkpoint) -> ModelFacts:
    """The figures of one checkpoint."""
    fields = {**family.config, **checkpoint.config}
    if checkpoint.published_bytes is not None:
        fields["published_bytes"] = checkpoint.published_bytes
    model = read_fields(fields, checkpoint.repository, sources=(family.source, checkpoint.source))
    return msgspec.structs.replace(
        model, quantisation=checkpoint.quantisation, remote_code=family.remote_code, stretch=family.stretch
    )


def names() -> tuple[str, ...]:
    """The families' short names."""
    return tuple(family.name for family in FAMILIES)


def smaller_than(parameters: int) -> tuple[Family, ...]:
    """Families with fewer numbers than `parameters`, largest first."""
    sized = [(family.parameters, family) for family in FAMILIES if family.parameters < parameters]
    return tuple(family for _, family in sorted(sized, key=lambda each: -each[0]))


def _every() -> Iterator[tuple[Family, Checkpoint]]:
    return ((family, checkpoint) for family in FAMILIES for checkpoint in family.checkpoints)


def _found(family: Family, checkpoints: tuple[Checkpoint, ...], notes: tuple[str, ...]) -> Found:
    return Found(family=family, models=tuple(facts(family, each) for each in checkpoints), notes=notes)


def _exact_notes(family: Family, checkpoint: Checkpoint) -> tuple[str, ...]:
    if checkpoint.quantisation.precision != "bf16":
        return ()
    stored = [each.repository for each in family.checkpoints if each.quantisation.precision == "fp8"]
    if not stored:
        return ()
    note = (
        f"{checkpoint.repository} is BF16. To run it in FP8, take {stored[0]}: `--quantization fp8` on this one reads "
        "all of it first and stores it anew at every start."
    )
    return (note,)


# The address of a model's page, as it is copied from a browser: on Hugging Face, ModelScope or a mirror.
_PAGE = re.compile(
    r"^(?:https?://[^/]+|(?:www\.)?(?:huggingface\.co|modelscope\.(?:cn|ai)))/(?:models/)?([^/?#]+/[^/?#]+)"
)


def _plain(name: str) -> str:
    page = _PAGE.match(name.strip())
    return (page[1] if page else name).strip().rstrip("/").lower().replace("_", "-").replace(" ", "-")


def _nearest(wanted: str) -> str:
    every: dict[str, str] = {}
    for family in FAMILIES:
        every[_plain(family.name)] = family.name
        for checkpoint in family.checkpoints:
            every[_plain(checkpoint.repository)] = checkpoint.repository
    near = [every[each] for each in difflib.get_close_matches(wanted, every, n=3, cutoff=0.5)]
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    return f"{meant}Known: {', '.join(names())}; any other by the folder that has its config.json."
