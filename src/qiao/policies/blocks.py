"""What becomes of blocks that an engine cannot read: documents, and pictures where the model or the place has no eyes.

Nothing vanishes: where a block cannot go on, a note says what stood there. An error instead would come back with every
later turn, since the block stays in the client's history.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec

from qiao.core.conversation import (
    Conversation,
    Document,
    Image,
    Part,
    ResultPart,
    Text,
    ToolReference,
    ToolResult,
    Turn,
)
from qiao.policies.course import course

Turns = tuple[Turn, ...]


def document_key(document: Document) -> str:
    """The key of a document's text in `documents`: SHA-256, in hex, of its base64 text."""
    return hashlib.sha256(document.data.encode()).hexdigest()


def documents_needed(conversation: Conversation) -> tuple[Document, ...]:
    """The documents whose text `prepare` will ask for, each once, in order of appearance."""
    if Document not in course(conversation.turns).kinds:
        return ()
    found: dict[str, Document] = {}
    for turn in conversation.turns:
        for part in turn.parts:
            if type(part) is ToolResult:
                for inner in part.parts:
                    if type(inner) is Document:
                        found.setdefault(document_key(inner), inner)
            elif type(part) is Document:
                found.setdefault(document_key(part), part)
    return tuple(found.values())


def place_documents(turns: Turns, documents: Mapping[str, str]) -> tuple[Turns, tuple[str, ...]]:
    """Every document as text, from `documents` (text by `document_key`; absent or blank: none could be extracted)."""
    placed = 0
    unread = 0

    def replace(part: ResultPart) -> ResultPart:
        nonlocal placed, unread
        if not isinstance(part, Document):
            return part
        text = documents.get(document_key(part), "")
        if text.strip():
            placed += 1
        else:
            unread += 1
        return Text(_document_text(part, text))

    result = _map_blocks(turns, replace)
    notes = []
    if placed:
        notes.append(f"documents: replaced by their text: {placed}")
    if unread:
        notes.append(f"documents: without text, replaced by a note: {unread}")
    return result, tuple(notes)


def note_images(turns: Turns) -> tuple[Turns, tuple[str, ...]]:
    """For a model without eyes: every picture becomes a note."""
    noted = 0

    def replace(part: ResultPart) -> ResultPart:
        nonlocal noted
        if not isinstance(part, Image):
            return part
        noted += 1
        return Text(f"[image: {_image_words(part)}; this model cannot see images]")

    result = _map_blocks(turns, replace)
    return result, ((f"images: replaced by a note, the model cannot see: {noted}",) if noted else ())


def note_older_images(turns: Turns, limit: int) -> tuple[Turns, tuple[str, ...]]:
    """For an engine that takes `limit` pictures in a prompt: the newest stay, every earlier one becomes a note."""
    count = sum(isinstance(block, Image) for turn in turns for part in turn.parts for block in _blocks(part))
    excess = count - limit
    if excess <= 0:
        return turns, ()
    seen = 0

    def replace(part: ResultPart) -> ResultPart:
        nonlocal seen
        if not isinstance(part, Image):
            return part
        seen += 1
        if seen > excess:
            return part
        return Text(f"[image: {_image_words(part)}; left out, the engine takes {limit} at a time]")

    return _map_blocks(turns, replace), (
        f"images: earlier ones replaced by a note, the engine takes {limit}: {excess}",
    )


def lift_images(turns: Turns) -> tuple[Turns, tuple[str, ...]]:
    """Pictures out of tool results, which hold text only: a pointer stays in the result, and the pictures follow in
    the user message after all results of that turn. A user message between two parallel results would part them."""
    lifted = 0
    result: list[Turn] = []
    for turn in turns:
        if turn.role != "user" or not any(_has_image(part) for part in turn.parts):
            result.append(turn)
            continue
        kept: list[Part] = []
        pictures: list[Part] = []
        for part in turn.parts:
            if not _has_image(part):
                kept.append(part)
                continue
            assert isinstance(part, ToolResult)
            inner: list[ResultPart] = []
            for block in part.parts:
                if isinstance(block, Image):
                    number = len(pictures) // 2 + 1
                    inner.append(Text(f"[image {number}: shown after the tool results]"))
                    pictures += (Text(f"[image {number} of the tool results above]"), block)
                else:
                    inner.append(block)
            kept.append(msgspec.structs.replace(part, parts=tuple(inner)))
        lifted += len(pictures) // 2
        results = [part for part in kept if isinstance(part, ToolResult)]
        rest = [part for part in kept if not isinstance(part, ToolResult)]
        result.append(msgspec.structs.replace(turn, parts=(*results, *pictures, *rest)))
    notes = (f"images: moved out of tool results: {lifted}",) if lifted else ()
    return tuple(result), notes


def _has_image(part: Part) -> bool:
    return isinstance(part, ToolResult) and any(isinstance(block, Image) for block in part.parts)


def _blocks(part: Part) -> tuple[Part | ResultPart, ...]:
    return part.parts if isinstance(part, ToolResult) else (part,)


def _map_blocks(turns: Turns, replace: Callable[[ResultPart], ResultPart]) -> Turns:
    """`replace` applied to every text, picture and document, also inside results; unchanged turns are not copied."""
    result: list[Turn] = []
    for turn in turns:
        parts: list[Part] = []
        for part in turn.parts:
            match part:
                case ToolResult():
                    inner = tuple(replace(block) for block in part.parts)
                    parts.append(part if inner == part.parts else msgspec.structs.replace(part, parts=inner))
                case Text() | Image() | Document():
                    replaced = replace(part)
                    assert not isinstance(replaced, ToolReference)
                    parts.append(replaced)
                case _:
                    parts.append(part)
        result.append(turn if tuple(parts) == turn.parts else msgspec.structs.replace(turn, parts=tuple(parts)))
    return tuple(result)


def _document_text(document: Document, text: str) -> str:
    title = f' title="{_attribute(document.title)}"' if document.title else ""
    context = f"{document.context}\n\n" if document.context else ""
    body = text if text.strip() else f"[{document.media_type}, {_size(document.data)}; no text could be extracted]"
    return f"<document{title}>\n{context}{body}\n</document>"


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _image_words(image: Image) -> str:
    if image.data is not None:
        return f"{image.media_type or 'unknown type'}, {_size(image.data)}"
    return image.url or image.media_type or "no data"


def _size(base64: str) -> str:
    return f"{max(1, round(len(base64) * 3 / 4 / 1024))} KB"
