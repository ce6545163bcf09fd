"""What an engine does, asked with a few small requests: twelve at most, of which one may write 256 tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from qiao.core.fault import Fault
from qiao.doctor.facts import EngineFacts
from qiao.policies import refusal, remedies
from qiao.profiles import Profile, find
from qiao.upstream.base import Served, UpstreamFacts
from qiao.upstream.client import Client, Reply
from qiao.upstream.openai import OpenAIUpstream

REQUEST_ID = "qiao-doctor"
"""The `X-Request-Id` of what is asked here, for whoever reads the engine's log."""

ABILITIES = ("tokenize", "structured_outputs", "structural_tags", "images", "prefill")
"""What /readyz says under `tools` of what the engine can do."""

_TIMEOUT = 60.0
ASK_FOR_CALL = "What is the weather in Paris? Call the tool get_weather for it."
ASK_FOR_WORD = "Say OK and nothing else."
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_LONG = "The quick brown fox jumps over the lazy dog. " * 60
"""600 tokens: more than two blocks of any prefix cache."""

_CALL_TEXT = re.compile(
    r"<tool_call>|<function=\w|<\|python_tag\|>|\[TOOL_CALLS\]|<｜tool▁calls?▁begin｜>|<\|tool_calls_section_begin\|>|"
    r"\"name\"\s*:\s*\"get_weather\"|\bget_weather\(city="
)


async def look(root: str, key: str | None, model: str | None = None, *, ask: str = ASK_FOR_CALL) -> EngineFacts:
    """Ask the engine at `root` (without /v1). Raises `Fault` when it does not answer at all."""
    upstream = OpenAIUpstream(root, api_key=key, model=model)
    client = Client(root, api_key=key)
    try:
        facts = await upstream.facts()
        served = facts.served(model) if model else next(iter(facts.models), None)
        if served is None:
            return EngineFacts(about=root, flavor=facts.flavor, version=facts.version)
        found = await _questions(_Asker(client, served, find(served.root, served.id)), facts, served, ask)
        return await _probed(upstream, found)
    finally:
        await upstream.close()
        await client.close()


async def _probed(upstream: OpenAIUpstream, facts: EngineFacts) -> EngineFacts:
    try:
        found = await upstream.probe()
    except Fault as fault:
        return msgspec.structs.replace(facts, reason=fault.message)
    if found is None:
        return facts
    # With a parser tools go with tool_choice auto, and that was tried; without one only none works.
    renders = facts.renders_tools if facts.renders_tools is not None else found.renders_tools
    return msgspec.structs.replace(
        facts,
        tool_parser=found.tool_parser,
        reason=found.reason,
        renders_tools=renders,
        template_dialect=found.template_dialect,
        abilities={
            "tokenize": found.abilities.tokenize,
            "structured_outputs": found.abilities.structured_outputs,
            "structural_tags": found.structural_tags,
            "images": found.abilities.images,
            "prefill": found.abilities.prefill,
        },
    )


async def _questions(asker: _Asker, facts: UpstreamFacts, served: Served, ask: str) -> EngineFacts:
    cached, has_details = await _prefix(asker)
    metrics = await asker.metrics()
    told = re.search(r'^vllm:cache_config_info\{.*enable_prefix_caching="(\w+)"', metrics, re.MULTILINE)
    caching = told[1] == "True" if told else True if cached else None
    leak, renders_tools = await _leak(asker, ask)
    return EngineFacts(
        about=asker.root,
        flavor=facts.flavor,
        version=facts.version,
        model=served.id,
        root=served.root,
        window=served.window,
        leak=leak,
        renders_tools=renders_tools,
        system_refusal=await _system_refusal(asker),
        # An engine that tells what was cached, and told nothing for a prompt sent twice, caches nothing.
        prefix_caching=False if caching is None and has_details else caching,
        token_details=has_details,
        swallowed=await _swallowed(asker),
    )


class _Asker:
    """Asks one model; a request that fails is None."""

    def __init__(self, client: Client, served: Served, profile: Profile) -> None:
        self.root = client.root
        self.profile = profile
        self._client = client
        self._model = served.id

    async def chat(self, body: Mapping[str, Any]) -> Reply | None:
        quiet = self.profile.thinking_kwarg
        whole: dict[str, Any] = {"model": self._model, "temperature": 0, **body}
        if self.profile.reasoning == "hybrid" and quiet:
            whole["chat_template_kwargs"] = {quiet: False}
        try:
            return await self._client.post_whole(
                "/v1/chat/completions",
                msgspec.json.encode(whole),
                timeout=_TIMEOUT,
                headers={"X-Request-Id": REQUEST_ID},
            )
        except Fault:
            return None

    async def metrics(self) -> str:
        try:
            reply = await self._client.get("/metrics", timeout=_TIMEOUT)
        except Fault:
            return ""
        return reply.body.decode("utf-8", "replace") if reply.status == 200 else ""


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def _prefix(asker: _Asker) -> tuple[bool, bool | None]:
    """Whether the same prompt, sent again, came from the cache; and whether the engine tells such things."""
    cached, has_details = False, None
    for _ in range(2):
        reply = await asker.chat({"messages": [_user(_LONG)], "max_tokens": 1})
        usage = _object(reply).get("usage")
        if isinstance(usage, dict):
            details = usage.get("prompt_tokens_details")
            has_details = isinstance(details, dict)
            cached = isinstance(details, dict) and bool(details.get("cached_tokens"))
        if cached or not has_details:
            break
    return cached, has_details


