"""The words of a PDF, for a model that reads text: bounded in pages, characters and time, never an exception.

Clients send the same file again with every turn, so texts are kept (`PdfReader`) under the hash of what was sent.
pypdf is imported at first use: importing it takes an eighth of a second.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import logging
import struct
import time
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import pypdf

# What pypdf raises for broken files beside its own errors: it reads attributes of whatever object it finds.
_BROKEN_FILE_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    EOFError,
    struct.error,
    zlib.error,
)

BROKEN = "[This PDF could not be read: the file is damaged or is not a PDF.]"
ENCRYPTED = "[This PDF is protected by a password, so its text could not be read.]"


class Limits(msgspec.Struct, frozen=True):
    """How much of one PDF is read. Anthropic itself reads 100 pages; `characters` is about 100,000 tokens."""

    pages: int = 100
    characters: int = 400_000
    seconds: float = 20.0


class _OutOfTimeError(Exception):
    """The reading of one file took longer than allowed."""


def extract_text(data: bytes, limits: Limits | None = None) -> str:
    """The text of the PDF in `data`, each page under `--- page 1 of 3 ---`; what is missing is said in brackets.

    Takes the CPU for up to `limits.seconds`: call it in a thread (`PdfReader.text` does).
    """
    import pypdf

    # It logs what it finds odd in a file, words of the document among it: nothing of a prompt belongs into a log.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    within = limits or Limits()
    broken: tuple[type[Exception], ...] = (
        pypdf.errors.PyPdfError,
        pypdf.errors.DeprecationError,
        *_BROKEN_FILE_ERRORS,
    )
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            return ENCRYPTED
        return _pages(reader, within, (*broken, pypdf.errors.DependencyError))
    except (pypdf.errors.FileNotDecryptedError, pypdf.errors.DependencyError):
        return ENCRYPTED
    except broken:
        return BROKEN


def _pages(reader: pypdf.PdfReader, within: Limits, page_errors: tuple[type[Exception], ...]) -> str:
    total = len(reader.pages)
    deadline = time.monotonic() + within.seconds

    def watch_the_clock(*_: object) -> None:
        if time.monotonic() > deadline:
            raise _OutOfTimeError

    pieces: list[str] = []
    left, has_words, ending = within.characters, False, ""
    for number, page in enumerate(reader.pages, start=1):
        if number > within.pages:
            ending = f"[The other {total - within.pages} pages are not shown.]"
            break
        try:
            watch_the_clock()
            text = _tidy(page.extract_text(visitor_operand_before=watch_the_clock))
        except _OutOfTimeError:
            ending = f"[Reading stopped at page {number} of {total}: this PDF takes too long to read.]"
            break
        except page_errors:
            text = "[this page could not be read]"
        has_words = has_words or bool(text)
        pieces.append(f"--- page {number} of {total} ---\n{text[:left] or '[no text on this page]'}")
        if len(text) > left:
            ending = f"[The text is cut here, on page {number} of {total}: it is too long to show whole.]"
            break
        left -= len(text)
    if not has_words and not ending:
        counted = "1 page" if total == 1 else f"{total} pages"
        return f"[This PDF has {counted} but no text: it seems to hold scanned pictures, which cannot be read here.]"
    return "\n\n".join(piece for piece in (*pieces, ending) if piece)


def _tidy(text: str) -> str:
    """Lines without trailing blanks; characters that no JSON or model can take are replaced."""
    clean = text.encode("utf-8", "replace").decode().replace("\x00", "")
    return "\n".join(line.rstrip() for line in clean.splitlines()).strip()


class TextCache:
    """The texts used last, at most `max_bytes` of them together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._texts: OrderedDict[bytes, str] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: bytes) -> str | None:
        """The text under `key`, which becomes the one used last."""
        text = self._texts.get(key)
        if text is not None:
            self._texts.move_to_end(key)
        return text

    def put(self, key: bytes, text: str) -> None:
        """Keep `text`; what was not used for longest makes room. A text larger than the cache is not kept."""
        if key in self._texts:
            self.size -= _weight(self._texts.pop(key))
        if _weight(text) > self._max_bytes:
            return
        self._texts[key] = text
        self.size += _weight(text)
        while self.size > self._max_bytes:
            _, oldest = self._texts.popitem(last=False)
            self.size -= _weight(oldest)


class PdfReader:
    """Reads PDFs in threads, `at_once` at a time, and remembers their texts."""

    def __init__(self, *, limits: Limits | None = None, cache_bytes: int = 16 * 2**20, at_once: int = 2) -> None:
        self._limits = limits or Limits()
        self._cache = TextCache(cache_bytes)
        self._slots = asyncio.Semaphore(at_once)
        self._running: dict[bytes, asyncio.Task[str]] = {}

    async def text(self, encoded: str) -> str:
        """The text of a PDF in base64, as the Messages API carries it. Never raises for what is in the file."""
        key = await asyncio.to_thread(_key, encoded)
        known = self._cache.get(key)
        if known is not None:
            return known
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._extract(key, encoded))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        # Shielded: another request may wait for the same file when this one is cancelled.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Stop waiting for files that are being read."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _extract(self, key: bytes, encoded: str) -> str:
        async with self._slots:
            text = await asyncio.to_thread(_from_base64, encoded, self._limits)
        self._cache.put(key, text)
        return text


def _key(encoded: str) -> bytes:
    return hashlib.sha256(encoded.encode()).digest()


def _from_base64(encoded: str, limits: Limits) -> str:
    try:
        data = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        return BROKEN
    return extract_text(data, limits)


def _weight(text: str) -> int:
    # An upper bound that costs nothing: Python keeps up to four bytes a character. The rest is the entry itself.
    return 4 * len(text) + 200 if not text.isascii() else len(text) + 200
