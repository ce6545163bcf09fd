"""The header of a GGUF file to ModelFacts. Pure: takes the file's first bytes and its size.

Format: magic, version 3, counts, then key-value pairs of known types (github.com/ggml-org/ggml, docs/gguf.md). The
tensors themselves are not read; all that is not header is weights.
"""

from __future__ import annotations

import struct
from typing import Any

from qiao.errors import ConfigurationError
from qiao.planner.model import Attention, Experts, LinearAttention, ModelFacts
from qiao.planner.quantisation import Quantisation

MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Arrays are the vocabulary, mostly; only how long they are is of interest.
_KEPT_ITEMS = 512


class HeaderCutError(Exception):
    """The bytes end within the header: more of the file is needed."""


class _Reader:
    """Steps through the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, kind: str) -> Any:
        size = struct.calcsize(f"<{kind}")
        if self._at + size > len(self._data):
            raise HeaderCutError
        value = struct.unpack_from(f"<{kind}", self._data, self._at)[0]
        self._at += size
        return value

    def text(self) -> str:
        length = self.number("Q")
        if self._at + length > len(self._data):
            raise HeaderCutError
        value = self._data[self._at : self._at + length].decode("utf-8", "replace")
        self._at += length
        return value

    def value(self, kind: int, place: str) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(place)
        if kind not in _FORMATS:
            raise ConfigurationError(f"{place}: a value of unknown type {kind} in the GGUF header.")
        return self.number(_FORMATS[kind])

    def _array(self, place: str) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        items = Items()
        for _ in range(count):
            items.add(self.value(kind, place))
        return items


class Items(list[Any]):
    """An array of the header: its first items, and its whole `length`."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def add(self, item: Any) -> None:
        """Count an item, and keep it if it is among the first."""
        self.length += 1
        if len(self) < _KEPT_ITEMS:
            self.append(item)


def read_header(data: bytes, place: str) -> dict[str, Any]:
    """The key-value pairs. Raises HeaderCutError where `data` ends too early."""
    if data[:4] != MAGIC:
        raise ConfigurationError(f"{place} is not a GGUF file.", hint="It begins with other letters than GGUF.")
    reader = _Reader(data[4:])
    version = reader.number("I")
    if version not in (2, 3):
        raise ConfigurationError(f"{place} is GGUF of version {version}; 2 and 3 are known.")
    reader.number("Q")
    pairs = reader.number("Q")
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.text()
        found[key] = reader.value(reader.number("I"), place)
    return found


def read_gguf(data: bytes, size: int, place: str) -> ModelFacts:
    """Facts from the first bytes of a file of `size` bytes."""
    fields = read_header(data, place)
    kind = str(fields.get("general.architecture", ""))

    def number(name: str, default: int | None = None) -> int:
        value = fields.get(f"{kind}.{name}", default)
        if isinstance(value, list):  # by layer: the largest decides
            value = max(value, default=None)
        if not isinstance(value, int):
            raise ConfigurationError(f"{place}: the GGUF header does not say {kind}.{name}.")
        return value

    layers, heads, hidden = number("block_count"), number("attention.head_count"), number("embedding_length")
    interval = number("full_attention_interval", 0)
    full = layers // interval if interval else layers
    tokens = fields.get("tokenizer.ggml.tokens")
    experts = number("expert_count", 0)
    return ModelFacts(
        repository=place,
        architecture=kind,
        hidden=hidden,
        vocabulary=number("vocab_size", tokens.length if isinstance(tokens, Items) else 1),
        layers=layers,
        window=number("context_length"),
        attention=Attention(
            layers=full,
            heads=heads,
            key_value_heads=number("attention.head_count_kv", heads),
            head_size=number("attention.key_length", hidden // heads),
        ),
        linear=_linear(number, layers - full) if interval else None,
        experts=_experts(number, layers, experts) if experts else None,
        dense_layers=0 if experts else layers,
        dense_width=number("feed_forward_length", 0),
        quantisation=Quantisation(method="gguf", precision="int4", bits=4),
        published_bytes=size,
        sources=(f"GGUF header of {place}",),
        is_local=True,
    )


def _linear(number: Any, layers: int) -> LinearAttention:
    state, groups = number("ssm.state_size"), number("ssm.group_count")
    heads = number("ssm.time_step_rank")
    return LinearAttention(
        layers=layers,
        key_heads=groups,
        value_heads=heads,
        key_size=state,
        value_size=number("ssm.inner_size") // heads,
        convolution=number("ssm.conv_kernel"),
    )


def _experts(number: Any, layers: int, count: int) -> Experts:
    return Experts(
        layers=layers,
        count=count,
        active=number("expert_used_count"),
        width=number("expert_feed_forward_length", number("feed_forward_length", 1)),
        shared_width=number("expert_shared_feed_forward_length", 0),
    )
