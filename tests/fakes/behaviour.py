"""How one served model behaves, and the models that the fake engine serves when nobody says otherwise."""

from __future__ import annotations

from typing import Literal

import msgspec


class Behaviour(msgspec.Struct, frozen=True):
    """The facts of one served model and of the server around it.

    * `max_model_len`: tokens of the context window.
    * `tool_parser`: without one, tools are refused unless `tool_choice` is "none", and calls come as text.
    * `renders_tools`: with `tool_choice: "none"` its prompt still lists the tools.
    * `no_tools`: it refuses tools altogether.
    * `schemas`: takes a schema for the answer.
    * `structural_tags`: takes them as `response_format`. `eats_calls`: its parser makes calls of text although it was
      told not to. `swallows_calls`: it drops such text from a whole answer.
    * `reasoning_parser`: without one, reasoning comes as `<think>` text.
    * `opens_reasoning`: its template writes `<think>` itself.
    * `calls`: the dialect in which its template writes calls; "": it drops them.
    * `system_anywhere`: False is a chat template that refuses system messages after the first.
    * `multimodal`: takes images.
    * `server`: "ray" wraps errors as Ray Serve LLM does and lacks some routes; "llamacpp" counts by its own routes;
      "sglang" takes tools also without a parser, and tells what it was started with.
    * `prompt_details`: reports cached tokens (`--enable-prompt-tokens-details`).
    * `prefix_caching`: remembers prompts.
    * `template_has_tools`: its template writes the tools into the prompt; False: never.
    * `leaks_calls`: its tool parser is the wrong one: calls stay in the text, and the model calls unasked.
    * `swallows_text`: its reasoning parser takes everything for reasoning.
    """

    max_model_len: int = 40960
    tool_parser: bool = True
    renders_tools: bool = True
    no_tools: bool = False
    schemas: bool = True
    structural_tags: bool = True
    eats_calls: bool = False
    swallows_calls: bool = False
    reasoning_parser: bool = True
    opens_reasoning: bool = False
    calls: Literal["hermes", "qwen3_coder", "kimi_k2", "mistral", ""] = "hermes"
    system_anywhere: bool = True
    multimodal: bool = False
    server: Literal["vllm", "ray", "llamacpp", "sglang"] = "vllm"
    prompt_details: bool = True
    prefix_caching: bool = True
    template_has_tools: bool = True
    leaks_calls: bool = False
    swallows_text: bool = False


MODELS: dict[str, Behaviour] = {
    "qwen3-235b": Behaviour(max_model_len=131072),
    "small-window": Behaviour(max_model_len=8192),
    "strict-template": Behaviour(system_anywhere=False),
    "no-parser": Behaviour(tool_parser=False, reasoning_parser=False),
    "vision": Behaviour(multimodal=True),
    "ray": Behaviour(server="ray"),
}
"""What `python -m tests.fakes.engine` serves: the behaviour is chosen by the model's name."""
