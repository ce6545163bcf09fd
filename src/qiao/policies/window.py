"""Whether a prompt and its answer fit the context window, and how long the answer may be. Numbers in, numbers out.

A count costs time on the path of a request, so the first question is whether it can matter at all (`is_far`). What that
look misses, a text of nothing but digits, the engine refuses itself, and its refusal says the same to the client.
"""

from __future__ import annotations

from qiao.policies.overflow import LEAST_ANSWER

_TOKENS_PER_BYTE = 0.5
"""English and code have 0.2 to 0.35 tokens a byte in JSON, Chinese 0.25; only digits and noise go above a half."""

_MOST_ROOM = 1024

_LOCAL_ERROR = 0.01
"""How far a count by a tokenizer of our own may lie beside the engine's: its template is not the engine's file."""


def is_far(body_size: int, asked: int | None, window: int | None) -> bool:
    """Whether a request of `body_size` bytes that asks for `asked` tokens fits, as far as its size can tell."""
    if window is None:
        return True
    return body_size * _TOKENS_PER_BYTE + (asked or LEAST_ANSWER) <= window


def least_room(window: int) -> int:
    """Tokens. With less room an answer would be cut before it is one. A client that summarises what became too long
    gets this much for the summary."""
    return min(_MOST_ROOM, max(LEAST_ANSWER, window // 32))


def answer_room(asked: int | None, prompt: int, window: int, *, reserve: int = 0) -> int | None:
    """Tokens that the answer may have: `asked`, or what is left; None: too little is left, the prompt is too long.

    `asked` None leaves it to the engine, and so does the answer (0). `reserve`: tokens that must stay free (SGLang
    refuses a request that fills its window exactly).
    """
    left = window - prompt - reserve
    if asked is None:
        return 0 if left >= 1 else None
    if left >= asked:
        return asked
    return left if left >= least_room(window) else None


def surely_too_long(prompt: int, window: int, *, is_exact: bool) -> bool:
    """Whether a count that leaves no room is good enough to refuse by; else the engine shall decide."""
    return is_exact or prompt > window * (1 + _LOCAL_ERROR)


def too_long(prompt: int, window: int) -> str:
    """The refusal that Claude Code acts on: it compacts, and the gap between the numbers says how much.

    A prompt that fits but leaves no room for an answer is above the most that a prompt may have.
    """
    most = window if prompt > window else window - least_room(window)
    return f"prompt is too long: {prompt} tokens > {min(most, prompt - 1)} maximum"
