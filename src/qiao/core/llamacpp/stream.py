"""llama.cpp's `/completion` stream → neutral events.

Seen in build 11549: progress objects while the prompt is read, one object a token, a last one with `stop: true` that
says why (`stop_type`: eos, word, limit), the tokens, and how many of the prompt's came from the cache (`cache_n`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from qiao.core.events import Event, Failed, Finished, TextAdded, Usage, UsageSeen, Words
from qiao.core.fault import Fault
from qiao.core.llamacpp.tools import CallReader, Forced
from qiao.core.sse import Decoder as SseDecoder


class _Progress(msgspec.Struct, gc=False):
    total: int = 0
    cache: int = 0


class _Timings(msgspec.Struct, gc=False):
    cache_n: int = 0


class _Piece(msgspec.Struct, gc=False):
    content: str = ""
    stop: bool = False
    tokens_evaluated: int | None = None
    tokens_predicted: int | None = None
    stop_type: str = ""
    stopping_word: str = ""
    truncated: bool = False
    prompt_progress: _Progress | None = None
    timings: _Timings | None = None
    error: Any = None


_decode_piece = msgspec.json.Decoder(_Piece).decode


class Decoder:
    """feed(bytes) → events; close() → the end. Raises nothing: garbage becomes a `Failed` event.

    `forced`: what the engine was made to write; its head went into the prompt, so that it is read first here.
    `leashed`: the limit of tokens is ours, not the client's; reaching it is an ordinary end.
    """

    def __init__(self, forced: Forced | None = None, *, leashed: bool = False) -> None:
        self._leashed = leashed
        self._sse = SseDecoder()
        self._calls = CallReader(forced.names) if forced is not None else None
        self._early: list[Event] = self._calls.feed(forced.head) if self._calls and forced and forced.head else []
        self._saw_prompt = False
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """A `Finished` or `Failed` was yielded; later bytes are ignored."""
        return self._is_over

    @property
    def untold(self) -> Usage | None:
        """Nothing: every count is an event."""
        return None

    def more(self, _data: bytes, /) -> Words | None:
        """None: no piece is read another way than by `feed`."""
        return None

    def feed(self, data: bytes) -> list[Event]:
        out: list[Event] = []
        if self._is_over:
            return out
        try:
            events = self._sse.feed(data)
        except Fault as fault:
            return self._fail(fault, out)
        for event in events:
            if not self._is_over:
                self._piece(event.data, out)
        return out

    def close(self) -> list[Event]:
        """The engine's bytes ended."""
        if self._is_over:
            return []
        out: list[Event] = self._calls.close() if self._calls is not None else []
        return self._fail(Fault("api", "the engine ended its answer without saying why", party="upstream"), out)

    def _piece(self, data: bytes, out: list[Event]) -> None:
        if data == b"[DONE]":
            return
        try:
            piece = _decode_piece(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            self._fail(
                Fault("api", f"the engine sent something that is no piece of an answer: {error}", party="upstream"),
                out,
            )
            return
        if piece.error:
            self._fail(engine_fault(piece.error), out)
            return
        progress = piece.prompt_progress
        if progress is not None and not self._saw_prompt:
            self._saw_prompt = True
            out.append(UsageSeen(Usage(prompt=progress.total, completion=0, cached=progress.cache)))
        if piece.content:
            self._text(piece.content, out)
        if piece.stop:
            self._finish(piece, out)

    def _text(self, text: str, out: list[Event]) -> None:
        if self._calls is None:
            out.append(TextAdded(text))
            return
        if self._early:
            out.extend(self._early)
            self._early = []
        out.extend(self._calls.feed(text))

    def _finish(self, piece: _Piece, out: list[Event]) -> None:
        calls = self._calls
        if calls is not None:
            out.extend(calls.close())
        cached = piece.timings.cache_n if piece.timings is not None else 0
        out.append(UsageSeen(Usage(prompt=piece.tokens_evaluated, completion=piece.tokens_predicted, cached=cached)))
        out.append(self._finished(piece, has_call=calls is not None and calls.is_complete))
        self._is_over = True

    def _finished(self, piece: _Piece, *, has_call: bool) -> Finished:
        match piece.stop_type:
            case "word":
                return Finished("stop_sequence", piece.stopping_word)
            case "limit" if piece.truncated:
                return Finished("context")
            case "limit" if not self._leashed:
                return Finished("length")
        return Finished("tool_calls" if has_call else "stop")

    def _fail(self, fault: Fault, out: list[Event]) -> list[Event]:
        out.append(Failed(fault))
        self._is_over = True
        return out


def engine_fault(error: Any) -> Fault:
    """The `error` object of llama.cpp's server as a fault."""
    said = error if isinstance(error, dict) else {"message": str(error)}
    message, code = str(said.get("message") or "unknown error")[:2000], said.get("code")
    status = code if isinstance(code, int) else None
    if said.get("type") == "exceed_context_size_error":
        return too_long(said.get("n_prompt_tokens"), said.get("n_ctx"))
    if status == 503 or said.get("type") == "unavailable_error":
        return Fault("unavailable", f"the engine is not ready: {message}", party="upstream", upstream_status=status)
    return Fault("api", f"the engine refused the request: {message}", party="upstream", upstream_status=status)


def too_long(tokens: object, window: object) -> Fault:
    """The wording by which clients know that they have to shorten the conversation."""
    return Fault("invalid_request", f"prompt is too long: {tokens} tokens > {window} maximum", upstream_status=400)
