"""An OpenAI-compatible inference server without a model: it answers as vLLM 0.32 does and says what it is
told to say.

    python -m tests.fakes.engine --port 8000

What it says comes from a marker in the prompt (`script`), how it behaves from the model's name (`behaviour`).
It refuses what vLLM refuses, with the same bodies (`validation`), so that a test that passes also proves that
no such request was sent. Every request is kept: `FakeEngine.requests` in the same process, `GET /_requests`
over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes import validation
from tests.fakes.answers import (
    DEATH,
    Request,
    compact,
    compose,
    default_step,
    stream,
    whole,
)
from tests.fakes.behaviour import MODELS, Behaviour
from tests.fakes.prompt import PrefixCache, count, render, tokens
from tests.fakes.script import Break, Pause, Step, find, marker
from tests.support.listening import listening

LARGEST_BODY = 64 * 2**20


@dataclass
class Recorded:
    """One request as it arrived, and what became of it. Times are seconds of `time.monotonic`.

    `prompt` is the text that the chat template makes of it; `turn` the step of its script. `disconnected_at`: the
    client left before the answer was over; `hung_up`: the script made us leave.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    received_at: float
    prompt: str = ""
    turn: int | None = None
    status: int | None = None
    refusal: dict[str, Any] | None = None
    finished_at: float | None = None
    disconnected_at: float | None = None
    hung_up: bool = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body.get("messages", [])
        return found

    @property
    def tool_names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.body.get("tools") or ()]


RECORD = web.RequestKey("record", Recorded)


