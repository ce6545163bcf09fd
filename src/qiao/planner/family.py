"""What a catalogue entry is: one set of shapes, published in several precisions. Values only."""

from __future__ import annotations

from typing import Any

import msgspec

from qiao.planner.model import Stretch
from qiao.planner.quantisation import PLAIN, Quantisation


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One published repository.

    * `config`: fields of its config.json that differ from the family's.
    * `published_bytes`: the total of its safetensors index, where `source` tells it.
    * `is_by_third_party`: not published by the model's own makers.
    """

    repository: str
    quantisation: Quantisation = PLAIN
    config: dict[str, Any] = {}
    published_bytes: int | None = None
    is_by_third_party: bool = False
    source: str = ""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Models of one shape, in the order in which they are preferred where a precision has several.

    * `name`: what people call it, `qwen3-235b`.
    * `parameters`: numbers in all, for people and for order.
    * `config`: the fields of config.json that the planner reads.
    * `not_there`: names that people use and that nobody published, each with what is meant.
    * `remote_code`: why code that comes with the download has to be run, with its source.
    * `stretch`: how it goes beyond its window.
    * `since`: first vLLM version that has its architecture, and where that was seen.
    """

    name: str
    parameters: int
    config: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    source: str
    aliases: tuple[str, ...] = ()
    not_there: dict[str, str] = {}
    remote_code: str = ""
    stretch: Stretch | None = None
    since: tuple[tuple[int, ...], str] = ((0, 9), "vLLM 0.9.2, models/registry.py")
