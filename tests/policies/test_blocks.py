"""Documents and pictures that an engine cannot read where they stand."""

from __future__ import annotations

import hashlib

from qiao.core.conversation import Conversation, Document, Image, Text, ToolResult
from qiao.policies.blocks import (
    document_key,
    documents_needed,
    lift_images,
    note_images,
    note_older_images,
    place_documents,
)
from tests.policies.test_history import assistant, call, result, user

PDF = Document("application/pdf", "JVBERi0=", title='A "b" & <c>', context="From the archive.")
SCAN = Document("application/pdf", "A" * 4096)
PNG = Image("image/png", "A" * 4096)


def test_documents_are_asked_for_once_also_inside_results() -> None:
    turns = (user(PDF, "x"), assistant(call("1")), user(ToolResult("1", (SCAN, PDF)), SCAN))
    assert documents_needed(Conversation(model="m", turns=turns)) == (PDF, SCAN)
    assert document_key(PDF) == hashlib.sha256(b"JVBERi0=").hexdigest()


def test_documents_become_their_text_or_a_note() -> None:
    turns = (user(PDF, "x"), assistant(call("1")), user(ToolResult("1", (SCAN,))))
    placed, notes = place_documents(turns, {document_key(PDF): "Words.", document_key(SCAN): " \n"})
    head = '<document title="A &quot;b&quot; &amp; &lt;c>">\nFrom the archive.\n\n'
    assert placed[0] == user(f"{head}Words.\n</document>", "x")
    nothing = "<document>\n[application/pdf, 3 KB; no text could be extracted]\n</document>"
    assert placed[2] == user(result("1", nothing))
    assert notes == ("documents: replaced by their text: 1", "documents: without text, replaced by a note: 1")


def test_a_document_nobody_extracted_gets_the_note_too() -> None:
    placed, _ = place_documents((user(SCAN),), {})
    assert "no text could be extracted" in str(placed[0])


def test_pictures_become_notes_everywhere() -> None:
    turns = (user(PNG, Image(url="http://h/x.png"), Image()), assistant(call("1")), user(ToolResult("1", (PNG,))))
    noted, notes = note_images(turns)
    assert noted[0] == user(
        "[image: image/png, 3 KB; this model cannot see images]",
        "[image: http://h/x.png; this model cannot see images]",
        "[image: no data; this model cannot see images]",
    )
    assert noted[2] == user(result("1", "[image: image/png, 3 KB; this model cannot see images]"))
    assert notes == ("images: replaced by a note, the model cannot see: 4",)


def test_the_newest_pictures_stay() -> None:
    first, second, third = (Image("image/png", letter * 4096) for letter in "ABC")
    turns = (user(first), assistant(call("1")), user(ToolResult("1", (Text("a"), second)), third))
    kept, notes = note_older_images(turns, 1)
    note = "[image: image/png, 3 KB; left out, the engine takes 1 at a time]"
    assert kept == (user(note), turns[1], user(result("1", "a", note), third))
    assert notes == ("images: earlier ones replaced by a note, the engine takes 1: 2",)
    assert note_older_images(turns, 2)[0] == (user(note.replace("takes 1", "takes 2")), *turns[1:])
    assert note_older_images(turns, 3) == (turns, ())


def test_pictures_leave_the_results_and_follow_all_of_them() -> None:
    other = Image("image/jpeg", "BB")
    turns = (
        user(PNG),
        assistant(call("1"), call("2")),
        user(ToolResult("1", (Text("a"), PNG)), ToolResult("2", (other,)), "side"),
    )
    lifted, notes = lift_images(turns)
    assert lifted[:2] == turns[:2]
    assert lifted[2] == user(
        result("1", "a", "[image 1: shown after the tool results]"),
        result("2", "[image 2: shown after the tool results]"),
        "[image 1 of the tool results above]",
        PNG,
        "[image 2 of the tool results above]",
        other,
        "side",
    )
    assert notes == ("images: moved out of tool results: 2",)
    assert lift_images(lifted) == (lifted, ())
