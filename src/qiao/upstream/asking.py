"""The two ways in which a probe asks an engine: for a tiny answer, and for the prompt that its template makes."""

from __future__ import annotations

from typing import Any

import msgspec

from qiao.core.conversation import Conversation
from qiao.core.openai import request as openai_request
from qiao.core.openai.target import Target
from qiao.policies.template import plain
from qiao.upstream.client import Client

REQUEST_ID = "qiao-probe"
"""The `X-Request-Id` of what is asked here, for whoever reads the engine's log."""

_TIMEOUT = 60.0
_HEADERS = {"X-Request-Id": REQUEST_ID}


class Said(msgspec.Struct, frozen=True):
    """A reply: its status, its bytes, and the object in it, empty where there is none."""

    status: int
    raw: bytes
    body: dict[str, Any]

    @property
    def is_refused(self) -> bool:
        """The engine does not take what was asked; any other failure says nothing about it."""
        return self.status in (400, 422)

    @property
    def message(self) -> dict[str, Any] | None:
        choices = self.body.get("choices") if self.status == 200 else None
        message = choices[0].get("message") if isinstance(choices, list) and choices else None
        return message if isinstance(message, dict) else None

    def count(self, name: str) -> int:
        """A number of the usage; 0 where it is not told."""
        usage = self.body.get("usage")
        tokens = usage.get(name) if isinstance(usage, dict) else None
        return tokens if isinstance(tokens, int) else 0


class Prompt(msgspec.Struct, frozen=True):
    """The prompt of a conversation: its tokens and its text, as far as the engine tells them."""

    said: Said
    count: int | None = None
    text: str | None = None


class Asker:
    """Asks one engine, as `target` understands it. Raises `Fault` when it does not answer."""

    def __init__(self, client: Client, prefix: str, target: Target) -> None:
        self.client = client
        self.target = target
        self._route = f"{prefix}/chat/completions"

    async def chat(self, asked: Conversation) -> Said:
        return await self._post(self._route, openai_request.encode(asked, self.target))

    async def prompt(self, asked: Conversation) -> Prompt:
        """No answer is asked for: it costs the engine a template and its tokenizer."""
        body = openai_request.encode_tokenize(asked, self.target)
        if self.target.flavor == "llamacpp":
            said = await self._post("/apply-template", body)
            text = said.body.get("prompt")
            return Prompt(said, text=text if isinstance(text, str) else None)
        wanted = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        wanted["return_token_strs"] = msgspec.Raw(b"true")
        said = await self._post("/tokenize", msgspec.json.encode(wanted))
        count, pieces = said.body.get("count"), said.body.get("token_strs")
        text = None
        if isinstance(pieces, list) and all(isinstance(piece, str) for piece in pieces):
            text = plain(pieces)
        return Prompt(said, count if isinstance(count, int) else None, text)

    async def told(self, path: str) -> dict[str, Any]:
        """What the engine tells of itself at `path`."""
        reply = await self.client.get(path, timeout=_TIMEOUT)
        body = reply.json() if reply.status == 200 else None
        return body if isinstance(body, dict) else {}

    async def _post(self, path: str, body: bytes) -> Said:
        reply = await self.client.post_whole(path, body, timeout=_TIMEOUT, headers=_HEADERS)
        decoded = reply.json()
        is_object = isinstance(decoded, dict) and reply.status == 200
        return Said(reply.status, reply.body, decoded if is_object else {})
