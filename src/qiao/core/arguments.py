"""Tool arguments while they stream: text that a model wrote in, the JSON text of one object out.

`Arguments.feed` passes on what is certainly part of a valid object and holds back the rest (a comma, a key without its
value, an unfinished number), so that what was sent never has to be taken back. What a model commonly writes wrong is
mended on the way and each mend is named: `trailing_comma`, `raw_control_character`, `single_quotes`,
`python_literal`, `missing_bracket`, `unclosed_string`, `extra_bracket`, `doubled_braces`, `unquoted_key`,
`missing_comma`, `extra_comma`, `missing_colon`, `bad_escape`, `bad_number`, `code_fence`, `string_arguments`,
`empty_arguments`, `trailing_text`.
Valid JSON passes byte for byte. Strings are skipped by one regular expression, so long values cost little.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

_WHITESPACE = " \t\n\r"
_PLAIN = {'"': re.compile(r'[^"\\\x00-\x1f]+'), "'": re.compile(r"""[^'"\\\x00-\x1f]+""")}
_SCALAR = re.compile(r"[A-Za-z0-9_+\-.$]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_LOW_SURROGATE = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}\Z")
_LITERALS = {"true": "true", "false": "false", "null": "null"}
_FOREIGN_LITERALS = {
    "True": "true", "False": "false", "None": "null", "NaN": "null", "undefined": "null",
    "Infinity": "null", "-Infinity": "null", "nan": "null", "TRUE": "true", "FALSE": "false", "NULL": "null",
}  # fmt: skip
_FENCE = re.compile(r"\A\s*```[A-Za-z]*[ \t]*\n?(.*?)\n?[ \t]*(?:```\s*)?\Z", re.DOTALL)

State = Literal[
    "start", "whole", "key_or_end", "key", "in_key", "colon", "value", "value_or_end",
    "in_string", "scalar", "after_value", "done", "broken",
]  # fmt: skip


class Closed(msgspec.Struct, frozen=True):
    """How the arguments ended.

    * `text`: the last piece to send.
    * `outcome`: "object": everything sent so far is one valid JSON object; "cut": the object is not complete and was
      not completed; "text": nothing was sent and `raw` is no object.
    * `leftover`: what stood there and is not part of the object.
    """

    text: str
    outcome: Literal["object", "cut", "text"]
    leftover: str = ""


class Arguments:
    """The arguments of one call. `repairs` names every mend, in order, without repeats."""

    def __init__(self) -> None:
        self.repairs: list[str] = []
        self._state: State = "start"
        self._stack: list[str] = []
        self._held: list[str] = []
        self._pending = ""
        self._quote = '"'
        self._raw: list[str] = []
        self._sent_any = False
        self._leftover: list[str] = []

    @property
    def is_done(self) -> bool:
        """The object is complete."""
        return self._state == "done"

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
        if self._state == "whole":
            return ""
        if self._pending:
            text = self._pending + text
            self._pending = ""
        out: list[str] = []
        position = 0
        size = len(text)
        while position < size:
            position = self._step(text, position, out)
        return self._sent(out)

    def close(self, *, cut: bool) -> Closed:
        """The call ended. `cut`: the answer was cut (length, stop string), so an open object is not completed."""
        if self._state in ("start", "whole"):
            return self._close_whole(cut)
        if self._state == "done":
            return Closed("", "object", "".join(self._leftover))
        if cut:
            return Closed("", "cut" if self._sent_any else "text")
        if not self._sent_any and not self._is_completable():
            return Closed("", "text")
        out: list[str] = []
        self._complete(out)
        return Closed(self._sent(out), "object", "".join(self._leftover))

    # -- one step a lexical element -------------------------------------------------------------------------------

    def _step(self, text: str, position: int, out: list[str]) -> int:
        match self._state:
            case "in_string" | "in_key":
                return self._string(text, position, out)
            case "scalar":
                return self._scalar(text, position, out)
            case "done" | "broken":
                self._after_end(text[position:])
                return len(text)
            case "start":
                return self._start(text, position)
            case "whole":
                return len(text)
            case _:
                return self._structure(text, position, out)

    def _start(self, text: str, position: int) -> int:
        character = text[position]
        if character in _WHITESPACE:
            return position + 1
        if character == "{":
            self._stack.append("}")
            self._held.append("{")
            self._state = "key_or_end"
            return position + 1
        self._state = "whole"
        return len(text)

    def _structure(self, text: str, position: int, out: list[str]) -> int:
        character = text[position]
        if character in _WHITESPACE:
            self._held.append(character)
            return position + 1
        match self._state:
            case "key_or_end" | "key":
                return self._key(text, position, out)
            case "colon":
                if character in ":=":
                    self._held.append(":")
                    if character == "=":
                        self._note("missing_colon")
                    self._state = "value"
                    return position + 1
                return self._break(text, position)
            case "value" | "value_or_end":
                return self._value(text, position, out)
            case _:
                return self._after_value(text, position, out)

    def _key(self, text: str, position: int, out: list[str]) -> int:
        character = text[position]
        if character in "\"'":
            self._open_string(character, "in_key")
            return position + 1
        if character == "}":
            self._end_container(character, out, trailing=self._state == "key")
            return position + 1
        if character == "{" and self._state == "key_or_end" and len(self._stack) == 1:
            self._note("doubled_braces")
            return position + 1
        if character == "," and self._state == "key":
            self._note("extra_comma")
            return position + 1
        found = _SCALAR.match(text, position)
        if found is None:
            return self._break(text, position)
        if found.end() == len(text):
            self._pending = text[position:]
            return len(text)
        self._note("unquoted_key")
        self._held.append(f'"{found.group()}"')
        self._state = "colon"
        return found.end()

    def _value(self, text: str, position: int, out: list[str]) -> int:
        character = text[position]
        if character in "\"'":
            self._release(out)
            self._open_string(character, "in_string", out)
            return position + 1
        if character in "{[":
            self._release(out)
            out.append(character)
            self._stack.append("}" if character == "{" else "]")
            self._state = "key_or_end" if character == "{" else "value_or_end"
            return position + 1
        if character == "]" and self._stack[-1] == "]":
            self._end_container(character, out, trailing=self._state == "value")
            return position + 1
        if _SCALAR.match(text, position):
            self._state = "scalar"
            return position
        return self._break(text, position)

    def _after_value(self, text: str, position: int, out: list[str]) -> int:
        character = text[position]
        if character == ",":
            self._held.append(",")
            self._state = "key" if self._stack[-1] == "}" else "value"
            return position + 1
        if character in "}]":
            self._end_container(character, out, trailing=False)
            return position + 1
        if character == '"':
            self._note("missing_comma")
            self._held.append(",")
            self._state = "key" if self._stack[-1] == "}" else "value"
            return position
        return self._break(text, position)

    def _string(self, text: str, position: int, out: list[str]) -> int:
        plain = _PLAIN[self._quote].match(text, position)
        target = self._held if self._state == "in_key" else out
        if plain is not None:
            target.append(plain.group())
            return plain.end()
        character = text[position]
        if character == "\\":
            return self._escape(text, position, target)
        if character == self._quote:
            target.append('"')
            self._state = "colon" if self._state == "in_key" else "after_value"
            return position + 1
        if character == '"':  # only inside single quotes
            target.append('\\"')
            return position + 1
        self._note("raw_control_character")
        target.append(msgspec.json.encode(character).decode()[1:-1])
        return position + 1

    def _escape(self, text: str, position: int, target: list[str]) -> int:
        if position + 1 >= len(text):
            self._pending = text[position:]
            return len(text)
        character = text[position + 1]
        if character in '"\\/bfnrt':
            target.append(text[position : position + 2])
            return position + 2
        if character == "u":
            digits = text[position + 2 : position + 6]
            if len(digits) == 4 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
                return self._unicode_escape(text, position, digits, target)
            if len(digits) < 4 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
                self._pending = text[position:]
                return len(text)
        if character == "'":
            self._note("bad_escape")
            target.append("'")
            return position + 2
        # A backslash that escapes nothing is meant literally: a Windows path, a regular expression.
        self._note("bad_escape")
        target.append("\\\\")
        return position + 1

    def _unicode_escape(self, text: str, position: int, digits: str, target: list[str]) -> int:
        """One `\\uXXXX`. Half a surrogate pair is no character: clients in other languages refuse it."""
        code = int(digits, 16)
        if not 0xD800 <= code <= 0xDFFF:
            target.append("\\u" + digits)
            return position + 6
        following = text[position + 6 : position + 12]
        if code < 0xDC00 and len(following) < 6 and "\\u".startswith(following[:2]):
            self._pending = text[position:]
            return len(text)
        if code < 0xDC00 and _LOW_SURROGATE.match(following):
            target.append("\\u" + digits + following)
            return position + 12
        self._note("bad_escape")
        target.append("\\ufffd")
        return position + 6

    def _scalar(self, text: str, position: int, out: list[str]) -> int:
        found = _SCALAR.match(text, position)
        if found is not None and found.end() == len(text):
            self._pending = text[position:]
            return len(text)
        word = found.group() if found else ""
        value = self._read_scalar(word)
        if value is None:
            self._state = "value"
            return self._break(text, position)
        self._release(out)
        out.append(value)
        self._state = "after_value"
        return position + len(word)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _read_scalar(self, word: str) -> str | None:
        if word in _LITERALS or _NUMBER.match(word):
            return word
        if word in _FOREIGN_LITERALS:
            self._note("python_literal")
            return _FOREIGN_LITERALS[word]
        try:
            number = float(word)
        except ValueError:
            return None
        self._note("bad_number")
        as_integer = word.lstrip("+-0")
        if as_integer.isdigit():
            return ("-" if word.startswith("-") else "") + as_integer
        return msgspec.json.encode(number).decode()

    def _open_string(self, quote: str, state: State, out: list[str] | None = None) -> None:
        if quote == "'":
            self._note("single_quotes")
        self._quote = quote
        (self._held if out is None else out).append('"')
        self._state = state

    def _end_container(self, character: str, out: list[str], *, trailing: bool) -> None:
        if trailing:
            self._drop_comma()
        if character != self._stack[-1]:
            if character not in self._stack:
                self._note("extra_bracket")
                return
            while self._stack[-1] != character:
                self._note("missing_bracket")
                self._release(out)
                out.append(self._stack.pop())
        self._release(out)
        out.append(self._stack.pop())
        self._state = "after_value" if self._stack else "done"

    def _drop_comma(self) -> None:
        for place in range(len(self._held) - 1, -1, -1):
            if self._held[place] == ",":
                self._note("trailing_comma")
                del self._held[place]
                return

    def _release(self, out: list[str]) -> None:
        out.extend(self._held)
        self._held.clear()

    def _break(self, text: str, position: int) -> int:
        """What stands here is no JSON and no known slip. Nothing more is sent before the end is known."""
        self._state = "broken"
        self._leftover.append("".join(self._held) + text[position:])
        self._held.clear()
        return len(text)

    def _after_end(self, text: str) -> None:
        if self._state == "broken":
            self._leftover.append(text)
            return
        if not self._leftover:
            stripped = text.lstrip(_WHITESPACE)
            text = stripped.lstrip("}]" + _WHITESPACE)
            if text != stripped:
                self._note("doubled_braces" if "doubled_braces" in self.repairs else "extra_bracket")
        if text:
            self._leftover.append(text)

    def _is_completable(self) -> bool:
        """Whether an object of which nothing was sent yet says enough to be completed."""
        match self._state:
            case "key_or_end" | "key" | "after_value" | "in_string":
                return not self._pending
            case "scalar":
                return self._read_scalar(self._pending) is not None
            case _:
                return False

    def _complete(self, out: list[str]) -> None:
        """Write what is missing at the end of an object that the model left open."""
        if self._state == "in_string":
            self._note("unclosed_string")
            out.append('"')
        elif self._state == "scalar" and (value := self._read_scalar(self._pending)) is not None:
            self._release(out)
            out.append(value)
        elif self._state == "broken":
            self._note("trailing_text")
        else:
            dangling = "".join(self._held).strip(_WHITESPACE + ",")
            if self._sent_any and dangling:
                self._leftover.append(dangling + self._pending)
                self._note("trailing_text")
            elif self._held and not self._sent_any:
                out.append("{")
        self._held.clear()
        self._pending = ""
        self._note("missing_bracket")
        while self._stack:
            out.append(self._stack.pop())
        self._state = "done"

    def _close_whole(self, cut: bool) -> Closed:
        """Arguments that do not begin with a brace: an object inside a string or a fence, nothing, or no object."""
        raw = self.raw.strip()
        if raw in ("", "null", "None", '""', "undefined"):
            if cut:
                return Closed("", "text")
            self._note("empty_arguments")
            self._state = "done"
            return Closed(self._sent(["{}"]), "object")
        inner: str | None = None
        if raw.startswith('"'):
            try:
                decoded = msgspec.json.decode(raw.encode("utf-8", "replace"), type=str)
            except (msgspec.DecodeError, RecursionError):
                decoded = ""
            if decoded.lstrip().startswith("{"):
                inner, name = decoded, "string_arguments"
        elif (fenced := _FENCE.match(raw)) is not None and fenced.group(1).lstrip().startswith("{"):
            inner, name = fenced.group(1), "code_fence"
        if inner is None:
            return Closed("", "text")
        self._note(name)
        nested = Arguments()
        text = nested.feed(inner)
        closed = nested.close(cut=cut)
        if closed.outcome != "object":
            return Closed("", "text")
        for repair in nested.repairs:
            self._note(repair)
        self._state = "done"
        return Closed(self._sent([text, closed.text]), "object", closed.leftover)

    def _sent(self, out: list[str]) -> str:
        text = "".join(out)
        if text:
            self._sent_any = True
        return text

    def _note(self, repair: str) -> None:
        if repair not in self.repairs:
            self.repairs.append(repair)
