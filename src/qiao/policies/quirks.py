"""What one upstream does not take (`Quirks`), and how a request is written for it (`mend`).

Pure. The facts come from its refusals (`qiao.policies.remedies`); the default is an engine that takes everything.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from qiao.core.conversation import Conversation, Image, Tool, ToolChoice, ToolResult
from qiao.core.openai.target import TOOL_NAME_LIMIT, Target
from qiao.policies.guided import key_of
from qiao.policies.tool_names import longest_name


class Quirks(msgspec.Struct, frozen=True, cache_hash=True):
    """What one upstream does not take, learned from its refusals. The default is an engine that takes everything.

    * `fold_system`: its chat template refuses system turns after the first message.
    * `no_images`: it is a text model. `image_limit`: most pictures it takes in one prompt.
    * `no_stream_options`, `no_continuous_usage`: it does not know `stream_options`, or only the usage in every chunk.
    * `no_tool_choice`: it does not take `tool_choice`, or not with these schemas; the model decides.
    * `no_tool_parser`: it was started without a tool parser: only `tool_choice: "none"` works and calls come as text.
    * `calls_as_text`: it has a tool parser, but where no call is to be made (`tool_choice: "none"`), calls in this
      dialect come through as text and its prompt lists the tools: seen by a probe.
    * `template_dialect`: its chat template asks for calls in this dialect: seen by a probe; None: unknown.
    * `splits_reasoning`: it has a reasoning parser: seen by a probe.
    * `no_tool_rendering`: with `tool_choice: "none"` its prompt does not list the tools.
    * `opens_reasoning`: its chat template opens the reasoning, and nothing in the answer marks it; None: unknown.
    * `no_tools`: it refuses `tools` altogether.
    * `no_parallel_tool_calls`, `no_reasoning_effort`, `no_thinking_budget`, `no_template_kwargs`: it does not know
      the field of that name.
    * `no_reasoning_history`: it refuses reasoning in earlier assistant messages.
    * `no_prefill`: it cannot continue an assistant turn.
    * `no_long_names`: it refuses names of tools over 64 characters.
    * `no_strict`: its grammar refuses the schema of a strict tool. `no_response_format`: the same for the answer's.
    * `structural_tags`: its answers can be bound by structural tags. `no_structure`: not by this request's.
    * `refused_schemas`: tools whose schema makes no grammar there, by `guided.key_of`.
    * `max_tokens`: most tokens it gives in one answer. `stop_limit`: most stop strings it takes.
    * `max_tokens_field`: the only name under which it takes the limit.
    * `unknown_fields`: other top-level fields it refuses.
    """

    fold_system: bool = False
    no_images: bool = False
    image_limit: int | None = None
    no_stream_options: bool = False
    no_continuous_usage: bool = False
    no_tool_choice: bool = False
    no_tool_parser: bool = False
    calls_as_text: str | None = None
    template_dialect: str | None = None
    splits_reasoning: bool = False
    no_tool_rendering: bool = False
    opens_reasoning: bool | None = None
    no_tools: bool = False
    no_parallel_tool_calls: bool = False
    no_reasoning_effort: bool = False
    no_thinking_budget: bool = False
    no_template_kwargs: bool = False
    no_reasoning_history: bool = False
    no_prefill: bool = False
    no_long_names: bool = False
    no_strict: bool = False
    no_response_format: bool = False
    structural_tags: bool = False
    no_structure: bool = False
    refused_schemas: frozenset[str] = frozenset()
    max_tokens: int | None = None
    stop_limit: int | None = None
    max_tokens_field: str | None = None
    unknown_fields: frozenset[str] = frozenset()

    def with_(self, remedy: Remedy) -> Quirks:
        """These quirks and the one that `remedy` teaches."""
        if remedy.quirk == "unknown_fields":
            return msgspec.structs.replace(self, unknown_fields=self.unknown_fields | {str(remedy.value)})
        value: object = True if remedy.value is None else remedy.value
        if remedy.quirk == "max_tokens" and self.max_tokens is not None and isinstance(value, int):
            value = min(value, self.max_tokens)
        return msgspec.structs.replace(self, **{remedy.quirk: value})

    def has(self, remedy: Remedy) -> bool:
        """Whether these quirks already contain what `remedy` teaches."""
        return self.with_(remedy) == self

    def names(self) -> tuple[str, ...]:
        """The quirks in force, for people: `no_images`, `stop_limit=4`."""
        found: list[str] = []
        for name in self.__struct_fields__:
            value: object = getattr(self, name)
            if value is True:
                found.append(name)
            elif name == "refused_schemas":
                found += [f"{name}={len(self.refused_schemas)}"] if self.refused_schemas else []
            elif isinstance(value, frozenset):
                found.extend(f"unknown_fields={field}" for field in sorted(value))
            elif value is not None and value is not False:
                found.append(f"{name}={value}")
        return tuple(found)


_NONE = Quirks()

# What `mend` reads.
_TAKING_AWAY = (
    "max_tokens",
    "no_parallel_tool_calls",
    "no_response_format",
    "no_strict",
    "no_structure",
    "no_thinking_budget",
    "no_tool_choice",
    "no_tool_parser",
    "no_tools",
    "refused_schemas",
    "unknown_fields",
)


class Remedy(msgspec.Struct, frozen=True):
    """One refusal that can be mended.

    * `name`: how logs, metrics and docs call it.
    * `patterns`: regular expressions, searched for anywhere in the error text without regard to case. A group
      named `value` gives the number or name that the quirk takes.
    * `quirk`: the field of `Quirks` that is set.
    * `explanation`: for people: the cause and who says so; what is done. The last semicolon parts the two.
    * `says`: an engine's own words, as they were recorded. `mend`: what a person can do for good, if anything.
    * `needs`: the feature of the request (see `features`) without which the mend would change nothing.
    * `lasting`: the fact is the upstream's and is remembered; False: it lies in this one request.
    * `value`: what a remedy that was found says: a limit or a field's name.
    """

    name: str
    patterns: tuple[str, ...]
    quirk: str
    explanation: str
    needs: str = ""
    lasting: bool = True
    value: int | str | None = None
    says: str = ""
    mend: str = ""

    @property
    def cause(self) -> str:
        """Why the engine refuses."""
        return self.explanation.rpartition("; ")[0]

    @property
    def done(self) -> str:
        """What becomes of the request."""
        return self.explanation.rpartition("; ")[2]


def features(conversation: Conversation) -> frozenset[str]:
    """What a request uses of the things that a remedy can take away."""
    parts = [part for turn in conversation.turns for part in turn.parts]
    within = [inner for part in parts if isinstance(part, ToolResult) for inner in part.parts]
    forced = conversation.tool_choice.mode in ("any", "tool")
    used = {
        "tools": bool(conversation.tools),
        "tool_choice": forced,
        "long_names": longest_name(conversation) > TOOL_NAME_LIMIT,
        "strict": any(tool.strict for tool in conversation.tools),
        "images": any(isinstance(part, Image) for part in (*parts, *within)),
        "stop": bool(conversation.stop),
        "max_tokens": bool(conversation.max_tokens),
        "effort": conversation.thinking.effort is not None or conversation.thinking.mode != "default",
        "thinking_budget": conversation.thinking.budget is not None,
        "prefill": conversation.is_prefill,
        "response_format": conversation.output_schema is not None,
        "structure": conversation.structure is not None,
        "priority": "priority" in conversation.extras,
    }
    return frozenset(name for name, is_used in used.items() if is_used)


def mend(conversation: Conversation, quirks: Quirks) -> Conversation:
    """The request as an upstream with `quirks` takes it; `mend_target` says how it is written.

    `fold_system`, `no_images` and `image_limit` are not applied here: what becomes of turns `qiao.policies.prepare`
    decides.
    """
    if not _takes_away(quirks):
        return conversation
    choice = conversation.tool_choice
    tools = () if quirks.no_tools else _bearable(conversation.tools, quirks)
    if quirks.no_tools or (quirks.no_tool_choice and choice.mode != "none"):
        choice = ToolChoice(parallel=choice.parallel)
    elif quirks.no_tool_parser:
        choice = ToolChoice(mode="none")
    if quirks.no_parallel_tool_calls:
        choice = msgspec.structs.replace(choice, parallel=True)
    max_tokens = conversation.max_tokens
    if quirks.max_tokens is not None and max_tokens is not None:
        max_tokens = min(max_tokens, quirks.max_tokens)
    thinking = conversation.thinking
    if quirks.no_thinking_budget:
        thinking = msgspec.structs.replace(thinking, budget=None)
    sampling = conversation.sampling
    unset = {name: None for name in ("temperature", "top_p", "top_k") if name in quirks.unknown_fields}
    return msgspec.structs.replace(
        conversation,
        tools=tools,
        tool_choice=choice,
        max_tokens=max_tokens,
        thinking=thinking,
        sampling=msgspec.structs.replace(sampling, **unset),
        output_schema=None if quirks.no_response_format else conversation.output_schema,
        structure=None if quirks.no_structure else conversation.structure,
        extras={name: raw for name, raw in conversation.extras.items() if name not in quirks.unknown_fields},
    )


def _bearable(tools: tuple[Tool, ...], quirks: Quirks) -> tuple[Tool, ...]:
    """Strict only where the engine can make a grammar of the schema."""
    return tuple(
        msgspec.structs.replace(tool, strict=None)
        if tool.strict and (quirks.no_strict or (quirks.refused_schemas and key_of(tool) in quirks.refused_schemas))
        else tool
        for tool in tools
    )


@lru_cache(64)
def _takes_away(quirks: Quirks) -> bool:
    """Whether something that can stand in a conversation is not taken."""
    return any(getattr(quirks, name) != getattr(_NONE, name) for name in _TAKING_AWAY)


@lru_cache(64)
def mend_target(target: Target, quirks: Quirks) -> Target:
    """The dialect that an upstream with `quirks` speaks. Twice is as good as once."""
    changes: dict[str, object] = {}
    if quirks.no_stream_options:
        changes |= {"usage_in_stream": False, "continuous_usage": False}
    if quirks.no_continuous_usage:
        changes["continuous_usage"] = False
    if quirks.no_template_kwargs:
        changes["template_kwargs"] = False
    if quirks.no_thinking_budget:
        changes["thinking_budget"] = False
    if quirks.no_reasoning_effort:
        changes["effort_values"] = ()
    if quirks.no_reasoning_history:
        changes["reasoning_field"] = None
    if quirks.no_prefill:
        changes["prefill"] = "none"
    if quirks.no_long_names:
        changes["tool_name_limit"] = TOOL_NAME_LIMIT
    if quirks.stop_limit is not None:
        changes["stop_limit"] = quirks.stop_limit
    if quirks.max_tokens_field is not None:
        changes["max_tokens_field"] = quirks.max_tokens_field
    return msgspec.structs.replace(target, **changes)