async def _leak(asker: _Asker, ask: str) -> tuple[str | None, bool | None]:
    """The text of a call that came as text ("" if as a call), and whether the prompt grew by the tool."""
    reply = await asker.chat({"messages": [_user(ask)], "tools": [TOOL], "max_tokens": 256})
    message = _message(reply)
    if message is None:
        return None, None
    with_tool = _prompt_tokens(reply)
    without = _prompt_tokens(await asker.chat({"messages": [_user(ask)], "max_tokens": 1}))
    renders = with_tool > without if with_tool is not None and without is not None else None
    if message.get("tool_calls"):
        return "", renders
    found = _CALL_TEXT.search(str(message.get("content") or ""))
    leaked = str(message["content"])[max(0, found.start() - 10) :][:120].strip() if found else None
    return leaked, renders


def _prompt_tokens(reply: Reply | None) -> int | None:
    usage = _object(reply).get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


async def _system_refusal(asker: _Asker) -> str | None:
    turns = [_user("Hi"), {"role": "system", "content": "Answer briefly."}]
    reply = await asker.chat({"messages": turns, "max_tokens": 1})
    if reply is None:
        return None
    if reply.status == 200:
        return ""
    refused = refusal.read(reply.status, reply.body)
    remedy = remedies.find(refused.text, refused.status)
    return refusal.cleaned(refused.text) if remedy is not None and remedy.quirk == "fold_system" else None


async def _swallowed(asker: _Asker) -> str | None:
    if asker.profile.reasoning == "always":
        return None
    reply = await asker.chat({"messages": [_user(ASK_FOR_WORD)], "max_tokens": 64})
    message = _message(reply)
    if message is None:
        return None
    thought = str(message.get("reasoning") or message.get("reasoning_content") or "")
    if str(message.get("content") or "").strip():
        return ""
    # An unknown model may reason whatever it is told: only an answer that ended so is proof.
    ended = _choice(reply).get("finish_reason") == "stop" or asker.profile.reasoning == "none"
    return thought[:80].strip() if thought.strip() and ended else None


def _object(reply: Reply | None) -> dict[str, Any]:
    body = reply.json() if reply is not None and reply.status == 200 else None
    return body if isinstance(body, dict) else {}


def _choice(reply: Reply | None) -> dict[str, Any]:
    choices = _object(reply).get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _message(reply: Reply | None) -> dict[str, Any] | None:
    message = _choice(reply).get("message")
    return message if isinstance(message, dict) else None


async def of_gateway(root: str, key: str | None) -> EngineFacts | None:
    """What a qiao gateway knows of its engine, from /readyz; None where it says nothing."""
    client = Client(root, api_key=key)
    try:
        reply = await client.get("/readyz", timeout=_TIMEOUT)
    except Fault:
        return None
    finally:
        await client.close()
    told = reply.json()
    if not isinstance(told, dict):
        return None
    if reply.status != 200:
        reason = str(told.get("reason") or told.get("status") or "not ready")
        return EngineFacts(about=root, is_behind_qiao=True, reason=reason)
    models = told.get("models")
    first = models[0] if isinstance(models, list) and models and isinstance(models[0], dict) else {}
    said = told.get("tools")
    tools: dict[str, Any] = said if isinstance(said, dict) else {}
    window = first.get("window")
    return EngineFacts(
        about=str(told.get("upstream") or root),
        flavor=str(told.get("flavor") or ""),
        version=told.get("version"),
        model=first.get("id"),
        window=window if isinstance(window, int) else None,
        reader="qiao" if tools.get("read_by") == "qiao" else "engine",
        is_behind_qiao=True,
        dialect=tools.get("dialect"),
        dialect_from=tools.get("dialect_from"),
        template_dialect=tools.get("template_dialect"),
        abilities={name: tools.get(name) for name in ABILITIES},
        tools_written_by=tools.get("tools_written_by"),
        tool_parser=tools.get("engine_parser"),
        reason=str(tools.get("why") or ""),
        renders_tools=tools.get("tools_rendered"),
        quirks=tuple(str(each) for each in told.get("quirks") or ()),
    )


def together(known: EngineFacts, asked: EngineFacts) -> EngineFacts:
    """What the engine itself answered, and what the gateway in front of it makes of that."""
    return msgspec.structs.replace(
        asked,
        model=known.model or asked.model,
        window=known.window or asked.window,
        reader=known.reader,
        is_behind_qiao=True,
        dialect=known.dialect,
        dialect_from=known.dialect_from,
        tools_written_by=known.tools_written_by,
        tool_parser=known.tool_parser if known.tool_parser is not None else asked.tool_parser,
        reason=known.reason or asked.reason,
        quirks=known.quirks,
    )
