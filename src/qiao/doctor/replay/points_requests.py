"""Points: the requests of a session, from the first to compaction."""

from __future__ import annotations

import json
from collections.abc import Callable

from qiao.core.anthropic import grammar
from qiao.doctor.replay import shapes
from qiao.doctor.replay.reading import accepted, calls_of, error_of, kinds_of, streamed, text_of, whole
from qiao.doctor.replay.sheet import Ask, Failed, Question, Talk, Unknown

MESSAGES = "/v1/messages?beta=true"
_ENOUGH = 4_000
"""Bytes of a stream after which it is clear that it is one."""


def _answered(make: Callable[[str], shapes.Body]) -> Ask:
    """The point that a request of this shape gets a readable answer. Of a long one the beginning is enough."""

    async def ask(talk: Talk) -> str:
        body = make(talk.model)
        is_long = body["max_tokens"] > shapes.SHORT
        exchange = await talk.endpoint.post(MESSAGES, body, leave_after=_ENOUGH if is_long else None)
        return kinds_of(streamed(talk, exchange) if body.get("stream") else whole(talk, exchange))

    return ask


async def _plain(talk: Talk) -> str:
    message = whole(talk, await talk.endpoint.post(MESSAGES, shapes.plain(talk.model)))
    missing = [name for name in ("id", "type", "role", "model", "stop_reason") if name not in message]
    if missing:
        raise Failed(f"the message lacks {', '.join(missing)}")
    return kinds_of(message)


async def _strict(talk: Talk) -> str:
    exchange = await talk.endpoint.post(MESSAGES, shapes.plain(talk.model, stream=True))
    accepted(talk, exchange)
    try:
        return kinds_of(grammar.check(exchange.body, exact_usage=False))
    except grammar.GrammarError as error:
        raise Failed(f"a rule is broken: {error}") from None


async def _usage(talk: Talk) -> str:
    message = streamed(talk, await talk.endpoint.post(MESSAGES, shapes.plain(talk.model, stream=True)))
    start, end = message.get("usage") or {}, message.get("usage_at_end") or {}

    def total(usage: dict[str, int]) -> int:
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        return sum(usage.get(name) or 0 for name in names)

    if not total(end):
        raise Failed("message_delta tells no input tokens: Claude Code cannot know when to compact")
    if total(start) != total(end):
        raise Failed(f"message_start says {total(start)} input tokens, message_delta {total(end)}")
    return f"{total(end)} input tokens at both ends"


async def _title(talk: Talk) -> str:
    message = streamed(talk, await talk.endpoint.post(MESSAGES, shapes.side_request(talk.model)))
    try:
        title = json.loads(text_of(message))
    except ValueError:
        if message.get("stop_reason") == "max_tokens":
            raise Unknown("the answer was cut by max_tokens before the JSON was whole") from None
        raise Failed(f"the answer does not follow the schema: {text_of(message)[:80]!r}") from None
    if not isinstance(title, dict) or set(title) != {"title"}:
        raise Failed(f"the answer does not follow the schema: {title!r}")
    return f"the answer follows the schema: {title!r}"[:120]


async def _stop_string(talk: Talk) -> str:
    message = whole(talk, await talk.endpoint.post(MESSAGES, shapes.classifier(talk.model)))
    if "</severity>" in text_of(message):
        raise Failed("the stop string is in the answer")
    if message.get("stop_reason") != "stop_sequence":
        return f"taken; the model did not write it ({message.get('stop_reason')})"
    if message.get("stop_sequence") != "</severity>":
        raise Failed(f"stop_sequence is {message.get('stop_sequence')!r}, not the string that matched")
    return "matched, and named"


def _forced(choice: shapes.Body) -> Ask:
    async def ask(talk: Talk) -> str:
        exchange = await talk.endpoint.post(MESSAGES, shapes.forced_call(talk.model, choice))
        message = streamed(talk, exchange)
        calls = calls_of(message)
        if not calls:
            raise Failed(f"no call came: {kinds_of(message)}; {text_of(message)[:80]!r}")
        if calls[0].get("name") != "report_sum" or not isinstance(calls[0].get("input"), dict):
            raise Failed(f"the call does not fit: {calls[0].get('name')} {calls[0].get('input')!r}")
        if not isinstance(calls[0]["input"].get("sum"), int):
            raise Failed(f"the input does not fit the schema: {calls[0]['input']!r}")
        if message.get("stop_reason") != "tool_use":
            raise Failed(f"a call, but stop_reason is {message.get('stop_reason')!r}")
        return f"report_sum({calls[0]['input']['sum']})"

    return ask


