"""Conversation → what llama.cpp's server is asked: messages for `/apply-template`, a body for `/completion`.

The engine's chat route is not used: it does not enforce `tool_choice`, and takes no grammar beside tools. So the
template is applied first, and the prompt that comes back is completed, under a grammar where one is wanted.
"""

from __future__ import annotations

import re
from typing import assert_never

import msgspec

from qiao.core.conversation import (
    Conversation,
    Document,
    Image,
    Part,
    Reasoning,
    ResultPart,
    Text,
    Tool,
    ToolCall,
    ToolReference,
    ToolResult,
)
from qiao.core.llamacpp import gbnf
from qiao.core.llamacpp.tools import Forced, described, forced, written

# Words that a tokenizer reads as control tokens: in a client's text they must stay words.
_CONTROL_TOKEN = re.compile(r"<(?=\|[A-Za-z0-9_.-]+\|>|(?:start|end)_of_turn>|/?(?:bos|eos|s)>)")
_PASSED_ON = frozenset(
    {"seed", "min_p", "top_k", "repeat_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier"}
)


class Options(msgspec.Struct, frozen=True):
    """How this engine is used.

    * `temperature`, `top_p`: taken where the client asks for none; None leaves the engine's own.
    * `repeat_penalty`: on tokens among the last `repeat_window` of a text (a small model repeats itself for ever);
      1 is off.
    * `longest_answer`: tokens of one answer at most, whatever the client asks for.
    * `ends_quietly`: a text that reaches `longest_answer` counts as finished, not as cut: an agent's client would ask
      for the rest of what never ends, again and again.
    * `most_calls`: calls in one forced answer, where the client allows more than one.
    """

    temperature: float | None = None
    top_p: float | None = None
    repeat_penalty: float = 1.0
    repeat_window: int = 256
    longest_answer: int = 32_768
    ends_quietly: bool = False
    most_calls: int = 1


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str


class _Template(msgspec.Struct, frozen=True):
    messages: list[_Message]


class _Completion(msgspec.Struct, frozen=True, omit_defaults=True):
    prompt: str
    n_predict: int
    stream: bool = False
    cache_prompt: bool = False
    return_progress: bool = False
    stop: tuple[str, ...] = ()
    grammar: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    n_probs: int = 0


def template(conversation: Conversation) -> bytes:
    """The body for `/apply-template`. A trailing assistant turn is left open by the engine itself."""
    return msgspec.json.encode(_Template(_messages(conversation)))


def _messages(conversation: Conversation) -> list[_Message]:
    system = [_safe(block) for block in conversation.system if block.strip()]
    if conversation.tools and conversation.tool_choice.mode != "none":
        system.append(_safe(described(conversation.tools)))
    messages = [_Message("system", "\n\n".join(system))] if system else []
    names = {part.id: part.name for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall)}
    for turn in conversation.turns:
        content = "\n\n".join(filter(None, (_safe(_words(part, names)) for part in turn.parts)))
        # A template may know one system message only, and want the others to take turns.
        role = "assistant" if turn.role == "assistant" else "user"
        last = messages[-1] if messages else None
        if last is not None and last.role == role:
            messages[-1] = _Message(role, f"{last.content}\n\n{content}" if last.content else content)
        elif role == "assistant" and (last is None or last.role == "system"):
            messages += [_Message("user", "(continued)"), _Message(role, content)]
        elif content or role == "user":
            messages.append(_Message(role, content))
    return messages


def _words(part: Part, names: dict[str, str]) -> str:
    match part:
        case Text():
            return part.text
        case ToolCall():
            return written(part)
        case ToolResult():
            begin = "Error from" if part.is_error else "Result of"
            inside = "\n".join(_result_words(inner) for inner in part.parts)
            return f"{begin} {names.get(part.call_id, 'the tool')}:\n{inside or '(nothing)'}"
        case Image() | Document():
            return _result_words(part)
        case Reasoning():
            return ""
        case _:
            assert_never(part)


def _result_words(part: ResultPart) -> str:
    match part:
        case Text():
            return part.text
        case Image():
            return "(an image, which this model cannot see)"
        case Document():
            return f"(a document, {part.title or part.media_type}, which this model cannot read)"
        case ToolReference():
            return f"(the tool {part.name} is there now)"
        case _:
            assert_never(part)


