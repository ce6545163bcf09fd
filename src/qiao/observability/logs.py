"""One line a request on stderr, for people or as JSON. Never a word of a prompt or an answer, never a key."""

from __future__ import annotations

import time
from collections import Counter
from typing import Literal, TextIO

import msgspec

from qiao.observability.record import RequestRecord

Level = Literal["debug", "info", "warning", "error"]

_ORDER: dict[Level, int] = {"debug": 0, "info": 1, "warning": 2, "error": 3}

# Asked every few seconds by orchestrators: worth a line only when they fail or when everything is wanted.
_QUIET_ROUTES = frozenset({"healthz", "readyz", "metrics", "hello"})

# Notes say what was done to a request, tool names among it; a client with hundreds of tools shall not fill the screen.
_NOTES_LIMIT = 300


class RequestLog:
    """Writes the line of each request whose level is `level` or above to `stream`."""

    def __init__(self, stream: TextIO, *, level: Level = "info", as_json: bool = False) -> None:
        self._stream = stream
        self._least = _ORDER[level]
        self._as_json = as_json

    def warn(self, text: str) -> None:
        """A line about the whole, not about a request."""
        if _ORDER["warning"] < self._least or self._stream.closed:
            return
        line = {"level": "warning", "message": text}
        words = f"{time.strftime('%H:%M:%S')} warning {text}"
        self._stream.write((msgspec.json.encode(line).decode() if self._as_json else words) + "\n")
        self._stream.flush()

    def write(self, record: RequestRecord) -> None:
        """Log one request. A closed stream ends the logging, not the gateway."""
        if _ORDER[level_of(record)] < self._least or self._stream.closed:
            return
        line = as_json(record) if self._as_json else as_text(record)
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self._least = len(_ORDER)


def level_of(record: RequestRecord) -> Level:
    """error: ours; warning: an upstream's, or a refused request; info: answers; debug: probes."""
    if record.fault_party == "ours" or record.status in (500, 502):
        return "error"
    if record.status >= 400:
        return "warning"
    return "debug" if record.route in _QUIET_ROUTES else "info"


def as_text(record: RequestRecord) -> str:
    """`10:41:07 messages 200 qwen3-235b stream tool_use in 12034 (11000 cached) out 253 first 0.31s 4.21s req_…`"""
    words = [time.strftime("%H:%M:%S", time.localtime(record.at)), record.route, str(record.status)]
    if record.model:
        words.append(_shown(record.model))
    if record.upstream_model and record.upstream_model != record.model:
        words.append(f"→ {_shown(record.upstream_model)}")
    words += ["stream"] if record.is_stream else []
    words += [record.stop_reason] if record.stop_reason else []
    if record.input_tokens is not None:
        cached = f" ({record.cached_tokens} cached)" if record.cached_tokens else ""
        words.append(f"in {record.input_tokens}{cached}")
    if record.output_tokens is not None:
        words.append(f"out {record.output_tokens}")
    if record.first_byte is not None:
        words.append(f"first {record.first_byte:.2f}s")
    words.append(f"{record.duration:.2f}s")
    if record.repairs:
        counted = Counter(record.repairs)
        words.append("repairs " + ",".join(f"{name}×{count}" for name, count in sorted(counted.items())))
    if record.healed:
        words.append("healed " + ",".join(record.healed))
    if record.joined:
        words.append(f"joined {record.joined}")
    if record.trimmed:
        words.append(f"trimmed {record.trimmed}")
    if record.notes:
        words.append(f"[{_said(record.notes)}]")
    if record.fault_kind is not None:
        said = record.safe_message
        words.append(f"{record.fault_party} {record.fault_kind}" + (f": {_shown(said)}" if said else ""))
    words += [record.client] if record.client else []
    return " ".join([*words, record.request_id])


def as_json(record: RequestRecord) -> str:
    """One JSON object: the record's fields that say something; `fault_message` only as far as it is safe."""
    fields: dict[str, object] = msgspec.structs.asdict(record)
    fields |= {
        "model": _shown(record.model),
        "upstream_model": _shown(record.upstream_model),
        "notes": tuple(_shown(note) for note in record.notes),
        "dropped": tuple(_shown(field) for field in record.dropped),
        "fault_message": _shown(record.safe_message),
        "level": level_of(record),
    }
    said = {name: value for name, value in fields.items() if value is not None and value not in ("", ())}
    return msgspec.json.encode(said).decode()


def _said(notes: tuple[str, ...]) -> str:
    """The notes one after the other, as many as `_NOTES_LIMIT` characters hold; at least the beginning of the first."""
    said = _shown(notes[0])[:_NOTES_LIMIT]
    for index, note in enumerate(notes[1:], start=1):
        if len(said) + len(note) > _NOTES_LIMIT:
            return f"{said}; and {len(notes) - index} more"
        said += f"; {_shown(note)}"
    return said


def _shown(text: str) -> str:
    """Names and messages may come from outside: nothing in them may look like another line of the log."""
    return "".join(character if character.isprintable() else "?" for character in text[:400])
