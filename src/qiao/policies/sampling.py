"""How the engine shall think and when it shall stop: reasoning, effort, stop strings, the answer's form."""

from __future__ import annotations

import msgspec

from qiao.core.conversation import Conversation, Sampling, Thinking
from qiao.core.openai.target import Target
from qiao.profiles import Profile
from qiao.profiles.profile import Resend

# Weakest first, as the API orders them.
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Engines that say which stop string matched: vLLM in `stop_reason`, SGLang in `matched_stop`. llama.cpp's chat route
# and OpenAI say "stop" only, so there the gateway has to see the string itself.
_REPORT_MATCHED_STOP = frozenset({"vllm", "sglang"})

# As good as zero: only the likeliest token is left.
_LEAST_TOP_P = 1e-4

_KWARGS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decide_thinking(
    conversation: Conversation, profile: Profile, target: Target
) -> tuple[Thinking, dict[str, object], tuple[str, ...]]:
    """What to ask the engine for: `Thinking` in its own words, and variables for the chat template.

    * A model that never reasons is asked for nothing.
    * Off is really off: the template's switch, and the engine's "none" where it knows the word; a model that cannot
      stop gets its lowest effort. A prefill is off too, since the answer has begun.
    * On: the switch, the budget where the engine knows it, the effort.
    * Default: nothing is asked for, unless an effort was named; then the switch is stated as the template has it by
      itself, since vLLM reads any effort as "on".
    """
    asked = conversation.thinking
    if profile.reasoning == "none":
        return Thinking(shown=asked.shown), {}, ()
    has_switch = profile.reasoning == "hybrid" and profile.thinking_kwarg is not None and target.template_kwargs
    switch = profile.thinking_kwarg if has_switch else None
    if asked.mode == "off" or conversation.is_prefill:
        return _off(asked, profile, target, switch)
    effort = clamp_effort(asked.effort, target.effort_values)
    kwargs: dict[str, object] = {}
    if switch is not None and (asked.mode == "on" or effort is not None):
        kwargs[switch] = True if asked.mode == "on" else profile.thinks_by_default
    in_template = clamp_effort(asked.effort, profile.effort)
    if in_template is not None and not target.effort_values and target.template_kwargs:
        # llama.cpp hands template variables on but reads no effort of its own.
        kwargs["reasoning_effort"] = in_template
    budget = asked.budget if asked.mode == "on" and target.thinking_budget else None
    notes: tuple[str, ...] = ()
    if asked.effort is not None and effort not in (None, asked.effort):
        notes = (f"thinking: effort {asked.effort} sent as {effort}",)
    return msgspec.structs.replace(asked, budget=budget, effort=effort), kwargs, notes


def _off(
    asked: Thinking, profile: Profile, target: Target, switch: str | None
) -> tuple[Thinking, dict[str, object], tuple[str, ...]]:
    kwargs: dict[str, object] = {} if switch is None else {switch: False}
    effort: str | None = None
    notes: tuple[str, ...] = ()
    if profile.reasoning == "hybrid" and "none" in target.effort_values:
        effort = "none"
    elif switch is None:
        # "none" would tell vLLM that reasoning has ended, and thoughts would come out as the answer.
        effort = next((word for word in _EFFORTS[1:] if word in target.effort_values), None)
        notes = ("thinking: this model or engine cannot stop reasoning, lowest effort",)
    return msgspec.structs.replace(asked, mode="off", budget=None, effort=effort), kwargs, notes


def clamp_effort(asked: str | None, known: tuple[str, ...]) -> str | None:
    """The strongest known word that is not above `asked`, else the weakest known; never "none" for another word."""
    if asked is None or asked in known:
        return asked
    grades = [word for word in _EFFORTS[1:] if word in known]
    if not grades or asked not in _EFFORTS:
        return None
    below = [word for word in grades if _EFFORTS.index(word) <= _EFFORTS.index(asked)]
    return below[-1] if below else grades[0]


def merge_template_kwargs(extras: dict[str, msgspec.Raw], kwargs: dict[str, object]) -> dict[str, msgspec.Raw]:
    """`extras` with the variables added; what the client itself named for the template wins."""
    if not kwargs and not extras:
        return extras
    raw = extras.get("chat_template_kwargs")
    try:
        own: dict[str, msgspec.Raw] = {} if raw is None else _KWARGS.decode(raw)
    except msgspec.DecodeError:
        own = {}
    merged = {**kwargs, **own}
    rest = {name: value for name, value in extras.items() if name != "chat_template_kwargs"}
    if merged:
        rest["chat_template_kwargs"] = msgspec.Raw(msgspec.json.encode(merged))
    return rest


def decide_resend(asked: Resend | None, profile: Profile, target: Target) -> Resend:
    """What becomes of the reasoning of earlier turns: as was asked, else as suits the model; dropped where the model
    has none or the engine takes none."""
    if profile.reasoning == "none" or target.reasoning_field is None:
        return "drop"
    return asked or profile.resend


def resend_kwargs(resend: Resend, profile: Profile, target: Target) -> dict[str, object]:
    """The template variable that keeps earlier reasoning, where it is sent back to be kept."""
    if resend != "keep" or profile.keep_kwarg is None or not target.template_kwargs:
        return {}
    name, value = profile.keep_kwarg
    return {name: value}


def clamp_sampling(asked: Sampling) -> Sampling:
    """Values that the API takes and vLLM answers with a 400 (measured: temperature in [0, 2], top_p in (0, 1],
    top_k from -1), moved to the nearest that it takes."""
    temperature, top_p, top_k = asked.temperature, asked.top_p, asked.top_k
    return Sampling(
        temperature=None if temperature is None else min(2.0, max(0.0, temperature)),
        top_p=None if top_p is None else min(1.0, max(_LEAST_TOP_P, top_p)),
        top_k=None if top_k is None else max(-1, top_k),
    )


def divide_stops(stops: tuple[str, ...], target: Target) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(stop strings for the engine, stop strings that the gateway looks for in the text).

    More than the engine takes: the first ones go to it, and all are looked for. Where the engine does not tell which
    one matched it gets none: it would cut the string away before anybody saw it.
    """
    stops = tuple(stop for stop in stops if stop)
    if not stops:
        return (), ()
    if target.flavor not in _REPORT_MATCHED_STOP:
        return (), stops
    if target.stop_limit is None or len(stops) <= target.stop_limit:
        return stops, ()
    return stops[: target.stop_limit], stops


def settle_schema(
    conversation: Conversation, *, has_tools: bool
) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """(schema that the engine enforces, lines to add to the head, notes).

    A grammar for the answer would forbid every tool call, so while tools can be called the form is asked for in words.
    They stand in the head, where they stay the same from turn to turn.
    """
    schema = conversation.output_schema
    if schema is None or not has_tools or conversation.tool_choice.mode == "none":
        return schema, (), ()
    words = (
        "When you give your final answer, give nothing but one JSON value that fits this JSON Schema, without a code "
        f"fence:\n{schema}"
    )
    return None, (words,), ("output schema: asked for in words, tools are offered",)
