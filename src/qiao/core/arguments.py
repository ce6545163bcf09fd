"""Tool arguments while they stream: text that an engine or model wrote in, the JSON text of one object out.

`Arguments.feed` passes on what is certainly part of a valid object and holds back the rest, so that what was sent never
has to be taken back. Slips of JSON are mended by `json_reader`, values that the tool's schema forbids by `repair`; each
mend is named in `repairs`. Arguments that do not begin with a brace are held to the end; then an object in a string
(`string_arguments`), in a fence (`code_fence`) or nothing at all (`empty_arguments`) count as arguments.
Valid JSON that fits its schema passes byte for byte.
"""

from __future__ import annotations

import json
import re
from typing import Literal

import msgspec

from qiao.core.json_lexemes import WHITESPACE
from qiao.core.json_reader import ObjectReader
from qiao.core.repair import Guide
from qiao.core.shape import Shape

_NOTHING = ("", "null", "None", '""', "undefined")
_FENCE = re.compile(r"\A\s*```[A-Za-z]*[ \t]*\n?(.*?)\n?[ \t]*(?:```\s*)?\Z", re.DOTALL)


class Closed(msgspec.Struct, frozen=True):
    """How the arguments ended.

    * `text`: the last piece to send.
    * `outcome`: "object": everything sent so far is one valid JSON object; "cut": it is not complete and was not
      completed; "text": nothing was sent and `raw` is no object.
    * `leftover`: what stood after the object.
    """

    text: str
    outcome: Literal["object", "cut", "text"]
    leftover: str = ""


class Arguments:
    """The arguments of one call. `shape`: what the tool's schema allows. `mend` False: only valid JSON is taken."""

    def __init__(self, shape: Shape | None = None, *, mend: bool = True) -> None:
        self._shape = shape if mend else None
        self._mend = mend
        self._reader = ObjectReader(mend=mend)
        self._out = self._reader.out
        self._guide = Guide(self._reader, self._shape) if self._shape is not None else None
        self._state: Literal["start", "whole", "object", "over"] = "start"
        self._raw: list[str] = []
        self._sent_any = False
        self._leftover: list[str] = []
        self._notes: list[str] = []

    @property
    def repairs(self) -> list[str]:
        """Every mend, without repeats."""
        notes = [*self._notes, *self._reader.repairs, *(self._guide.notes if self._guide else ())]
        return list(dict.fromkeys(notes))

    @property
    def is_done(self) -> bool:
        """The object is complete."""
        return self._reader.is_done

    @property
    def has_sent(self) -> bool:
        """At least one byte was passed on."""
        return self._sent_any

    @property
    def raw(self) -> str:
        """Everything that was fed, unchanged."""
        return "".join(self._raw)

    def feed(self, text: str) -> str:
        """The text that is safe to send now; often shorter than what came in."""
        if not text:
            return ""
        self._raw.append(text)
        if self._state == "start":
            text = text.lstrip(WHITESPACE)
            if not text:
                return ""
            self._state = "object" if text[0] == "{" else "whole"
        if self._state == "whole":
            return ""
        rest = self._reader.feed(text) if self._state == "object" else text
        if rest is not None:
            self._state = "over"
            self._after_end(rest)
        return self._take()

    def close(self, *, cut: bool) -> Closed:
        """The call ended. `cut`: the answer was cut (length, stop string), so an open object is not completed."""
        if self._state in ("start", "whole"):
            return self._close_whole(cut)
        leftover = "".join(self._leftover)
        is_object = self.is_done or (not cut and self._reader.close())
        if is_object and not (self._is_doubtful and leftover.strip()):
            return Closed(self._take(is_over=True), "object", leftover)
        return Closed("", "cut" if self._sent_any else "text")

    @property
    def _is_doubtful(self) -> bool:
        """Which quote ends a string was a guess; if anything follows the object, it was a wrong one."""
        return "unescaped_quote" in self._reader.repairs

    def _take(self, *, is_over: bool = False) -> str:
        if self.is_done and not is_over and self._is_doubtful:
            self._out[:-1] = ["".join(self._out[:-1])]
            return self._sent(self._out.pop(0))
        text = "".join(self._out)
        if not self._sent_any and text.strip(WHITESPACE) == "{":
            # Nothing is said yet; a call that is cut here can still become text.
            return ""
        self._out.clear()
        return self._sent(text)

    def _sent(self, text: str) -> str:
        self._sent_any = self._sent_any or bool(text)
        return text

    def _after_end(self, text: str) -> None:
        if not self.is_done:
            return
        if not self._leftover:
            stripped = text.lstrip(WHITESPACE)
            text = stripped.lstrip("}]" + WHITESPACE) if self._mend else stripped
            if text != stripped and "extra_bracket" not in self._notes:
                self._notes.append("extra_bracket")
        if text:
            self._leftover.append(text)

    def _close_whole(self, cut: bool) -> Closed:
        """Arguments that do not begin with a brace: an object inside a string or a fence, nothing, or no object."""
        raw = self.raw.strip()
        if raw in _NOTHING:
            if cut:
                return Closed("", "text")
            self._notes.append("empty_arguments")
            self._state = "over"
            return self._whole("{}", cut=False)
        inner: str | None = None
        name = "string_arguments"
        if raw.startswith('"'):
            inner = _decoded(raw)
        elif self._mend and (fenced := _FENCE.match(raw)) is not None:
            inner, name = fenced.group(1), "code_fence"
        if inner is None or not inner.lstrip(WHITESPACE).startswith("{"):
            return Closed("", "text")
        self._notes.append(name)
        return self._whole(inner, cut=cut)

    def _whole(self, text: str, *, cut: bool) -> Closed:
        nested = Arguments(self._shape, mend=self._mend)
        sent = nested.feed(text)
        closed = nested.close(cut=cut)
        if closed.outcome != "object":
            return Closed("", "text")
        self._notes += nested.repairs
        self._sent_any = True
        return Closed(sent + closed.text, "object", closed.leftover)


def _decoded(text: str) -> str | None:
    """What a JSON string holds."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    # Half a surrogate pair is no character: what comes out has to be encodable.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else None
