"""Points around the conversation: models, counts, errors, the way a stream is cut short."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from qiao.doctor.replay import shapes
from qiao.doctor.replay.points_requests import MESSAGES
from qiao.doctor.replay.reading import accepted, error_of, said, streamed, whole
from qiao.doctor.replay.sheet import Failed, Question, Talk, Unknown
from qiao.upstream.endpoint import Exchange

COUNT = "/v1/messages/count_tokens?beta=true"
_LARGEST_WINDOW = 300_000
_PATIENCE = 15.0
# Words at which Claude Code compacts instead of giving up (its list, shortened to what servers say).
_COMPACTS = re.compile(
    r"prompt is too long|input is too long|maximum context length|context_length_exceeded|exceeds the context window|"
    r"longer than the (?:maximum model|model's context) length|exceeds the available context size|"
    r"maximum number of tokens|maximum context limit|context window exceeds limit|reduce the length of the messages",
    re.IGNORECASE,
)


async def _models(talk: Talk) -> str:
    listed = accepted(talk, await talk.endpoint.get("/v1/models?limit=1000")).json()
    data = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(data, list) or not data or not isinstance(data[0], dict):
        raise Failed("no list of models")
    missing = [name for name in ("type", "id", "display_name", "created_at") if name not in data[0]]
    if missing or "has_more" not in listed:
        raise Failed(
            f"not in Anthropic's shape: {', '.join([*missing, *(['has_more'] if 'has_more' not in listed else [])])}"
        )
    return f"{len(data)} models, the first {data[0]['id']}"


async def _window(talk: Talk) -> str:
    if talk.window is None:
        raise Failed("no model tells its window (max_input_tokens): it has to be set in the client by hand")
    return f"{talk.window} tokens"


async def _greeting(talk: Talk) -> str:
    exchange = await talk.endpoint.get("/", method="HEAD")
    if exchange.failure is not None or exchange.status >= 400:
        raise Failed(exchange.failure or f"HEAD / is answered with {exchange.status}")
    return f"HEAD / is answered with {exchange.status}"


async def _counted(talk: Talk, body: dict[str, Any]) -> int:
    counted = accepted(talk, await talk.endpoint.post(COUNT, body)).json()
    tokens = counted.get("input_tokens") if isinstance(counted, dict) else None
    if not isinstance(tokens, int):
        raise Failed(f"no input_tokens: {counted!r}"[:120])
    return tokens


def _to_count(talk: Talk, **more: Any) -> dict[str, Any]:
    return {"model": talk.model, "messages": [shapes.user("Say hi.")], **more}


async def _count(talk: Talk) -> str:
    alone = await _counted(talk, _to_count(talk))
    tools = await _counted(talk, _to_count(talk, tools=shapes.TOOLS[:3]))
    if alone <= 0 or tools <= alone:
        raise Failed(f"{alone} tokens without tools, {tools} with three tools")
    return f"{alone} tokens, {tools} with three tools"


async def _count_true(talk: Talk) -> str:
    """The count and the usage of the same request, held against each other."""
    body = _to_count(talk, system="Be brief. " * 20, tools=shapes.TOOLS[:3])
    tokens = await _counted(talk, body)
    message = whole(talk, await talk.endpoint.post(MESSAGES, {**body, "max_tokens": 1}))
    usage = message["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    used = sum(usage.get(name) or 0 for name in names)
    if abs(tokens - used) > 0.02 * used + 8:
        raise Failed(f"count_tokens says {tokens}, the answer's usage {used}")
    return f"count_tokens {tokens}, usage {used}"


async def _billing(talk: Talk) -> str:
    rest = shapes.SYSTEM[1:]
    without = await _counted(talk, _to_count(talk, system=rest))
    with_it = await _counted(talk, _to_count(talk, system=[shapes.text(shapes.BILLING), *rest]))
    if with_it > without:
        raise Failed(
            f"the block costs {with_it - without} tokens at the head of every prompt: each session starts anew"
        )
    return "the block is left out of the prompt"


async def _overflow(talk: Talk) -> str:
    if talk.window is None or talk.window > _LARGEST_WINDOW:
        raise Unknown("the window is not known, or too large to be filled here")
    exchange = await talk.endpoint.post(MESSAGES, shapes.overlong(talk.model, talk.window))
    if exchange.failure is not None:
        raise Failed(f"no answer: {exchange.failure}")
    words = said(exchange)
    if exchange.status not in (400, 413):
        raise Failed(f"{exchange.status} to a prompt longer than the window: {words}")
    if not _COMPACTS.search(exchange.body.decode("utf-8", "replace")):
        raise Failed(f"Claude Code does not recognise the words, and gives up: {words}")
    return words[:140]


async def _overflow_count(talk: Talk) -> str:
    if talk.window is None or talk.window > _LARGEST_WINDOW:
        raise Unknown("the window is not known, or too large to be filled here")
    exchange = await talk.endpoint.post(MESSAGES, shapes.overlong(talk.model, talk.window))
    found = re.search(r"prompt is too long: (\d+) tokens > (\d+) maximum", exchange.body.decode("utf-8", "replace"))
    if found is None or int(found[1]) < 1.1 * talk.window:
        raise Failed(f"the true length is not told, by which Claude Code decides how much to compact: {said(exchange)}")
    return found[0]


async def _wrong_key(talk: Talk) -> str:
    exchange = await talk.endpoint.post(MESSAGES, shapes.plain(talk.model), key="sk-this-is-not-the-key")
    if exchange.status == 200 and not talk.has_key:
        raise Unknown("the server asks for no key")
    return error_of(exchange, 401, "authentication_error")


async def _invalid(talk: Talk) -> str:
    body = {"model": talk.model, "messages": [shapes.user("Hi")]}
    return error_of(await talk.endpoint.post(MESSAGES, body), 400, "invalid_request_error")


async def _broken(talk: Talk) -> str:
    return error_of(await talk.endpoint.post(MESSAGES, b'{"model": '), 400, "invalid_request_error")


async def _no_route(talk: Talk) -> str:
    return error_of(await talk.endpoint.post("/v1/nothing", {}), 404, "not_found_error")


async def _request_id(talk: Talk) -> str:
    exchange = await talk.endpoint.post(MESSAGES, shapes.plain(talk.model))
    found = exchange.headers.get("request-id")
    if not found:
        raise Failed("no request-id header: a report cannot name its request")
    return f"request-id: {found}"


async def _alias(talk: Talk) -> str:
    message = whole(talk, await talk.endpoint.post(MESSAGES, shapes.plain("claude-haiku-4-5-20251001")))
    return f"claude-haiku-4-5-20251001 is answered by {message.get('model')}"


async def _cancelled(talk: Talk) -> str:
    body = shapes.plain(talk.model, "Count from 1 to 1000.", max_tokens=2_000, stream=True)
    left = await talk.endpoint.post(MESSAGES, body, leave_after=1)
    if left.failure is not None or left.status != 200:
        raise Unknown(f"the stream could not be opened: {left.failure or left.status}")
    started = asyncio.get_running_loop().time()
    whole(talk, await talk.endpoint.post(MESSAGES, shapes.plain(talk.model, max_tokens=1)))
    waited = asyncio.get_running_loop().time() - started
    if waited > _PATIENCE:
        raise Failed(f"after a client left, the next answer took {waited:.0f} s: the engine went on")
    return f"after a client left, the next answer came within {waited:.1f} s"


async def _silence(talk: Talk) -> str:
    if talk.saw_ping:
        return f"pings; the longest silence was {talk.longest_silence:.1f} s"
    if talk.longest_silence > _PATIENCE:
        raise Failed(f"{talk.longest_silence:.0f} s without a byte and without a ping: proxies and clients give up")
    raise Unknown(f"no answer took long enough to need a ping (longest silence {talk.longest_silence:.1f} s)")


async def _cache(talk: Talk) -> str:
    system = [shapes.text("The quick brown fox jumps over the lazy dog. " * 120, **shapes.CACHED)]
    for _ in range(2):
        body = shapes.plain(talk.model, stream=True, max_tokens=1, system=system)
        message = streamed(talk, await talk.endpoint.post(MESSAGES, body))
    usage = message.get("usage_at_end") or {}
    cached = usage.get("cache_read_input_tokens")
    if not cached:
        raise Failed("a prompt that was sent twice shows no cache_read_input_tokens")
    return f"{cached} tokens came from the cache"


_AROUND, _LIMITS, _ERRORS, _TRANSPORT = "models and counts", "limits", "errors", "transport"

QUESTIONS: tuple[Question, ...] = (
    Question(name="models", group=_AROUND, about="GET /v1/models in Anthropic's shape", ask=_models),
    Question(name="models_window", group=_AROUND, about="the window of a model", ask=_window),
    Question(name="alias", group=_AROUND, about="a claude-… name for side requests", ask=_alias),
    Question(name="count_tokens", group=_AROUND, about="count_tokens, with tools", ask=_count),
    Question(name="count_tokens_true", group=_AROUND, about="count_tokens agrees with the usage", ask=_count_true),
    Question(name="cache_usage", group=_AROUND, about="tokens read from the prefix cache are told", ask=_cache),
    Question(name="billing_header", group=_AROUND, about="the billing block is kept out of the prompt", ask=_billing),
    Question(
        name="overflow",
        group=_LIMITS,
        about="a prompt over the window, in words that make it compact",
        ask=_overflow,
        must=True,
    ),
    Question(
        name="overflow_count", group=_LIMITS, about="the true length of a prompt over the window", ask=_overflow_count
    ),
    Question(name="error_key", group=_ERRORS, about="a wrong key: 401 in Anthropic's shape", ask=_wrong_key),
    Question(name="error_field", group=_ERRORS, about="a missing field: 400 in Anthropic's shape", ask=_invalid),
    Question(name="error_json", group=_ERRORS, about="broken JSON: 400 in Anthropic's shape", ask=_broken),
    Question(name="error_route", group=_ERRORS, about="an unknown route: 404 in Anthropic's shape", ask=_no_route),
    Question(name="request_id", group=_ERRORS, about="a request-id header", ask=_request_id),
    Question(name="head", group=_TRANSPORT, about="HEAD / is answered", ask=_greeting),
    Question(name="cancellation", group=_TRANSPORT, about="a client that leaves frees the engine", ask=_cancelled),
    Question(name="ping", group=_TRANSPORT, about="no long silence without a ping", ask=_silence),
)


def window_of(exchange: Exchange, model: str | None) -> tuple[str | None, int | None]:
    """The model to use and its window, from a list of models in either protocol's shape."""
    listed = exchange.json() if exchange.status == 200 else None
    data = listed.get("data") if isinstance(listed, dict) else None
    entries = [each for each in data if isinstance(each, dict) and each.get("id")] if isinstance(data, list) else []
    chosen = next((each for each in entries if model is None or each["id"] == model), None)
    if chosen is None:
        return model, None
    names = ("max_input_tokens", "max_model_len", "context_length", "context_window")
    window = next((chosen[name] for name in names if isinstance(chosen.get(name), int) and chosen[name] > 0), None)
    return str(chosen["id"]), window
