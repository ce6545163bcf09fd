"""Whether the gateway reads calls and reasoning out of the text itself, and in which dialect.

An engine is sent `tool_choice: "none"`, which it takes also without a tool parser and for which its chat template still
renders the tools, and what the model then writes is read here. An engine with a tool parser reads calls itself unless a
probe has seen that it leaves them in the text then; the prompt is the same, token for token.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from qiao.core.conversation import Conversation, Text, Tool, ToolChoice, Turn
from qiao.core.dialects import DIALECTS
from qiao.policies.guided import Grammar, can_guide, key_of, may_call, must_call
from qiao.policies.quirks import Quirks
from qiao.profiles import Profile

AUTO, ENGINE = "auto", "engine"
DEFAULT_DIALECT = "hermes"
"""What a model of no known family is taken to write: the commonest form, also in what small models imitate."""

GUIDED_DIALECT = "json"
"""How a call stands in an answer that a grammar makes."""

# Calls stand between tokens that some models count as special, which engines leave out of the text unless asked.
_SPECIAL_TOKENS = {"skip_special_tokens": msgspec.Raw(b"false")}

# Dialects that mark reasoning in a way of their own; an engine for them splits it, or nobody can.
_WITHOUT_TAGS = frozenset({"harmony"})


def known_dialect(profile: Profile, template: str | None) -> str | None:
    """The dialect that calls are written in; None: nobody knows. `template`: what the chat template asks for, if that
    was seen: whatever the model's family writes elsewhere, this is what it is shown here."""
    return next((name for name in (template, profile.dialect) if name in DIALECTS), None)


def dialect_of(profile: Profile, template: str | None) -> str:
    """The dialect to read, as far as there is a reader for it."""
    return known_dialect(profile, template) or DEFAULT_DIALECT


def reader(profile: Profile, quirks: Quirks, parser: str) -> str | None:
    """The dialect in which the gateway reads this server's answers; None where the server reads calls itself.

    `parser`: "auto" (the engine until it turns out to have no parser, or one that can be passed by), "engine", or the
    name of a dialect.
    """
    if parser == ENGINE:
        return None
    if parser != AUTO:
        return parser
    if quirks.no_tool_parser or quirks.no_tools:
        return dialect_of(profile, quirks.template_dialect)
    return quirks.calls_as_text if passes_by(profile, quirks, parser) else None


def passes_by(profile: Profile, quirks: Quirks, parser: str) -> bool:
    """Whether the gateway reads calls by its own choice although the engine has a parser."""
    if quirks.calls_as_text is None or parser != AUTO or quirks.no_tool_parser or quirks.no_tools:
        return False
    return quirks.calls_as_text == known_dialect(profile, quirks.template_dialect)


def can_pass_by(profile: Profile, template: str | None) -> bool:
    """Whether a probe can tell how an engine treats this model's calls: it has them made by a grammar."""
    known = known_dialect(profile, template)
    return known is not None and can_guide(known)


def is_left_to_engine(conversation: Conversation, quirks: Quirks) -> bool:
    """Whether a forced call is better made by the engine's own grammar: where structural tags cannot bind it."""
    is_forced = conversation.tool_choice.mode in ("any", "tool")
    # A schema that structural tags refuse makes no grammar of the engine's own either: then words ask for the call.
    return is_forced and not quirks.no_structure and (not quirks.structural_tags or conversation.is_prefill)


def watched_here(conversation: Conversation) -> tuple[Conversation, tuple[str, ...]]:
    """(what is asked of an engine that splits reasoning where calls are read from the text, its stop strings).

    vLLM 0.32 doubles text behind the reasoning while it holds some back for a stop string, so they are watched for
    here; and in a whole answer it drops a second closing tag, so that it is asked for a stream in any case.
    """
    return msgspec.structs.replace(conversation, stop=(), stream=True), conversation.stop


def reads_reasoning(conversation: Conversation, profile: Profile, quirks: Quirks) -> Literal["tag", "open"] | None:
    """How reasoning may stand in the text where the engine does not split it; see `dialects.text_tools`."""
    if profile.reasoning == "none":
        return None
    if profile.dialect in _WITHOUT_TAGS:
        return None
    # A grammar begins with the answer's first token, and a prefilled answer has begun already.
    if conversation.output_schema is not None or conversation.is_prefill:
        return "tag"
    thinks = conversation.thinking.mode == "on" or (
        conversation.thinking.mode == "default" and profile.thinks_by_default
    )
    # Not by what is known of a family's template alone: behind a proxy that hides thoughts all of an answer is text.
    opens = profile.reasoning == "always" if quirks.opens_reasoning is None else quirks.opens_reasoning and thinks
    return "open" if opens else "tag"


class Reading(msgspec.Struct, frozen=True):
    """A request as an engine without a parser takes it.

    * `dialect`: how its answer is read.
    * `grammar`: what binds the calls in it; None: nothing. `bound`: the tools whose schema is in that grammar.
    * `insists`: a call was asked for in words only, so that an answer without one is worth a second try.
    """

    conversation: Conversation
    dialect: str
    grammar: Grammar | None = None
    bound: tuple[Tool, ...] = ()
    insists: bool = False


