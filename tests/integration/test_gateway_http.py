"""The gateway as a web server: paths, keys, limits, probes, and what it says to nonsense."""

from __future__ import annotations

import json
import random
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.behaviour import Behaviour
from tests.fakes.script import marker
from tests.integration.conftest import MODEL, Stage, Stages
from tests.integration.test_sdk_answers import asked
from tests.support.gateway import free_port, process
from tests.support.plain_http import Reply, ask

pytestmark = pytest.mark.timeout(60)


def post(stage: Stage, body: Any, path: str = "/v1/messages", **headers: str) -> Reply:
    return ask(stage.url, "POST", path, body, headers={"x-api-key": stage.key, **headers})


def is_anthropic_error(reply: Reply, status: int, kind: str) -> bool:
    body = reply.json
    shown = (reply.status, body["type"], body["error"]["type"], body["request_id"])
    return shown == (status, "error", kind, reply.headers["request-id"]) and bool(body["error"]["message"])


@pytest.mark.parametrize("path", ["/", "/api/hello", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_need_no_key(stage: Stage, method: str, path: str) -> None:
    reply = ask(stage.url, method, path)
    assert reply.status == 200
    assert reply.headers["request-id"].startswith("req_")
    assert bool(reply.body) == (method == "GET")


@pytest.mark.parametrize(
    "path", ["/v1/nothing", "/v1/messages/batches", "/v1/files", "/v1/complete", "/v1/organizations/x", "/favicon.ico"]
)
def test_other_paths_are_not_found_in_anthropics_shape(stage: Stage, path: str) -> None:
    assert is_anthropic_error(ask(stage.url, "GET", path, headers={"x-api-key": stage.key}), 404, "not_found_error")


def test_what_an_engine_serves_is_active(stage: Stage) -> None:
    for query, found in (
        ("lifecycle[]=retired", False),
        ("lifecycle[]=retired&lifecycle[]=active", True),
        ("lifecycle=retired,%20Active", True),
        ("lifecycle=", True),
        ("", True),
    ):
        listed = ask(stage.url, "GET", f"/v1/models?{query}", headers={"x-api-key": stage.key}).json
        assert bool(listed["data"]) is found


def test_readyz_says_when_the_engine_is_gone(stages: Stages) -> None:
    stage = stages(MODEL, "--upstream", f"http://127.0.0.1:{free_port()}/v1")
    assert ask(stage.url, "GET", "/healthz").status == 200
    assert ask(stage.url, "GET", "/readyz").status == 503


def test_metrics_count_what_happened(stage: Stage) -> None:
    post(stage, asked("yes"))
    text = ask(stage.url, "GET", "/metrics").body.decode()
    assert "# TYPE" in text
    assert any(line.startswith("qiao_") and "messages" in line for line in text.splitlines())


@pytest.mark.parametrize("form", ["x-api-key", "bearer", "both, one wrong"])
def test_a_key_is_taken_in_either_header(stage: Stage, form: str) -> None:
    headers = {
        "x-api-key": {"x-api-key": stage.key},
        "bearer": {"Authorization": f"Bearer {stage.key}"},
        "both, one wrong": {"x-api-key": "sk-other", "Authorization": f"Bearer {stage.key}"},
    }[form]
    assert ask(stage.url, "POST", "/v1/messages", asked("yes"), headers=headers).status == 200


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"Authorization": "Basic eDp5"}, {"x-api-key": "ключ"}])
def test_no_key_or_a_strange_one_is_refused(stage: Stage, headers: dict[str, str]) -> None:
    encoded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    reply = ask(stage.url, "POST", "/v1/messages", asked("yes"), headers=encoded)
    assert is_anthropic_error(reply, 401, "authentication_error")
    assert stage.engine.chats == []


def test_the_doubled_version_and_the_beta_query_still_arrive(stage: Stage) -> None:
    for path in ("/v1/messages?beta=true", "/v1/v1/messages"):
        assert post(stage, asked("yes"), path).status == 200


def test_the_key_is_made_once_kept_private_and_printed(tmp_path: Path, stage: Stage) -> None:
    command = ["serve", "--upstream", f"{stage.engine_url}/v1"]
    with process(command, tmp_path) as first:
        kept = [path for path in tmp_path.rglob("*") if path.is_file() and "key" in path.name]
        assert len(kept) == 1
        assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600
        key = kept[0].read_text().strip()
        assert len(key) >= 32
        assert ask(first.url, "GET", "/v1/models", headers={"x-api-key": key}).status == 200
        assert ask(first.url, "GET", "/v1/models").status == 401
        assert key not in first.output or "key" in first.output
    with process(command, tmp_path) as second:
        assert ask(second.url, "GET", "/v1/models", headers={"x-api-key": key}).status == 200


def test_without_a_key_only_loopback_names_are_answered(stages: Stages) -> None:
    stage = stages(MODEL, "--no-auth", own_key=False)
    assert ask(stage.url, "POST", "/v1/messages", asked("yes")).status == 200
    stranger = {"Host": "evil.example"}
    assert ask(stage.url, "POST", "/v1/messages", asked("yes"), headers=stranger).status == 403
    page = {"Origin": "https://evil.example"}
    assert ask(stage.url, "POST", "/v1/messages", asked("yes"), headers=page).status == 403


