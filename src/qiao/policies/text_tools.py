"""Tools, calls and results written into the text of a prompt, for servers that do not render them.

A server that leaves the tools out of the prompt when calls are not its business (vLLM before 0.10, or with
`--exclude-tools-when-tool-choice-none`), or that knows no tools at all, is sent an ordinary conversation. It is written
so that the chat template makes of it, token for token, what it would have made of the tools: which words those are is a
fact of the model's family (`Profile.tool_form`), proven by prompts that the published templates rendered
(`tests/golden/text_tools`). Where a template puts the tools where no message reaches, the nearest place is taken.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from qiao.core.conversation import Conversation, Part, Reasoning, Text, Tool, ToolCall, ToolChoice, ToolResult, Turn
from qiao.core.openai.request import joined
from qiao.policies import tool_words
from qiao.policies.quirks import Quirks
from qiao.profiles import Profile
from qiao.profiles.profile import ToolForm

_Head: TypeAlias = Callable[[Conversation, str], Conversation]
_Calls: TypeAlias = Callable[[str, Sequence[ToolCall]], str]
_Results: TypeAlias = Callable[[Sequence[str]], str]


class Form(msgspec.Struct, frozen=True):
    """How a family's prompt says what tools there are, what was called, and what came back.

    * `dialect`: how the model answers to it.
    * `head`: the conversation with its tools in words; the second argument is the template's own system prompt.
    * `calls`: the content of an assistant turn from its text and its calls. None: the template writes calls, whether it
      was given tools or not.
    * `results`: the content of the user turn that holds results. None: the template writes them by their role.
    * `apart`: what a person said beside results stands in a turn of its own. False: for templates that nobody looked at
      and that may demand that turns alternate.
    """

    dialect: str
    head: _Head
    calls: _Calls | None
    results: _Results | None
    apart: bool = True


def must_write(conversation: Conversation, quirks: Quirks) -> bool:
    """Whether tools have to stand in the text because this server does not put them into the prompt."""
    if quirks.no_tools:
        calls = (part for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall))
        return bool(conversation.tools) or any(True for _ in calls)
    return quirks.no_tool_rendering and bool(conversation.tools)


def form_of(profile: Profile, dialect: str, quirks: Quirks) -> Form:
    """The form for a model whose answers are to be read in `dialect`.

    A server without any tools (`no_tools`) has no roles for them either, so that all has to be words.
    """
    name = profile.tool_form if profile.dialect == dialect else _OF_DIALECT.get(dialect, "plain")
    form = FORMS[name]
    if quirks.no_tools and (form.calls is None or form.results is None):
        return FORMS["plain"]
    return form


def write(conversation: Conversation, profile: Profile, form: Form) -> Conversation:
    """The same conversation without tools, calls and results as such: they are words now."""
    if conversation.tools:
        conversation = form.head(conversation, profile.default_system)
    turns: list[Turn] = []
    for turn in conversation.turns:
        if turn.role == "assistant":
            turns.append(_assistant(turn, form))
        elif any(isinstance(part, ToolResult) for part in turn.parts):
            turns.extend(_user(turn, form))
        else:
            turns.append(turn)
    return msgspec.structs.replace(conversation, tools=(), tool_choice=ToolChoice(), turns=tuple(turns))


def is_results_only(turn: Turn) -> bool:
    """A turn that holds nothing but results, as `write` or the client wrote them."""
    if all(isinstance(part, ToolResult) for part in turn.parts):
        return bool(turn.parts)
    words = joined(turn.parts).strip()
    return words.startswith(tool_words.RESPONSE[0].strip()) and words.endswith(tool_words.RESPONSE[1].strip())


def _assistant(turn: Turn, form: Form) -> Turn:
    calls = [part for part in turn.parts if isinstance(part, ToolCall)]
    if not calls or form.calls is None:
        return turn
    kept: list[Part] = [part for part in turn.parts if isinstance(part, Reasoning)]
    # The model wrote these pieces as one text.
    text = "".join(part.text for part in turn.parts if isinstance(part, Text))
    return Turn("assistant", (*kept, Text(form.calls(text, calls))))


def _user(turn: Turn, form: Form) -> list[Turn]:
    if form.results is None:
        return [turn]
    results = Text(form.results([joined(part.parts) for part in turn.parts if isinstance(part, ToolResult)]))
    rest = tuple(part for part in turn.parts if not isinstance(part, ToolResult))
    if not form.apart:
        return [Turn("user", (results, *rest))]
    return [Turn("user", (results,)), *([Turn("user", rest)] if rest else [])]


# -- heads ------------------------------------------------------------------------------------------------------------


def _after_system(block: Callable[[Sequence[Tool]], str]) -> _Head:
    """The system prompt, an empty line, the tools."""

    def head(conversation: Conversation, default: str) -> Conversation:
        system = conversation.system or ((default,) if default else ())
        return msgspec.structs.replace(conversation, system=(*system, block(conversation.tools)))

    return head


def _before_system(block: Callable[[Sequence[Tool]], str]) -> _Head:
    """The tools, an empty line, the system prompt, which the template trims."""

    def head(conversation: Conversation, _: str) -> Conversation:
        words = _head_words(conversation).strip()
        system = (block(conversation.tools), *((words,) if words else ()))
        return msgspec.structs.replace(conversation, system=system)

    return head


def _own_turn(block: Callable[[Sequence[Tool]], str]) -> _Head:
    """The tools as a system turn of their own, before the system prompt."""

    def head(conversation: Conversation, _: str) -> Conversation:
        words = _head_words(conversation)
        first = (Turn("system", (Text(words),)),) if words else ()
        system = (block(conversation.tools),)
        return msgspec.structs.replace(conversation, system=system, turns=(*first, *conversation.turns))

    return head


def _first_user(block: Callable[[Sequence[Tool]], str]) -> _Head:
    """The tools at the beginning of what the user said first."""

    def head(conversation: Conversation, default: str) -> Conversation:
        words = block(conversation.tools)
        turns = conversation.turns
        place = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
        if place is None or not isinstance(turns[place].parts[0], Text):
            return _after_system(block)(conversation, default)
        said = turns[place].parts
        first = Text(words + said[0].text.strip())  # type: ignore[union-attr]  # a Text, as was seen above
        changed = Turn("user", (first, *said[1:]))
        return msgspec.structs.replace(conversation, turns=(*turns[:place], changed, *turns[place + 1 :]))

    return head


def _kimi_head(conversation: Conversation, default: str) -> Conversation:
    """A section behind the system prompt's; the template would put it before."""
    section = tool_words.kimi_tools(conversation.tools)
    system = conversation.system or (default,)
    return msgspec.structs.replace(conversation, system=(*system[:-1], system[-1] + section))