@dataclass
class FakeEngine:
    """The server's state: what it serves and what it was asked. `key`: the API key it demands. `waiting`: what its
    metrics say of its queue. `version`: what it says it is. `trouble`: paths that are answered with nothing but
    this status."""

    models: Mapping[str, Behaviour] = field(default_factory=lambda: dict(MODELS))
    key: str | None = None
    healthy: bool = True
    waiting: int = 0
    version: str = "0.32.0"
    trouble: Mapping[str, int] = field(default_factory=dict)
    requests: list[Recorded] = field(default_factory=list)
    _attempts: Counter[tuple[str, int]] = field(default_factory=Counter)
    _cache: PrefixCache = field(default_factory=PrefixCache)
    _goes_on: threading.Event = field(default_factory=threading.Event)

    def forget(self) -> None:
        """Begin anew: no requests, no attempts, an empty prefix cache, silence where a script asks for it."""
        self._goes_on.clear()
        self.requests.clear()
        self._attempts.clear()
        self._cache = PrefixCache()

    @property
    def chats(self) -> list[Recorded]:
        """The requests for an answer, in order, without the gateway's own look at the engine."""
        return [
            request
            for request in self.requests
            if request.path == "/v1/chat/completions" and "qiao-probe" not in request.headers.values()
        ]

    def wait_until(self, done: Callable[[Recorded], bool], limit: float = 5.0) -> Recorded:
        """The last request for an answer, as soon as `done` holds for it. For tests outside the engine's own loop."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.chats and done(self.chats[-1]):
                return self.chats[-1]
            time.sleep(0.005)
        raise AssertionError(f"not within {limit} s: {self.chats[-1:]}")

    def go_on(self) -> None:
        """Every silence of a script ends now, and no other begins until it forgets. From any thread.

        A test that waits for something to happen in a silence makes it long and ends it when that has happened.
        """
        self._goes_on.set()

    async def _silence(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.sleep(0)
        while not self._goes_on.is_set() and (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.02))

    def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[self._plain_errors, self._recorded])
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/tokenize", self._tokenize),
                web.post("/apply-template", self._apply_template),
                web.get("/version", self._version),
                web.get("/get_server_info", self._server_info),
                web.get("/health", self._health),
                web.get("/-/healthz", self._ray_health),
                web.get("/metrics", self._metrics),
                web.get("/_requests", self._requests),
                web.delete("/_requests", self._forget),
            ]
        )
        return app

    # Middlewares

    @web.middleware
    async def _plain_errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return _json(404, {"detail": "Not Found"})
        except web.HTTPMethodNotAllowed:
            return _json(405, {"detail": "Method Not Allowed"})
        return answer

    @web.middleware
    async def _recorded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path == "/_requests":
            answer: web.StreamResponse = await handler(request)
            return answer
        raw = await request.read()
        record = Recorded(
            len(self.requests),
            request.method,
            request.path,
            dict(request.headers),
            _object(raw),
            time.monotonic(),
        )
        self.requests.append(record)
        request[RECORD] = record
        try:
            if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
                answer = _json(401, {"error": "Unauthorized"})
            elif request.path in self.trouble:
                answer = _json(self.trouble[request.path], {"error": {"message": "in trouble"}})
            else:
                answer = await handler(request)
            record.status = answer.status
        except validation.RefusedError as refused:
            record.status, record.refusal = refused.status, refused.body
            answer = _json(refused.status, refused.body)
        except (asyncio.CancelledError, ConnectionResetError):
            if not record.hung_up:
                record.disconnected_at = time.monotonic()
            raise
        finally:
            record.finished_at = time.monotonic()
        return answer

    # Routes

    async def _models(self, request: web.Request) -> web.Response:
        listed = []
        for name, behaviour in self.models.items():
            entry: dict[str, Any] = {"id": name, "object": "model", "created": 1795330672, "owned_by": "vllm"}
            if behaviour.server == "llamacpp":
                entry |= {"owned_by": "llamacpp", "meta": {"n_ctx_train": 262144, "n_ctx": behaviour.max_model_len}}
            elif behaviour.server == "sglang":
                entry |= {"owned_by": "sglang", "root": name, "max_model_len": behaviour.max_model_len}
            elif behaviour.server == "ray":
                entry["metadata"] = {"model_id": name, "max_request_context_length": behaviour.max_model_len}
            else:
                entry |= {"root": f"/models/{name}", "parent": None, "max_model_len": behaviour.max_model_len}
                entry["permission"] = []
            listed.append(entry)
        return _json(200, {"object": "list", "data": listed})

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        record = http[RECORD]
        body = validation.parse(await http.read(), http.content_type)
        name, behaviour = self._served(body)
        identity = http.headers.get("X-Request-Id") or uuid.uuid4().hex[:16]
        try:
            order, step = self._accept(body, name, behaviour, record)
        except validation.RefusedError as refused:
            raise (validation.as_ray(refused, identity) if behaviour.server == "ray" else refused) from None
        request = Request(f"chatcmpl-{identity}", int(time.time()), name, body, behaviour, *order)
        if step.before_headers:
            await self._silence(step.before_headers)
        if step.status != 200:
            refusal = step.body if isinstance(step.body, str) else json.dumps(step.body)
            kind = "application/json" if not isinstance(step.body, str) else "text/html"
            return web.Response(status=step.status, text=refusal, content_type=kind, headers=step.headers)
        if body.get("stream"):
            return await self._streamed(http, step, request)
        return await self._answered(http, step, request)

    def _served(self, body: Mapping[str, Any]) -> tuple[str, Behaviour]:
        name = body.get("model") or next(iter(self.models))
        if name not in self.models:
            raise validation.unknown_model(str(name), list(self.models))
        return name, self.models[name]

    def _accept(
        self, body: dict[str, Any], name: str, behaviour: Behaviour, record: Recorded
    ) -> tuple[tuple[int, int, int], Step]:
        """Check a request for an answer; (prompt tokens, cached tokens, tokens to write at most) and the
        step."""
        validation.check_shape(body)
        validation.check_fields(body)
        validation.check_conversation(body, name, behaviour)
        validation.check_sampling(body, behaviour.max_model_len)
        opening = body.get("add_generation_prompt", True)
        is_shown = behaviour.renders_tools or body.get("tool_choice") != "none"
        tools = body.get("tools") if is_shown and behaviour.template_has_tools else None
        record.prompt = render(body["messages"], tools, opening=opening, calls=behaviour.calls)
        record.prompt += _reasoning_opened(body, behaviour)
        tokens = count(record.prompt)
        validation.check_length(tokens, behaviour.max_model_len)
        cached = self._cache.add(record.prompt) if behaviour.prefix_caching else 0
        room = behaviour.max_model_len - tokens
        limit = min(room, body.get("max_completion_tokens") or body.get("max_tokens") or room)
        return (tokens, cached, limit), self._step(body, behaviour, record)

    def _step(self, body: dict[str, Any], behaviour: Behaviour, record: Recorded) -> Step:
        found = find(body["messages"])
        if found is None:
            return default_step(body, behaviour)
        script, turn = found
        # A turn that is to be continued has been answered in part, but not yet as a whole.
        record.turn = turn - 1 if body.get("continue_final_message") else turn
        step = script.step(record.turn)
        if step.attempts:
            key = (marker(*script.steps, key=script.key), record.turn)
            number = min(self._attempts[key], len(step.attempts) - 1)
            self._attempts[key] += 1
            step = step.attempts[number]
        return step

    async def _answered(self, http: web.Request, step: Step, request: Request) -> web.StreamResponse:
        outcome = compose(step, request)
        await self._silence(step.before_first)
        for part in outcome.parts:
            if isinstance(part, Pause):
                await self._silence(part.seconds)
            elif isinstance(part, Break) and part.how == "error":
                return _json(500, DEATH if part.body is None else part.body)
            elif isinstance(part, Break):
                await _hang_up(http, abruptly=part.how == "reset")
        return _json(200, whole(step, outcome, request))

    async def _streamed(self, http: web.Request, step: Step, request: Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        # An empty write sends the head, which vLLM does as soon as a request is accepted.
        await response.write(b"")
        await self._silence(step.before_first)
        pending = bytearray()
        for output in stream(step, compose(step, request), request):
            if isinstance(output, str):
                if step.packet == "event":
                    await response.write(output.encode())
                    await asyncio.sleep(step.between)
                else:
                    pending += output.encode()
                    await _write(response, pending, step)
                continue
            await _write(response, pending, step, is_last=True)
            if isinstance(output, Pause):
                await self._silence(output.seconds)
            elif output.how == "reset":
                await asyncio.sleep(0.02)
                await _hang_up(http, abruptly=True)
        await _write(response, pending, step, is_last=True)
        await response.write_eof()
        return response

    async def _tokenize(self, http: web.Request) -> web.Response:
        body = validation.parse(await http.read(), http.content_type)
        name, behaviour = self._served(body)
        if behaviour.server == "ray":
            text = (
                "This model does not support the 'tokenization' task. "
                "The tokenization endpoint is not available for this model."
            )
            raise validation.as_ray(validation.bad(text), uuid.uuid4().hex)
        if "content" in body:
            return _json(200, {"tokens": [0] * count(str(body["content"]))})
        if "prompt" in body:
            text = str(body["prompt"])
        else:
            validation.check_shape(body)
            validation.check_conversation({**body, "tool_choice": "none"}, name, behaviour)
            tools = body.get("tools") if behaviour.template_has_tools else None
            opening = body.get("add_generation_prompt", True)
            text = render(body["messages"], tools, opening=opening, calls=behaviour.calls)
        text += _reasoning_opened(body, behaviour)
        number = count(text)
        answer = {
            "count": number,
            "max_model_len": behaviour.max_model_len,
            "tokens": [0] * number,
            "token_strs": tokens(text) if body.get("return_token_strs") else None,
        }
        return _json(200, answer)

    async def _apply_template(self, http: web.Request) -> web.Response:
        """llama.cpp's own route: the prompt that its template makes."""
        body = validation.parse(await http.read(), http.content_type)
        behaviour = self._served(body)[1]
        if behaviour.server != "llamacpp":
            raise web.HTTPNotFound
        validation.check_shape(body)
        opening = body.get("add_generation_prompt", True)
        prompt = render(body["messages"], body.get("tools"), opening=opening, calls=behaviour.calls)
        return _json(200, {"prompt": prompt})

    async def _server_info(self, http: web.Request) -> web.Response:
        """SGLang's own route: what it was started with."""
        behaviour = next(iter(self.models.values()))
        if behaviour.server != "sglang":
            raise web.HTTPNotFound
        parsers = {"tool_call_parser": "qwen25", "reasoning_parser": "qwen3"}
        has = {"tool_call_parser": behaviour.tool_parser, "reasoning_parser": behaviour.reasoning_parser}
        told = {name: parser if has[name] else None for name, parser in parsers.items()}
        return _json(200, {"version": self.version, **told})

    async def _version(self, http: web.Request) -> web.Response:
        self._vllm_only()
        if all(behaviour.server in ("llamacpp", "sglang") for behaviour in self.models.values()):
            raise web.HTTPNotFound
        return _json(200, {"version": self.version})

    async def _health(self, http: web.Request) -> web.Response:
        self._vllm_only()
        return web.Response(status=200 if self.healthy else 503)

    async def _ray_health(self, http: web.Request) -> web.Response:
        if not self._is_ray():
            raise web.HTTPNotFound
        return web.Response(text="success")

    async def _metrics(self, http: web.Request) -> web.Response:
        self._vllm_only()
        running = sum(1 for request in self.chats if request.finished_at is None)
        lines = ["# TYPE vllm:num_requests_running gauge", f"vllm:num_requests_running {running}.0"]
        lines += ["# TYPE vllm:num_requests_waiting gauge", f"vllm:num_requests_waiting {self.waiting}.0", ""]
        return web.Response(text="\n".join(lines))

    async def _requests(self, http: web.Request) -> web.Response:
        return _json(200, [vars(request) for request in self.requests])

    async def _forget(self, http: web.Request) -> web.Response:
        self.forget()
        return web.Response(status=204)

    def _is_ray(self) -> bool:
        return all(behaviour.server == "ray" for behaviour in self.models.values())

    def _vllm_only(self) -> None:
        if self._is_ray():
            raise web.HTTPNotFound


