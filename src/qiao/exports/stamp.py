"""The mark in each exported file: who wrote it, and a checksum of the rest.

With it a file that somebody edited can be told from one that was only written, and is not written over.
"""

from __future__ import annotations

import hashlib
import re

from qiao import __version__

_MARK = re.compile(r"^(?P<comment>#|//|;) qiao \S+ export (?P<format>\S+) sha256:(?P<sum>[0-9a-f]{64})$", re.MULTILINE)


def stamped(text: str, kind: str, comment: str = "#") -> str:
    """`text` with the mark as its first line, or its second where the first names the interpreter."""
    first, rest = ("", text)
    if text.startswith("#!"):
        first, _, rest = text.partition("\n")
        first += "\n"
    end = "\r\n" if "\r\n" in text else "\n"
    return f"{first}{comment} qiao {__version__} export {kind} sha256:{_checksum(text)}{end}{rest}"


def is_untouched(text: str) -> bool:
    """Whether a file is as it was written. False for an edited file and for one that is not ours."""
    text = text.replace("\r\n", "\n")
    found = _MARK.search(text)
    if found is None:
        return False
    body = text[: found.start()] + text[found.end() + 1 :]
    return _checksum(body) == found["sum"]


def is_ours(text: str) -> bool:
    """Whether a file has the mark, edited or not."""
    return _MARK.search(text.replace("\r\n", "\n")) is not None


def _checksum(body: str) -> str:
    # Editors and git may change line ends; that is no edit.
    return hashlib.sha256(body.replace("\r\n", "\n").encode()).hexdigest()
