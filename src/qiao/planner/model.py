"""The figures of a model that decide what it needs: shapes, precision, window. Values only.

Read from a model's own config.json by `config_reader`; the catalogue holds such files' figures for models that are
not on this machine.
"""

from __future__ import annotations

import msgspec

from qiao.planner.quantisation import PLAIN, Quantisation
from qiao.profiles.profile import last_name


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """The layers that keep keys and values of every token.

    * `layers`: how many layers look at the whole window.
    * `gated`: the query projection is twice as wide, for an output gate (Qwen3-Next and later).
    * `biased`: the projections to queries, keys and values have biases; `biased_output`: the one out of them too.
    * `sliding_layers`, `sliding_window`: further layers that keep the last tokens only.
    * `latent`: numbers a token and layer that latent attention keeps in place of keys and values (DeepSeek, Kimi).
    * `query_latent`, `latent_rank`, `head_size_rotary`, `head_size_value`: its further shapes.
    """

    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    gated: bool = False
    biased: bool = False
    biased_output: bool = False
    normed: bool = False
    sliding_layers: int = 0
    sliding_window: int = 0
    latent: int | None = None
    latent_rank: int = 0
    query_latent: int = 0
    head_size_rotary: int = 0
    head_size_value: int = 0


class LinearAttention(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that keep a state of fixed size for each request (Gated DeltaNet)."""

    layers: int
    key_heads: int
    value_heads: int
    key_size: int
    value_size: int
    convolution: int


class Experts(msgspec.Struct, frozen=True, kw_only=True):
    """The layers whose matrices are many small ones, of which each token uses a few. `shared_width` 0: none shared."""

    layers: int
    count: int
    active: int
    width: int
    shared_width: int = 0
    biased: bool = False
    shared_gate: bool = False


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """How far a model goes beyond its own window by YaRN, which counts positions in finer steps.

    * `window`: tokens, at most. `original`: what the factor multiplies. `base`: of the rotary positions (`rope_theta`).
    * `source`: who says so.
    """

    window: int
    original: int
    base: int
    source: str

    def factor(self, window: int) -> float:
        """The smallest power of two that reaches `window`: a larger one costs more on short texts."""
        factor = 2.0
        while self.original * factor < window:
            factor *= 2
        return factor


class Dialect(msgspec.Struct, frozen=True):
    """How a model writes tool calls, why one thinks so, and whether that is no more than likely."""

    name: str
    why: str
    is_guess: bool = False


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint.

    * `repository`: where it is published, or its folder.
    * `architecture`: the class name in its config.json, by which engines know it.
    * `dense_layers`, `dense_width`: layers with one feed-forward part, and its width.
    * `draft_layers`: layers for speculative decoding that come with it; engines load them on demand only.
    * `vision_parameters`: numbers of its vision part.
    * `window`: tokens that it was trained for. `stretch`: how it goes further, where its makers say how.
    * `published_bytes`: what its index says it takes, where that is known.
    * `sources`: where the figures come from.
    * `known_as`: another name that tells its family, where its own does not.
    * `dialect`: how it writes tool calls, where no name tells its family and something else tells that.
    * `remote_code`: why code that comes with the download has to be run; empty where none has to.
    """

    repository: str
    architecture: str
    hidden: int
    vocabulary: int
    layers: int
    window: int
    attention: Attention
    linear: LinearAttention | None = None
    experts: Experts | None = None
    dense_layers: int = 0
    dense_width: int = 0
    tied: bool = False
    draft_layers: int = 0
    vision_parameters: int = 0
    quantisation: Quantisation = PLAIN
    published_bytes: int | None = None
    sources: tuple[str, ...] = ()
    is_local: bool = False
    known_as: str | None = None
    dialect: Dialect | None = None
    remote_code: str = ""
    stretch: Stretch | None = None

    @property
    def is_hybrid(self) -> bool:
        """Some layers keep a fixed state in place of keys and values."""
        return self.linear is not None

    @property
    def name(self) -> str:
        """The repository without its owner."""
        return last_name(self.repository)
