"""The inside of a call, as models write it: an object with name and arguments, bare arguments, XML parameters.

A `Body` reads one call from its first character to its last and yields the JSON text of the arguments in pieces.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, Protocol

from qiao.core.arguments import Arguments
from qiao.core.json_reader import Kind, ObjectReader

HARMLESS = frozenset({"string_arguments", "empty_arguments", "parameters_key", "name_after_arguments"})
"""Ways of writing arguments that are understood without repair: a call so written may name an undeclared tool."""

_NAME_KEYS = frozenset({"name"})
_ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
_OTHER_KEYS = frozenset({"id", "type"})


class Body(Protocol):
    """One call. `name` is None until it is known; `repairs` names mends; `has_arguments`: their first byte was read.

    `feed` returns None while the call goes on, else what follows it (which may be longer than what was fed, by what was
    held back). `take` gives the arguments' text so far and forgets it. After the end, `close` tells whether the call
    is complete; without an end it completes what says enough to be completed.
    """

    name: str | None

    @property
    def repairs(self) -> list[str]: ...

    @property
    def has_arguments(self) -> bool: ...

    def feed(self, text: str) -> str | None: ...

    def close(self) -> bool: ...

    def take(self) -> str: ...


class JsonArguments:
    """The arguments' object alone; the name was written before it.

    `may_be_empty`: where no object begins, the call has no arguments.
    """

    def __init__(self, name: str, reader: ObjectReader, *, may_be_empty: bool = False) -> None:
        self.name: str | None = name
        self._reader = reader
        self._out = reader.out
        self._may_be_empty = may_be_empty
        self._is_empty = False

    @property
    def repairs(self) -> list[str]:
        return ["empty_arguments"] if self._is_empty else self._reader.repairs

    @property
    def has_arguments(self) -> bool:
        return True

    def feed(self, text: str) -> str | None:
        if self._may_be_empty and text:
            self._may_be_empty = False
            self._is_empty = text[0] != "{"
        if self._is_empty:
            return text
        return self._reader.feed(text)

    def close(self) -> bool:
        if self._is_empty:
            self._out[:] = ["{}"]
            return True
        return self._reader.close()

    def take(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text


class Envelope:
    """An object with the name and the arguments of a call, in any order: `{"name": …, "arguments": {…}}`.

    `parameters` counts as `arguments`; other keys are read over; arguments that are missing or null are empty, a string
    that holds an object is decoded. An object without a name, or with arguments that are no object, is no call.
    `accepts`, for objects that stand open in the prose, where most are no calls: such an object is given up at the
    first key that calls do not have, and at a name that is not accepted. `needs_arguments`: without any it is no call.
    """

    def __init__(
        self,
        *,
        terminators: tuple[str, ...] = (),
        mend: bool = True,
        accepts: Callable[[str], bool] | None = None,
        needs_arguments: bool = False,
    ) -> None:
        self.name: str | None = None
        self._reader = ObjectReader(terminators=terminators, mend=mend, nullable=_ARGUMENT_KEYS)
        self._reader.observer = self
        self._mend = mend
        self._accepts = accepts
        self._needs_arguments = needs_arguments
        self._depth = 0
        self._notes: list[str] = []
        self._out: list[str] = []
        self._value: list[str] = []
        self._member: Literal["name", "arguments", "text_arguments", "other"] = "other"
        self._has_arguments = False
        self._is_whole = False
        self._is_call = True

    @property
    def repairs(self) -> list[str]:
        return [*self._notes, *self._reader.repairs]

    @property
    def has_arguments(self) -> bool:
        return self._has_arguments

    @property
    def broke_behind_arguments(self) -> bool:
        """Name and arguments are complete; what is no JSON stands behind them."""
        # A quote that was guessed to end a string may have ended the arguments too early.
        is_certain = "unescaped_quote" not in self._reader.repairs
        return self._reader.is_broken and self._is_call and self.name is not None and self._is_whole and is_certain

    def feed(self, text: str) -> str | None:
        rest = self._reader.feed(text)
        if self._member == "other":
            self._value.clear()
        return rest

    def close(self) -> bool:
        if not self._reader.close() or not self._is_call or self.name is None:
            return False
        if not self._has_arguments:
            if self._needs_arguments:
                return False
            self._has_arguments = True
            self._note("empty_arguments")
            self._out.append("{}")
        return True

    def take(self) -> str:
        text = "".join(self._out)
        self._out.clear()
        return text

    # -- what the reader tells ------------------------------------------------------------------------------------

    def begin(self, kind: Kind, key: str | None, prefix: str) -> None:
        self._depth += 1
        if self._depth == 1:
            self._reader.out = self._value
        elif self._depth == 2:
            self._begin_member(kind, json.loads(f'"{key}"'))
        else:
            self._reader.out.append(prefix)

    def end(self) -> None:
        self._depth -= 1
        if self._depth != 1:
            return
        self._reader.out = self._value
        match self._member:
            case "name":
                self._end_name(json.loads("".join(self._value)))
            case "arguments":
                self._is_whole = True
            case "text_arguments":
                self._end_text_arguments(json.loads("".join(self._value)))
            case _:
                pass
        self._value.clear()
        self._member = "other"

    def _begin_member(self, kind: Kind, key: str) -> None:
        self._value.clear()
        if key in _NAME_KEYS and self.name is None:
            self._member = "name" if kind == "string" else "other"
            self._require(kind == "string")
        elif key in _ARGUMENT_KEYS and not self._has_arguments:
            self._has_arguments = True
            if key == "parameters":
                self._note("parameters_key")
            if self.name is None:
                self._note("name_after_arguments")
            match kind:
                case "object":
                    self._member = "arguments"
                    self._reader.out = self._out
                case "array":
                    self._member = "other"
                    self._require(False)
                case _:
                    self._member = "text_arguments"
        else:
            known = key in _NAME_KEYS or key in _ARGUMENT_KEYS or key in _OTHER_KEYS
            self._member = "other"
            if self._accepts is not None:
                self._require(known)

    def _end_name(self, name: object) -> None:
        self._require(isinstance(name, str) and bool(name.strip()))
        self._require(self._accepts is None or self._accepts(str(name)))
        self.name = str(name)

    def _end_text_arguments(self, value: object) -> None:
        """Arguments in a string, or null."""
        if value is None:
            self._note("empty_arguments")
            self._out.append("{}")
            return
        if not isinstance(value, str):
            self._require(False)
            return
        nested = Arguments(mend=self._mend)
        sent = nested.feed(value)
        closed = nested.close(cut=False)
        if closed.outcome != "object" or closed.leftover.strip():
            self._require(False)
            return
        self._note("string_arguments")
        for repair in nested.repairs:
            self._note(repair)
        self._out.append(sent + closed.text)

    def _require(self, condition: bool) -> None:
        if condition:
            return
        self._is_call = False
        if self._accepts is not None:
            self._reader.abandon()

    def _note(self, repair: str) -> None:
        if repair not in self._notes:
            self._notes.append(repair)
