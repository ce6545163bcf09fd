"""Every failure of an upstream as a Fault: recorded bodies (golden cases), and real sockets that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qiao.core.fault import Fault
from qiao.policies import refusal, remedies
from qiao.upstream import errors
from qiao.upstream.http import Connections, ConnectTimeout, HttpError, MalformedAnswer, Origin
from tests.support.listening import speaking

CASES = sorted((Path(__file__).parent.parent / "golden" / "upstream_errors").glob("*.case"))
ADDRESS = "http://engine:8000/v1"


def parse_case(path: Path) -> tuple[int, bytes, dict[str, object]]:
    given_part, _, expected = path.read_text().partition("\n----------\n")
    lines = [line for line in given_part.split("\n") if not line.startswith("# ")]
    return int(lines[0]), "\n".join(lines[1:]).encode(), json.loads(expected)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_recorded_body(path: Path) -> None:
    status, body, expected = parse_case(path)
    fault = errors.translate(status, body, address=ADDRESS)
    assert {"kind": fault.kind, "message": fault.message, "party": fault.party} == expected["fault"]
    read = refusal.read(status, body)
    found = remedies.find(read.text, read.status)
    shown = found and {
        "name": found.name,
        "quirk": found.quirk,
        "value": found.value,
        "lasting": found.lasting,
    }
    assert shown == expected["remedy"]


def test_there_are_recorded_bodies() -> None:
    assert len(CASES) > 130


def test_every_remedy_stands_on_a_recorded_body() -> None:
    known = {name for *_, expected in map(parse_case, CASES) if (name := (expected["remedy"] or {}).get("name"))}  # type: ignore[attr-defined]
    # Read in engines' sources, not recorded; the first shares its words with `strict_schema`.
    assert {remedy.name for remedy in remedies.TABLE} - known == {
        "forced_call_schema",
        "long_tool_names",
        "priority",
        "template_arguments",
    }


@pytest.mark.parametrize("path", [p for p in CASES if p.stem.startswith(("vllm", "ray"))], ids=lambda p: p.stem)
def test_no_python_reaches_the_client(path: Path) -> None:
    status, body, _ = parse_case(path)
    message = errors.translate(status, body, address=ADDRESS).message
    for trace in ("'loc':", "'msg':", "<dict", "<list", "ValueError(", "Internal exception", "errors.pydantic.dev"):
        assert trace not in message


def test_the_true_count_replaces_the_engine_s_bound() -> None:
    body = (
        b'{"error":{"message":"This model\'s maximum context length is 40960 tokens. However, your prompt contains at '
        b'least 40961 input tokens, which exceeds this limit even without any output tokens."}}'
    )
    fault = errors.translate(400, body, address=ADDRESS, true_count=131072)
    assert fault.message == "prompt is too long: 131072 tokens > 40960 maximum"
    assert (fault.kind, fault.party, fault.upstream_status) == ("invalid_request", "client", 400)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request"), (401, "api"), (403, "api"), (404, "api"), (408, "timeout"), (413, "too_large"),
     (422, "invalid_request"), (429, "rate_limit"), (500, "api"), (502, "api"), (503, "overloaded"),
     (504, "timeout"), (520, "api"), (529, "overloaded"), (302, "api")],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"", b"\x00\xff\x9c" * 40, b"<html></html>", b"{}", b"null"])
def test_a_body_that_says_nothing_leaves_the_status(status: int, kind: str, body: bytes) -> None:
    fault = errors.translate(status, body, address=ADDRESS)
    assert fault.kind == kind
    assert fault.message
    assert fault.upstream_status == (status if status >= 400 else 500)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    noon = 1795341600.0  # 22 November 2026, 10:00:00 UTC
    fault = errors.translate(429, b"", headers, address=ADDRESS, now=noon)
    assert fault.retry_after == seconds


def test_keys_never_pass() -> None:
    said = "key tenant-7f3a9 for Bearer abcdef123456, sk-live-abcdef1234, http://user:secret@host/v1"
    for status in (400, 401, 403, 429, 500, 503):
        body = json.dumps({"error": {"message": said}}).encode()
        message = errors.translate(status, body, address=ADDRESS, secrets=["tenant-7f3a9"]).message
        for secret in ("tenant-7f3a9", "abcdef123456", "sk-live", "user:secret"):
            assert secret not in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@10.0.0.1:8000/v1?key=1", "http://10.0.0.1:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("https://engine/v1", "https://engine"),
        ("http://host:notaport/v1", "(unreadable address)"),
        ("user:secret@host/v1?key=1", "host/v1"),
        ("", "(no address)"),
    ],
)
def test_addresses_show_no_credentials(url: str, shown: str) -> None:
    assert errors.shown_address(url) == shown


@given(status=st.integers(100, 599), body=st.binary(max_size=400))
@example(status=400, body=b"[" * 300_000)
@example(status=500, body=b'{"error":' * 20_000)
@example(status=400, body=b'{"error":{"message":{"message":{"message":{"message":{"message":{"message":1}}}}}}}')
@example(status=400, body=b"{'loc': " * 9000)
def test_garbage_yields_a_fault(status: int, body: bytes) -> None:
    fault = errors.translate(status, body, address=ADDRESS)
    assert isinstance(fault, Fault)
    assert 0 < len(fault.message) < refusal.MAX_SENTENCE + 200
    assert fault.message.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["error", "message", "detail", "code", "type", "loc", "msg", "n_ctx",
                                       "n_prompt_tokens", "metadata", "raw"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(status=st.sampled_from([200, 400, 401, 404, 429, 500, 503]), value=json_values)
def test_any_json_yields_a_fault(status: int, value: object) -> None:
    fault = errors.translate(status, json.dumps(value).encode(), address=ADDRESS)
    assert fault.message.isprintable()


# --- real sockets ---


async def fault_at(url: str, patience: float = 10.0) -> Fault:
    """The fault that one real GET of `url` ends in. `patience`: seconds that it is waited for."""
    connections = Connections(Origin(url), headers={}, connect_timeout=5.0)
    try:
        async with asyncio.timeout(patience):
            await (await connections.request("GET", "")).read_all()
    except errors.TRANSPORT_ERRORS as error:
        return errors.from_exception(error, address=url)
    finally:
        await connections.close()
    raise AssertionError("the exchange did not fail")


async def test_unknown_name() -> None:
    fault = errors.from_exception(socket.gaierror(-2, "Name or service not known"), address="http://engine.invalid/v1")
    assert fault.kind == "unavailable"
    assert "engine.invalid" in fault.message
    assert "DNS" in fault.message


async def test_connection_refused_names_the_address() -> None:
    async with speaking(lambda reader, writer: asyncio.sleep(0)) as url:
        pass
    fault = await fault_at(f"{url}/v1")
    assert (fault.kind, fault.party) == ("unavailable", "upstream")
    assert url in fault.message
    assert "connection refused" in fault.message


async def test_closed_without_an_answer() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    async with speaking(hang_up) as url:
        fault = await fault_at(url)
    assert fault.kind == "unavailable"
    assert "closed the connection" in fault.message


async def test_reset() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with speaking(reset) as url:
        fault = await fault_at(url)
    assert fault.kind == "unavailable"


async def test_half_an_answer() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    async with speaking(half) as url:
        fault = await fault_at(url)
    assert (fault.kind, fault.party) == ("api", "upstream")
    assert "in the middle of its answer" in fault.message


async def test_silence_is_a_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with speaking(silent) as url:
        fault = await fault_at(url, patience=0.3)
    assert fault.kind == "timeout"
    assert "did not answer in time" in fault.message


async def test_not_http() -> None:
    async def ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await reader.read()

    async with speaking(ssh) as url:
        fault = await fault_at(url)
    assert fault.kind == "api"
    assert "does not speak HTTP" in fault.message


async def test_tls_against_a_plain_server() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    async with speaking(plain) as url:
        fault = await fault_at(url.replace("http:", "https:"))
    assert fault.kind == "unavailable"
    assert "TLS" in fault.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectTimeout("slow"), "unavailable"),
        (TimeoutError(), "timeout"),
        (HttpError("odd"), "api"),
        (MalformedAnswer("odd"), "api"),
        (OSError(24, "Too many open files"), "unavailable"),
        (BrokenPipeError(32, "Broken pipe"), "unavailable"),
        (socket.gaierror(-2, "Name or service not known"), "unavailable"),
    ],
)
def test_exceptions(error: Exception, kind: str) -> None:
    fault = errors.from_exception(error, address=ADDRESS)
    assert fault.kind == kind
    assert "engine:8000" in fault.message


def test_an_overflow_told_within_the_answer_gets_the_words_that_make_clients_compact() -> None:
    told = Fault(
        "api",
        "the engine failed while it was answering: This model's maximum context length is 8192 tokens. However, your "
        "prompt contains 9000 input tokens",
        party="upstream",
    )
    fault = errors.explained(told)
    assert (fault.kind, fault.message) == ("invalid_request", "prompt is too long: 9000 tokens > 8192 maximum")
    other = Fault("api", "the engine failed while it was answering: out of memory", party="upstream")
    assert errors.explained(other) is other
    echo = "no: {'loc': 'body.x', 'msg': 'Extra inputs are not permitted', 'input': 'prompt is too long'}"
    assert errors.explained(said := Fault("api", echo, party="upstream")) is said


@pytest.mark.parametrize(
    "words",
    [
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        "Input is too long.",
        "max_tokens must be at least 1, got -904. (parameter=max_tokens, value=-904)",
    ],
)
def test_the_window_that_the_engine_lists_is_said_where_its_refusal_names_none(words: str) -> None:
    body = json.dumps({"error": {"message": words}}).encode()
    fault = errors.translate(400, body, address=ADDRESS, window=8192, true_count=9000)
    assert fault.message == "prompt is too long: 9000 tokens > 8192 maximum"
    told = errors.explained(Fault("api", words, party="upstream"), window=8192)
    assert told.message == "prompt is too long: 8193 tokens > 8192 maximum"