def _head_words(conversation: Conversation) -> str:
    return "\n\n".join(block for block in conversation.system if block.strip())


# -- calls and results ------------------------------------------------------------------------------------------------


def _sequence(
    one: Callable[[str, dict[str, object]], str],
    *,
    before: str = "\n",
    between: str = "\n",
    around: tuple[str, str] = ("", ""),
    trims: bool = False,
) -> _Calls:
    """Calls behind the text. `before`: between the two, if there is text. `trims`: the template trims the text."""

    def calls(text: str, made: Sequence[ToolCall]) -> str:
        text = text.strip() if trims else text
        written = between.join(one(call.name, _arguments(call)) for call in made)
        return f"{text}{before if text else ''}{around[0]}{written}{around[1]}"

    return calls


def _responses(
    opening: str = tool_words.RESPONSE[0], closing: str = tool_words.RESPONSE[1], *, end: str = "", trims: bool = False
) -> _Results:
    def results(said: Sequence[str]) -> str:
        written = (f"{opening}{words.strip() if trims else words}{closing}" for words in said)
        return "\n".join(written) + end

    return results


def _arguments(call: ToolCall) -> dict[str, object]:
    """As an engine reads them before it renders: what is no object is none."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


_HERMES_CALLS = _sequence(tool_words.hermes_call)

FORMS: dict[ToolForm, Form] = {
    "plain": Form("hermes", _after_system(tool_words.hermes_tools), _HERMES_CALLS, _responses(), apart=False),
    "hermes": Form("hermes", _after_system(tool_words.hermes_tools), _HERMES_CALLS, _responses()),
    "qwen3_coder": Form(
        "qwen3_coder",
        _after_system(tool_words.coder_tools),
        _sequence(tool_words.python_xml_call, before="\n\n", trims=True),
        _responses(end="\n"),
    ),
    "qwen3_5": Form(
        "qwen3_coder",
        _before_system(tool_words.qwen3_5_tools),
        _sequence(tool_words.python_xml_call, before="\n\n", trims=True),
        _responses(trims=True),
    ),
    "qwen3_6": Form(
        "qwen3_coder",
        _before_system(tool_words.qwen3_5_tools),
        _sequence(tool_words.json_xml_call, before="\n\n", trims=True),
        _responses(trims=True),
    ),
    "glm45": Form("glm45", _own_turn(tool_words.glm45_tools), _sequence(tool_words.glm45_call, trims=True), None),
    "glm47": Form(
        "glm45",
        _own_turn(tool_words.glm47_tools),
        _sequence(tool_words.glm47_call, before="", between="", trims=True),
        None,
    ),
    "deepseek_v3": Form(
        "deepseek_v3",
        _after_system(tool_words.deepseek_v3_tools),
        _sequence(tool_words.deepseek_v3_call, before="", around=tool_words.DEEPSEEK_SECTION),
        None,
    ),
    "deepseek_v31": Form(
        "deepseek_v31",
        _after_system(tool_words.deepseek_v31_tools),
        _sequence(tool_words.deepseek_v31_call, before="", between="", around=tool_words.DEEPSEEK_SECTION),
        None,
    ),
    "kimi_k2": Form("kimi_k2", _kimi_head, None, None),
    "llama3": Form("llama3_json", _first_user(tool_words.llama3_tools), _sequence(tool_words.llama3_call), None),
}

# For a reader that somebody chose although the profile says otherwise; "plain" for those that no prompt asks for.
_OF_DIALECT: dict[str, ToolForm] = {
    "qwen3_coder": "qwen3_coder",
    "glm45": "glm45",
    "deepseek_v3": "deepseek_v3",
    "deepseek_v31": "deepseek_v31",
    "kimi_k2": "kimi_k2",
    "llama3_json": "llama3",
}
