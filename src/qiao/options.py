"""What an option is: one declaration makes its flag, its variable, its key in qiao.toml and its page.

The sections of `qiao.config` annotate every field with `About`; `declared` turns them into `Option`s, and an
Option turns text (flags, environment) or a TOML value into a value. Nothing here reads the environment
or a file; only `qiao.config` decides which source wins.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

Kind = Literal[
    "text",
    "secret",
    "integer",
    "number",
    "boolean",
    "path",
    "size",
    "seconds",
    "choice",
    "table",
    "engine URL",
    "gateway URL",
]


class Secret:
    """A text that never shows itself: not in repr, str or a traceback. `reveal()` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


Value: TypeAlias = str | int | float | bool | Path | Secret | dict[str, str] | None


class About(msgspec.Struct, frozen=True):
    """What a person needs to know of one option, written beside its field.

    * `help`: one sentence; begins with a small letter, ends without a full stop.
    * `flag`: its name on the command line, if it has one; the variable follows from it.
    * `kind`: only where the type does not say enough (a size, seconds, a URL).
    * `minimum`, `maximum`: inclusive bounds of a number, in the option's unit.
    * `also`: variables of other programs that mean the same thing; QIAO_… wins over them.
    * `metavar`: what stands for the value in `--help`.
    """

    help: str
    flag: str | None = None
    kind: Kind | None = None
    minimum: float | None = None
    maximum: float | None = None
    also: tuple[str, ...] = ()
    metavar: str | None = None


class Option(msgspec.Struct, frozen=True):
    """One option: where it lives (`section.name`), what it takes, and what it is for."""

    section: str
    name: str
    kind: Kind
    about: About
    default: Value = None
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its place in qiao.toml, dotted."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str | None:
        """Its own environment variable; a table has none."""
        if self.kind == "table":
            return None
        stem = self.about.flag.removeprefix("--") if self.about.flag else f"{self.section}-{self.name}"
        return "QIAO_" + stem.replace("-", "_").upper()

    @property
    def metavar(self) -> str:
        """What stands for the value in help texts."""
        if self.about.metavar:
            return self.about.metavar
        return _METAVARS.get(self.kind, "TEXT")

    @property
    def expected(self) -> str:
        """The words for what this option takes."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        words = _EXPECTED[self.kind]
        low, high = self.about.minimum, self.about.maximum
        if low is not None and high is not None:
            return f"{words}, {_short(low)} to {_short(high)}"
        if low is not None:
            return f"{words}, {_short(low)} or more"
        return words

    def from_text(self, text: str, folder: Path) -> Value:
        """The value that `text` (a flag or a variable) stands for; relative paths start at `folder`.

        Raises ValueError without words of its own where the text cannot be used.
        """
        text = text.strip()
        if self.kind == "boolean":
            return _BOOLEANS[text.lower()] if text.lower() in _BOOLEANS else _refuse()
        if self.kind in ("integer", "number"):
            number = float(text) if self.kind == "number" else int(text)
            return self._bounded(number)
        return self._from_words(text, folder)

    def from_toml(self, value: object, folder: Path) -> Value:
        """The value that a TOML value stands for. Types are not guessed: a port is a number, not a text."""
        match self.kind:
            case "boolean":
                return value if isinstance(value, bool) else _refuse()
            case "integer":
                return self._bounded(value) if _is_number(value) and isinstance(value, int) else _refuse()
            case "number":
                return self._bounded(float(value)) if _is_number(value) else _refuse()
            case "size" | "seconds" if _is_number(value):
                return self._bounded(int(value) if self.kind == "size" else float(value))
            case "table":
                return _table(value)
            case _:
                return self._from_words(value, folder) if isinstance(value, str) else _refuse()

    def quoted(self, value: object) -> str:
        """`value` for a message, as `, not …`; empty where it may hold a secret."""
        may_hold_secret = self.kind == "secret" or (self.kind.endswith("URL") and "@" in str(value))
        return "" if may_hold_secret else f", not {value!r}"

    def example(self, value: object) -> str | None:
        """How the TOML value would have to be written, when `value` only has the wrong type."""
        if not isinstance(value, str) or self.kind not in ("integer", "number", "boolean"):
            return None
        try:
            meant = self.from_text(value, Path())
        except ValueError:
            return None
        return f"{self.name} = {str(meant).lower()}"

    def _from_words(self, text: str, folder: Path) -> Value:
        match self.kind:
            case "text":
                return text or _refuse()
            case "secret":
                return Secret(text) if text else _refuse()
            case "path":
                return (folder / Path(text).expanduser()) if text else _refuse()
            case "size":
                return self._bounded(parse_size(text))
            case "seconds":
                return self._bounded(parse_seconds(text))
            case "choice":
                return text if text in self.choices else _refuse()
            case "engine URL":
                return engine_url(text)
            case "gateway URL":
                return gateway_url(text)
            case _:
                return _refuse()

    def _bounded(self, number: int | float) -> int | float:
        low, high = self.about.minimum, self.about.maximum
        if number != number or (low is not None and number < low) or (high is not None and number > high):
            _refuse()
        return number


_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

_EXPECTED: dict[Kind, str] = {
    "text": "a text",
    "secret": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "path": "a path",
    "size": "a size such as 32MiB or a number of bytes",
    "seconds": "a time such as 10s or a number of seconds",
    "choice": "a choice",
    "table": "a table of texts",
    "engine URL": "an address such as http://127.0.0.1:8000/v1, without user name, query or fragment",
    "gateway URL": "an address such as http://127.0.0.1:4000, without user name, query or fragment",
}

_METAVARS: dict[Kind, str] = {
    "secret": "KEY",
    "integer": "N",
    "number": "N",
    "path": "PATH",
    "size": "SIZE",
    "seconds": "SECONDS",
    "engine URL": "URL",
    "gateway URL": "URL",
}


def declared(section: str, cls: type[msgspec.Struct]) -> tuple[Option, ...]:
    """The options of one section, in the order of its fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(_option(section, field, hints[field.name]) for field in msgspec.structs.fields(cls))


