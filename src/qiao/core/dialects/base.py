"""What all dialects share: prose that is searched for calls, and a call that is read, sent on or given back as text.

A dialect is fed what the model writes and yields events; `close` ends it. It never raises, never loses a word, never
reads a text twice, and how the text was cut into pieces makes no difference. A concrete dialect says what may open a
call in the prose (`triggers`), which `Body` reads its inside, and what stands between and after calls.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec

from qiao.core.conversation import Tool
from qiao.core.dialects.bodies import HARMLESS, Body
from qiao.core.events import (
    Event,
    TextAdded,
    ToolArgumentsAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from qiao.core.json_lexemes import WHITESPACE
from qiao.core.repair import near_name
from qiao.core.shape import Shape, read_shape
from qiao.core.tags import Markdown, Tags

# A text is worked through in slices, so that what is cut off behind a tag is never long.
_SLICE = 4096


class Layout(msgspec.Struct, frozen=True, gc=False):
    """What the model wrote between calls and that carries no words: closing tags, white space, an empty call."""

    text: str


Piece: TypeAlias = TextAdded | ToolCallStarted | ToolArgumentsAdded | ToolCallEnded | Layout
"""What `read` yields: joined, the texts, the layout and the `raw` of the calls are what was fed, letter for letter."""


class Dialect(ABC):
    """How a family of models writes tool calls in its text.

    * `tools`: what the client declared. `repair` False: only calls that are well formed are calls.
    * `triggers`: strings that may open a call in the prose. `candidates`: where one without a tag may begin, if group 1
      stands at the margin.

    Calls are numbered from 0. A call to a declared tool is sent on while it is written; one to an unknown tool is held,
    because it counts only if nothing in it has to be mended. A call that had to be mended counts only if it was closed,
    or the model ended its answer with it. `repairs` holds (tool, repair) pairs.
    """

    triggers: tuple[str, ...] = ()
    candidates: re.Pattern[str] | None = None

    def __init__(self, tools: tuple[Tool, ...], *, repair: bool = True) -> None:
        self.repairs: list[tuple[str, str]] = []
        self.mend = repair
        self._tools = {tool.name: tool for tool in tools}
        self._tags = Tags(self.triggers)
        self._markdown = Markdown()
        self._state: Callable[[str], str] = self._prose
        self._pending = ""
        self._is_final = False
        self._pieces: list[Piece] = []
        self._words: list[str] = []
        self._raw: list[str] = []
        self._body: Body | None = None
        self._call: _Call | None = None
        self._count = 0
        self._last = ""
        self._last_notes: set[str] = set()

    # -- the contract ---------------------------------------------------------------------------------------------

    def feed(self, text: str) -> list[Event]:
        """Events for what the model wrote next."""
        return [piece for piece in self.read(text) if not isinstance(piece, Layout)]

    def close(self, *, cut: bool) -> list[Event]:
        """The end. `cut`: the answer was cut, so a call that is not complete is not completed."""
        return [piece for piece in self.finish(cut=cut) if not isinstance(piece, Layout)]

    def read(self, text: str) -> list[Piece]:
        """`feed`, with the layout."""
        for start in range(0, len(text), _SLICE):
            self._run(text[start : start + _SLICE])
        return self._taken()

    def finish(self, *, cut: bool) -> list[Piece]:
        """`close`, with the layout."""
        self._is_final = True
        self._run("")
        self._end(cut)
        return self._taken()

    # -- for concrete dialects ------------------------------------------------------------------------------------

    @abstractmethod
    def trigger(self, tag: str, rest: str) -> str:
        """`tag` stands in the prose, `rest` follows. Returns what is still to be read, and sets the next state."""

    @abstractmethod
    def after(self, text: str) -> str:
        """State behind a call: what belongs to its layout, and what ends it."""

    def candidate(self, text: str) -> str:
        """`text` begins, at the margin, where `candidates` matched. Like `trigger`."""
        raise NotImplementedError

    def say(self, text: str) -> None:
        """Text of the answer."""
        if text:
            self._words.append(text)
            self._markdown.feed(text)

    def skip(self, text: str) -> None:
        """Layout. While a call waits for its confirmation it is still part of that call."""
        if self._call is not None:
            self._raw.append(text)
        elif text:
            self._put(Layout(text))

    def keep(self, text: str) -> None:
        """Part of what may become a call."""
        if text:
            self._raw.append(text)

    def wait(self, text: str) -> str:
        """More is needed to understand `text`."""
        if self._is_final:
            self._raw.append(text)
        else:
            self._pending = text
        return ""

    def go(self, state: Callable[[str], str]) -> None:
        self._state = state

    def prose(self) -> None:
        """Back to the prose."""
        self._state = self._prose

    @property
    def has_called(self) -> bool:
        return self._count > 0

    @property
    def at_line_start(self) -> bool:
        """Nothing but white space stands before on this line of the prose."""
        return self._markdown.at_line_start

    @property
    def is_final(self) -> bool:
        """Nothing follows any more: there is no use in waiting."""
        return self._is_final

    def is_declared(self, name: str) -> bool:
        return name in self._tools

    def tool_name(self, name: str) -> str:
        """The declared tool that is meant, or `name` itself."""
        return (near_name(name, self._tools) if self.mend else None) or name

    def shape_of(self, name: str) -> Shape | None:
        tool = self._tools.get(self.tool_name(name))
        return None if tool is None else read_shape(tool.parameters)

    def begin(self, body: Body, *, streams: bool = True, notes: Iterable[str] = ()) -> None:
        """A body begins with what follows. `streams` False: hold it until `confirm`. `notes`: mends so far."""
        self._body = body
        self._call = _Call(streams=streams, notes=list(notes))
        self._state = self._in_body

    def mend_broken(self) -> str | None:
        """The name of the mend if the body that broke is a call all the same; `after` reads what stands behind it."""
        return None

    def note(self, repair: str) -> None:
        """A mend that concerns the call that is open, or the one before."""
        if self._call is not None:
            self._call.notes.append(repair)
        elif repair not in self._last_notes:
            self._last_notes.add(repair)
            self.repairs.append((self._last, repair))

    @property
    def is_keeping(self) -> bool:
        """Something was read that may become a call."""
        return bool(self._raw)

    @property
    def is_waiting(self) -> bool:
        """A call is complete, but counts only if it is closed."""
        return self._call is not None

    @property
    def has_required_arguments(self) -> bool:
        """The call that is waiting, well formed, has all that its tool's schema requires."""
        call = self._call
        shape = None if call is None else self.shape_of(call.name)
        if call is None or shape is None:
            return call is not None
        arguments = json.loads("".join(call.held))
        return all(key in arguments for key in shape.required)

    def confirm(self) -> None:
        """The call that was read is one."""
        call = self._call
        if call is None:
            return
        self._send(call, "".join(call.held))
        notes = dict.fromkeys([*call.found, *call.notes])
        self.repairs += ((call.name, repair) for repair in notes)
        self._close_call(call, complete=True)
        self._last_notes.update(notes)

    def fail(self) -> None:
        """What was read is no call: it is text, unless a part of it has already gone out as a call."""
        call = self._call
        if call is not None and call.is_open:
            self._close_call(call, complete=False)
            return
        raw = "".join(self._raw)
        self._raw.clear()
        self._call = self._body = None
        self._state = self._prose
        self.say(raw)

    # -- the run --------------------------------------------------------------------------------------------------

    def _run(self, text: str) -> None:
        text = self._pending + text
        self._pending = ""
        while text:
            text = self._state(text)

    def _prose(self, text: str) -> str:
        found = self._tags.search(text)
        limit = len(text) if found is None else found.start()
        if found is None and not self._is_final:
            limit -= self._tags.partial(text)
        start = self._candidate_in(text, limit)
        if start >= 0:
            self.say(text[:start])
            if self._markdown.at_margin and not self._markdown.in_fence:
                return self.candidate(text[start:])
            self.say(text[start])
            return text[start + 1 :]
        self.say(text[:limit])
        if found is None:
            return self.wait(text[limit:]) if limit < len(text) else ""
        if self._markdown.in_fence:
            self.say(found.group())
            return text[found.end() :]
        return self.trigger(found.group(), text[found.end() :])

    def _candidate_in(self, text: str, limit: int) -> int:
        found = None if self.candidates is None else self.candidates.search(text, 0, limit)
        return -1 if found is None else found.start(1)

    def _in_body(self, text: str) -> str:
        body, call = self._body, self._call
        if body is None or call is None:
            raise AssertionError("a body is open")
        self._raw.append(text)
        rest = body.feed(text)
        self._advance(body, call)
        if rest is None:
            return ""
        self._take_back(rest)
        self._end_body(body, call)
        return rest

    def _end_body(self, body: Body, call: _Call) -> None:
        """The body has come to its end, or what follows is none of it."""
        is_complete = body.close()
        self._advance(body, call)
        if not is_complete and self.mend and call.is_declared and (repair := self.mend_broken()) is not None:
            call.notes.append(repair)
            is_complete = True
        self._body = None
        self._state = self.after
        if not is_complete or (call.is_mended and not (self.mend and call.is_declared)):
            self.fail()
        elif call.streams and not call.is_mended:
            self.confirm()

    def _advance(self, body: Body, call: _Call) -> None:
        """Take what the body has read, and send what may go out."""
        if body.name is not None and not call.name:
            call.name = self.tool_name(body.name)
            call.written_name = body.name
            call.is_declared = call.name in self._tools
        call.found = body.repairs
        text = body.take()
        if text:
            call.held.append(text)
        if not (call.is_declared and call.streams and body.has_arguments) or not call.held:
            return
        text = "".join(call.held)
        # The brace that may be the last one waits until the call is known to be complete.
        kept = text if not call.is_open and text.strip(WHITESPACE) == "{" else "}" if text.endswith("}") else ""
        call.held = [kept] if kept else []
        self._send(call, text[: len(text) - len(kept)])

    def _take_back(self, rest: str) -> None:
        """`rest` was kept as part of the call, and is not."""
        if rest:
            whole = "".join(self._raw)
            self._raw = [whole[: len(whole) - len(rest)]]

    def _send(self, call: _Call, text: str) -> None:
        if not text:
            return
        if not call.is_open:
            call.is_open = True
            self._put(ToolCallStarted(self._count, "", call.written_name))
        self._put(ToolArgumentsAdded(self._count, text))

    def _close_call(self, call: _Call, *, complete: bool) -> None:
        raw = "".join(self._raw)
        self._raw.clear()
        self._call = self._body = None
        self._put(ToolCallEnded(self._count, complete, raw))
        self._count += 1
        self._markdown.feed("\n")
        self._last = call.name
        self._last_notes.clear()
        if not complete:
            self._state = self._prose

    def _end(self, cut: bool) -> None:
        """The answer is over: what is open is completed or becomes text."""
        body, call = self._body, self._call
        if body is not None and call is not None:
            if cut:
                self.fail()
            else:
                self._end_body(body, call)
        if self._call is not None and not cut:
            self.confirm()
        if self._raw:
            self.fail()

    def _put(self, piece: Piece) -> None:
        if self._words:
            self._pieces.append(TextAdded("".join(self._words)))
            self._words.clear()
        self._pieces.append(piece)

    def _taken(self) -> list[Piece]:
        if self._words:
            self._pieces.append(TextAdded("".join(self._words)))
            self._words.clear()
        pieces, self._pieces = self._pieces, []
        return pieces


class _Call:
    """The call that is being read.

    `held`: arguments that may not go out yet. `is_open`: some have. `found`: mends in its body; `notes`: others.
    """

    __slots__ = ("found", "held", "is_declared", "is_open", "name", "notes", "streams", "written_name")

    def __init__(self, *, streams: bool, notes: list[str]) -> None:
        self.name = ""
        self.written_name = ""
        self.is_declared = False
        self.is_open = False
        self.streams = streams
        self.held: list[str] = []
        self.found: list[str] = []
        self.notes = notes

    @property
    def is_mended(self) -> bool:
        return any(note not in HARMLESS for note in (*self.found, *self.notes))
