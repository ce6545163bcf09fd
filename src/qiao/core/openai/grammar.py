"""The strict judge of the chat-completion streams that we emit. Official clients accept broken streams.

`Checker.feed(bytes)` raises `GrammarError` at the first chunk that may not stand where it stands; `close()` at the end
of the bytes raises if the stream is not complete. Comments may stand anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from qiao.core.sse import Decoder, ServerSentEvent

_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter"})
_CUT = frozenset({"length", "content_filter"})
_TEXTS = ("content", "reasoning_content", "reasoning")


class GrammarError(Exception):
    """The stream breaks a rule; the message names the rule and the chunk's number."""


class Checker:
    """Checks one stream and rebuilds the completion, so that it can be compared with the whole answer.

    `usage`: whether the client asked for a usage chunk; None: not known, both are right.
    `free_text`: the tools whose calls hold plain text.
    """

    def __init__(self, *, usage: bool | None = None, free_text: Collection[str] = ()) -> None:
        self._wants_usage = usage
        self._free_text = free_text
        self._sse = Decoder()
        self._count = 0
        self._state = "before"
        self._frame: dict[str, Any] | None = None
        self._ids: set[str] = set()
        self._was_cut = False
        self.message: dict[str, Any] = {"role": "assistant"}
        self.finish_reason: str | None = None
        self.stop_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        for event in self._sse.feed(data):
            self._count += 1
            self._event(event)

    def close(self) -> None:
        self._require(not self._sse.has_partial, "no bytes are left after the last chunk")
        self._require(self._state == "over", "the stream ends with [DONE]")

    def _event(self, event: ServerSentEvent) -> None:
        self._require(self._state != "over", "nothing follows [DONE]")
        self._require(event.name == b"", "chunks have no event name")
        if event.data == b"[DONE]":
            self._require(self._state in ("finished", "failed"), "[DONE] follows a finish reason or an error")
            if self._state == "finished" and self._wants_usage:
                self._require(self.usage is not None, "the usage that was asked for comes before [DONE]")
            self._state = "over"
            return
        try:
            chunk = json.loads(event.data)
        except ValueError as error:
            raise self._broken(f"data is not JSON: {event.data[:100]!r}") from error
        self._require(isinstance(chunk, dict), "data is an object")
        self._require(self._state != "failed", "only [DONE] follows an error")
        if "error" in chunk:
            self._error(chunk)
        else:
            self._chunk(chunk)

    def _error(self, chunk: dict[str, Any]) -> None:
        error = chunk["error"]
        self._require(set(chunk) == {"error"} and isinstance(error, dict), "an error stands alone")
        self._require(set(error) == {"message", "type", "param", "code"}, "an error has OpenAI's four keys")
        self._require(isinstance(error["message"], str) and error["message"] != "", "error.message says something")
        self._require(isinstance(error["type"], str) and error["type"] != "", "error.type says something")
        self._require(self._state != "finished", "an answer that is finished cannot fail")
        self.error = error
        self._state = "failed"

    def _chunk(self, chunk: dict[str, Any]) -> None:
        choices = chunk.pop("choices", None)
        usage = chunk.pop("usage", None)
        self._require(self._frame in (None, chunk), "id, object, created and model are the same in every chunk")
        self._frame = chunk
        self._require(set(chunk) == {"id", "object", "created", "model"}, "a chunk has the protocol's keys only")
        self._require(chunk["object"] == "chat.completion.chunk", "object is chat.completion.chunk")
        self._require(isinstance(chunk["id"], str) and chunk["id"] != "", "a chunk has an id")
        self._require(isinstance(chunk["created"], int), "created is a whole number of seconds")
        self._require(isinstance(choices, list) and len(choices) <= 1, "there is one choice at most")
        if not choices:
            self._usage(usage)
            return
        self._require(usage is None, "usage comes in a chunk of its own")
        self._require(self._state != "finished", "no delta follows the finish reason")
        choice = choices[0]
        self._require(choice.get("index") == 0, "the choice has index 0")
        self._delta(choice["delta"], is_last=choice["finish_reason"] is not None)
        if choice["finish_reason"] is not None:
            self._finish(choice)

    def _delta(self, delta: dict[str, Any], *, is_last: bool) -> None:
        if self._state == "before":
            self._require(delta == {"role": "assistant", "content": ""}, "the first delta is the role")
            self._state = "open"
            return
        self._require(bool(delta) != is_last, "only the delta with the finish reason is empty")
        self._require(set(delta) <= {*_TEXTS, "tool_calls"}, "deltas that clients know")
        self._require(len(set(delta) - {"reasoning"}) <= 1, "a delta adds one thing")
        if "reasoning" in delta or "reasoning_content" in delta:
            self._require(
                delta.get("reasoning") == delta.get("reasoning_content"), "reasoning is the same under both names"
            )
        for name in _TEXTS:
            if name in delta:
                self._require(isinstance(delta[name], str) and delta[name] != "", f"{name} carries text")
                self.message[name] = self.message.get(name, "") + delta[name]
        if "tool_calls" in delta:
            self._require(len(delta["tool_calls"]) == 1, "a delta adds to one call")
            self._call(delta["tool_calls"][0])

    def _call(self, piece: dict[str, Any]) -> None:
        calls = self.message.setdefault("tool_calls", [])
        if "id" in piece:
            self._close_call(calls)
            self._start_call(piece, len(calls))
            calls.append({key: value for key, value in piece.items() if key != "index"})
            return
        function = piece["function"]
        self._require(bool(calls) and piece.get("index") == len(calls) - 1, "arguments belong to the open call")
        self._require(set(piece) == {"index", "function"} and set(function) == {"arguments"}, "and nothing else")
        self._require(isinstance(function["arguments"], str) and function["arguments"] != "", "arguments carry text")
        calls[-1]["function"]["arguments"] += function["arguments"]

    def _start_call(self, piece: dict[str, Any], index: int) -> None:
        self._require(piece.get("index") == index, "indexes count 0, 1, 2 …")
        self._require(isinstance(piece["id"], str) and piece["id"] != "", "a call has an id")
        self._require(piece["id"] not in self._ids, "every call has an id of its own")
        self._ids.add(piece["id"])
        kind = piece.get("type")
        self._require(kind in ("function", "custom"), "a call is one of a function or a custom tool")
        self._require(set(piece) == {"index", "id", "type", kind}, "a call has its four keys")
        called = piece[str(kind)]
        self._require(isinstance(called.get("name"), str) and called["name"] != "", "a call has a name")
        if called["name"] in self._free_text:
            self._require(isinstance(called.get("arguments", called.get("input")), str), "plain text comes at once")
        else:
            self._require(kind == "function" and called.get("arguments") == "", "a call starts without arguments")

    def _close_call(self, calls: list[dict[str, Any]]) -> None:
        if not calls or calls[-1][calls[-1]["type"]]["name"] in self._free_text:
            return
        try:
            is_object = isinstance(json.loads(calls[-1]["function"]["arguments"]), dict)
        except ValueError:
            is_object = False
        self._was_cut = self._was_cut or not is_object

    def _finish(self, choice: dict[str, Any]) -> None:
        reason = choice["finish_reason"]
        calls = self.message.get("tool_calls", [])
        self._require(reason in _FINISH_REASONS, "a finish reason that clients know")
        self._require(not self._was_cut, "the arguments of every call but the last are a JSON object")
        self._close_call(calls)
        self._require(reason != "tool_calls" or bool(calls), "tool_calls needs a call")
        # A call that a limit or a stop string cut is the one thing that may stay incomplete.
        is_stopped = choice.get("stop_reason") is not None
        self._require(not self._was_cut or reason in _CUT or is_stopped, "arguments are a JSON object")
        self._require(not calls or reason != "stop" or self._was_cut, "calls end with tool_calls")
        self.finish_reason, self.stop_reason = reason, choice.get("stop_reason")
        self._state = "finished"

    def _usage(self, usage: Any) -> None:
        self._require(self._state == "finished" and self.usage is None, "usage follows the finish reason, once")
        self._require(self._wants_usage is not False, "usage comes only if it was asked for")
        self._require(isinstance(usage, dict), "usage is an object")
        for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
            self._require(isinstance(usage.get(key), int) and usage[key] >= 0, f"usage.{key} is a count")
        total = usage["prompt_tokens"] + usage["completion_tokens"]
        self._require(usage["total_tokens"] == total, "total_tokens is the sum")
        self.usage = usage

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise self._broken(rule)

    def _broken(self, rule: str) -> GrammarError:
        return GrammarError(f"chunk {self._count}: {rule}")


def check(data: bytes, *, usage: bool | None = None, free_text: Collection[str] = ()) -> Checker:
    """Check a complete stream; the checker holds what a client would have built. Raises `GrammarError`."""
    checker = Checker(usage=usage, free_text=free_text)
    checker.feed(data)
    checker.close()
    return checker
