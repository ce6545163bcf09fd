"""What a test tells the fake engine to do: the words of a script, and the marker that carries one through any
client.

A script is a list of steps. Step i answers the i-th assistant turn after the marker, so that a tool round
trip moves on to the next step; after the last one the engine says `AFTER_LAST`. The last marker in the
conversation wins. A step may hold several `attempts`: the n-th request for the same step gets the n-th of
them (the last one repeats), for errors that pass when a client asks again.

The marker stands in text that a user (or the client on its behalf) wrote; markers in tool arguments, tool
results and the model's own words are ignored, so that a script may hand a script to a sub-agent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

AFTER_LAST = "Done."
_MARKER = re.compile(r"@@FAKE:([A-Za-z0-9_=-]+)@@")


class Say(msgspec.Struct, frozen=True, tag="say"):
    """Words of the answer."""

    text: str


class Think(msgspec.Struct, frozen=True, tag="think"):
    """Words of the reasoning."""

    text: str


class Call(msgspec.Struct, frozen=True, tag="call"):
    """A tool call. `arguments` is JSON text that is sent as it stands, valid or not."""

    name: str
    arguments: str = "{}"
    id: str | None = None


class Pause(msgspec.Struct, frozen=True, tag="pause"):
    """Silence in the middle of the answer."""

    seconds: float


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """One chunk of a stream with this `choices[0].delta`, as it stands."""

    delta: dict[str, Any]


class Raw(msgspec.Struct, frozen=True, tag="raw"):
    """Text that goes onto the wire of a stream as it stands."""

    text: str


class Break(msgspec.Struct, frozen=True, tag="break"):
    """The answer ends here, in a bad way.

    "error": an error object, then `[DONE]` (how vLLM ends when its engine dies), or status 500 for a whole
    answer; "eof": a clean end of the connection without finish_reason; "reset": the connection is reset.
    """

    how: Literal["error", "eof", "reset"]
    body: dict[str, Any] | None = None


Part: TypeAlias = Say | Think | Call | Pause | Delta | Raw | Break


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One answer.

    * `parts`: what is said, in order.
    * `finish`: finish_reason; "auto" follows from the parts, None sends none.
    * `stop_reason`: vLLM's field beside it.
    * `status`, `body`, `headers`: an early refusal instead of an answer. A `body` that is a string is sent as
      it is.
    * `before_headers`, `before_first`, `between`: seconds of silence before the response head, before the
      first chunk, and between chunks.
    * `split`: the pieces in which text comes. "token" is how a tokenizer would cut it.
    * `packet`: how the bytes are written: "event" writes each event by itself, "all" everything at once, a
      number that many bytes at a time, whatever stands in them.
    * `newline`: how the lines of the stream end.
    * `comments`: SSE comment lines between the events.
    * `usage`: "asked" reports when the client asked for it, "never" does not, and an object is reported as it
      stands.
    * `done`: send `[DONE]`.
    * `attempts`: answers for the first, second, … request for this step, instead of the fields above.
    """

    parts: tuple[Part, ...] = ()
    finish: str | None = "auto"
    stop_reason: str | int | None = None
    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}
    before_headers: float = 0.0
    before_first: float = 0.0
    between: float = 0.0
    split: Literal["token", "char", "whole"] = "token"
    packet: Literal["event", "all"] | int = "event"
    newline: Literal["\n", "\r\n"] = "\n"
    comments: bool = False
    usage: Literal["asked", "never"] | dict[str, Any] = "asked"
    done: bool = True
    attempts: tuple[Step, ...] = ()


class Script(msgspec.Struct, frozen=True):
    """The steps of one conversation; `key` tells two scripts apart that hold the same steps."""

    steps: tuple[Step, ...]
    key: str = ""

    def step(self, turn: int) -> Step:
        """The answer to assistant turn `turn`, counted from 0 after the marker."""
        return self.steps[turn] if turn < len(self.steps) else Step(parts=(Say(AFTER_LAST),))


def call(tool: str, /, *, call_id: str | None = None, **arguments: Any) -> Call:
    """A well-formed call of `tool`."""
    return Call(tool, msgspec.json.encode(arguments).decode(), call_id)


def step(*parts: Part | str, **fields: Any) -> Step:
    """A step that says `parts`; a plain string is `Say`."""
    return Step(parts=tuple(Say(part) if isinstance(part, str) else part for part in parts), **fields)


def refusal(status: int, message: str, *, kind: str = "BadRequestError", **fields: Any) -> Step:
    """A step that refuses with vLLM's error shape."""
    return Step(status=status, body=error_body(status, message, kind), **fields)


def error_body(status: int, message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """vLLM's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def marker(*steps: Step | Part | str, key: str = "") -> str:
    """The text that carries a script through a client. A bare part or string is a step by itself."""
    whole = tuple(item if isinstance(item, Step) else step(item) for item in steps)
    code = base64.urlsafe_b64encode(msgspec.json.encode(Script(whole, key))).decode().rstrip("=")
    return f"@@FAKE:{code}@@"


def find(messages: Sequence[Mapping[str, Any]]) -> tuple[Script, int] | None:
    """The script that rules this conversation, and the number of assistant turns since its marker.

    A marker that cannot be read raises ValueError: a mistake in a test shall not pass as another answer.
    """
    found: str | None = None
    turns = 0
    for message in messages:
        if message.get("role") == "assistant":
            turns += 1
        elif message.get("role") in ("user", "system", "developer"):
            codes = _MARKER.findall(text_of(message.get("content")))
            if codes:
                found, turns = codes[-1], 0
    if found is None:
        return None
    text = base64.urlsafe_b64decode(found + "=" * (-len(found) % 4))
    return msgspec.json.decode(text, type=Script), turns


def text_of(content: Any) -> str:
    """The words of an OpenAI content field."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else "" for part in content
        )
    return ""
