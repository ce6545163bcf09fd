"""The notes of gateways that run: private, gone at the end, and not believed when their process is gone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qiao.ledger.running import Running, client_url, is_alive, noted, running
from qiao.options import Secret


def gateway(started: float = 1.0, process: int | None = None, key: Secret | None = None) -> Running:
    return Running("http://127.0.0.1:4000", key, process or os.getpid(), started, small="small-model")


def ended_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)
    return child.pid


def test_a_note_lives_as_long_as_the_block(tmp_path: Path) -> None:
    assert running(tmp_path) == []
    with noted(tmp_path, gateway(key=Secret("sk-x"))):
        [path] = (tmp_path / "running").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert running(tmp_path) == [gateway(key=Secret("sk-x"))]
    assert running(tmp_path) == []
    assert list((tmp_path / "running").iterdir()) == []


def test_a_gateway_without_a_key(tmp_path: Path) -> None:
    with noted(tmp_path, gateway()):
        assert running(tmp_path)[0].key is None


def test_a_note_of_an_ended_process_is_removed(tmp_path: Path) -> None:
    gone = ended_process()
    assert not is_alive(gone)
    with noted(tmp_path, gateway(process=gone)):
        assert running(tmp_path) == []
        assert list((tmp_path / "running").iterdir()) == []


def test_the_last_started_comes_first(tmp_path: Path) -> None:
    with noted(tmp_path, gateway(1.0)), noted(tmp_path, gateway(2.0, process=os.getppid())):
        assert [each.started for each in running(tmp_path)] == [2.0, 1.0]


def test_what_is_no_note_is_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "running"
    folder.mkdir()
    (folder / "1.json").write_text("{", "utf-8")
    (folder / "2.json").write_text('{"url": 3}', "utf-8")
    assert running(tmp_path) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:4000"),
        ("0.0.0.0", "http://127.0.0.1:4000"),
        ("::", "http://[::1]:4000"),
        ("::1", "http://[::1]:4000"),
        ("[::1]", "http://[::1]:4000"),
        ("localhost", "http://localhost:4000"),
        ("192.168.1.2", "http://192.168.1.2:4000"),
    ],
)
def test_the_address_for_clients(host: str, expected: str) -> None:
    assert client_url(host, 4000) == expected
