"""Who owns a port: captured tables, and this very process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from qiao.hardware.ports import Owner, command_line, lineage, listening_inodes, owner_of, port_here

# Captured on Linux 6.1: 22 (0016) and 4000 (0FA0) listen, a connection to 4000 is established, one waits.
CAPTURED = Path(__file__).parent.parent / "golden" / "hardware"
TCP = (CAPTURED / "proc_net_tcp.txt").read_text("ascii")
TCP6 = (CAPTURED / "proc_net_tcp6.txt").read_text("ascii")


def test_listening_sockets_of_a_port() -> None:
    assert listening_inodes(TCP, 4000) == [40417]
    assert listening_inodes(TCP, 22) == [18210]
    assert listening_inodes(TCP, 41668) == []
    assert listening_inodes(TCP6, 8080) == [51234]
    assert listening_inodes("", 4000) == []
    assert listening_inodes("header\ngarbage\n", 4000) == []


def test_command_lines() -> None:
    assert command_line(b"python\0-m\0qiao\0serve\0") == "python -m qiao serve"
    assert command_line(b"") is None
    assert command_line(b"x" * 200) == "x" * 79 + "…"
    assert command_line(b"qiao\0serve\0--api-key\0sk-x\0--upstream-key=sk-y\0--port\x001\0") == (
        "qiao serve --api-key … --upstream-key=… --port 1"
    )


def test_this_process_is_found() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        owner = owner_of(port)
        assert owner is not None
        assert owner.process == os.getpid()
        assert "python" in (owner.command or "")
    assert owner_of(port) is None


def test_a_system_without_these_tables_tells_nothing(tmp_path: Path) -> None:
    assert owner_of(4000, proc=tmp_path) is None


def test_an_owner_in_words() -> None:
    assert str(Owner(7, "nginx")) == "process 7 (nginx)"
    assert str(Owner(7)) == "process 7"


def test_only_addresses_of_this_machine_have_a_port_here() -> None:
    assert port_here("http://127.0.0.1:8000/v1") == 8000
    assert port_here("https://localhost") == 443
    assert port_here("http://[::1]:1") == 1
    assert port_here("http://example.com:8000") is None
    assert port_here("http://127.0.0.1:many") is None


def test_who_started_a_process(tmp_path: Path) -> None:
    assert lineage(os.getpid())[:2] == (os.getpid(), os.getppid())
    for process, parent in ((3, 2), (2, 1), (1, 0), (8, 9), (9, 8)):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "stat").write_text(f"{process} (a) b) S {parent} 1 1")
    assert lineage(3, tmp_path) == (3, 2, 1)
    assert lineage(8, tmp_path) == (8, 9)
    assert lineage(7, tmp_path) == (7,)
