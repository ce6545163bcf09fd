"""An address is looked at: is a server there, is it the right one, does it take the key?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qiao.doctor.check_server import CHECKS, Door
from qiao.doctor.facts import Access
from qiao.doctor.finding import Finding, findings
from qiao.doctor.look_server import clock_offset, look, root_of
from tests.doctor.servers import LITELLM_HEADERS, LITELLM_WRONG_KEY, answering, litellm
from tests.fakes.engine import FakeEngine, serving
from tests.support.background import Background
from tests.support.gateway import Gateway, free_port, gateway

KEY = "sk-doctor-91b0c4d5e6"


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


@pytest.fixture(scope="module")
def engine(background: Background) -> str:
    return background.enter(serving(FakeEngine()))


@pytest.fixture(scope="module")
def running(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(engine, tmp_path_factory.mktemp("gateway"), key=KEY) as started:
        yield started


async def at(
    url: str, key: str | None = None, *, anthropic: bool = True, errors: tuple[str, ...] = ()
) -> dict[str, Finding]:
    access, _ = await look(url, key, anthropic=anthropic, now=time.time())
    door = Door(access=access, anthropic=anthropic, errors=errors)
    return {finding.check: finding for finding in findings(CHECKS, door)}


def problems(found: dict[str, Finding]) -> list[str]:
    return [name for name, finding in found.items() if finding.grade == "problem"]


async def test_the_right_gateway(running: Gateway) -> None:
    found = await at(running.url, KEY)
    assert {name: finding.grade for name, finding in found.items()} == dict.fromkeys(
        ("server_down", "wrong_url", "wrong_key"), "ok"
    )
    assert "qiao" in found["server_down"].evidence


async def test_nothing_there() -> None:
    found = await at(f"http://127.0.0.1:{free_port()}")
    assert problems(found) == ["server_down"]
    assert "No process listens" in found["server_down"].evidence
    assert "qiao up" in (found["server_down"].mend or "")


async def test_an_engine_that_is_down_points_to_its_log() -> None:
    found = await at(f"http://127.0.0.1:{free_port()}/v1", anthropic=False)
    assert "--log" in (found["server_down"].mend or "")


async def test_a_v1_too_much_for_claude_code(running: Gateway) -> None:
    found = await at(f"{running.url}/v1", KEY)
    assert problems(found) == ["wrong_url"]
    assert found["wrong_url"].mend == f"ANTHROPIC_BASE_URL={running.url}"


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
async def test_an_engine_is_found_with_and_without_v1(engine: str, end: str) -> None:
    assert problems(await at(engine + end, anthropic=False)) == []


@pytest.mark.parametrize("anthropic", [True, False])
async def test_another_path(running: Gateway, anthropic: bool) -> None:
    found = await at(f"{running.url}/nowhere", KEY, anthropic=anthropic)
    assert problems(found) == ["wrong_url"]
    assert running.url in (found["wrong_url"].mend or "")


async def test_an_engine_in_the_place_of_a_gateway(engine: str) -> None:
    found = await at(engine)
    assert problems(found) == ["wrong_url"]
    assert f"--upstream {engine}/v1" in (found["wrong_url"].mend or "")


async def test_a_wrong_key_and_none(running: Gateway) -> None:
    for key, words in (("sk-wrong-key", "refuses this key"), (None, "asks for a key")):
        found = await at(running.url, key)
        assert problems(found) == ["wrong_key"]
        assert words in found["wrong_key"].evidence
        assert "qiao key" in (found["wrong_key"].mend or "")
        assert "sk-wrong-key" not in found["wrong_key"].evidence


async def test_a_wrong_key_of_an_engine(background: Background) -> None:
    url = background.enter(serving(FakeEngine(key="secret-of-the-engine")))
    assert problems(await at(url, "sk-wrong", anthropic=False)) == ["wrong_key"]
    assert problems(await at(url, "secret-of-the-engine", anthropic=False)) == []


async def test_litellm_says_it_of_a_wrong_key_in_its_own_way() -> None:
    async with answering(LITELLM_WRONG_KEY, LITELLM_HEADERS) as url:
        found = await at(url, "sk-other")
    assert problems(found) == ["wrong_key"]
    assert "master key" in (found["wrong_key"].mend or "")


async def test_litellm_and_its_prefix() -> None:
    words = "Not Found LiteLLM: model group 'qwen3-235b' failed with the error above. No fallback was attempted."
    async with answering(litellm(words, 400), LITELLM_HEADERS) as url:
        found = await at(url, "sk-own-key-71c5", errors=(words,))
    assert problems(found) == ["litellm_errors"]
    assert "openai/" in found["litellm_errors"].evidence
    assert "hosted_vllm" in (found["litellm_errors"].mend or "")
    assert found["litellm_in_between"].grade == "note"


async def test_litellm_and_its_sample_key() -> None:
    async with answering(litellm("unused", 400), LITELLM_HEADERS) as url:
        found = await at(url, "sk-1234")
    assert problems(found) == ["litellm_sample_key"]
    nothing = await at(f"http://127.0.0.1:{free_port()}", "sk-1234")
    assert problems(nothing) == ["server_down", "litellm_sample_key"]


async def test_errors_of_another_server_are_not_litellms(running: Gateway) -> None:
    assert "litellm_errors" not in await at(running.url, KEY, errors=("No connected db.",))


async def test_an_endpoint_without_a_tool_parser() -> None:
    """vLLM's own /v1/messages, started without one, says so."""
    words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    models = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm"}]}
    routes = {("GET", "/v1/models"): (200, models), ("POST", "/v1/messages"): (400, {"error": {"message": words}})}
    async with answering(routes) as url:
        refused, silent = await at(url, errors=(words,)), await at(url, errors=("something else",))
    assert problems(refused) == ["requests_refused"]
    assert "--tool-call-parser hermes" in (refused["requests_refused"].mend or "")
    assert problems(silent) == []


def test_https_without_a_certificate() -> None:
    access = Access(asked="https://h", address="https://h", failure="SSL: WRONG_VERSION_NUMBER")
    (found,) = findings(CHECKS, Door(access=access, anthropic=True))
    assert "http://" in (found.mend or "")


@pytest.mark.parametrize(
    ("asked", "root"),
    [
        ("http://h:1", "http://h:1"),
        ("h:1/v1/", "http://h:1"),
        ("http://h/anthropic/v1/messages", "http://h/anthropic"),
        ("http://h/v1/chat/completions", "http://h"),
    ],
)
def test_roots(asked: str, root: str) -> None:
    assert root_of(asked) == root


def test_the_clock_is_held_against_the_servers() -> None:
    assert clock_offset("Sun, 22 Nov 2026 12:00:00 GMT", 1795348800.0 + 600) == 600.0
    assert clock_offset("no date", 0.0) is None
    assert clock_offset(None, 0.0) is None


async def test_the_owner_of_a_silent_port_is_named(tmp_path: Path) -> None:
    access = Access(
        asked="http://127.0.0.1:1", address="http://127.0.0.1:1", failure="timeout", owner="process 7 (vllm)"
    )
    (found,) = findings(CHECKS, Door(access=access, anthropic=False))
    assert "process 7 (vllm)" in found.evidence