async def _search(talk: Talk) -> str:
    exchange = await talk.endpoint.post(MESSAGES, shapes.web_search(talk.model))
    if exchange.status == 400:
        return f"refused, which Claude Code tells the model: {error_of(exchange, 400, 'invalid_request_error')}"
    return kinds_of(streamed(talk, exchange))


def _many_stops(model: str) -> shapes.Body:
    return shapes.plain(model, stop_sequences=["@1", "@2", "@3", "@4", "@5"])


def _over_window(model: str) -> shapes.Body:
    return shapes.plain(model, max_tokens=128_000, stream=True)


def _budget(model: str) -> shapes.Body:
    return shapes.plain(model, max_tokens=2_048, stream=True, thinking={"type": "enabled", "budget_tokens": 1024})


def _prefill(model: str) -> shapes.Body:
    return shapes.with_history(model, [shapes.user("Count to five."), shapes.assistant("1, 2,")])


def _system_text(model: str) -> shapes.Body:
    return shapes.with_history(
        model,
        [
            shapes.user("Hi"),
            shapes.assistant("Hello."),
            shapes.user("Go on."),
            {"role": "system", "content": "A tool was added."},
        ],
    )


_SESSION, _TOOLS, _CONTENT = "session", "tools", "content"

QUESTIONS: tuple[Question, ...] = (
    Question(name="whole_answer", group=_SESSION, about="a whole answer with usage", ask=_plain, must=True),
    Question(
        name="first_request",
        group=_SESSION,
        about="the first request: three system blocks, a system turn, deferred tools, adaptive thinking, effort, edits",
        ask=_answered(shapes.main_request),
        must=True,
    ),
    Question(name="stream_grammar", group=_SESSION, about="every stream event where it belongs", ask=_strict),
    Question(name="stream_usage", group=_SESSION, about="the same input tokens at both ends of a stream", ask=_usage),
    Question(
        name="system_in_the_middle",
        group=_SESSION,
        about="a system turn in the middle, as plain text",
        ask=_answered(_system_text),
        must=True,
    ),
    Question(
        name="max_tokens_over_window",
        group=_SESSION,
        about="max_tokens 128000, whatever the window is",
        ask=_answered(_over_window),
        must=True,
    ),
    Question(name="thinking_budget", group=_SESSION, about="thinking with a budget", ask=_answered(_budget)),
    Question(
        name="thinking_history",
        group=_SESSION,
        about="thinking of earlier turns: unsigned, redacted",
        ask=_answered(shapes.thinking_history),
        must=True,
    ),
    Question(name="title_request", group=_SESSION, about="tools: [] and a schema for the answer", ask=_title),
    Question(name="stop_sequence", group=_SESSION, about="a stop string that is matched and named", ask=_stop_string),
    Question(name="five_stop_sequences", group=_SESSION, about="five stop strings", ask=_answered(_many_stops)),
    Question(name="prefill", group=_SESSION, about="an assistant turn at the end", ask=_answered(_prefill)),
    Question(
        name="forced_tool",
        group=_TOOLS,
        about="a tool that has to be called, its input streamed",
        ask=_forced({"type": "tool", "name": "report_sum"}),
        must=True,
    ),
    Question(
        name="tool_choice_any",
        group=_TOOLS,
        about="any tool, one call at most",
        ask=_forced({"type": "any", "disable_parallel_tool_use": True}),
    ),
    Question(
        name="parallel_results",
        group=_TOOLS,
        about="two calls and their results: an error, a list, text behind them",
        ask=_answered(shapes.parallel_results),
        must=True,
    ),
    Question(
        name="tool_reference",
        group=_TOOLS,
        about="a tool_reference in a result, and the deferred tool it names",
        ask=_answered(shapes.tool_search),
        must=True,
    ),
    Question(
        name="web_search",
        group=_TOOLS,
        about="the server tool web_search: answered, or refused in Anthropic's shape",
        ask=_search,
    ),
    Question(
        name="orphaned_call",
        group=_TOOLS,
        about="a call without a result in the history",
        ask=_answered(shapes.orphans),
    ),
    Question(
        name="image",
        group=_CONTENT,
        about="a picture",
        ask=_answered(lambda model: shapes.image(model, in_result=False)),
    ),
    Question(
        name="image_in_result",
        group=_CONTENT,
        about="a picture in a tool's result",
        ask=_answered(lambda model: shapes.image(model, in_result=True)),
        must=True,
    ),
    Question(
        name="document_in_result", group=_CONTENT, about="a PDF in a tool's result", ask=_answered(shapes.document)
    ),
    Question(name="empty_blocks", group=_CONTENT, about="empty text blocks", ask=_answered(shapes.empty_blocks)),
)
