"""Calls between special tokens, the name before the arguments: what DeepSeek and Kimi have in common.

SECTION_OPEN CALL_OPEN header SEPARATOR {arguments} CALL_CLOSE … SECTION_CLOSE
"""

from __future__ import annotations

import re
from abc import abstractmethod

import msgspec

from qiao.core.conversation import Tool
from qiao.core.dialects.base import Dialect
from qiao.core.dialects.bodies import JsonArguments
from qiao.core.json_lexemes import WHITESPACE
from qiao.core.json_reader import ObjectReader
from qiao.core.tags import Tags

FENCE = "```"
_FENCE_LINE = re.compile(r"```[\w-]{0,32}[ \t]{0,8}\r?\n")
_FENCE_LINE_BEGUN = re.compile(r"`{1,3}[\w-]{0,32}[ \t]{0,8}\r?\Z")
_NAME = re.compile(r"[^\s`{}<>\"']{1,256}\Z")
_LONGEST_HEADER = 512


class SectionTags(msgspec.Struct, frozen=True):
    """The special tokens of one dialect."""

    section_open: str
    section_close: str
    call_open: str
    separator: str
    call_close: str


class SectionDialect(Dialect):
    """Reads the frame; a subclass says how the header names the tool, and whether arguments stand in a fence."""

    tags: SectionTags

    def __init__(self, tools: tuple[Tool, ...], *, repair: bool = True) -> None:
        tags = self.tags
        self.triggers = (tags.section_open, tags.section_close, tags.call_open)
        super().__init__(tools, repair=repair)
        self._between = Tags([tags.call_open, tags.section_close, tags.section_open])
        self._behind = Tags([tags.call_close, tags.call_open, tags.section_close, FENCE])
        self._name = ""
        self._in_section = False
        self._is_fenced = False

    @abstractmethod
    def name_in(self, header: str) -> str | None:
        """The tool's name; None if the header, so far, does not hold it (more may follow), "" if it never will."""

    def trigger(self, tag: str, rest: str) -> str:
        if tag == self.tags.section_open:
            self.keep(tag)
            self.go(self._in_between)
        elif tag == self.tags.call_open:
            self.keep(tag)
            self.go(self._header)
        else:
            self.say(tag)
        return rest

    def _in_between(self, text: str) -> str:
        """Behind the opening of a section, or behind a call."""
        rest = text.lstrip(WHITESPACE)
        self._put_aside(text[: len(text) - len(rest)])
        if not rest:
            return rest
        tag = self._between.match(rest)
        if tag is None:
            if self._between.may_begin(rest) and not self.is_final:
                return self.wait(rest)
            if self.tags.section_close.startswith(rest):
                self._put_aside(rest)
                return ""
            return self._leave(rest)
        if tag == self.tags.section_open and self._raw:
            return self._leave(rest)
        if tag == self.tags.call_open:
            self.keep(tag)
            self.go(self._header)
        else:
            self._put_aside(tag)
            if tag == self.tags.section_close:
                self._drop_frame()
                self.prose()
        return rest[len(tag) :]

    def _put_aside(self, text: str) -> None:
        if self._raw:
            self.keep(text)
        else:
            self.skip(text)

    def _drop_frame(self) -> None:
        """A section without calls carries no words."""
        raw = "".join(self._raw)
        self._raw.clear()
        self.skip(raw)

    def _leave(self, text: str) -> str:
        if self.is_waiting or self._raw:
            self.fail()
        self.prose()
        return text

    def _header(self, text: str) -> str:
        name = self.name_in(text[:_LONGEST_HEADER])
        if name is None and len(text) < _LONGEST_HEADER and not self.is_final:
            return self.wait(text)
        if not name or _NAME.match(name) is None:
            self.fail()
            return text
        end = self.header_end(text)
        self.keep(text[:end])
        self._name = name
        self._is_fenced = False
        self.go(self._arguments)
        return text[end:]

    def header_end(self, text: str) -> int:
        """Where the arguments begin, in a text that `name_in` found a name in."""
        return text.index(self.tags.separator) + len(self.tags.separator)

    def _arguments(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.keep(text[: len(text) - len(rest)])
        if not rest:
            return rest
        if rest[0] == "`" and not self._is_fenced:
            found = _FENCE_LINE.match(rest)
            if found is not None:
                self._is_fenced = True
                self.keep(found.group())
                return rest[found.end() :]
            if _FENCE_LINE_BEGUN.match(rest) and not self.is_final:
                return self.wait(rest)
        ends = (self.tags.call_close, self.tags.section_close, self.tags.call_open)
        if rest[0] != "{" and not any(rest.startswith(end) for end in (*ends, FENCE)):
            if any(end.startswith(rest) for end in (*ends, FENCE)) and not self.is_final:
                return self.wait(rest)
            self.fail()
            return rest
        terminators = (*ends, FENCE) if self._is_fenced else ends
        self.begin(JsonArguments(self._name, ObjectReader(terminators=terminators, mend=self.mend), may_be_empty=True))
        return rest

    def after(self, text: str) -> str:
        rest = text.lstrip(WHITESPACE)
        self.skip(text[: len(text) - len(rest)])
        if not rest:
            return rest
        if rest[0] in "}]" and self.mend:
            self.note("extra_bracket")
            self.skip(rest[0])
            return rest[1:]
        tag = self._behind.match(rest)
        if tag is None:
            if self._behind.may_begin(rest):
                if not self.is_final:
                    return self.wait(rest)
                if self.tags.call_close.startswith(rest):
                    self.skip(rest)
                    return ""
            return self._leave(rest)
        if tag == FENCE:
            if not self._is_fenced:
                return self._leave(rest)
            self._is_fenced = False
            self.skip(tag)
            return rest[len(tag) :]
        self.confirm()
        self.go(self._in_between)
        if tag != self.tags.call_close:
            return rest
        self.skip(tag)
        return rest[len(tag) :]