def reading(
    conversation: Conversation,
    dialect: str,
    quirks: Quirks,
    *,
    loaded: tuple[Tool, ...] = (),
    guided: bool = False,
    reasoning: Literal["tag", "open"] | None = None,
) -> Reading:
    """How calls are asked for. `loaded`: tools that are not listed, but may be called. `guided`: bind every call.

    A forced call is made by a structural tag where the engine has them, else by a schema for the answer: one call as a
    JSON object. Where the engine has refused that, it is asked for in words at the end of the prompt.
    """
    choice = conversation.tool_choice
    forced = choice.mode in ("any", "tool")
    listed = conversation.tools
    # The engine does not see to it: in the prompt it would only be a word more.
    tools = tuple(msgspec.structs.replace(tool, strict=None) if tool.strict else tool for tool in listed)
    extras = {**conversation.extras, **_SPECIAL_TOKENS}
    conversation = msgspec.structs.replace(
        conversation, tools=tools, tool_choice=ToolChoice(mode="none"), extras=extras
    )
    called = tuple(tool for tool in listed if choice.mode != "tool" or tool.name == choice.name)
    has_tags = quirks.structural_tags and not quirks.no_structure and can_guide(dialect)
    if forced and not conversation.is_prefill:
        if has_tags:
            structure = must_call(
                dialect,
                called,
                refused=quirks.refused_schemas,
                one=choice.mode == "tool" or not choice.parallel,
                reasoning=reasoning,
            )
            conversation = msgspec.structs.replace(conversation, structure=structure, output_schema=None)
            return Reading(conversation, dialect, "tags", called)
        if not (quirks.no_response_format or quirks.no_structure):
            schema = call_schema(called, quirks.refused_schemas)
            return Reading(
                msgspec.structs.replace(conversation, output_schema=schema), GUIDED_DIALECT, "schema", called
            )
    if forced:
        turns = _asked(conversation.turns, called, choice)
        return Reading(msgspec.structs.replace(conversation, turns=turns), dialect, insists=not conversation.is_prefill)
    bound = tuple(tool for tool in (*listed, *loaded) if guided or tool.strict)
    if not bound or not has_tags or conversation.output_schema is not None or conversation.is_prefill:
        return Reading(conversation, dialect)
    loose = frozenset(key_of(tool) for tool in (*listed, *loaded) if tool not in bound)
    structure = may_call(
        dialect,
        (*listed, *loaded),
        refused=quirks.refused_schemas | loose,
        one=not choice.parallel,
        reasoning=reasoning,
    )
    return Reading(msgspec.structs.replace(conversation, structure=structure), dialect, "tags", bound)


def call_schema(tools: tuple[Tool, ...], refused: frozenset[str] = frozenset()) -> str:
    """The JSON Schema of one call of one of `tools`. `refused`: keys of those whose own schema makes no grammar."""
    definitions: dict[str, msgspec.Raw] = {}
    calls = [_one_call(tool, definitions if len(tools) == 1 else None, refused) for tool in tools]
    whole = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return msgspec.json.encode({**whole, **definitions}).decode()


def _one_call(tool: Tool, definitions: dict[str, msgspec.Raw] | None, refused: frozenset[str]) -> dict[str, object]:
    """`definitions` takes what the tool's schema refers to: a reference is read from the root of the whole schema."""
    parameters: object = msgspec.Raw(tool.parameters.encode())
    if refused and key_of(tool) in refused:
        parameters = {"type": "object"}
    elif '"$ref"' in tool.parameters:
        if definitions is None:
            parameters = {"type": "object"}
        else:
            members = msgspec.json.decode(tool.parameters, type=dict[str, msgspec.Raw])
            definitions.update({name: members[name] for name in ("$defs", "definitions") if name in members})
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def asked_again(conversation: Conversation, said: str) -> Conversation:
    """After an answer that was no call: what the model said, and the wish once more."""
    words = Text("That is no call of a tool. Answer with the call alone now, in the form that was described.")
    answered = (Turn("assistant", (Text(said),)),) if said else ()
    turns = (*conversation.turns, *answered, Turn("user", (words,)))
    return msgspec.structs.replace(conversation, turns=turns)


def _asked(turns: tuple[Turn, ...], tools: tuple[Tool, ...], choice: ToolChoice) -> tuple[Turn, ...]:
    wanted = f"the tool {tools[0].name}" if choice.mode == "tool" and tools else "one of the tools"
    words = Text(f"Answer with a call of {wanted} now, and with nothing else.")
    place = next((number for number in reversed(range(len(turns))) if turns[number].role == "user"), None)
    if place is None:
        return (*turns, Turn("user", (words,)))
    changed = msgspec.structs.replace(turns[place], parts=(*turns[place].parts, words))
    return (*turns[:place], changed, *turns[place + 1 :])
