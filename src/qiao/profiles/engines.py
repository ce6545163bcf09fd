"""What an engine's version of the OpenAI protocol understands, as far as its name and version tell.

Facts only; what a probe or a refusal of the live server taught replaces them. Where a version is unknown, the value
that every version accepts is taken: a field that an engine ignores costs nothing, one that it refuses costs a session.
"""

from __future__ import annotations

import re
from functools import lru_cache

from qiao.core.openai.target import TOOL_NAME_LIMIT, Flavor, Target
from qiao.profiles import Profile, find

# Strongest last; the order is that of openai's own type.
ALL_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
THREE_EFFORTS = ("low", "medium", "high")

# The seven words are in the 400 text of vLLM 0.32.0 (measured); older releases knew three.
_VLLM_ALL_EFFORTS = (0, 32)
# vLLM answers with `reasoning` only since 0.16; 0.9.2 spoke `reasoning_content`, 0.11.2 both (read).
_VLLM_REASONING = (0, 16)

# OpenAI's own models that reason; it refuses `reasoning_effort` for the others with a 400.
_OPENAI_REASONS = re.compile(r"^(?:o[1-9]|gpt-(?:[5-9]|\d\d)|gpt-oss)")

# Options of OpenAI's own chat completions; it answers 400 to unknown fields, the other engines ignore them.
OPENAI_OPTIONS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "presence_penalty",
        "prompt_cache_key",
        "seed",
        "service_tier",
        "user",
        "verbosity",
    }
)


def version_of(text: str | None) -> tuple[int, ...] | None:
    """`0.32.0+cpu` → (0, 32, 0); None where no number leads."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text.strip()) if text else None
    return tuple(int(number) for number in found[1].split(".")) if found else None


@lru_cache(maxsize=256)  # asked for every request, always for the few models that are served
def target_for(flavor: Flavor, version: str | None, model: str, *, root: str | None = None) -> Target:
    """The `Target` of an engine of family `flavor` in `version` (as it tells it, or None) that serves `model`.

    `root`: the path that the model was loaded from, if the engine tells it; a served name may hide the family.
    """
    profile = find(root, model)
    match flavor:
        case "vllm":
            return _vllm(version_of(version), model, profile)
        case "sglang":
            return Target(
                model=model,
                flavor="sglang",
                # No limit in its protocol file; the match comes back as `matched_stop`.
                stop_limit=None,
                continuous_usage=False,
                effort_values=_template_efforts(profile, THREE_EFFORTS),
                reasoning_field="reasoning_content",
                cache_salt=True,
            )
        case "llamacpp":
            return Target(
                model=model,
                flavor="llamacpp",
                max_tokens_field="max_tokens",
                stop_limit=None,
                continuous_usage=False,
                reasoning_field="reasoning_content",
                # llama-server continues a trailing assistant message without being asked.
                prefill="implicit",
            )
        case "openai":
            return Target(
                model=model,
                flavor="openai",
                stop_limit=4,
                continuous_usage=False,
                template_kwargs=False,
                effort_values=THREE_EFFORTS if _OPENAI_REASONS.match(model.lower().rsplit("/", 1)[-1]) else (),
                reasoning_field=None,
                prefill="none",
                tool_name_limit=TOOL_NAME_LIMIT,
                extras=OPENAI_OPTIONS,
            )


def _vllm(version: tuple[int, ...] | None, model: str, profile: Profile) -> Target:
    knows_all = version is not None and version >= _VLLM_ALL_EFFORTS
    is_old = version is not None and version < _VLLM_REASONING
    return Target(
        model=model,
        flavor="vllm",
        # VLLM_MAX_STOP_STRINGS; releases without the limit take four as well.
        stop_limit=4,
        # A server without a reasoning parser answers 400 to `thinking_token_budget` (vllm#57830), and the version does
        # not tell how it was started: the refusal is healed once and remembered.
        thinking_budget=True,
        effort_values=_template_efforts(profile, ALL_EFFORTS if knows_all else THREE_EFFORTS),
        reasoning_field="reasoning_content" if is_old else "reasoning",
        cache_salt=True,
        # Without --scheduling-policy priority 0.32 does not heed it (read, measured); the refusal of others is healed.
        priority=True,
    )


def _template_efforts(profile: Profile, engine: tuple[str, ...]) -> tuple[str, ...]:
    """The words that the engine's field takes and the model's template, where its scale is known, does not refuse.

    The engine hands the word to the template. One without a scale ignores it; one that raises on a word it does not
    know is in its family's profile, and the refusal of an unknown one is healed and remembered.
    """
    if profile.effort:
        return tuple(word for word in engine if word in profile.effort)
    return () if profile.reasoning == "none" else engine
