"""From a script's step to the bytes of an answer: vLLM's chunks and bodies, and the ways in which they go
wrong.

`compose` applies what the request itself asks for (stop strings, limits, no tools, no thinking); `stream` and
`whole` write the same outcome, so the two ways of answering agree unless the script breaks them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from tests.fakes.behaviour import Behaviour
from tests.fakes.prompt import count, raw_call, tokens
from tests.fakes.script import Break, Call, Delta, Part, Pause, Raw, Say, Step, Think, error_body

FINGERPRINT = "vllm-0.32.0-87ec6043"
DEATH = error_body(
    500,
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",
    "InternalServerError",
)


class Request(msgspec.Struct, frozen=True):
    """The facts of one request that shape its answer. `limit`: tokens that may be written."""

    id: str
    created: int
    model: str
    body: dict[str, Any]
    behaviour: Behaviour
    prompt_tokens: int
    cached_tokens: int
    limit: int


class Outcome(msgspec.Struct, frozen=True):
    """What is said in the end."""

    parts: tuple[Part, ...]
    finish: str | None
    stop_reason: str | int | None
    usage: dict[str, Any]
    cut_call: bool


_WRITTEN = re.compile(r'<tool_call>\s*\{"name": "(\w+)", "arguments": (\{.*\})\}\s*</tool_call>', re.DOTALL)

Output: TypeAlias = str | Pause | Break


def compose(step: Step, request: Request) -> Outcome:
    """The step, after the request's own wishes."""
    parts = _as_asked(step.parts, request)
    parts, matched = _stopped(parts, request.body.get("stop") or [])
    parts, is_cut = _limited(parts, request.limit)
    called = any(isinstance(part, Call) for part in parts)
    finish, stop_reason = step.finish, step.stop_reason
    if finish == "auto":
        named = isinstance(request.body.get("tool_choice"), dict)
        finish = "length" if is_cut else "tool_calls" if called and not named else "stop"
    if matched is not None:
        stop_reason = matched
    cut_call = is_cut and bool(parts) and isinstance(parts[-1], Call)
    return Outcome(parts, finish, stop_reason, _usage(step, parts, request), cut_call)


def stream(step: Step, outcome: Outcome, request: Request) -> Iterator[Output]:
    """The events of a streamed answer, as text with their line ends, and the silences and breaks between."""
    options = request.body.get("stream_options") or {}
    writer = _Writer(step, outcome, request, continuous=bool(options.get("continuous_usage_stats")))
    yield writer.opening()
    number = 0
    for part in outcome.parts:
        match part:
            case Say(text):
                yield from (writer.chunk({"content": piece}, 1) for piece in _split(text, step.split))
            case Think(text):
                yield from (writer.chunk({"reasoning": piece}, 1) for piece in _split(text, step.split))
            case Call(name, arguments, call_id):
                identity = call_id or f"chatcmpl-tool-{request.id[-8:]}{number:08x}"
                head = {"id": identity, "type": "function", "index": number, "function": {"name": name}}
                yield writer.chunk({"content": None, "tool_calls": [head]}, 1)
                for piece in _split(arguments, step.split):
                    added = {"index": number, "function": {"arguments": piece}}
                    yield writer.chunk({"content": None, "tool_calls": [added]}, 1)
                number += 1
            case Delta(delta):
                yield writer.chunk(delta, 1)
            case Raw(text):
                yield text
            case Pause():
                yield part
            case Break(how, body):
                if how == "error":
                    yield writer.event(json.dumps(DEATH if body is None else body))
                    yield writer.event("[DONE]")
                yield Break("eof") if how == "error" else part
                return
    if outcome.finish is not None:
        yield writer.chunk({}, 0, finish=outcome.finish)
    if options.get("include_usage") and step.usage != "never":
        yield writer.usage()
    if step.done:
        yield writer.event("[DONE]")