def _option(section: str, field: msgspec.structs.FieldInfo, hint: object) -> Option:
    bare, *extras = typing.get_args(hint)
    about = next((extra for extra in extras if isinstance(extra, About)), None)
    if about is None:
        raise TypeError(f"{section}.{field.name} has no About")
    inner = _without_none(bare)
    choices = typing.get_args(inner) if typing.get_origin(inner) is Literal else ()
    default = None if field.default is msgspec.NODEFAULT else field.default
    kind = about.kind or ("choice" if choices else _KINDS.get(inner))
    if kind is None:
        raise TypeError(f"{section}.{field.name}: no option is made of {inner!r}")
    return Option(section, field.name, kind, about, default, choices)


_KINDS: dict[object, Kind] = {
    str: "text",
    Secret: "secret",
    int: "integer",
    float: "number",
    bool: "boolean",
    Path: "path",
    dict[str, str]: "table",
}


def _without_none(hint: object) -> object:
    if isinstance(hint, types.UnionType):
        return next(arm for arm in typing.get_args(hint) if arm is not type(None))
    return hint


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def _refuse() -> typing.NoReturn:
    raise ValueError


def _is_number(value: object) -> typing.TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _table(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        _refuse()
    table = {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str) and text}
    return table if len(table) == len(value) else _refuse()


_SIZE = re.compile(r"(\d+)\s*(?:([kmg])(i)?)?b?", re.IGNORECASE | re.ASCII)
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?", re.IGNORECASE | re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Bytes in `32MiB`, `32M` (both binary), `32MB` (decimal) or `33554432`."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError
    number, prefix, binary = found.groups()
    if prefix is None:
        return int(number)
    base = 1024 if binary or not text.lower().endswith("b") else 1000
    return int(number) * int(base ** (" kmg".index(prefix.lower())))


def parse_seconds(text: str) -> float:
    """Seconds in `10`, `10s`, `500ms`, `2m` or `1h`."""
    found = _SECONDS.fullmatch(text)
    if found is None:
        raise ValueError
    number, unit = found.groups()
    return float(number) * _UNIT_SECONDS[(unit or "s").lower()]


def engine_url(text: str) -> str:
    """The base of an OpenAI-compatible server as its clients write it: with `/v1`, without a last slash.

    Another version at the end of the path (`/v4`) is kept, since some servers have no `/v1`.
    """
    base = _plain_url(text).removesuffix("/chat/completions")
    return base if re.search(r"/v\d+$", base) else base + "/v1"


def gateway_url(text: str) -> str:
    """The base of the gateway as Anthropic's clients want it: without `/v1`, which they add themselves."""
    return _plain_url(text).removesuffix("/messages").removesuffix("/v1")


def _plain_url(text: str) -> str:
    whole = text if "://" in text else f"http://{text}"
    # An empty query or fragment (`http://h?`) would swallow the path that is put behind it.
    if not whole.isprintable() or any(character in whole for character in " ?#@"):
        raise ValueError
    parts = urlsplit(whole)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    if parts.port == 0:  # .port itself raises for what is no port
        raise ValueError
    return whole.rstrip("/")
