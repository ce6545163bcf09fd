"""One real vLLM with its gateway, and what passed on both sides of the gateway.

    client ── tap ── gateway (process) ── tap ── vLLM

When a test ends, everything that passed is judged, whatever the test was about: every complete stream by the strict
grammar, and no answer may be a 4xx or 5xx that the test did not announce (`Stage.expected`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qiao.core.anthropic.grammar import check
from qiao.core.sse import Decoder
from qiao.upstream.probe import REQUEST_ID
from tests.live.vllm.server import NAME, WINDOW, Server
from tests.support.gateway import Gateway
from tests.support.plain_http import Reply, ask
from tests.support.tap import Exchange, Tap

MODEL = NAME
__all__ = ["MODEL", "WINDOW", "Stage", "Streamed"]

CHAT = "/v1/chat/completions"


@dataclass
class Streamed:
    """A stream that kept the grammar. `message`: what a client builds of it; `events`: their data, in order."""

    message: dict[str, Any]
    events: list[dict[str, Any]]
    headers: dict[str, str]


@dataclass
class Stage:
    """A server, a gateway in front of it, and the taps. `expected`: statuses of failures that the test wants."""

    server: Server
    gateway: Gateway
    tap: Tap
    behind: Tap
    expected: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.tap.url

    @property
    def key(self) -> str:
        return self.gateway.key

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key, "anthropic-version": "2023-06-01"}

    # -- asking ---------------------------------------------------------------------------------------------------

    def post(self, body: Any, path: str = "/v1/messages", *, limit: float = 120.0) -> Reply:
        """One request as it stands, through the tap."""
        return ask(self.url, "POST", path, body, headers=self.headers, limit=limit)

    def whole(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        """The message that answers; it must be a 200."""
        reply = self.post(request(prompt, **fields))
        assert reply.status == 200, reply.body
        message: dict[str, Any] = reply.json
        return message

    def stream(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> Streamed:
        """The same, streamed."""
        reply = self.post(request(prompt, stream=True, **fields))
        assert reply.status == 200, reply.body
        decoder = Decoder()
        events = [json.loads(event.data) for event in (*decoder.feed(reply.body), *decoder.close())]
        return Streamed(check(reply.body), events, reply.headers)

    def both(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
        """Ask twice, whole and streamed; the two must say the same, which is given back."""
        whole = self.whole(prompt, **fields)
        streamed = self.stream(prompt, **fields).message
        assert spoken(streamed["content"]) == spoken(whole["content"])
        for name in ("stop_reason", "stop_sequence", "model"):
            assert streamed[name] == whole[name], name
        assert prompt_tokens(streamed) == prompt_tokens(whole)
        if whole["stop_reason"] != "stop_sequence":
            # A stream ends with the stop string; the engine may have gone on by a token when a whole answer is made.
            assert streamed["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
        return whole

    def refused(self, status: int, body: Any) -> dict[str, Any]:
        """The error object of a request that must fail with `status`."""
        self.expected.add(status)
        reply = self.post(body)
        assert reply.status == status, reply.body
        assert reply.json["type"] == "error"
        error: dict[str, Any] = reply.json["error"]
        return error

    def count(self, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> int:
        """What count_tokens says; it must say that it is exact."""
        body = request(prompt, **fields)
        del body["max_tokens"]
        body.pop("stream", None)
        reply = self.post(body, "/v1/messages/count_tokens")
        assert reply.status == 200, reply.body
        assert reply.headers["x-qiao-count"] == "exact"
        tokens: int = reply.json["input_tokens"]
        return tokens

    # -- what passed ----------------------------------------------------------------------------------------------

    def chats(self) -> list[Exchange]:
        """What the gateway asked the engine for its clients, connection by connection, refusals included."""
        return [
            exchange
            for exchange in self.behind.exchanges
            if exchange.path == CHAT and exchange.request_headers.get("x-request-id") != REQUEST_ID
        ]

    def sent(self) -> dict[str, Any]:
        """The body of the only chat that the engine accepted."""
        (accepted,) = [exchange.asked for exchange in self.chats() if exchange.status == 200]
        body: dict[str, Any] = accepted
        return body

    def begin(self) -> None:
        self.tap.forget()
        self.behind.forget()
        self.expected = set()

    def judge(self) -> None:
        """Hold everything that passed since `begin` against the rules."""
        assert self.gateway.process.poll() is None, f"the gateway died:\n{self.gateway.output[-3000:]}"
        for exchange in self.tap.exchanges:
            if exchange.status is not None and exchange.status >= 400:
                assert exchange.status in self.expected, (exchange.target, exchange.status, exchange.body)
            if exchange.is_stream and exchange.is_complete:
                check(exchange.body)


def request(prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """A request's body: a prompt or whole messages, thinking off unless `fields` say otherwise; None leaves out."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    body = {"model": MODEL, "max_tokens": 500, "thinking": {"type": "disabled"}, "messages": messages, **fields}
    return {name: value for name, value in body.items() if value is not None}


def spoken(content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Content without what differs from answer to answer (ids, signatures), or from whole to streamed (null fields)."""
    differing = ("id", "signature")
    return [
        {key: value for key, value in block.items() if key not in differing and value is not None} for block in content
    ]


def text_of(message: Mapping[str, Any]) -> str:
    """The words of an answer."""
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def prompt_tokens(message: Mapping[str, Any]) -> int:
    """The whole prompt, cached or not."""
    usage = message["usage"]
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage[name]) for name in names)
