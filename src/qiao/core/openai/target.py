"""What one OpenAI-compatible engine understands: the facts that shape the bytes sent to it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Flavor = Literal["vllm", "sglang", "llamacpp", "openai"]
ReasoningField: TypeAlias = Literal["reasoning", "reasoning_content"] | None

TOOL_NAME_LIMIT = 64
"""Characters of a tool's name in OpenAI's own API."""


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """The dialect of the OpenAI protocol that an engine speaks.

    * `model`: the name under which the engine knows the model.
    * `flavor`: the engine's family; "openai" is the plain protocol without extras.
    * `max_tokens_field`: llama.cpp knows only the older name.
    * `stop_limit`: how many stop strings it takes (vLLM 4, VLLM_MAX_STOP_STRINGS); None: any number.
    * `usage_in_stream`: it understands `stream_options.include_usage`.
    * `continuous_usage`: it understands `stream_options.continuous_usage_stats` (vLLM), so that the first chunk
      already tells the prompt's tokens.
    * `template_kwargs`: it understands `chat_template_kwargs`.
    * `thinking_budget`: it understands `thinking_token_budget` (vLLM).
    * `effort_values`: the values of `reasoning_effort` it takes, weakest first; empty: do not send the field.
    * `reasoning_field`: under which name earlier reasoning is sent back; None: it is not sent.
    * `prefill`: how an assistant turn at the end is continued: by flags (vLLM, SGLang), by itself (llama.cpp), not.
    * `cache_salt`: it keeps prompts with another `cache_salt` apart in its prefix cache (vLLM, SGLang).
    * `tool_name_limit`: characters that a tool's name may have (OpenAI 64); None: any number.
    * `priority`: it takes a `priority`, also where it does not heed it (vLLM).
    * `extras`: names of engine options that may be passed through; None: all.
    """

    model: str
    flavor: Flavor = "vllm"
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    stop_limit: int | None = 4
    usage_in_stream: bool = True
    continuous_usage: bool = True
    template_kwargs: bool = True
    thinking_budget: bool = False
    effort_values: tuple[str, ...] = ()
    reasoning_field: ReasoningField = "reasoning"
    prefill: Literal["flags", "implicit", "none"] = "flags"
    cache_salt: bool = False
    tool_name_limit: int | None = None
    priority: bool = False
    extras: frozenset[str] | None = None
