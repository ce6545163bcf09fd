"""The neutral request: what any protocol asks of any engine.

Frozen values; a Conversation that exists is well formed, but not yet fit for a particular model: `qiao.policies`
decides about deferred tools, images, system turns and limits, and returns a new Conversation.
JSON that only passes through (tool arguments, schemas) stays text, byte for byte as the client wrote it, because
the prompt's bytes decide whether the engine's prefix cache is hit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, TypeAlias

import msgspec

from qiao.core.json_text import is_object

Role = Literal["system", "user", "assistant"]


class Text(msgspec.Struct, frozen=True, gc=False):
    """Words. Never empty in a prepared conversation."""

    text: str


class Image(msgspec.Struct, frozen=True, gc=False):
    """A picture: base64 `data` with its `media_type`, or a `url`."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class Document(msgspec.Struct, frozen=True, gc=False):
    """A file that needs a reader of its own (PDF): base64 `data`. Text documents are decoded to `Text` at once."""

    media_type: str
    data: str
    title: str | None = None
    context: str | None = None


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """What the model thought in an earlier turn. `signature` is kept only to be echoed, never checked."""

    text: str
    signature: str | None = None


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A call the model made. `arguments` is the JSON text of an object, key order as received."""

    id: str
    name: str
    arguments: str


class ToolReference(msgspec.Struct, frozen=True, gc=False):
    """Stands where a client-side tool search found `name`: the tool's definition belongs here."""

    name: str


ResultPart: TypeAlias = Text | Image | Document | ToolReference


class ToolResult(msgspec.Struct, frozen=True):
    """What a call gave back. `call_id` names the `ToolCall`."""

    call_id: str
    parts: tuple[ResultPart, ...] = ()
    is_error: bool = False


Part: TypeAlias = Text | Image | Document | Reasoning | ToolCall | ToolResult


class Outline(msgspec.Struct, frozen=True):
    """A turn without its words.

    * `kinds`: of its parts, and of the blocks in its results.
    * `calls`: ids of its calls; `answers`: ids of the calls whose results it brings.
    * `is_plain`: every part is one that its role may say, says something, and can be sent as it stands: no blank text,
      no result that is an error, no arguments that are no object, results or other parts but not both.
    * `characters`: what keeping it costs.
    """

    kinds: frozenset[type]
    calls: tuple[str, ...]
    answers: tuple[str, ...]
    is_plain: bool
    characters: int


class Turn(msgspec.Struct, frozen=True, cache_hash=True, dict=True):
    """One message. A system turn stands where the client put it; the head of the prompt is `Conversation.system`.

    What is found out about a turn is kept with it: a conversation brings the same ones again with every request.
    """

    role: Role
    parts: tuple[Part, ...]

    @cached_property
    def outline(self) -> Outline:
        """What there is to know of it without reading it again."""
        kinds: set[type] = set()
        calls: list[str] = []
        answers: list[str] = []
        for part in self.parts:
            kinds.add(type(part))
            if isinstance(part, ToolCall):
                calls.append(part.id)
            elif isinstance(part, ToolResult):
                answers.append(part.call_id)
                kinds.update(map(type, part.parts))
        return Outline(
            frozenset(kinds),
            tuple(calls),
            tuple(answers),
            _is_plain(self, has_results=bool(answers)),
            sum(map(_characters, self.parts)),
        )


def _characters(part: Part | ResultPart) -> int:
    match part:
        case Text() | Reasoning():
            return len(part.text)
        case ToolCall():
            return len(part.arguments)
        case ToolResult():
            return sum(map(_characters, part.parts))
        case Image():
            return len(part.data or part.url or "")
        case Document():
            return len(part.data)
        case ToolReference():
            return len(part.name)


def _is_plain(turn: Turn, *, has_results: bool) -> bool:
    match turn.role:
        case "assistant":
            says_something = not {Reasoning}.issuperset(map(type, turn.parts))
            return says_something and all(map(_is_plain_answer, turn.parts))
        case "user" if has_results:
            return all(map(_is_plain_result, turn.parts))
        case "user":
            return bool(turn.parts) and all(map(_is_plain_word, turn.parts))
        case "system":
            return bool(turn.parts) and all(type(part) is Text and _is_plain_word(part) for part in turn.parts)


def _is_plain_answer(part: Part) -> bool:
    match part:
        case ToolCall():
            return bool(part.id) and is_object(part.arguments)
        case Text() | Reasoning():
            return not is_blank(part.text)
        case _:
            return False


def _is_plain_result(part: Part) -> bool:
    if not isinstance(part, ToolResult) or part.is_error or not part.parts:
        return False
    return not any(type(inner) is Text and is_blank(inner.text) for inner in part.parts)


