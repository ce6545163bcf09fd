"""Whether one checkpoint, cut in one way, reaches a goal on this GPU. Pure arithmetic, no choice."""

from __future__ import annotations

import msgspec

from qiao.planner.cache import Cache, CacheType
from qiao.planner.divisions import Layout
from qiao.planner.machine import GIB, Gpu
from qiao.planner.memory import GpuMemory, Load, memory_of, pool_of
from qiao.planner.model import ModelFacts
from qiao.planner.plan import Goal
from qiao.planner.vllm import batch_tokens

# vLLM's own default in 0.24 and later (config/cache.py); 0.9 in 0.16.
UTILISATION = 0.92
_LEAST_UTILISATION = 0.3
# The engine wants its share free when it starts; a little more is lost until then.
_START_SLACK = GIB // 4
_LEAST_SEQUENCES, _MOST_SEQUENCES, _PER_USER = 16, 256, 8
WINDOW_STEP = 1024


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """One try.

    * `window`: the longest window that fits for the goal's users, or the wished one; 0 where nothing fits.
    * `missing`: bytes missing on each GPU; 0 where it fits.
    """

    model: ModelFacts
    layout: Layout
    load: Load
    memory: tuple[GpuMemory, ...]
    cache: Cache
    window: int
    concurrency: float
    tokens: int
    missing: int


def utilisation(gpu: Gpu) -> float:
    """The share of the GPU that the engine may take; less than usual where somebody else holds memory."""
    if gpu.usable is None or gpu.free is None:
        return UTILISATION
    share = (gpu.free - _START_SLACK) / gpu.usable
    if gpu.free >= gpu.usable or share >= UTILISATION:
        return UTILISATION
    return max(int(share * 100) / 100, 0.01)


def is_taken(gpu: Gpu) -> bool:
    """Somebody else holds so much of the GPU that little can be planned."""
    return utilisation(gpu) < _LEAST_UTILISATION


def try_fit(model: ModelFacts, layout: Layout, gpu: Gpu, goal: Goal, cache_type: CacheType) -> Fit:
    """The memory, and how far the cache reaches."""
    division = layout.division
    users = _ceiling(goal.users, layout.replicas * division.data)
    sequences = min(max(_LEAST_SEQUENCES, _PER_USER * users), _MOST_SEQUENCES)
    load = Load(
        utilisation=utilisation(gpu),
        batch_tokens=batch_tokens(gpu),
        sequences=sequences,
        cache_type=cache_type,
    )
    memory = memory_of(model, division, gpu, load)
    cache = pool_of(model, division, load)
    available = min(each.cache for each in memory)
    longest = min(cache.longest_window(available, users), model.window)
    window = goal.window or _rounded(longest, model.window)
    needed = cache.request_blocks(max(window, WINDOW_STEP)) * cache.block_bytes * users
    missing = max(0, needed - max(available, 0)) + max(0, -available)
    if goal.window is None and longest >= WINDOW_STEP:
        missing = 0
    return Fit(
        model=model,
        layout=layout,
        load=load,
        memory=memory,
        cache=cache,
        window=window,
        concurrency=cache.concurrency(available, window) * division.data if window else 0.0,
        tokens=cache.tokens(available, window) * division.data if window else 0,
        missing=missing,
    )


def _rounded(window: int, native: int) -> int:
    return window if window == native else window // WINDOW_STEP * WINDOW_STEP


def _ceiling(number: int, divisor: int) -> int:
    return -(-number // divisor)
