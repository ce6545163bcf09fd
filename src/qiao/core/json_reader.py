"""A tolerant reader of one JSON object that is still being written: model text in, pieces of valid JSON out.

`ObjectReader` passes on what is certainly part of a valid object and holds back the rest (a comma, a key without its
value, an unfinished number, a quote of which it is not yet clear that it ends its string), so that what went out never
has to be taken back. What a model commonly writes wrong is mended on the way and each mend is named in `repairs`:
`trailing_comma`, `extra_comma`, `missing_comma`, `missing_colon`, `missing_bracket`, `extra_bracket`,
`doubled_braces`, `raw_control_character`, `single_quotes`, `unescaped_quote`, `unquoted_key`, `python_literal`,
`bad_escape`, `bad_number`, `triple_quotes`, `code_fence` (round a value). An unclosed string, a key without a value and
a sum of strings are not mended: that would invent a value.

Valid JSON passes byte for byte. Strings are skipped by one regular expression, look-ahead is bounded, and no text is
read twice, so the work is proportional to what comes in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Literal, Protocol

from qiao.core.json_lexemes import SCALAR, SPACES, WHITESPACE, Quotes, is_joined, read_scalar, starts_with_any

# As much of a string as needs no thought: plain characters and plain escapes.
_PLAIN = {
    '"': re.compile(r'(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt])+'),
    "'": re.compile(r"""(?:[^'"\\\x00-\x1f]+|\\["\\/bfnrt])+"""),
}
_LOW_SURROGATE = re.compile(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}\Z")
_FENCE = "```"
_FENCE_LINE = re.compile(r'```[\w-]{0,32}[ \t]{0,8}(?=[\r\n{\["])')
_FENCE_LINE_BEGUN = re.compile(r"(?:`{1,2}|```[\w-]{0,32}[ \t]{0,8})\Z")
_HEX = frozenset("0123456789abcdefABCDEF")
_LONGEST_SCALAR = 512

Kind = Literal["object", "array", "string", "integer", "number", "boolean", "null"]

_State = Literal[
    "key_or_end", "key", "in_key", "colon", "value", "value_or_end", "in_string", "scalar", "after_value",
]  # fmt: skip


class Observer(Protocol):
    """Who is told where values begin and end, and may redirect `ObjectReader.out` there.

    `begin`: a value starts; `key` is the JSON text of its key between the quotes (None in an array and for the
    object itself); `prefix` is what was held before it (comma, key, colon, white space), for the observer to write.
    `end`: the value that began last, and has not ended, is complete.
    """

    def begin(self, kind: Kind, key: str | None, prefix: str) -> None: ...

    def end(self) -> None: ...


class ObjectReader:
    """Reads one object, beginning at its brace.

    * `terminators`: strings that end the object where they stand outside a string (`</tool_call>`).
    * `mend` False: anything but valid JSON breaks the reading.
    * `keywords`: the members are Python keyword arguments, up to a `)`; the brace is not there.
    * `accepted`: slips that are no slips in this dialect, and not named in `repairs`.
    * `nullable`: keys of the object itself that mean null where no value follows them.

    `out` collects the pieces; the caller empties it. `repairs` names every mend, in order, without repeats.
    """

    def __init__(
        self,
        *,
        terminators: tuple[str, ...] = (),
        mend: bool = True,
        keywords: bool = False,
        accepted: Collection[str] = (),
        nullable: Collection[str] = (),
    ) -> None:
        self.out: list[str] = []
        self.repairs: list[str] = []
        self.observer: Observer | None = None
        self._terminators = terminators
        self._quotes = Quotes(terminators, keywords=keywords) if mend else None
        self._terminator_starts = frozenset(terminator[0] for terminator in terminators)
        self._mend = mend
        self._keywords = keywords
        self._accepted = accepted
        self._nullable = nullable if mend else ()
        self._fences = 0
        self._state: _State = "key_or_end"
        self._outcome: Literal["open", "done", "stopped", "broken"] = "open"
        self._stack: list[str] = []
        self._arrays = 0
        self._held: list[str] = []
        self._key_text: list[str] = []
        self._pending = ""
        self._quote = '"'
        self._inner_quotes = 0
        self._is_final = False

    @property
    def is_done(self) -> bool:
        """The object is complete."""
        return self._outcome == "done"

    def feed(self, text: str) -> str | None:
        """None while the object goes on; else what follows the end, the slip or the terminator, which is not read.

        What is returned may be longer than `text` by what was held back before.
        """
        if self._pending:
            text = self._pending + text
            self._pending = ""
        position = 0
        size = len(text)
        if not self._stack and size and self._outcome == "open":
            position = self._open_root(text)
        while position < size and self._outcome == "open":
            position = self._step(text, position)
        return None if self._outcome == "open" else text[position:]

    def close(self) -> bool:
        """The text ends here. Completes what says enough to be completed; True if the object is complete now."""
        self._is_final = True
        held, self._pending = self._pending, ""
        if held:
            self.feed(held)
        if self._outcome in ("done", "broken") or not self._stack:
            return self._outcome == "done"
        match self._state:
            case "key_or_end" | "value_or_end" | "after_value":
                pass
            case "value" if self._stack[-1] == "]":
                self._drop_comma()
            case "key":
                self._drop_comma()
            case _:
                return False
        self._note("missing_bracket")
        if self._outcome == "broken":
            return False
        self._release()
        while self._stack:
            self._pop()
        self._outcome = "done"
        return True

    @property
    def is_broken(self) -> bool:
        """Something stands in it that is no JSON and no known slip."""
        return self._outcome == "broken"

    def abandon(self) -> None:
        """Read no further: the observer has seen that this is not what it looks for."""
        self._outcome = "broken"

    # -- one step a lexical element -------------------------------------------------------------------------------

    def _open_root(self, text: str) -> int:
        if not self._keywords and text[0] != "{":
            self._outcome = "broken"
            return 0
        if self.observer is not None:
            self.observer.begin("object", None, "")
        self.out.append("{")
        self._stack.append("}")
        return 0 if self._keywords else 1

    def _step(self, text: str, position: int) -> int:
        state = self._state
        if state == "in_string":
            return self._string(text, position, self.out)
        if state == "in_key":
            return self._string(text, position, self._key_text)
        if state == "scalar":
            return self._scalar(text, position)
        character = text[position]
        if character in WHITESPACE:
            found = SPACES.match(text, position)
            end = found.end() if found else position + 1
            self._held.append(text[position:end])
            return end
        if character in self._terminator_starts:
            ended = starts_with_any(text, position, self._terminators, is_final=self._is_final)
            if ended is None:
                return self._wait(text, position)
            if ended:
                self._stop()
                return position
        match state:
            case "key_or_end" | "key":
                return self._key(text, position)
            case "colon":
                return self._colon(text, position)
            case "value" | "value_or_end":
                return self._value(text, position)
            case _:
                return self._after_value(text, position)

    def _key(self, text: str, position: int) -> int:
        character = text[position]
        if character in "\"'":
            self._open_string(character)
            self._state = "in_key"
            return position + 1
        if character == "}" or self._ends_keywords(character):
            self._end_container("}", trailing=self._state == "key")
            return position + 1
        if character == "{" and self._state == "key_or_end":
            # The phantom needs a closing brace of its own, and writes nothing.
            self._note("doubled_braces")
            self._stack.append("")
            return position + 1
        if character == "," and self._state == "key":
            self._note("extra_comma")
            return position + 1
        found = SCALAR.match(text, position)
        if found is None or found.end() - position > _LONGEST_SCALAR:
            return self._break(position)
        if found.end() == len(text) and not self._is_final:
            return self._wait(text, position)
        self._note("unquoted_key")
        self._key_text = [found.group()]
        self._held.append(f'"{found.group()}"')
        self._state = "colon"
        return found.end()

    def _colon(self, text: str, position: int) -> int:
        character = text[position]
        if character not in ":=":
            return self._break(position)
        if character == "=" and not self._keywords:
            self._note("missing_colon")
        self._held.append(":")
        self._state = "value"
        return position + 1

    def _value(self, text: str, position: int) -> int:
        character = text[position]
        if character in "\"'":
            return self._open_value_string(text, position)
        if character == "{":
            self._begin("object")
            self.out.append("{")
            self._stack.append("}")
            self._state = "key_or_end"
            return position + 1
        if character == "[":
            self._begin("array")
            self.out.append("[")
            self._stack.append("]")
            self._arrays += 1
            self._state = "value_or_end"
            return position + 1
        if character == "]" and self._stack[-1] == "]":
            self._end_container(character, trailing=self._state == "value")
            return position + 1
        if SCALAR.match(text, position):
            self._state = "scalar"
            return position
        if character == "`":
            return self._open_fence(text, position)
        if character == "}" and len(self._stack) == 1 and "".join(self._key_text) in self._nullable:
            self._begin("null")
            self.out.append("null")
            self._state = "after_value"
            self._end()
            return position
        return self._break(position)

    def _open_value_string(self, text: str, position: int) -> int:
        quote = text[position]
        if self._mend:
            tripled = starts_with_any(text, position, (quote * 3,), is_final=self._is_final)
            if tripled is None:
                return self._wait(text, position)
            if tripled:
                self._note("triple_quotes")
                quote *= 3
        self._begin("string")
        self._open_string(quote)
        self.out.append('"')
        self._state = "in_string"
        return position + len(quote)

    def _open_fence(self, text: str, position: int) -> int:
        found = _FENCE_LINE.match(text, position)
        if found is None:
            may_grow = not self._is_final and _FENCE_LINE_BEGUN.match(text, position)
            return self._wait(text, position) if may_grow else self._break(position)
        self._note("code_fence")
        self._fences += 1
        return found.end()

    def _close_fence(self, text: str, position: int) -> int:
        ended = starts_with_any(text, position, (_FENCE,), is_final=self._is_final)
        if ended is None:
            return self._wait(text, position)
        if not ended:
            return self._break(position)
        self._fences -= 1
        return position + len(_FENCE)

    def _after_value(self, text: str, position: int) -> int:
        character = text[position]
        if character == ",":
            self._held.append(",")
            self._state = "value" if self._stack[-1] == "]" else "key"
            return position + 1
        if character in "}]" or self._ends_keywords(character):
            self._end_container("]" if character == "]" else "}", trailing=False)
            return position + 1
        if character == '"':
            self._note("missing_comma")
            self._held.append(",")
            self._state = "value" if self._stack[-1] == "]" else "key"
            return position
        if character == "`" and self._fences:
            return self._close_fence(text, position)
        return self._break(position)

    def _string(self, text: str, position: int, target: list[str]) -> int:
        plain = _PLAIN[self._quote[0]].match(text, position)
        if plain is not None:
            target.append(plain.group())
            return plain.end()
        character = text[position]
        if character == "\\":
            return self._escape(text, position, target)
        if character == self._quote[0]:
            return self._quote_in_string(text, position, target)
        if character == '"':  # only inside single quotes
            target.append('\\"')
            return position + 1
        if len(self._quote) == 1:
            self._note("raw_control_character")
        target.append(json.dumps(character)[1:-1])
        return position + 1

    def _quote_in_string(self, text: str, position: int, target: list[str]) -> int:
        if self._state == "in_key":
            self._held.append('"' + "".join(target) + '"')
            self._state = "colon"
            return position + 1
        ends: bool | None = True
        if len(self._quote) > 1:
            ends = starts_with_any(text, position, (self._quote,), is_final=self._is_final)
        elif self._quotes is not None:
            joined = self._inner_quotes % 2 == 0 and is_joined(text, position, is_final=self._is_final)
            if joined:
                return self._break(position)
            in_array = self._stack[-1] == "]"
            ends = self._quotes.end_string(
                text, position, in_array=in_array, arrays=self._arrays, is_final=self._is_final
            )
            if joined is None:
                ends = None
        if ends is None:
            return self._wait(text, position)
        if ends:
            target.append('"')
            self._state = "after_value"
            self._end()
            return position + len(self._quote)
        if len(self._quote) == 1:
            self._note("unescaped_quote")
            self._inner_quotes += 1
        target.append('\\"' if self._quote[0] == '"' else "'")
        return position + 1

    def _escape(self, text: str, position: int, target: list[str]) -> int:
        if position + 1 >= len(text):
            return self._wait(text, position)
        character = text[position + 1]
        if character in '"\\/bfnrt':
            target.append(text[position : position + 2])
            return position + 2
        if character == "u":
            digits = text[position + 2 : position + 6]
            if _HEX.issuperset(digits):
                if len(digits) == 4:
                    return self._unicode_escape(text, position, digits, target)
                if position + 2 + len(digits) == len(text) and not self._is_final:
                    return self._wait(text, position)
        self._note("bad_escape")
        if character == "'":
            target.append("'")
            return position + 2
        # A backslash that escapes nothing is meant literally: a Windows path, a regular expression.
        target.append("\\\\")
        return position + 1

    def _unicode_escape(self, text: str, position: int, digits: str, target: list[str]) -> int:
        """One `\\uXXXX`. Half a surrogate pair is no character: clients in other languages refuse it."""
        code = int(digits, 16)
        if not 0xD800 <= code <= 0xDFFF:
            target.append("\\u" + digits)
            return position + 6
        following = text[position + 6 : position + 12]
        if code < 0xDC00 and len(following) < 6 and "\\u".startswith(following[:2]) and not self._is_final:
            return self._wait(text, position)
        if code < 0xDC00 and _LOW_SURROGATE.match(following):
            target.append("\\u" + digits + following)
            return position + 12
        self._note("bad_escape")
        target.append("\\ufffd")
        return position + 6

    def _scalar(self, text: str, position: int) -> int:
        found = SCALAR.match(text, position)
        end = found.end() if found else position
        if end - position <= _LONGEST_SCALAR:
            if end == len(text) and not self._is_final:
                return self._wait(text, position)
            value = read_scalar(text[position:end])
            if value is not None:
                if value.repair:
                    self._note(value.repair)
                self._begin(_scalar_kind(value.text))
                self.out.append(value.text)
                self._state = "after_value"
                self._end()
                return end
        return self._break(position)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _open_string(self, quote: str) -> None:
        if quote == "'":
            self._note("single_quotes")
        self._quote = quote
        self._inner_quotes = 0
        self._key_text = []

    def _ends_keywords(self, character: str) -> bool:
        return self._keywords and character == ")" and len(self._stack) == 1

    def _end_container(self, character: str, *, trailing: bool) -> None:
        if trailing:
            self._drop_comma()
        if character == "]" and not self._arrays:
            self._note("extra_bracket")
            return
        if (self._stack[-1] == "]") != (character == "]"):
            self._note("missing_bracket")
        if self._outcome != "open":
            return
        self._release()
        is_empty = self._state == "key_or_end"
        while (self._stack[-1] == "]") != (character == "]"):
            self._pop()
        is_phantom = not self._stack[-1]
        self._pop()
        if not self._stack:
            self._outcome = "done"
        self._state = "key_or_end" if is_phantom and is_empty else "after_value"

    def _pop(self) -> None:
        bracket = self._stack.pop()
        if not bracket:
            return
        self.out.append(bracket)
        if bracket == "]":
            self._arrays -= 1
        self._end()

    def _drop_comma(self) -> None:
        for place in range(len(self._held) - 1, -1, -1):
            if self._held[place] == ",":
                self._note("trailing_comma")
                del self._held[place]
                return

    def _begin(self, kind: Kind) -> None:
        if self.observer is None:
            self._release()
            return
        prefix = "".join(self._held)
        self._held.clear()
        key = None if self._stack[-1] == "]" else "".join(self._key_text)
        self.observer.begin(kind, key, prefix)

    def _end(self) -> None:
        if self.observer is not None:
            self.observer.end()

    def _release(self) -> None:
        self.out.extend(self._held)
        self._held.clear()

    def _wait(self, text: str, position: int) -> int:
        self._pending = text[position:]
        return len(text)

    def _break(self, position: int) -> int:
        """What stands here is no JSON and no known slip."""
        self._outcome = "broken"
        return position

    def _stop(self) -> None:
        """A terminator stands here: `close` decides whether what came before is an object."""
        self._is_final = True
        self._outcome = "stopped"

    def _note(self, repair: str) -> None:
        if repair in self._accepted:
            return
        if not self._mend:
            self._outcome = "broken"
        elif repair not in self.repairs:
            self.repairs.append(repair)


def _scalar_kind(text: str) -> Kind:
    match text[0]:
        case "t" | "f":
            return "boolean"
        case "n":
            return "null"
        case _:
            return "integer" if text.lstrip("-").isdigit() else "number"
