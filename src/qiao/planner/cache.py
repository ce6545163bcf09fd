"""What the tokens of a conversation cost in GPU memory: keys and values, and the states of linear attention.

The arithmetic is the engine's own, block by block (vLLM, v1/core/kv_cache_utils.py): layers of one kind form groups of
equal size, all groups take blocks of equal bytes from one pool, a request takes whole blocks. Published start-up lines
of engines are met to the token; the golden cases hold them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qiao.planner.model import LinearAttention, ModelFacts
from qiao.planner.weights import Division, layers_of_stage

CacheType = Literal["auto", "fp8"]

PLAIN_BLOCK = 16
STATE_BYTES = 4  # mamba_ssm_dtype float32, in the config.json of every model that has such layers
CONVOLUTION_BYTES = 2


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """The pool of one GPU.

    * `block_tokens`: tokens that a block of an attention layer holds.
    * `block_bytes`: bytes of one block, over all layers of a group.
    * `full_groups`: groups of layers that see the whole window; a request takes a row of blocks for each.
    * `state_groups`, `state_blocks`: groups with a state of fixed size, and blocks that each takes for a request.
    * `sliding_groups`, `sliding_tokens`: groups that keep the last tokens only, and how many.
    * `bytes_per_token`: bytes that one token adds on this GPU.
    """

    block_tokens: int
    block_bytes: int
    full_groups: int
    state_groups: int = 0
    state_blocks: int = 0
    sliding_groups: int = 0
    sliding_tokens: int = 0
    bytes_per_token: int = 0

    def request_blocks(self, window: int) -> int:
        """Blocks of a request that fills `window`."""
        blocks = self.full_groups * _ceiling(window, self.block_tokens) + self.state_groups * self.state_blocks
        if self.sliding_groups:
            kept = min(self.sliding_tokens, window)
            blocks += self.sliding_groups * (_ceiling(kept, self.block_tokens) + 1)
        return blocks

    def request_bytes(self, window: int) -> int:
        """Bytes of a request that fills `window`."""
        return self.request_blocks(window) * self.block_bytes

    def blocks(self, available: int) -> int:
        """Blocks that fit into `available` bytes."""
        return max(available, 0) // self.block_bytes

    def concurrency(self, available: int, window: int) -> float:
        """How many requests that fill `window` fit at once."""
        return self.blocks(available) / self.request_blocks(window)

    def tokens(self, available: int, window: int) -> int:
        """Tokens that fit, as the engine prints them: the concurrency times the window."""
        return self.blocks(available) * window // self.request_blocks(window)

    def longest_window(self, available: int, requests: int = 1) -> int:
        """The longest window of which `requests` fit at once; 0 where not even one block does."""
        per_request = self.blocks(available) // max(requests, 1)
        if per_request < self.request_blocks(1):
            return 0
        low, high = 1, (per_request + 1) * self.block_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if self.request_blocks(middle) <= per_request:
                low = middle
            else:
                high = middle - 1
        return low


def bytes_per_token(model: ModelFacts, cache_type: CacheType = "auto") -> int:
    """Bytes that one token adds in the whole model, counted once: layers x key-value heads x head size x 2 x dtype."""
    return model.attention.layers * _layer_bytes(model, 1, cache_type)


def bytes_per_request(model: ModelFacts, cache_type: CacheType = "auto") -> int:
    """Bytes that a request takes in the whole model whatever its length: the states of linear attention."""
    del cache_type  # the states keep their own precision
    return model.linear.layers * _state_bytes(model.linear, 1) if model.linear else 0


def cache_of(
    model: ModelFacts,
    division: Division,
    *,
    cache_type: CacheType = "auto",
    prefix_caching: bool = True,
    batch_tokens: int = 8192,
) -> Cache:
    """The pool of a GPU of the pipeline stage with the most layers."""
    attention = model.attention
    most = max(layers_of_stage(model.layers, division, stage) for stage in range(division.pipeline))
    share = most / model.layers
    full = _ceiling_share(attention.layers, share)
    sliding = _ceiling_share(attention.sliding_layers, share)
    linear = _ceiling_share(model.linear.layers, share) if model.linear else 0
    per_layer = _layer_bytes(model, division.tensor, cache_type)
    block_tokens = PLAIN_BLOCK
    if model.linear:
        state = _state_bytes(model.linear, division.tensor)
        block_tokens = PLAIN_BLOCK * _ceiling(state, PLAIN_BLOCK * per_layer)
    kinds = [count for count in (full, sliding, linear) if count]
    size = min(kinds)
    if max(kinds) < 1.5 * size:
        size = max(kinds)
    return Cache(
        block_tokens=block_tokens,
        block_bytes=size * block_tokens * per_layer,
        full_groups=_ceiling(full, size) if full else 0,
        state_groups=_ceiling(linear, size) if linear else 0,
        # With the cache of prefixes on, the state at the last block's end is kept beside the running one.
        state_blocks=2 if prefix_caching else 1,
        sliding_groups=_ceiling(sliding, size) if sliding else 0,
        sliding_tokens=attention.sliding_window - 1 + batch_tokens if sliding else 0,
        bytes_per_token=full * per_layer,
    )


def replication(model: ModelFacts, tensor: int) -> int:
    """How many GPUs hold a copy of the same keys and values."""
    if model.attention.latent is not None:
        return tensor
    return max(1, tensor // model.attention.key_value_heads)


def _layer_bytes(model: ModelFacts, tensor: int, cache_type: CacheType) -> int:
    """Bytes of one token in one layer on one GPU."""
    attention = model.attention
    size = 1 if cache_type == "fp8" else 2
    if attention.latent is not None:
        return attention.latent * size
    heads = max(1, attention.key_value_heads // tensor)
    return 2 * heads * attention.head_size * size


def _state_bytes(linear: LinearAttention, tensor: int) -> int:
    """Bytes of one request's state in one layer on one GPU."""
    convolved = 2 * linear.key_heads * linear.key_size + linear.value_heads * linear.value_size
    convolution = convolved // tensor * (linear.convolution - 1) * CONVOLUTION_BYTES
    return convolution + linear.value_heads // tensor * linear.value_size * linear.key_size * STATE_BYTES


def _ceiling(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _ceiling_share(count: int, share: float) -> int:
    return -int(-(count * share) // 1)
