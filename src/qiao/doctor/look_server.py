"""Who answers at an address, and how it takes the key."""

from __future__ import annotations

import contextlib
import email.utils
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from qiao.core.fault import Fault
from qiao.doctor.facts import Access, Kind
from qiao.hardware.ports import owner_of, port_here
from qiao.policies import refusal
from qiao.upstream.client import Client, Reply

TIMEOUT = 10.0
SAMPLE_KEYS = frozenset({"sk-1234", "sk-12345", "EMPTY", "sk-empty", "changeme", "your-api-key"})
ANTHROPIC_HEADERS = {"anthropic-version": "2023-06-01"}


async def look(asked: str, key: str | None, *, anthropic: bool, now: float) -> tuple[Access, float | None]:
    """The server at `asked`, as a person wrote it; and how far ahead of its clock ours is (seconds, None: unknown).

    `anthropic`: it is to serve /v1/messages; else /v1/chat/completions.
    """
    address = root_of(asked)
    access = await _look_at(asked, address, key, now)
    bare = _without_path(address)
    wanted = access[0].has_messages if anthropic else access[0].has_chat
    if access[0].failure is None and not wanted and bare != address:
        other, _ = await _look_at(asked, bare, key, now)
        if other.has_messages if anthropic else other.has_chat:
            better = bare if anthropic else f"{bare}/v1"
            return msgspec.structs.replace(access[0], better=better), access[1]
    return access


def root_of(asked: str) -> str:
    """The address without what clients add themselves: /v1, /v1/messages, /v1/chat/completions."""
    whole = asked if "://" in asked else f"http://{asked}"
    root = whole.rstrip("/")
    for end in ("/messages", "/chat/completions", "/models"):
        root = root.removesuffix(end)
    return root.removesuffix("/v1").rstrip("/")


def _without_path(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


async def _look_at(asked: str, address: str, key: str | None, now: float) -> tuple[Access, float | None]:
    client = Client(address, api_key=key, connect_timeout=5.0)
    shown = {**ANTHROPIC_HEADERS, **({"x-api-key": key} if key else {})}
    sample = key in SAMPLE_KEYS
    try:
        models = await client.get("/v1/models", timeout=TIMEOUT, headers=shown)
    except Fault as fault:
        await client.close()
        failed = Access(
            asked=asked,
            address=address,
            failure=fault.message,
            has_key=bool(key),
            key_is_sample=sample,
            owner=_owner(address),
        )
        return failed, None
    try:
        kind, server = await _kind(client, models, shown)
        messages = await _exists(client, "/v1/messages", shown)
        chat = await _exists(client, "/v1/chat/completions", shown)
    finally:
        await client.close()
    status, said = models.status, refusal.cleaned(refusal.read(models.status, models.body).text, secrets=(key or "",))
    if status == 404 and messages is not None and messages.status != 404:
        status, said = messages.status, refusal.cleaned(refusal.read(messages.status, messages.body).text)
    access = Access(
        asked=asked,
        address=address,
        kind=kind,
        server=server,
        status=status,
        said=said if status >= 400 else "",
        has_key=bool(key),
        key_is_sample=sample,
        has_messages=_is_route(messages),
        has_chat=_is_route(chat),
    )
    return access, clock_offset(models.headers.get("date"), now)


async def _kind(client: Client, models: Reply, shown: Mapping[str, str]) -> tuple[Kind, str]:
    if any(name.lower().startswith("x-litellm") for name in models.headers):
        return "LiteLLM", f"LiteLLM {models.headers.get('x-litellm-version', '')}".strip()
    with contextlib.suppress(Fault):
        hello = await client.get("/api/hello", timeout=TIMEOUT, headers=shown)
        said = hello.json() if hello.status == 200 else None
        if isinstance(said, dict) and said.get("name") == "qiao":
            return "qiao", f"qiao {said.get('version', '')}".strip()
        alive = await client.get("/health/liveliness", timeout=TIMEOUT)
        if alive.status == 200 and b"alive" in alive.body:
            return "LiteLLM", "LiteLLM"
    listed = models.json() if models.status == 200 else None
    data = listed.get("data") if isinstance(listed, dict) else None
    if isinstance(data, list) and data and isinstance(data[0], dict):
        owner = str(data[0].get("owned_by", ""))
        return ("engine", owner) if owner in ("vllm", "sglang", "llamacpp") else ("other", owner)
    return "other", models.headers.get("server", "")


async def _exists(client: Client, path: str, shown: Mapping[str, str]) -> Reply | None:
    # An empty object is refused by every server, and costs it nothing.
    try:
        return await client.post_whole(path, b"{}", timeout=TIMEOUT, headers=shown)
    except Fault:
        return None


def _is_route(reply: Reply | None) -> bool | None:
    return None if reply is None else reply.status not in (404, 405)


def _owner(address: str) -> str | None:
    """Who listens on the port, where it is one of this machine; "nobody" where that can be told."""
    port = port_here(address)
    if port is None:
        return None
    found = owner_of(port)
    return str(found) if found else "nobody"


def clock_offset(date: str | None, now: float) -> float | None:
    """Seconds that our clock is ahead of a server's `Date` header."""
    try:
        theirs = email.utils.parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
    return now - theirs.timestamp() if theirs is not None else None