def test_the_upstreams_key_is_ours_to_send(stages: Stages) -> None:
    stage = stages(MODEL, "--upstream-key", "sk-engine", key="sk-engine")
    assert post(stage, asked("yes")).status == 200
    assert stage.engine.chats[-1].headers["Authorization"] == "Bearer sk-engine"
    assert stage.key not in json.dumps(stage.engine.chats[-1].headers)


def test_too_large_bodies_are_refused_before_they_are_read(stages: Stages) -> None:
    stage = stages(MODEL, "--max-body", "100000")
    announced = post(stage, b"x" * 200_000)
    assert is_anthropic_error(announced, 413, "request_too_large")
    chunked = ask(
        stage.gateway.url,
        "POST",
        "/v1/messages",
        b"2800\r\n" + b"x" * 10240 + b"\r\n" + (b"2800\r\n" + b"x" * 10240 + b"\r\n") * 12 + b"0\r\n\r\n",
        headers={"x-api-key": stage.key, "Transfer-Encoding": "chunked"},
    )
    assert chunked.status == 413


NONSENSE: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe\x00",
    b"{}",
    b'{"model":1}',
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"model":"qwen3-235b","max_tokens":"many","messages":[]}',
    b'{"model":"qwen3-235b","max_tokens":10,"messages":[]}',
    b'{"model":"qwen3-235b","max_tokens":-1,"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"qwen3-235b","max_tokens":10,"messages":[{"role":"robot","content":"x"}]}',
    b'{"model":"qwen3-235b","max_tokens":10,"messages":[{"role":"user","content":[{"type":"video"}]}]}',
    b'{"model":"qwen3-235b","max_tokens":10,"messages":[{"role":"user","content":"x"}],"tools":[{"name":"a b"}]}',
]


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: body[:40].decode("latin-1"))
def test_nonsense_gets_a_400_that_says_where(stage: Stage, body: bytes) -> None:
    assert is_anthropic_error(post(stage, body), 400, "invalid_request_error")
    if b"max_tokens" not in body:
        assert is_anthropic_error(post(stage, body, "/v1/messages/count_tokens"), 400, "invalid_request_error")
    assert stage.engine.chats == []


def test_fuzzed_bodies_never_give_a_500(stage: Stage) -> None:
    stage.refusals = True
    rich = asked(
        "yes",
        system=[{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "t", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}],
        thinking={"type": "adaptive", "display": "updates"},
        output_config={"effort": "high"},
        metadata={"user_id": '{"session_id":"x"}'},
        stop_sequences=["@@"],
    )
    rich["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "t", "input": {"a": "b"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "r"}]},
    ]
    text = json.dumps(rich).encode()
    chance = random.Random(7)
    for _ in range(150):
        body = _mutated(text, chance)
        reply = post(stage, body)
        assert reply.status in (200, 400, 404), (reply.status, body)
        if reply.status != 200:
            assert reply.json["type"] == "error"


def _mutated(text: bytes, chance: random.Random) -> bytes:
    """Valid JSON with one value replaced, or bytes with a few of them changed."""
    if chance.random() < 0.3:
        broken = bytearray(text)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        return bytes(broken)
    value = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(value)
    node, key = chance.choice(places)
    strange: list[Any] = [None, 0, -1, 2**70, 1e308, "", "x", [], {}, [[]], True, "\ud800", {"type": "text"}, [None]]
    node[key] = chance.choice(strange)
    return json.dumps(value).encode()


def test_bad_http_is_answered_and_does_no_harm(stage: Stage) -> None:
    port = int(stage.gateway.url.rpartition(":")[2])
    for raw in (
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(raw)
            connection.settimeout(5)
            answer = connection.recv(65536)
            assert answer.partition(b" ")[2].startswith(b"400 ")
    huge = b"GET / HTTP/1.1\r\nX-Big: " + b"a" * 200_000 + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(huge)
        assert connection.recv(65536).partition(b" ")[2].startswith((b"400 ", b"431 "))
    assert post(stage, asked("yes")).status == 200


def test_a_window_reported_by_ray_serve(stages: Stages) -> None:
    stage = stages("ray")
    model = ask(stage.url, "GET", "/v1/models", headers={"x-api-key": stage.key}).json["data"][0]
    assert (model["id"], model["max_input_tokens"]) == ("ray", 40960)
    stage.refusals = True
    long = {"model": "ray", "max_tokens": 9, "messages": [{"role": "user", "content": "word " * 50_000}]}
    reply = post(stage, long)
    assert reply.status == 400
    assert reply.json["error"]["message"].startswith("prompt is too long: ")
    counted = post(
        stage, {"model": "ray", "messages": [{"role": "user", "content": "hi"}]}, "/v1/messages/count_tokens"
    )
    assert counted.json["input_tokens"] > 0


def test_names_from_the_configuration(stages: Stages, tmp_path: Path) -> None:
    stage = stages("Qwen/Qwen3-235B-A22B-FP8", "--name", "qwen3-235b", behaviour=Behaviour())
    listed = ask(stage.url, "GET", "/v1/models", headers={"x-api-key": stage.key}).json
    assert "qwen3-235b" in [model["id"] for model in listed["data"]]
    for name in ("qwen3-235b", "Qwen/Qwen3-235B-A22B-FP8", "claude-haiku-5-5"):
        body = {"model": name, "max_tokens": 9, "messages": [{"role": "user", "content": marker("yes")}]}
        reply = post(stage, body)
        assert (reply.status, reply.json["model"]) == (200, name)
        assert stage.engine.chats[-1].body["model"] == "Qwen/Qwen3-235B-A22B-FP8"
