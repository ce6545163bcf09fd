"""Counts of prompts, kept by prefix: what a grown conversation adds is all that has to be counted again.

Pure bookkeeping; who counts is `upstream.counting`. A prompt's count is kept under a digest of everything that goes
into the prompt, turn by turn, so that the next request of the conversation finds the longest beginning that is known.
The rest is counted behind a stub, a turn of one word, and the stub's own tokens are taken off: between two turns
stands a control token, over which no tokenizer merges.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from itertools import islice

import msgspec

from qiao.core.conversation import Conversation, Image, Reasoning, Text, Tool, ToolCall, ToolResult, Turn
from qiao.core.openai.target import Target

_CAPACITY = 4096
_DIGEST_SIZE = 16
_ENCODER = msgspec.msgpack.Encoder()

STUB = Turn("user", (Text("Hi"),))

_OPENING = (Turn("user", (Text("One."),)), Turn("assistant", (Text("Two."),)), Turn("user", (Text("Three."),)))
_GROWTH = (
    Turn("assistant", (Text("Four."), ToolCall("call_1", "five", '{"six": "seven"}'))),
    Turn("user", (ToolResult("call_1", (Text("Eight."),)),)),
    Turn("assistant", (Text("Nine."),)),
    Turn("user", (Text("Ten."),)),
)
# The reasoning of a tool loop that a question ends.
_THOUGHT = (
    Turn("user", (Text("One."),)),
    Turn("assistant", (Reasoning("Two, three, four."), ToolCall("call_1", "five", '{"six": "seven"}'))),
    Turn("user", (ToolResult("call_1", (Text("Eight."),)),)),
)
_QUESTION = (Turn("assistant", (Text("Nine."),)), Turn("user", (Text("Ten."),)))


class Known(msgspec.Struct, frozen=True):
    """The longest counted beginning of a conversation: how many turns, and the tokens of a prompt of them.

    `is_sum`: the number was put together from counts of pieces, and not told for the whole.
    """

    turns: int
    tokens: int
    is_sum: bool = False


class PrefixCounts:
    """Counts by digest, the least recently used forgotten first. At most `capacity`, a hundred bytes each."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._counts: OrderedDict[bytes, tuple[int, bool]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def longest(self, digests: list[bytes]) -> Known | None:
        """What is known of the conversation with these `digests`."""
        for place in range(len(digests) - 1, -1, -1):
            known = self._counts.get(digests[place])
            if known is not None:
                self._counts.move_to_end(digests[place])
                return Known(place + 1, *known)
        return None

    def remember(self, digest: bytes, tokens: int, *, is_sum: bool = False) -> None:
        self._counts[digest] = (tokens, is_sum)
        self._counts.move_to_end(digest)
        while len(self._counts) > self._capacity:
            self._counts.popitem(last=False)


def digests(conversation: Conversation, target: Target) -> list[bytes]:
    """One digest a turn, of everything that stands in the prompt up to and with it."""
    running = hashlib.blake2b(_head(conversation, target), digest_size=_DIGEST_SIZE)
    found: list[bytes] = []
    for turn in conversation.turns:
        running.update(_ENCODER.encode(turn))
        found.append(running.digest())
    return found


def _head(conversation: Conversation, target: Target) -> bytes:
    """What stands before the turns or steers the template."""
    arguments = conversation.extras.get("chat_template_kwargs")
    steering = [
        conversation.thinking.effort,
        conversation.continues,
        bytes(arguments) if arguments is not None else None,
    ]
    dialect = [target.model, target.template_kwargs, target.effort_values, target.reasoning_field, target.prefill]
    return _ENCODER.encode([conversation.system, conversation.tools, steering, dialect])


def is_additive(turns: tuple[Turn, ...], start: int, *, keeps_reasoning: bool = False) -> bool:
    """Whether the prompt of `turns` is that of the first `start` of them and the rest behind it.

    Most templates keep reasoning until the user speaks again: such a turn takes tokens away before it.
    `keeps_reasoning`: this one never drops it.
    """
    if not 0 < start < len(turns) or turns[start].role != "assistant" or turns[-1].role == "assistant":
        return False
    if keeps_reasoning:
        return True
    speaks = any(
        turn.role != "assistant" and any(not isinstance(part, ToolResult) for part in turn.parts)
        for turn in islice(turns, start, None)
    )
    return not speaks or not any(isinstance(part, Reasoning) for turn in turns[:start] for part in turn.parts)


def behind_stub(conversation: Conversation, start: int) -> Conversation:
    """The turns from `start` on, behind the stub and without the head."""
    turns = (STUB, *conversation.turns[start:])
    return msgspec.structs.replace(conversation, system=(), tools=(), turns=turns)


def alone(conversation: Conversation) -> Conversation:
    """The stub by itself."""
    return msgspec.structs.replace(conversation, system=(), tools=(), turns=(STUB,))


Trial = tuple[Conversation, Conversation, Conversation]
"""A small conversation whole, its beginning, and its growth behind the stub: with `alone`, these four tell whether a
template adds the one to the other."""


def trial(conversation: Conversation) -> Trial:
    """Whether a template is additive at all."""
    return _trial(conversation, _OPENING, _GROWTH)


def reasoning_trial(conversation: Conversation) -> Trial:
    """Whether it is where the user speaks after there was reasoning."""
    return _trial(conversation, _THOUGHT, _QUESTION)


def steering(conversation: Conversation, target: Target) -> bytes:
    """A digest of all that steers a template, apart from what is said."""
    bare = msgspec.structs.replace(conversation, system=(), tools=())
    return hashlib.blake2b(_head(bare, target), digest_size=_DIGEST_SIZE).digest()


def _trial(conversation: Conversation, opening: tuple[Turn, ...], growth: tuple[Turn, ...]) -> Trial:
    def of(*turns: Turn) -> Conversation:
        tool = Tool("five", "Six.")
        return msgspec.structs.replace(conversation, system=("Zero.",), tools=(tool,), turns=turns)

    grown = behind_stub(of(*opening, *growth), len(opening))
    return of(*opening, *growth), of(*opening), grown


def has_images(conversation: Conversation) -> bool:
    """Whether a picture stands in the prompt: its tokens are the engine's own affair."""
    return any(isinstance(part, Image) for turn in conversation.turns for part in turn.parts)


def without_images(conversation: Conversation) -> Conversation:
    """The words alone: a prompt that is no longer than the real one."""
    turns = tuple(
        msgspec.structs.replace(turn, parts=tuple(part for part in turn.parts if not isinstance(part, Image)))
        for turn in conversation.turns
    )
    return msgspec.structs.replace(conversation, turns=turns)