def _safe(text: str) -> str:
    """`text` with a zero-width space in what would be a control token."""
    return _CONTROL_TOKEN.sub("<\u200b", text) if "<" in text else text


def callable_tools(conversation: Conversation) -> tuple[Tool, ...]:
    """The tools of which one has to be called; empty where the answer may be text."""
    match conversation.tool_choice.mode:
        case "any":
            return conversation.tools
        case "tool":
            return tuple(tool for tool in conversation.tools if tool.name == conversation.tool_choice.name)
        case "auto" | "none":
            return ()


def forced_call(conversation: Conversation, tools: tuple[Tool, ...], options: Options, *, room: int) -> Forced | None:
    """What makes the engine call one of `tools`, within `room` tokens; None for no tools."""
    if not tools:
        return None
    most = options.most_calls if conversation.tool_choice.parallel else 1
    # A token is a character at least, so what fits in characters is never cut.
    return forced(tools, most_calls=most, limit=_answer_tokens(conversation, options, room))


def completion(
    conversation: Conversation, prompt: str, options: Options, *, forced_by: Forced | None, room: int
) -> bytes:
    """The body for `/completion`. `prompt`: what `/apply-template` gave. `room`: tokens that the window still has."""
    tokens = _answer_tokens(conversation, options, room)
    sampling = conversation.sampling
    written_grammar = ""
    if forced_by is not None:
        prompt, written_grammar = prompt + forced_by.head, forced_by.grammar
    elif conversation.output_schema is not None:
        written_grammar = gbnf.grammar(msgspec.json.decode(conversation.output_schema), limit=tokens)
    body = _Completion(
        prompt=prompt,
        n_predict=max(1, tokens),
        stream=True,
        cache_prompt=True,
        return_progress=True,
        # A stop sequence would cut a call inside its arguments.
        stop=conversation.stop if forced_by is None else (),
        grammar=written_grammar,
        temperature=options.temperature if sampling.temperature is None else sampling.temperature,
        top_p=options.top_p if sampling.top_p is None else sampling.top_p,
        top_k=sampling.top_k,
        # Under a grammar the same brackets and keys have to come again and again.
        repeat_penalty=1.0 if written_grammar else options.repeat_penalty,
        repeat_last_n=64 if written_grammar else options.repeat_window,
    )
    passed = {name: raw for name, raw in conversation.extras.items() if name in _PASSED_ON}
    if not passed:
        return msgspec.json.encode(body)
    return msgspec.json.encode({**msgspec.to_builtins(body), **passed})


def left_out(conversation: Conversation, forced_by: Forced | None) -> tuple[str, ...]:
    """Keywords of the schema that the answer has to fit and that no grammar keeps."""
    if forced_by is not None:
        return forced_by.left_out
    schema = conversation.output_schema
    return () if schema is None else gbnf.left_out(msgspec.json.decode(schema))


def is_leashed(conversation: Conversation, options: Options, *, forced_by: Forced | None, room: int) -> bool:
    """Whether a text that reaches its limit reaches ours, and counts as finished."""
    if not options.ends_quietly or forced_by is not None or conversation.output_schema is not None:
        return False
    asked = conversation.max_tokens
    return options.longest_answer < room and (asked is None or asked > options.longest_answer)


def scoring(prompt: str, text: str) -> bytes:
    """The body for `/completion` that makes the engine write `text`, telling how probable each token was."""
    return msgspec.json.encode(
        _Completion(
            prompt=prompt,
            n_predict=len(text) + 1,
            cache_prompt=True,
            grammar=f"root ::= {msgspec.json.encode(text).decode()}",
            temperature=0.0,
            n_probs=1,
        )
    )


def reading(tokens: int) -> bytes:
    """The body for `/completion` that makes the engine read a prompt of `tokens`, which nobody else sends."""
    return msgspec.json.encode({"prompt": [place % 1000 + 500 for place in range(tokens)], "n_predict": 1})


def _answer_tokens(conversation: Conversation, options: Options, room: int) -> int:
    asked = options.longest_answer if conversation.max_tokens is None else conversation.max_tokens
    return max(0, min(asked, options.longest_answer, room))
