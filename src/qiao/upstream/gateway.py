"""qiao as its own client: what `qiao claude`, `qiao env` and the self-check of `qiao up` ask a running gateway.

Here a failure ends a command, so it is a `QiaoError` with the mend, not a Fault.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import msgspec

from qiao.core.anthropic import grammar
from qiao.core.fault import Fault
from qiao.errors import UpstreamError
from qiao.options import Secret
from qiao.upstream.client import Client, Reply

_TIMEOUT = 15.0
_ANSWER_TIMEOUT = 300.0


class ModelFacts(msgspec.Struct, frozen=True):
    """What the gateway says of one model. Tokens; None: it does not say.

    `window`: prompt and answer together. `output_limit`: the longest answer. `is_anthropic`: it is listed as
    Anthropic's API lists models; False: as OpenAI's does, which engines do.
    """

    id: str
    window: int | None = None
    output_limit: int | None = None
    is_anthropic: bool = True


class GatewayClient:
    """A client of the gateway at `url` (without /v1). Use it as an async context manager."""

    def __init__(self, url: str, key: Secret | None) -> None:
        self.url = url
        self._key = key
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = Client(self.url, api_key=self._key.reveal() if self._key else None, connect_timeout=5.0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open().close()

    async def models(self) -> tuple[ModelFacts, ...]:
        """The models, the main one first. Raises `UpstreamError`."""
        reply = await self._get("/v1/models?limit=1000")
        listed = self._checked(reply).get("data")
        models = tuple(_facts(each) for each in listed if _is_model(each)) if isinstance(listed, list) else ()
        if not models:
            raise UpstreamError(
                f"The gateway at {self.url} lists no model.", hint="Check that its upstream runs and serves a model."
            )
        return models

    async def message(self, body: dict[str, Any]) -> dict[str, Any]:
        """One whole answer. Raises `UpstreamError`."""
        return self._checked(await self._post("/v1/messages", body))

    async def stream(self, body: dict[str, Any]) -> dict[str, Any]:
        """One streamed answer, judged by the strict grammar and folded. Raises `UpstreamError`."""
        reply = await self._post("/v1/messages", {**body, "stream": True})
        if reply.status != 200:
            self._checked(reply)
        try:
            return grammar.check(reply.body)
        except grammar.GrammarError as error:
            raise UpstreamError(f"The stream breaks a rule: {error}.") from error

    async def count(self, body: dict[str, Any]) -> int:
        """Tokens of a prompt. Raises `UpstreamError`."""
        counted = self._checked(await self._post("/v1/messages/count_tokens", body)).get("input_tokens")
        if not isinstance(counted, int):
            raise UpstreamError(f"The gateway at {self.url} counts no tokens.")
        return counted

    def _open(self) -> Client:
        assert self._client is not None, "use `async with`"
        return self._client

    async def _get(self, path: str) -> Reply:
        try:
            return await self._open().get(path, timeout=_TIMEOUT)
        except Fault as fault:
            raise self._unreachable(fault) from fault

    async def _post(self, path: str, body: dict[str, Any]) -> Reply:
        try:
            return await self._open().post_whole(path, msgspec.json.encode(body), timeout=_ANSWER_TIMEOUT)
        except Fault as fault:
            raise self._unreachable(fault) from fault

    def _checked(self, reply: Reply) -> dict[str, Any]:
        content = reply.json()
        if reply.status in (401, 403):
            raise UpstreamError(
                f"The gateway at {self.url} refuses this key.",
                hint="Set QIAO_API_KEY (or --api-key) to the gateway's key; on its machine `qiao key` prints it.",
            )
        if reply.status != 200:
            raise UpstreamError(f"The gateway at {self.url} answers {reply.status}: {_words(content, reply.body)}")
        if not isinstance(content, dict):
            raise UpstreamError(
                f"What answers at {self.url} is no gateway for Anthropic's protocol.", hint="Check the address."
            )
        return content

    def _unreachable(self, fault: Fault) -> UpstreamError:
        if fault.kind == "timeout":
            return UpstreamError(f"The gateway at {self.url} does not answer in time.", hint="Is its machine busy?")
        return UpstreamError(
            f"No gateway answers at {self.url}.",
            hint="Start one with `qiao up`, or name the one that runs with --url.",
        )


def _is_model(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str)


def _facts(model: dict[str, Any]) -> ModelFacts:
    limits = _positive(model.get("max_input_tokens")), _positive(model.get("max_tokens"))
    return ModelFacts(model["id"], *limits, is_anthropic=model.get("type") == "model")


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _words(content: object, body: bytes) -> str:
    if isinstance(content, dict) and isinstance(content.get("error"), dict):
        return str(content["error"].get("message", "no reason given"))
    return body[:200].decode("utf-8", "replace") or "no reason given"
