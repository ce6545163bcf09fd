"""From what a client asked to what a particular engine and model can be asked: all policies, in order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from qiao.core.conversation import Conversation, Document, Image, Reasoning, Tool, ToolReference
from qiao.core.openai.target import Target
from qiao.policies import blocks, context, history, prefix, sampling, text_mode, text_tools, tool_names, tools
from qiao.policies.context import AppliedEdit
from qiao.policies.course import course
from qiao.policies.guided import Grammar
from qiao.policies.prefix import SideText
from qiao.policies.quirks import Quirks, mend_target
from qiao.policies.tool_history import ToolHistory, arrived_names, settle
from qiao.profiles import Profile
from qiao.profiles.profile import Resend

_NO_DOCUMENTS: Mapping[str, str] = MappingProxyType({})

# An engine that is not spoken to by the OpenAI protocol (llama.cpp's /completion): any number of stop strings, and it
# tells which one matched; no template variables.
_OTHER_PROTOCOL = Target(model="", stop_limit=None, template_kwargs=False)


class Switches(msgspec.Struct, frozen=True):
    """Choices of the person who runs the gateway.

    * `side_text`: where text beside tool results goes, see `prefix.divide_side_text`.
    * `reasoning`: what becomes of the reasoning of earlier turns; None: as the profile says.
    * `tool_parser`: who reads calls out of the text: "auto", "engine", or a dialect by its name.
    * `repair`: whether what the model wrote is mended where it breaks JSON or the tool's schema.
    * `guided`: calls that are read from the text are bound to their schemas where the engine has structural tags.
    """

    side_text: SideText = "result"
    reasoning: Resend | None = None
    tool_parser: str = text_mode.AUTO
    repair: bool = True
    guided: bool = False


class Prepared(msgspec.Struct, frozen=True):
    """A conversation that is fit to be encoded, and what its answer needs.

    * `notes`: what was changed, for the record; one sentence each, the subject first.
    * `scan_stops`: stop strings that the gateway has to find in the text itself.
    * `one_call`: the answer ends after its first tool call.
    * `warm_only`: the client asked for no answer (`max_tokens: 0`); what the engine says is dropped.
    * `applied_edits`: context edits that were carried out.
    * `is_limited`: the answer may be as long as the window allows, which is less than the client asked for.
    * `trimmed`: pieces of the conversation that were shortened to fit the window.
    * `tools`: all that the client declared; what guides the repair of calls.
    * `names`: the client's names of tools by those under which the engine knows them, where they differ.
    * `repair`: whether calls are mended.
    * `dialect`: calls are read out of the text, in this dialect; None: the engine reads them, or none are wanted.
    * `reasoning`: how reasoning may stand in the text, see `dialects.text_tools`.
    * `grammar`: what binds the calls; None: nothing.
    * `bound`: the tools whose schemas the grammar is made of, `bound_dialect`: how it writes their calls.
    * `insists`: a call is wanted and only words ask for it: an answer without one is worth a second try.
    """

    conversation: Conversation
    notes: tuple[str, ...] = ()
    scan_stops: tuple[str, ...] = ()
    one_call: bool = False
    warm_only: bool = False
    applied_edits: tuple[AppliedEdit, ...] = ()
    is_limited: bool = False
    trimmed: int = 0
    tools: tuple[Tool, ...] = ()
    names: Mapping[str, str] = MappingProxyType({})
    repair: bool = True
    dialect: str | None = None
    reasoning: Literal["tag", "open"] | None = None
    grammar: Grammar | None = None
    bound: tuple[Tool, ...] = ()
    bound_dialect: str = text_mode.DEFAULT_DIALECT
    insists: bool = False


def prepare(
    asked: Conversation,
    profile: Profile,
    *,
    target: Target | None = None,
    window: int | None = None,
    documents: Mapping[str, str] = _NO_DOCUMENTS,
    switches: Switches = Switches(),  # noqa: B008 - frozen
    quirks: Quirks = Quirks(),  # noqa: B008 - frozen
    input_tokens: int | None = None,
    tool_history: ToolHistory | None = None,
) -> Prepared:
    """Everything that has to be decided before the request is written. Never raises.

    * `target`: the engine; None for one that is not spoken to by the OpenAI protocol.
    * `window`: the model's context in tokens, None if unknown.
    * `documents`: text by `blocks.document_key` of what `blocks.documents_needed` named.
    * `quirks`: what this upstream has refused before; single fields `quirks.mend` takes out again when it is sent.
    * `input_tokens`: the prompt's size for context edits, None to estimate.
    * `tool_history`: of this conversation, this request included; None: its own list is taken.
    """
    conversation, [*notes] = settle(asked, tool_history)
    target = mend_target(target or _OTHER_PROTOCOL, quirks)
    resend = sampling.decide_resend(switches.reasoning, profile, target)
    turns, applied = context.apply_edits(conversation, input_tokens)
    present = course(turns).kinds
    turns = _readable(turns, present, conversation, profile, documents, quirks, resend, notes)
    turns = _placed(turns, present, profile, quirks, switches, notes)
    listed, choice, offered = tools.offer(conversation, arrived := arrived_names(tool_history))
    schema, head, said = sampling.settle_schema(conversation, has_tools=bool(listed))
    notes += [*offered, *said]
    max_tokens, said = context.clamp_max_tokens(conversation.max_tokens, window, profile.max_output)
    notes += said
    stops, scan_stops = sampling.divide_stops(conversation.stop, target)
    settled = msgspec.structs.replace(
        conversation,
        turns=turns,
        system=(*conversation.system, *head),
        tools=listed,
        tool_choice=choice,
        max_tokens=max_tokens,
        stop=stops,
        sampling=sampling.clamp_sampling(conversation.sampling),
        output_schema=schema,
    )
    thinking, kwargs, said = sampling.decide_thinking(settled, profile, target)
    kwargs |= sampling.resend_kwargs(resend, profile, target)
    notes += said
    thinking = msgspec.structs.replace(thinking, budget=context.clamp_budget(thinking.budget, max_tokens))
    extras = sampling.merge_template_kwargs(conversation.extras, kwargs)
    prepared = Prepared(
        msgspec.structs.replace(settled, thinking=thinking, extras=extras),
        notes=tuple(notes),
        scan_stops=scan_stops,
        one_call=bool(listed) and not conversation.tool_choice.parallel,
        warm_only=conversation.max_tokens is not None and conversation.max_tokens <= 0,
        applied_edits=applied,
        tools=asked.tools,
    )
    return _reading(*_named(prepared, tools.loaded(conversation, arrived), target), profile, quirks, switches)


def _named(prepared: Prepared, loaded: tuple[Tool, ...], target: Target) -> tuple[Prepared, tuple[Tool, ...]]:
    """With names that the engine takes; `loaded`: tools that are called but not listed."""
    limit = target.tool_name_limit
    if limit is None:
        return prepared, loaded
    names = tool_names.given_back(prepared.tools, limit)
    notes = (f"tools: names over {limit} characters shortened: {len(names)}",) if names else ()
    named = msgspec.structs.replace(
        prepared,
        conversation=tool_names.short_names(prepared.conversation, limit),
        notes=(*prepared.notes, *notes),
        tools=tool_names.short_tools(prepared.tools, limit),
        names=names,
    )
    return named, tool_names.short_tools(loaded, limit)


def _reading(
    prepared: Prepared, loaded: tuple[Tool, ...], profile: Profile, quirks: Quirks, switches: Switches
) -> Prepared:
    """With what the gateway reads out of the answer's text itself. `loaded`: tools that are called but not listed."""
    settled = read = prepared.conversation
    notes = prepared.notes
    dialect = text_mode.reader(profile, quirks, switches.tool_parser)
    passes_by = text_mode.passes_by(profile, quirks, switches.tool_parser)
    if passes_by and settled.tools and text_mode.is_left_to_engine(settled, quirks):
        dialect = None
        notes = (*notes, "tool_choice: left to the engine's own grammar")
    form = None
    if dialect is not None and text_tools.must_write(settled, quirks):
        form = text_tools.form_of(profile, dialect, quirks)
        dialect = form.dialect
    if not settled.tools or settled.tool_choice.mode == "none":
        dialect = None
    reasoning = text_mode.reads_reasoning(settled, profile, quirks)
    if dialect is not None:
        asked = text_mode.reading(settled, dialect, quirks, loaded=loaded, guided=switches.guided, reasoning=reasoning)
        past = " (past the engine's parser)" if passes_by else ""
        notes = (*notes, f"tools: read from the text, {asked.dialect}{past}", *_bound_by(asked))
        prepared = msgspec.structs.replace(
            prepared, grammar=asked.grammar, bound=asked.bound, bound_dialect=dialect, insists=asked.insists
        )
        settled, dialect = asked.conversation, asked.dialect
        if quirks.splits_reasoning:
            settled, stops = text_mode.watched_here(settled)
            prepared = msgspec.structs.replace(prepared, scan_stops=prepared.scan_stops or stops)
    elif any(tool.strict for tool in settled.tools):
        strict = tuple(tool for tool in settled.tools if tool.strict)
        prepared = msgspec.structs.replace(prepared, grammar="strict", bound=strict)
    if form is not None:
        settled = text_tools.write(settled, profile, form)
        notes = (*notes, "tools: written into the text")
    return msgspec.structs.replace(
        prepared,
        conversation=settled,
        notes=notes,
        repair=switches.repair,
        dialect=dialect,
        reasoning=reasoning if settled is read else text_mode.reads_reasoning(settled, profile, quirks),
    )


