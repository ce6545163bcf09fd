"""The head of a GGUF file: its entries with their places, and ModelFacts from them. Pure: takes an open file.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian. The tensors
themselves are not read; all that is not head is weights.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.model import Attention, Experts, LinearAttention, ModelFacts
from qiao.planner.quantisation import Quantisation

UINT32 = 4
_MAGIC = b"GGUF"
_UINT64, _STRING, _ARRAY = 10, 8, 9
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_LONGEST_KEY = 65_535
_MOST_ENTRIES = 100_000
_LONGEST_STRING = 64 * 2**20
# Long arrays are the vocabulary; only how long they are is of interest.
_KEPT_ITEMS = 512


class Items(list[Any]):
    """An array: its first items where they are numbers, and its whole `length`."""

    length = 0


class Entry(msgspec.Struct, frozen=True):
    """One entry. `offset`: of its value in the file; `kind`: GGUF's number of its type."""

    value: Any
    offset: int
    kind: int


def read_header(stream: BinaryIO, place: str) -> dict[str, Entry]:
    """The entries by their key, from a file at its beginning. Raises `ConfigurationError` for what is no such file."""
    try:
        found = _entries(stream)[0]
        if stream.tell() > stream.seek(0, 2):  # skipped over the end
            raise ValueError("it ends too early")
    except (ValueError, struct.error) as error:
        raise _no_model_file(place, error) from None
    return found


def check_whole(stream: BinaryIO, place: str) -> None:
    """Raises `ConfigurationError` for a file, open at its beginning, that ends before its last tensor begins."""
    try:
        found, tensors = _entries(stream)
        furthest = 0
        for _ in range(tensors):
            _string(stream, _LONGEST_KEY)
            _skip(stream, 8 * int(_number(stream, UINT32)) + 4)
            furthest = max(furthest, int(_number(stream, _UINT64)))
        entry = found.get("general.alignment")
        alignment = entry.value if entry is not None and isinstance(entry.value, int) and entry.value > 0 else 32
        begin = -(-stream.tell() // alignment) * alignment
        size = stream.seek(0, 2)
        if tensors and begin + furthest >= size:
            raise ValueError(f"it was cut: it ends after {size} bytes, and needs more than {begin + furthest}")
    except (ValueError, struct.error) as error:
        raise _no_model_file(place, error) from None


def _no_model_file(place: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{place} is no GGUF model file: {error}.", hint="A download that was cut has to be repeated."
    )


def _entries(stream: BinaryIO) -> tuple[dict[str, Entry], int]:
    """The entries, and how many tensors are described behind them."""
    if stream.read(4) != _MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = _number(stream, UINT32)
    if version not in (2, 3):
        raise ValueError(f"it is of version {version}")
    tensors = int(_number(stream, _UINT64))
    count = int(_number(stream, _UINT64))
    if count > _MOST_ENTRIES:
        raise ValueError(f"it announces {count} entries")
    found: dict[str, Entry] = {}
    for _ in range(count):
        key = _string(stream, _LONGEST_KEY)
        kind = int(_number(stream, UINT32))
        offset = stream.tell()
        found[key] = Entry(_value(stream, kind), offset, kind)
    return found, tensors


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(stream, _LONGEST_STRING)
    return _array(stream) if kind == _ARRAY else _number(stream, kind)


def _array(stream: BinaryIO) -> Items:
    inner, items = int(_number(stream, UINT32)), Items()
    items.length = int(_number(stream, _UINT64))
    if inner == _STRING:
        for _ in range(items.length):
            _skip(stream, int(_number(stream, _UINT64)))
        return items
    if inner not in _FORMATS:
        raise ValueError(f"it holds an array of kind {inner}")
    kept = min(items.length, _KEPT_ITEMS)
    items.extend(_number(stream, inner) for _ in range(kept))
    _skip(stream, struct.calcsize(_FORMATS[inner]) * (items.length - kept))
    return items


def _skip(stream: BinaryIO, size: int) -> None:
    if size > 2**62:
        raise ValueError(f"it holds a value of {size} bytes")
    stream.seek(size, 1)


def _number(stream: BinaryIO, kind: int) -> Any:
    if kind not in _FORMATS:
        raise ValueError(f"it holds a value of kind {kind}")
    size = struct.calcsize(_FORMATS[kind])
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("it ends too early")
    return struct.unpack(_FORMATS[kind], data)[0]


def _string(stream: BinaryIO, longest: int) -> str:
    length = int(_number(stream, _UINT64))
    if length > longest:
        raise ValueError(f"it holds a text of {length} bytes")
    data = stream.read(length)
    if len(data) < length:
        raise ValueError("it ends too early")
    return data.decode("utf-8", "replace")


def read_gguf(stream: BinaryIO, size: int, place: str) -> ModelFacts:
    """Facts of a file of `size` bytes, from its beginning. Raises `ConfigurationError`."""
    fields = {key: entry.value for key, entry in read_header(stream, place).items()}
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
