"""Arguments written as tags, one a parameter: `<parameter=KEY>value</parameter>` and its relatives.

Values stand unquoted, so a tag within a value can only be told by what follows it: a closing tag ends a value if
another parameter, the end of the call or the end of the answer follows. Values are typed by the tool's schema; text
streams as it comes, other types are held until they close.
"""

from __future__ import annotations

import json
import re
from typing import Literal

import msgspec

from qiao.core.json_lexemes import SPACES, WHITESPACE
from qiao.core.repair import Note, typed_json
from qiao.core.shape import Shape
from qiao.core.tags import Tags

_FARTHEST = 256
_LONGEST_KEY = 512
_LONGEST_LITERAL = 512
_NUMBER_SO_FAR = re.compile(r"[-+0-9.eE]+\s*\Z")


class Markup(msgspec.Struct, frozen=True):
    """The tags of one dialect.

    * `key_open`, `key_close`: round the name of a parameter; `value_open`: before its value, where there is such a tag.
    * `value_close`: after it. `call_close`: the tag that ends the call; empty where only the terminators do.
    * `trims`: one line break at each end of a value is layout.
    """

    key_open: str
    key_close: str
    value_open: str
    value_close: str
    call_close: str
    trims: bool


FUNCTION_MARKUP = Markup("<parameter=", ">", "", "</parameter>", "</function>", trims=True)
GLM_MARKUP = Markup("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "", trims=False)


class MarkupArguments:
    """Reads the parameters of one call, from behind the name; a `Body`.

    `terminators` end the call without belonging to it. What is missing at the end of a call is named
    `missing_close_tag`, quotes round a key `quoted_key`; an unclosed value is not mended.
    """

    def __init__(
        self, name: str, markup: Markup, terminators: tuple[str, ...], shape: Shape | None, *, mend: bool
    ) -> None:
        self.name: str | None = name
        self.repairs: list[str] = []
        self._markup = markup
        self._shape = shape
        self._mend = mend
        self._terminators = frozenset(terminators)
        self._call_ends = Tags(terminators)
        self._between = Tags(filter(None, [markup.key_open, markup.call_close, *terminators]))
        self._in_value = Tags(filter(None, [markup.value_close, markup.call_close, markup.key_open]))
        self._keys: set[str] = set()
        self._state: Literal["between", "key", "before_value", "value", "done", "broken"] = "between"
        self._pending = ""
        self._is_final = False
        self._key = ""
        self._value: _Value | None = None
        self._out: list[str] = []

    @property
    def has_arguments(self) -> bool:
        return bool(self._keys)

    def take(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    def feed(self, text: str) -> str | None:
        text, self._pending = self._pending + text, ""
        while text and self._state not in ("done", "broken"):
            rest = self._step(text)
            if rest is None:
                return None
            text = rest
        return text if self._state in ("done", "broken") else None

    def close(self) -> bool:
        """The text ends here, before a terminator or at the end of the answer."""
        self._is_final = True
        held, self._pending = self._pending, ""
        if held:
            self.feed(held)
        if self._state == "between" and self._mend:
            if self._markup.call_close:
                self._note("missing_close_tag")
            self._finish()
        return self._state == "done"

    def _step(self, text: str) -> str | None:
        """What is left to read; None if more text is needed, which is then remembered."""
        match self._state:
            case "between":
                return self._step_between(text)
            case "key":
                return self._step_key(text)
            case "before_value":
                return self._step_before_value(text)
            case _:
                return self._step_value(text)

    def _step_between(self, text: str) -> str | None:
        text = text.lstrip(WHITESPACE)
        if not text:
            return text
        tag = self._between.match(text)
        if tag is None:
            return self._wait_or_break(text, self._between)
        if tag == self._markup.key_open:
            self._state = "key"
            return text[len(tag) :]
        if tag in self._terminators:
            if self._markup.call_close:
                self._note("missing_close_tag")
            if self._state == "between":
                self._finish()
            return text
        self._finish()
        return text[len(tag) :]

    def _step_key(self, text: str) -> str | None:
        end = text.find(self._markup.key_close, 0, _LONGEST_KEY)
        if end < 0:
            if len(text) < _LONGEST_KEY and "\n" not in text.strip() and not self._is_final:
                return self._wait(text)
            self._state = "broken"
            return text
        self._key = self._known_key(text[:end].strip())
        if not self._key or "\n" in self._key or "<" in self._key:
            self._state = "broken"
            return text
        if self._markup.value_open:
            self._state = "before_value"
        else:
            self._begin_value()
        return text[end + len(self._markup.key_close) :]

    def _step_before_value(self, text: str) -> str | None:
        text = text.lstrip(WHITESPACE)
        if not text:
            return text
        if text.startswith(self._markup.value_open):
            self._begin_value()
            return text[len(self._markup.value_open) :]
        if self._markup.value_open.startswith(text) and not self._is_final:
            return self._wait(text)
        self._state = "broken"
        return text

    def _begin_value(self) -> None:
        shape = None if self._shape is None else self._shape.property(self._key)
        opening = ", " if self._keys else "{"
        self._keys.add(self._key)
        prefix = f"{opening}{json.dumps(self._key, ensure_ascii=False)}: "
        note = self._note if self._mend else None
        self._value = _Value(self._out, prefix, shape, note, trims=self._markup.trims)
        self._state = "value"

    def _step_value(self, text: str) -> str | None:
        value = self._value
        if value is None:
            raise AssertionError("a value is open")
        found = self._in_value.search(text)
        if found is None:
            keep = 0 if self._is_final else self._in_value.partial(text)
            value.feed(text[: len(text) - keep])
            return self._wait(text[len(text) - keep :])
        tag = found.group()
        ends = self._ends_value(text, found, value)
        if ends is None:
            value.feed(text[: found.start()])
            return self._wait(text[found.start() :])
        if not ends:
            value.feed(text[: found.end()])
            return text[found.end() :]
        value.feed(text[: found.start()])
        value.close()
        self._value = None
        self._state = "between"
        if tag == self._markup.value_close:
            return text[found.end() :]
        self._note("missing_close_tag")
        return text[found.start() :]

    def _ends_value(self, text: str, found: re.Match[str], value: _Value) -> bool | None:
        """Whether the tag that was found ends the value. None: what follows is not known yet."""
        tag = found.group()
        if tag == self._markup.key_open:
            return self._is_next_key(text, found, value)
        if tag != self._markup.value_close and not self._mend:
            return False
        spaces = SPACES.match(text, found.end(), found.end() + _FARTHEST)
        place = spaces.end() if spaces else found.end()
        if place >= len(text):
            return True if self._is_final else None
        if place - found.end() >= _FARTHEST:
            return tag == self._markup.value_close
        followers = self._between if tag == self._markup.value_close else self._call_ends
        if followers.match(text, place) is not None:
            return True
        return None if followers.may_begin(text, place) and not self._is_final else False

    def _is_next_key(self, text: str, found: re.Match[str], value: _Value) -> bool | None:
        """The model forgot to close the value: on a line of its own begins a parameter that the tool has."""
        if not self._mend or self._shape is None:
            return False
        if self._markup.trims and not (text[: found.start()] or value.last).endswith("\n"):
            return False
        end = text.find(self._markup.key_close, found.end(), found.end() + _LONGEST_KEY)
        if end < 0:
            return None if len(text) - found.end() < _LONGEST_KEY and not self._is_final else False
        key = self._unquoted_key(text[found.end() : end].strip())
        return key not in self._keys and self._shape.declares(key)

    def _known_key(self, key: str) -> str:
        plain = self._unquoted_key(key)
        if plain != key:
            self._note("quoted_key")
        return plain

    def _unquoted_key(self, key: str) -> str:
        """`key` as the tool knows it: some models put it in quotes, as attributes of XML are."""
        plain = key[1:-1].strip()
        is_quoted = len(key) > 2 and key[0] in "\"'" and key[-1] == key[0]
        return plain if is_quoted and self._mend and self._shape is not None and self._shape.declares(plain) else key

    def _finish(self) -> None:
        if not self._keys:
            self._out.append("{")
        self._out.append("}")
        self._state = "done"

    def _note(self, repair: str) -> None:
        if not self._mend:
            self._state = "broken"
        elif repair not in self.repairs:
            self.repairs.append(repair)

    def _wait(self, text: str) -> str | None:
        self._pending = text
        return None

    def _wait_or_break(self, text: str, tags: Tags) -> str | None:
        if tags.may_begin(text) and not self._is_final:
            return self._wait(text)
        self._state = "broken"
        return text


class _Value:
    """The text of one value on its way to JSON. `last`: the last character of it that came."""

    def __init__(self, out: list[str], prefix: str, shape: Shape | None, note: Note | None, *, trims: bool) -> None:
        self.last = ""
        self._tail = ""  # a line break at the end, which may be layout
        self._out = out
        self._prefix = prefix
        self._shape = shape
        self._note = note
        self._trims = trims
        self._at_start = trims
        self._held: list[str] = []
        types = None if shape is None else shape.types
        self._mode: Literal["text", "undecided", "held"] = "undecided"
        if types is not None and ("string" not in types or (shape is not None and shape.choices is not None)):
            self._mode = "held"
        elif types == frozenset({"string"}):
            self._begin_text()

    def feed(self, text: str) -> None:
        self.last = text[-1:] or self.last
        text = self._tail + text
        self._tail = ""
        if self._at_start and text:
            if text == "\r":
                self._tail = text
                return
            text = text.removeprefix("\r\n") if text[0] == "\r" else text.removeprefix("\n")
            self._at_start = False
        if self._trims and text.endswith(("\n", "\r")):
            keep = 2 if text.endswith("\r\n") else 1
            self._tail = text[-keep:]
            text = text[:-keep]
        if text:
            self._write(text)

    def close(self) -> None:
        if self._tail == "\r":
            self._write(self._tail)
        if self._mode == "text":
            self._out.append('"')
        else:
            self._out.append(self._prefix + typed_json("".join(self._held), self._shape, self._note))

    def _write(self, text: str) -> None:
        if self._mode == "text":
            self._out.append(json.dumps(text, ensure_ascii=False)[1:-1])
            return
        self._held.append(text)
        if self._mode == "undecided":
            self._decide("".join(self._held))

    def _decide(self, text: str) -> None:
        """Text goes out as it comes as soon as it can be nothing but text."""
        word = text[:_LONGEST_LITERAL].strip()
        may_be_json = not word or self._may_be_json(word, text)
        if may_be_json and word[:1] in ("{", "[", '"') and word:
            self._mode = "held"
        elif not may_be_json or len(text) > _LONGEST_LITERAL:
            self._begin_text()
            self._held.clear()
            self._write(text)

    def _may_be_json(self, word: str, text: str) -> bool:
        shape = self._shape
        match word[0]:
            case "{":
                return shape is None or shape.allows_type("object")
            case "[":
                return shape is None or shape.allows_type("array")
            case '"':
                return shape is None or shape.types is None
            case _:
                pass
        if (shape is None or shape.allows_type("integer", "number")) and _NUMBER_SO_FAR.match(text.lstrip()):
            return True
        literals = [("null", "null"), ("None", "null")]
        literals += [(literal, "boolean") for literal in ("true", "false", "True", "False")]
        return any(
            literal.startswith(word) and (shape is None or shape.allows_type(kind)) for literal, kind in literals
        )

    def _begin_text(self) -> None:
        self._mode = "text"
        self._out.append(self._prefix + '"')
