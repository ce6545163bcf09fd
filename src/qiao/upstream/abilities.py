"""What an engine can do besides answering: count prompts, hold to a schema, see, continue an answer; and in which
dialect its chat template writes calls.

Nearly all of it is asked of its template and tokenizer alone; one request asks for a token.
"""

from __future__ import annotations

import base64
import struct
import zlib

import msgspec

from qiao.core.conversation import Conversation, Image, Text, Turn
from qiao.core.fault import Fault
from qiao.policies import refusal, remedies, template
from qiao.upstream.asking import Asker, Prompt, Said

_SIDE = 64
"""Pixels: pictures of a single one have crashed engines, and some models refuse less than 28."""

_SCHEMA = '{"type":"object","properties":{"word":{"type":"string"}},"required":["word"],"additionalProperties":false}'
_BEGUN = "Certainly"


class Abilities(msgspec.Struct, frozen=True):
    """What was found; None where it could not be told.

    * `tokenize`: it counts the prompt of a conversation. `structured_outputs`: it holds to a schema for the answer.
    * `images`: its model sees. `prefill`: it continues an assistant turn.
    """

    tokenize: bool | None = None
    structured_outputs: bool | None = None
    images: bool | None = None
    prefill: bool | None = None


async def abilities(asker: Asker, bare: Conversation, prompt: Prompt) -> Abilities:
    """As far as the engine answers. `bare`: a conversation without tools; `prompt`: what its template makes of it."""
    found = Abilities(tokenize=_counts(prompt.said))
    failed_before = asker.client.has_failed
    try:
        found = msgspec.structs.replace(found, structured_outputs=await _holds(asker, bare))
        found = msgspec.structs.replace(found, prefill=await _continues(asker, bare))
        found = msgspec.structs.replace(found, images=await _sees(asker, bare))
    except Fault:
        # It may be the question that the engine breaks off at: what is known stays, and nothing is asked anew for it.
        asker.client.has_failed = failed_before
    return found


async def _holds(asker: Asker, bare: Conversation) -> bool | None:
    return _taken(await asker.chat(msgspec.structs.replace(bare, output_schema=_SCHEMA)))


def _taken(said: Said) -> bool | None:
    return True if said.status == 200 else False if said.is_refused else None


def _counts(said: Said) -> bool | None:
    return True if said.status == 200 else False if said.is_refused or said.status in (404, 405, 501) else None


async def template_dialect(asker: Asker, bare: Conversation, prompt: Prompt) -> str | None:
    """The dialect in which its chat template writes calls; None: that cannot be seen. Raises `Fault`.

    A template may refuse the call in the history; then its list of tools may tell.
    """
    if prompt.text is None:
        return None
    for history in (True, False):
        text = (await asker.prompt(template.shown(bare, history=history))).text
        if text is not None:
            return template.dialect_of_prompt(text)
    return None


async def _sees(asker: Asker, bare: Conversation) -> bool | None:
    if asker.target.flavor == "llamacpp":
        modalities = (await asker.told("/props")).get("modalities")
        sees = modalities.get("vision") if isinstance(modalities, dict) else None
        return sees if isinstance(sees, bool) else None
    turn = Turn("user", (Text("Hi"), Image("image/png", base64.b64encode(_picture()).decode())))
    said = (await asker.prompt(msgspec.structs.replace(bare, turns=(turn,)))).said
    if said.status == 200:
        # SGLang's route may count the words alone.
        return True if asker.target.flavor == "vllm" else None
    refused = refusal.read(said.status, said.raw)
    remedy = remedies.find(refused.text, refused.status)
    return False if remedy is not None and remedy.quirk == "no_images" else None


async def _continues(asker: Asker, bare: Conversation) -> bool | None:
    if asker.target.prefill == "none":
        return False
    turns = (*bare.turns, Turn("assistant", (Text(_BEGUN),)))
    begun = msgspec.structs.replace(bare, turns=turns, continues=True)
    prompt = await asker.prompt(begun)
    if prompt.text is not None and (asker.target.prefill == "flags" or prompt.text.endswith(_BEGUN)):
        return prompt.text.endswith(_BEGUN)
    return False if _taken(await asker.chat(begun)) is False else None


def _picture() -> bytes:
    """A grey square as PNG."""
    rows = b"".join(b"\0" + b"\x80" * _SIDE for _ in range(_SIDE))
    head = struct.pack(">2I5B", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