def _bound_by(asked: text_mode.Reading) -> tuple[str, ...]:
    match asked.grammar:
        case "tags":
            return ("tools: calls bound by structural tags",)
        case "schema":
            return ("tools: the call bound by a schema for the answer",)
        case _:
            return ("tool_choice: asked for in words",) if asked.insists else ()


def _readable(
    turns: blocks.Turns,
    present: frozenset[type],
    conversation: Conversation,
    profile: Profile,
    documents: Mapping[str, str],
    quirks: Quirks,
    resend: Resend,
    notes: list[str],
) -> blocks.Turns:
    """Only blocks that this model can read. `present`: the kinds that occur."""
    if Document in present:
        turns, said = blocks.place_documents(turns, documents)
        notes += said
    if Image in present and (profile.images is False or quirks.no_images):
        turns, said = blocks.note_images(turns)
        notes += said
    elif Image in present and quirks.image_limit is not None:
        turns, said = blocks.note_older_images(turns, quirks.image_limit)
        notes += said
    if ToolReference in present:
        turns, said = tools.expand_references(turns, conversation.tools)
        notes += said
    if Reasoning in present and resend == "drop":
        turns, said = prefix.drop_reasoning(turns)
        notes += said
    return turns


def _placed(
    turns: blocks.Turns,
    present: frozenset[type],
    profile: Profile,
    quirks: Quirks,
    switches: Switches,
    notes: list[str],
) -> blocks.Turns:
    """Every turn where the template takes it. Pairs come first: what is folded or moved hangs on them."""
    turns, said = history.heal(turns, switches.side_text)
    notes += said
    if not profile.system_in_place or quirks.fold_system:
        turns, said = prefix.fold_system(turns)
        notes += said
    if Image in present:
        turns, said = blocks.lift_images(turns)
        notes += said
    return turns
