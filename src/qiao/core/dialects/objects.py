"""Calls as JSON objects with name and arguments: one, several in a row, or an array of them; perhaps in a fence.

What hermes, Mistral, Llama and bare JSON have in common. A subclass says what opens the objects and what closes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from qiao.core.conversation import Tool
from qiao.core.dialects.base import Dialect
from qiao.core.dialects.bodies import Envelope
from qiao.core.json_lexemes import WHITESPACE, starts_with_any
from qiao.core.tags import Tags

FENCE = "```"
FENCE_LINE = re.compile(r"```[\w-]{0,32}[ \t]{0,8}\r?\n")
_FENCE_BEFORE_OBJECT = re.compile(r"```[\w-]{0,32}[ \t]{0,8}(?=[{\[])")
FENCE_LINE_BEGUN = re.compile(r"`{1,3}\Z|```[\w-]{0,32}[ \t]{0,8}\r?\Z")
_LONGEST_GAP = 256


class ObjectsDialect(Dialect):
    """`terminators`: strings that end an object which the model did not close."""

    terminators: tuple[str, ...] = ()

    def __init__(self, tools: tuple[Tool, ...], *, repair: bool = True) -> None:
        super().__init__(tools, repair=repair)
        self.is_fenced = False
        self._in_array = False
        self._end_tags = Tags(self.terminators)
        self._broke = False
        self._left_behind: list[str] = []
        self._accepts: Callable[[str], bool] | None = None

    def open_objects(self, accepts: Callable[[str], bool] | None = None) -> None:
        """One object or an array of them follows. `accepts`: the names that may be meant, where no tag says so."""
        self.is_fenced = self._in_array = False
        self._accepts = accepts
        self.go(self._opened)

    def open_otherwise(self, text: str) -> str:
        """`text` is neither object nor array nor fence."""
        if not self.is_keeping:
            # Where no tag came before, the prose would only point here again.
            self.keep(text[0])
            text = text[1:]
        self.fail()
        return text

    def after_otherwise(self, text: str) -> str:
        """`text`, behind an object, begins with nothing that has to do with objects."""
        return self.leave(text)

    def leave(self, text: str) -> str:
        """Something else follows: a call that was mended and not closed is none."""
        if self.is_waiting:
            self.fail()
        self.prose()
        return text

    def keep_space(self, text: str) -> str:
        """Keeps the white space at the beginning; returns the rest."""
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        return rest

    def skip_space(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.skip(text[: len(text) - len(rest)])
        return rest

    def mend_broken(self) -> str | None:
        """Of an object that broke behind its arguments those count, as if it had ended there; the rest is text."""
        body = self._body
        if not (isinstance(body, Envelope) and body.broke_behind_arguments and self.terminators):
            return None
        if self._accepts is not None:
            return None
        self._broke = True
        return "missing_bracket"

    # -- states ---------------------------------------------------------------------------------------------------

    def _opened(self, text: str) -> str:
        rest = self.keep_space(text)
        match rest[:1]:
            case "":
                return rest
            case "{":
                self._begin_object()
                return rest
            case "[":
                self._in_array = True
                self.keep("[")
                self.go(self._in_brackets)
                return rest[1:]
            case "`" if not self.is_fenced:
                return self._open_fence(rest)
            case _:
                return self.open_otherwise(rest)

    def _open_fence(self, text: str) -> str:
        found = FENCE_LINE.match(text)
        if found is None and self._accepts is None:
            found = _FENCE_BEFORE_OBJECT.match(text)
        if found is not None:
            self.is_fenced = True
            self.keep(found.group())
            return text[found.end() :]
        if FENCE_LINE_BEGUN.match(text) and not self.is_final:
            return self.wait(text)
        return self.open_otherwise(text)

    def _in_brackets(self, text: str) -> str:
        rest = self.keep_space(text)
        if rest[:1] == "{":
            self._begin_object()
        elif rest:
            self.fail()
        return rest

    def _begin_object(self) -> None:
        ends = (*self.terminators, FENCE) if self.is_fenced else self.terminators
        # Where the fence is all there is round the call, it is no slip.
        notes = ["code_fence"] if self.is_fenced and self._accepts is None else []
        accepts = self._accepts
        envelope = Envelope(terminators=ends, mend=self.mend, accepts=accepts, needs_arguments=accepts is not None)
        self.begin(envelope, notes=notes)

    def after(self, text: str) -> str:
        if self._broke:
            return self._after_break(text)
        rest = self.skip_space(text)
        match rest[:1]:
            case "":
                return rest
            case "]" if self._in_array:
                self._in_array = False
                self.skip("]")
                return rest[1:]
            case ("}" | "]") as bracket if self.mend:
                self.note("extra_bracket")
                self.skip(bracket)
                return rest[1:]
            case "{":
                self.confirm()
                self._begin_object()
                return rest
            case "," | ";":
                return self._after_comma(rest)
            case "`" if self.is_fenced:
                return self._after_fence(rest)
            case _:
                return self.after_otherwise(rest)

    def _after_comma(self, text: str) -> str:
        """Between two objects, or behind the last one, a comma is layout."""
        rest = text[1:].lstrip(WHITESPACE)
        gap = len(text) - len(rest)
        if gap > _LONGEST_GAP:
            return self.leave(text)
        if not rest and not self.is_final:
            return self.wait(text)
        if rest[:1] != "{":
            ends = self.mend and self._ends_at(rest)
            if ends is None:
                return self.wait(text)
            if not ends:
                return self.leave(text)
            self.note("trailing_comma")
        self.skip(text[:gap])
        return rest

    def _ends_at(self, text: str) -> bool | None:
        """What holds the objects ends here. None: that is not known yet."""
        if not text or (self._in_array and text[0] == "]"):
            return True
        ends = (*self.terminators, FENCE) if self.is_fenced else self.terminators
        return starts_with_any(text, 0, ends, is_final=self.is_final)

    def _after_break(self, text: str) -> str:
        """Whether the call that broke was closed; what stands before that is held: it comes behind the call."""
        found = self._end_tags.search(text)
        if found is None:
            keep = 0 if self.is_final else self._end_tags.partial(text)
            self._left_behind.append(text[: len(text) - keep])
            return self.wait(text[len(text) - keep :])
        self._left_behind.append(text[: found.start()])
        self.confirm()
        self._say_behind()
        return text[found.start() :]

    def _say_behind(self) -> None:
        self._broke = False
        self.say("".join(self._left_behind))
        self._left_behind.clear()

    def _end(self, cut: bool) -> None:
        super()._end(cut)
        self._say_behind()

    def _after_fence(self, text: str) -> str:
        if text.startswith(FENCE):
            self.is_fenced = False
            self.confirm()
            self.skip(FENCE)
            return text[len(FENCE) :]
        if FENCE.startswith(text) and not self.is_final:
            return self.wait(text)
        return self.leave(text)
