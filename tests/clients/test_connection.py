"""Which gateway is used, and to whom the stored key is shown."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from qiao.clients.connection import Door, connection, find_door, is_loopback
from qiao.config import Auth, Client, Config, Folders, Server
from qiao.errors import ConfigurationError
from qiao.ledger.keys import load_or_create
from qiao.ledger.running import Running
from qiao.options import Secret
from qiao.upstream.gateway import ModelFacts

HERE = Running("http://127.0.0.1:43210", Secret("sk-running"), 1, 5.0, small="s", subagent="a")


def config(tmp_path: Path, url: str | None = None, key: str | None = None, **changes: object) -> Config:
    auth = Auth(api_key=Secret(key) if key else None, no_auth=bool(changes.get("no_auth")))
    return msgspec.structs.replace(Config(), client=Client(url=url), auth=auth, folders=Folders(state=tmp_path))


def test_the_gateway_that_runs_here_is_used(tmp_path: Path) -> None:
    assert find_door(config(tmp_path), [HERE]) == Door(HERE.url, Secret("sk-running"), "s", "a")
    assert find_door(config(tmp_path, key="own"), [HERE]).key == Secret("own")


def test_a_named_gateway_wins(tmp_path: Path) -> None:
    assert find_door(config(tmp_path, url=HERE.url), [HERE]).key == Secret("sk-running")
    door = find_door(config(tmp_path, url="https://gpu.example", key="theirs"), [HERE])
    assert door == Door("https://gpu.example", Secret("theirs"))


def test_the_stored_key_stays_on_this_machine(tmp_path: Path) -> None:
    stored = load_or_create(tmp_path).secret
    assert find_door(config(tmp_path, url="http://localhost:4000"), []).key == stored
    with pytest.raises(ConfigurationError, match="no key for it is set"):
        find_door(config(tmp_path, url="https://gpu.example"), [])
    open_door = find_door(config(tmp_path, url="https://gpu.example", no_auth=True), [])
    assert open_door.key is None


def test_without_any_hint_the_configured_port(tmp_path: Path) -> None:
    assert find_door(config(tmp_path), []) == Door("http://127.0.0.1:4000", None)
    elsewhere = msgspec.structs.replace(config(tmp_path), server=Server(host="0.0.0.0", port=4100))
    assert find_door(elsewhere, []).url == "http://127.0.0.1:4100"


def test_the_first_model_is_the_main_one() -> None:
    made = connection(Door("http://127.0.0.1:4000", None), [ModelFacts("big", 131072, 32000), ModelFacts("little")])
    assert (made.model, made.small, made.subagent) == ("big", "big", "big")
    assert (made.window, made.output_limit) == (131072, 32000)
    told = connection(Door("http://127.0.0.1:4000", None, small="little"), [ModelFacts("big"), ModelFacts("little")])
    assert (told.small, told.subagent, told.window) == ("little", "big", None)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("gpu", False), ("127.evil.example", False), ("", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