def _json(status: int, body: Any) -> web.Response:
    return web.Response(status=status, text=compact(body), content_type="application/json")


def _reasoning_opened(body: Mapping[str, Any], behaviour: Behaviour) -> str:
    """What a template that opens the reasoning itself writes at the end of the prompt."""
    if not behaviour.opens_reasoning or not body.get("add_generation_prompt", True):
        return ""
    thinks = (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
    return "<think>\n" if thinks else "<think>\n\n</think>\n\n"


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def _write(response: web.StreamResponse, pending: bytearray, step: Step, *, is_last: bool = False) -> None:
    """Write what fills a packet, and at the last everything; what is written leaves `pending`."""
    size = step.packet if isinstance(step.packet, int) else len(pending) if is_last else 0
    while size and len(pending) >= (1 if is_last else size):
        await response.write(bytes(pending[:size]))
        del pending[:size]
        # Without a turn of the loop in between, the pieces would leave in one packet.
        await asyncio.sleep(step.between)


async def _hang_up(http: web.Request, *, abruptly: bool) -> None:
    """Close the connection under the client, with a TCP reset when `abruptly`. The server cancels us then."""
    http[RECORD].hung_up = True
    transport = http.transport
    if transport is not None:
        if abruptly:
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def serving(engine: FakeEngine, *, port: int = 0) -> AsyncIterator[str]:
    """Serve `engine` on the loopback address; yields its base URL, without `/v1`."""
    runner = web.AppRunner(engine.application(), handler_cancellation=True, access_log=None, shutdown_timeout=1)
    async with listening(runner, port=port) as url:
        yield url


async def _run(port: int, names: list[str]) -> None:
    models = {name: MODELS.get(name, Behaviour()) for name in names} if names else dict(MODELS)
    async with serving(FakeEngine(models), port=port) as url:
        print(json.dumps({"url": url, "models": list(models)}), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one and prints it")
    parser.add_argument("--model", action="append", default=[], help="serve only this name; may be repeated")
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(given.port, given.model))


if __name__ == "__main__":
    main()
