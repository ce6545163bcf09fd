"""Words out of PDFs: real files, broken files, protected files, endless files."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import random
import time

import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.documents.pdf import BROKEN, ENCRYPTED, Limits, PdfReader, TextCache, extract_text
from tests.documents.pdf_files import pdf


def rewritten(data: bytes, *, password: str | None = None, algorithm: str = "AES-256") -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(data))
    if password is not None:
        writer.encrypt(password, "owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_pages_have_headers() -> None:
    text = extract_text(pdf("Hello (world)\nsecond line", "Page two"))
    assert text == "--- page 1 of 2 ---\nHello (world)\nsecond line\n\n--- page 2 of 2 ---\nPage two"


def test_a_page_without_text_is_said() -> None:
    text = extract_text(pdf("words", b""))
    assert text.endswith("--- page 2 of 2 ---\n[no text on this page]")


@pytest.mark.parametrize("pages", [1, 3])
def test_scanned(pages: int) -> None:
    text = extract_text(pdf(*[b"q 100 0 0 100 0 0 cm Q"] * pages))
    assert text.startswith(f"[This PDF has {pages} page{'s' if pages > 1 else ''} but no text")


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_protected(algorithm: str) -> None:
    assert extract_text(rewritten(pdf("secret"), password="user", algorithm=algorithm)) == ENCRYPTED


def test_protected_by_an_owner_password_only() -> None:
    text = extract_text(rewritten(pdf("open words"), password="", algorithm="RC4-128"))
    assert "open words" in text


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.7", b"no pdf", b"\x00" * 5000, pdf("words")[:200], b"<html></html>"], ids=range(6)
)
def test_broken(data: bytes) -> None:
    assert extract_text(data) == BROKEN


def test_page_limit() -> None:
    text = extract_text(pdf(*["words"] * 5), Limits(pages=2))
    assert "page 2 of 5" in text
    assert "page 3 of 5" not in text
    assert text.endswith("[The other 3 pages are not shown.]")


def test_character_limit() -> None:
    text = extract_text(pdf("first words", "second words"), Limits(characters=15))
    assert text == (
        "--- page 1 of 2 ---\nfirst words\n\n--- page 2 of 2 ---\nseco\n\n"
        "[The text is cut here, on page 2 of 2: it is too long to show whole.]"
    )


def test_time_limit_inside_a_page() -> None:
    endless = b"BT /F1 12 Tf " + b"(x) Tj " * 200_000 + b"ET"
    started = time.monotonic()
    text = extract_text(pdf("first", endless), Limits(seconds=0.3))
    assert time.monotonic() - started < 10
    assert "first" in text
    assert text.endswith("[Reading stopped at page 2 of 2: this PDF takes too long to read.]")


def test_nothing_of_the_file_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        extract_text(pdf("words").replace(b"/Type1", b"/Typo1").replace(b"xref", b"xrat"))
    assert caplog.records == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32))
def test_damaged_files_never_raise(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(rng.choice([pdf("Hello", "two"), rewritten(pdf("w"), password="", algorithm="RC4-128")]))
    for _ in range(rng.choice([1, 3, 20])):
        place = rng.randrange(len(data))
        data[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    assert extract_text(bytes(data), Limits(seconds=2))


def test_filters_that_pypdf_gave_up() -> None:
    data = pdf("words").replace(b"<< /Length", b"<< /Filter /Fl /Length")
    assert extract_text(data)


# --- the cache ---


def test_cache_keeps_what_was_used_last() -> None:
    cache = TextCache(max_bytes=2 * 300)
    cache.put(b"a", "a" * 100)
    cache.put(b"b", "b" * 100)
    assert cache.get(b"a") == "a" * 100
    cache.put(b"c", "c" * 100)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert (len(cache), cache.size) == (2, 600)


def test_cache_refuses_what_is_larger_than_itself() -> None:
    cache = TextCache(max_bytes=1000)
    cache.put(b"a", "small")
    cache.put(b"a", "x" * 5000)
    assert cache.get(b"a") is None
    assert (len(cache), cache.size) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.text(max_size=300)), max_size=40))
def test_cache_never_outgrows_its_bound(puts: list[tuple[bytes, str]]) -> None:
    cache = TextCache(max_bytes=1500)
    for key, text in puts:
        cache.put(key, text)
        kept = cache.get(key)
        assert kept is None or kept == text
        assert 0 <= cache.size <= 1500
    assert (cache.size == 0) == (len(cache) == 0)


# --- reading in threads ---


async def test_the_same_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = PdfReader()
    data = encoded(pdf("some words"))
    first, second = await asyncio.gather(texts.text(data), texts.text(data))
    assert first == second == "--- page 1 of 1 ---\nsome words"
    monkeypatch.setattr("qiao.documents.pdf.extract_text", None)
    assert await texts.text(data) == first


async def test_a_cancelled_reader_does_not_spoil_the_other() -> None:
    texts = PdfReader()
    data = encoded(pdf(*["words"] * 30))
    one, other = asyncio.create_task(texts.text(data)), asyncio.create_task(texts.text(data))
    await asyncio.sleep(0.001)
    one.cancel()
    assert "page 30 of 30" in await other
    with pytest.raises(asyncio.CancelledError):
        await one


@pytest.mark.parametrize("sent", ["", "%%%", "AAA", encoded(b"no pdf"), "ä"])
async def test_what_is_no_base64_of_a_pdf(sent: str) -> None:
    assert await PdfReader().text(sent) == BROKEN


async def test_close_leaves_nothing_running() -> None:
    texts = PdfReader(limits=Limits(seconds=0.2))
    reading = asyncio.create_task(texts.text(encoded(pdf(b"BT /F1 12 Tf " + b"(x) Tj " * 100_000 + b"ET"))))
    await asyncio.sleep(0.05)
    await texts.close()
    with pytest.raises(asyncio.CancelledError):
        await reading