def _is_plain_word(part: Part) -> bool:
    match part:
        case Text():
            return not is_blank(part.text)
        case Image() | Document():
            return True
        case _:
            return False


def is_blank(text: str) -> bool:
    """Without the copy that `strip` makes of a long text."""
    return not text or text.isspace()


class Tool(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """A function the model may call.

    `parameters`: JSON Schema text of an object, as the client wrote it. `deferred`: sent by the client but not to be
    shown until a `ToolReference` names it. `strict`: the client wants arguments that fit the schema. `builtin`: the
    Anthropic type string when the client named a predefined tool and the schema is ours (`bash_20250124`). `told`: how
    much of it is said where a prompt tells the tools in words; it can be called all the same.
    """

    name: str
    description: str = ""
    parameters: str = '{"type":"object","properties":{}}'
    strict: bool | None = None
    deferred: bool = False
    builtin: str | None = None
    told: Literal["whole", "name", "nothing"] = "whole"


class ToolChoice(msgspec.Struct, frozen=True, gc=False):
    """`mode` "tool" forces the tool `name`; "any" forces some tool. `parallel` False: at most one call an answer."""

    mode: Literal["auto", "any", "none", "tool"] = "auto"
    name: str | None = None
    parallel: bool = True


class Thinking(msgspec.Struct, frozen=True, gc=False):
    """Whether the model shall reason before it answers.

    `mode` "default" leaves it to the model. `budget`: tokens. `effort`: none/minimal/low/medium/high/xhigh/max.
    `shown` False: the client wants the block but not the words.
    """

    mode: Literal["default", "on", "off"] = "default"
    budget: int | None = None
    effort: str | None = None
    shown: bool = True


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """None means: not asked for, the model's own generation config rules."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


class ClearThinking(msgspec.Struct, frozen=True):
    """`clear_thinking_20251015`: keep the reasoning of the last `keep` assistant turns; None keeps all."""

    keep: int | None = None


class ClearToolUses(msgspec.Struct, frozen=True):
    """`clear_tool_uses_20250919`: clear old tool results once `trigger` is exceeded, but the last `keep` pairs.

    `clear_at_least`: tokens; with less to gain nothing is cleared. `clear_inputs`: whose arguments go as well: those of
    no tool, of all (True), or of the named ones.
    """

    trigger_kind: Literal["input_tokens", "tool_uses"] = "input_tokens"
    trigger: int = 100_000
    keep: int = 3
    clear_at_least: int | None = None
    exclude_tools: tuple[str, ...] = ()
    clear_inputs: bool | tuple[str, ...] = False

    def clears_input(self, name: str) -> bool:
        """Whether the arguments of calls of `name` are cleared with their results."""
        return self.clear_inputs if isinstance(self.clear_inputs, bool) else name in self.clear_inputs


Edit: TypeAlias = ClearThinking | ClearToolUses


class Conversation(msgspec.Struct, frozen=True):
    """Everything one request asks for.

    * `model`: the name the client used; it is echoed in the answer.
    * `system`: the head of the prompt, one entry a block.
    * `max_tokens`: limit of the answer; 0 asks only to warm the cache, None leaves it to the engine.
    * `stop`: strings that end the answer, any number.
    * `output_schema`: JSON Schema text that the answer has to fit.
    * `structure`: a structural tag's format, JSON text, that the answer has to keep; see `policies.guided`.
    * `continues`: an assistant turn at the end is the beginning of the answer. False: the answer is a turn of its own.
    * `session`: stable id of the client's session, for routing; never sent on in the clear. `names_session`: the client
      tells its sessions apart, so that two requests with one id are of one session; else it may name a person.
    * `extras`: engine options the client may pass through (`seed`, `chat_template_kwargs`, …), JSON text by name.
    * `edits`: context edits asked for; None when the client did not send `context_management` at all.
    * `dropped`: names of fields that were ignored, for the record.
    """

    model: str
    turns: tuple[Turn, ...]
    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    max_tokens: int | None = 0
    stop: tuple[str, ...] = ()
    stream: bool = False
    thinking: Thinking = Thinking()
    sampling: Sampling = Sampling()
    output_schema: str | None = None
    structure: str | None = None
    continues: bool = True
    session: str | None = None
    names_session: bool = False
    extras: dict[str, msgspec.Raw] = {}
    edits: tuple[Edit, ...] | None = None
    dropped: tuple[str, ...] = ()

    @property
    def is_prefill(self) -> bool:
        """The last turn is the assistant's: the model shall continue it."""
        return self.continues and bool(self.turns) and self.turns[-1].role == "assistant"