def whole(step: Step, outcome: Outcome, request: Request) -> dict[str, Any]:
    """The body of an answer that is not streamed. Breaks and pauses are the caller's."""
    content: str | None = None
    reasoning: str | None = None
    calls: list[dict[str, Any]] = []
    for part in outcome.parts:
        match part:
            case Say(text) if request.behaviour.swallows_calls and "<tool_call>" in text:
                pass
            case Say(text):
                content = (content or "") + text
            case Think(text):
                reasoning = (reasoning or "") + text
            case Call(name, arguments, call_id) if outcome.cut_call:
                content = (content or "") + raw_call(name, arguments)
            case Call(name, arguments, call_id):
                identity = call_id or f"chatcmpl-tool-{request.id[-8:]}{len(calls):08x}"
                called = {
                    "id": identity,
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                calls.append(called)
            case _:
                pass
    message: dict[str, Any] = {"role": "assistant", "content": content}
    message |= {"refusal": None, "annotations": None, "audio": None, "function_call": None}
    if calls:
        message["tool_calls"] = calls
    message["reasoning"] = reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": outcome.finish}
    choice |= {"stop_reason": outcome.stop_reason, "token_ids": None, "routed_experts": None}
    answer = {
        "id": request.id,
        "object": "chat.completion",
        "created": request.created,
        "model": request.model,
    }
    answer |= {"choices": [choice], "service_tier": None, "system_fingerprint": FINGERPRINT}
    if step.usage != "never":
        answer["usage"] = outcome.usage
    return answer | {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None, "metrics": None}


class _Writer:
    """Writes the chunks of one stream."""

    def __init__(self, step: Step, outcome: Outcome, request: Request, *, continuous: bool) -> None:
        self._newline = step.newline
        self._comments = step.comments
        self._outcome = outcome
        self._continuous = continuous and step.usage != "never"
        self._prompt = request.prompt_tokens
        self._said = 0
        self._head: dict[str, Any] = {"id": request.id, "object": "chat.completion.chunk"}
        self._head |= {"created": request.created, "model": request.model}

    def event(self, data: str) -> str:
        comment = f": keep-alive{self._newline * 2}" if self._comments else ""
        return f"{comment}data: {data}{self._newline * 2}"

    def opening(self) -> str:
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._written(choice, {"prompt_token_ids": None, "prompt_text": None})

    def chunk(self, delta: Mapping[str, Any], added: int, *, finish: str | None = None) -> str:
        self._said += added
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if finish is not None:
            choice["stop_reason"] = self._outcome.stop_reason
        return self._written(choice | {"token_ids": None}, {})

    def usage(self) -> str:
        return self.event(
            compact({**self._head, "choices": [], "usage": self._outcome.usage, "system_fingerprint": FINGERPRINT})
        )

    def _written(self, choice: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._continuous:
            chunk["usage"] = {
                "prompt_tokens": self._prompt,
                "total_tokens": self._prompt + self._said,
                "completion_tokens": self._said,
                "completion_tokens_details": None,
            }
        return self.event(compact({**chunk, **rest}))


def compact(value: Any) -> str:
    """JSON as vLLM writes it: no spaces, characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def default_step(body: Mapping[str, Any], behaviour: Behaviour) -> Step:
    """The answer to a request without a script: a greeting, or the call that the request insists on."""
    choice = body.get("tool_choice")
    if (wanted := body.get("response_format") or {}).get("type") == "structural_tag":
        return Step(parts=(Say(_bound(wanted["format"])),))
    tools = [tool["function"] for tool in body.get("tools") or ()]
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    elif choice != "required":
        if tools and behaviour.leaks_calls:
            given = json.dumps(_object(tools[0].get("parameters") or {}))
            return Step(parts=(Say(raw_call(tools[0]["name"], given)),))
        wanted = (body.get("response_format") or {}).get("json_schema")
        if wanted:
            return Step(parts=(Say(json.dumps(_object(wanted["schema"]))),))
        return Step(parts=(Say("Hello from the fake engine."),))
    schema = tools[0].get("parameters") or {}
    return Step(parts=(Call(tools[0]["name"], json.dumps(_object(schema))),))


def _object(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _example(schema.get("properties", {}).get(name, {})) for name in schema.get("required", ())}


def _bound(form: Mapping[str, Any]) -> str:
    """The shortest text that a structural tag allows."""
    match form["type"]:
        case "sequence":
            return "".join(_bound(element) for element in form["elements"])
        case "tag":
            return f"{form['begin']}{_bound(form['content'])}{form['end']}"
        case "tags_with_separator":
            return _bound(form["tags"][0])
        case "json_schema":
            return json.dumps(_example(form["json_schema"]))
        case _:
            return ""


def _example(schema: Mapping[str, Any]) -> Any:
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0])
    if schema.get("properties"):
        return _object(schema)
    if "enum" in schema:
        return schema["enum"][0]
    examples = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return examples.get(schema.get("type", ""), "example")


def _as_asked(parts: tuple[Part, ...], request: Request) -> tuple[Part, ...]:
    """Parts as this server and this request make them: text where a parser is missing, no thought where
    unwanted."""
    body, behaviour = request.body, request.behaviour
    parsed = (
        behaviour.tool_parser and not behaviour.leaks_calls and body.get("tools") and body.get("tool_choice") != "none"
    )
    if behaviour.eats_calls:
        parts = tuple(_eaten(part) for part in parts)
        parsed = True
    template = body.get("chat_template_kwargs") or {}
    opening = "" if behaviour.opens_reasoning else "<think>\n"
    thinks = template.get("enable_thinking", body.get("reasoning_effort") != "none")
    written: list[Part] = []
    called = False
    for part in parts:
        if isinstance(part, Call):
            if called and body.get("parallel_tool_calls") is False:
                continue
            called = True
            written.append(part if parsed else Say(raw_call(part.name, part.arguments)))
        elif isinstance(part, Think):
            if thinks:
                written.append(part if behaviour.reasoning_parser else Say(f"{opening}{part.text}\n</think>\n\n"))
        else:
            written.append(part)
    if behaviour.swallows_text:
        return tuple(Think(part.text) if isinstance(part, Say) else part for part in written)
    return tuple(written)


def _eaten(part: Part) -> Part:
    """What a parser that was told to leave calls alone makes of a text that is one."""
    found = _WRITTEN.fullmatch(part.text.strip()) if isinstance(part, Say) else None
    return Call(found[1], found[2]) if found else part


def _stopped(parts: tuple[Part, ...], stops: str | list[str]) -> tuple[tuple[Part, ...], str | None]:
    """The parts up to the first stop string in the text, and that string."""
    wanted = [stops] if isinstance(stops, str) else stops
    kept: list[Part] = []
    for part in parts:
        found = [(part.text.find(stop), stop) for stop in wanted if stop in part.text] if isinstance(part, Say) else []
        if found and isinstance(part, Say):
            where, stop = min(found)
            return (*kept, Say(part.text[:where])), stop
        kept.append(part)
    return tuple(kept), None


def _limited(parts: tuple[Part, ...], limit: int) -> tuple[tuple[Part, ...], bool]:
    """The parts that fit into `limit` tokens, and whether anything was cut."""
    kept: list[Part] = []
    for part in parts:
        text = part.arguments if isinstance(part, Call) else part.text if isinstance(part, (Say, Think)) else ""
        pieces = tokens(text)
        if len(pieces) > limit:
            short = "".join(pieces[:limit])
            if isinstance(part, Call):
                kept.append(Call(part.name, short, part.id))
            elif limit > 0:
                kept.append(Say(short) if isinstance(part, Say) else Think(short))
            return tuple(kept), True
        limit -= len(pieces)
        kept.append(part)
    return tuple(kept), False


def _split(text: str, how: str) -> list[str]:
    if how == "char":
        return list(text)
    return tokens(text) if how == "token" else [text] if text else []


def _usage(step: Step, parts: tuple[Part, ...], request: Request) -> dict[str, Any]:
    reasoning = sum(count(part.text) for part in parts if isinstance(part, Think))
    spoken = sum(count(part.text) for part in parts if isinstance(part, Say))
    called = sum(count(part.arguments) + 8 for part in parts if isinstance(part, Call))
    said = reasoning + spoken + called + 1
    usage: dict[str, Any] = {
        "prompt_tokens": request.prompt_tokens,
        "total_tokens": request.prompt_tokens + said,
        "completion_tokens": said,
    }
    if request.behaviour.prompt_details:
        usage["prompt_tokens_details"] = {"cached_tokens": request.cached_tokens, "created_cache_tokens": 0}
    usage["completion_tokens_details"] = {"reasoning_tokens": reasoning} if request.behaviour.reasoning_parser else None
    return usage | step.usage if isinstance(step.usage, dict) else usage
