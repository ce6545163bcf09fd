"""Checks of the machine, on machines that were captured or described, and on this one."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from qiao.config import resolve
from qiao.doctor import look_local
from qiao.doctor.check_machine import CHECKS
from qiao.doctor.facts import Local, Mount, Port
from qiao.doctor.finding import Finding, findings
from qiao.hardware import nvidia_smi
from qiao.hardware.ports import Owner
from qiao.ledger.running import Running
from qiao.planner.machine import GIB, Gpu, Holder, Machine, Node, System

SMI = """
+---------------------------------------------------------------------------------------+
| NVIDIA-SMI 535.104.05             Driver Version: 535.104.05   CUDA Version: 12.2     |
|-----------------------------------------+----------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |         Memory-Usage | GPU-Util  Compute M. |
|                                         |                      |               MIG M. |
|=========================================+======================+======================|
|   0  NVIDIA H20                     On  | 00000000:1E:00.0 Off |                    0 |
| N/A   31C    P0              75W / 500W |  41277MiB / 97871MiB |      0%      Default |
|                                         |                      |             Disabled |
+-----------------------------------------+----------------------+----------------------+
| Processes:                                                                            |
|  GPU   GI   CI        PID   Type   Process name                            GPU Memory |
|=======================================================================================|
|    0   N/A  N/A      2711      C   %s                                     41264MiB |
+---------------------------------------------------------------------------------------+
"""
HEALTHY = Local(
    machine=Machine(nodes=(Node(system=System()),)),
    mounts=(Mount(Path("/cache"), 500 * GIB),),
    ports=(Port(4000, "the gateway", is_free=True),),
    now=time.time(),
    clock_offset=1.0,
    file_limit=65_535,
)


def captured(process: str) -> Machine:
    """A machine from what nvidia-smi printed there."""
    text = SMI.replace("%s", process)
    gpus, driver, cuda = nvidia_smi.parse_table(text)
    node = Node(gpus=gpus, holders=nvidia_smi.parse_processes(text), system=System(driver=driver, cuda=cuda))
    return Machine(nodes=(node,))


def of(**changes: object) -> dict[str, Finding]:
    return {each.check: each for each in findings(CHECKS, msgspec.structs.replace(HEALTHY, **changes))}


def bad(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.grade for name, finding in found.items() if finding.grade != "ok"}


def test_a_healthy_machine_has_nothing() -> None:
    assert bad(of()) == {}
    assert {"port_in_use", "clock", "disk", "file_limit"} <= set(of())


def test_a_port_and_its_owner() -> None:
    taken = Port(4000, "the gateway", is_free=False, owner=Owner(4711, "python -m http.server 4000"))
    found = of(ports=(taken,))
    assert bad(found) == {"port_in_use": "problem"}
    assert "process 4711 (python -m http.server 4000)" in found["port_in_use"].evidence
    assert bad(of(ports=(msgspec.structs.replace(taken, is_ours=True),))) == {}


def test_gpu_memory_that_somebody_holds() -> None:
    found = of(machine=captured("python3 train.py"))
    assert bad(found) == {"gpu_memory_taken": "warning"}
    assert "process 2711, 40.3 GiB" in found["gpu_memory_taken"].evidence


def test_gpu_memory_that_our_engine_holds_is_in_its_place() -> None:
    found = of(machine=captured("VLLM::EngineCore"), own_processes=frozenset({2711}))
    assert bad(found) == {}
    assert found["gpu_memory_taken"].grade == "ok"


def held_by(name: str, memory: int | None, free: int = 2) -> Machine:
    gpu = Gpu(name="H20", memory=96 * GIB, usable=95 * GIB, free=free * GIB)
    return Machine(nodes=(Node(gpus=(gpu,), holders=(Holder(0, 4711, name, memory),)),))


@pytest.mark.parametrize("name", ["VLLM::EngineCore", "VLLM::Worker_TP0", "ray::RayWorkerWrapper", "/usr/bin/ollama"])
def test_gpu_memory_that_a_left_over_engine_holds_is_told(name: str) -> None:
    found = of(machine=held_by(name, 93 * GIB))
    assert bad(found) == {"gpu_memory_taken": "note"}
    assert f"93.0 of 96.0 GiB are held by {name} (process 4711, 93.0 GiB)" in found["gpu_memory_taken"].evidence


def test_a_program_is_known_by_its_name_and_not_by_its_folder() -> None:
    found = of(machine=held_by("/home/bob/vllm/bin/python", 93 * GIB))
    assert bad(found) == {"gpu_memory_taken": "warning"}


def test_where_the_driver_does_not_tell_who_holds_how_much() -> None:
    found = of(machine=held_by("python", None))
    assert bad(found) == {"gpu_memory_taken": "warning"}
    assert "93.0 of 96.0 GiB are held by python (process 4711)." in found["gpu_memory_taken"].evidence
    assert bad(of(machine=held_by("python", None, free=94))) == {}


def test_memory_beside_that_of_the_processes_that_are_shown() -> None:
    found = of(machine=held_by("python", 1 * GIB))
    assert bad(found) == {"gpu_memory_taken": "warning"}
    assert "92.0 GiB are held, and no process is shown" in found["gpu_memory_taken"].evidence


def test_a_stranger_is_told_before_an_engine() -> None:
    one, other = held_by("VLLM::EngineCore", 93 * GIB).nodes[0], held_by("blender", 40 * GIB, free=50).nodes[0]
    holders = (one.holders[0], msgspec.structs.replace(other.holders[0], gpu=1))
    found = of(machine=Machine(nodes=(Node(gpus=(*one.gpus, *other.gpus), holders=holders),)))
    assert bad(found) == {"gpu_memory_taken": "warning"}
    assert "GPU 1" in found["gpu_memory_taken"].evidence


def test_gpu_memory_that_nobody_is_seen_to_hold() -> None:
    gpu = Gpu(name="H20", memory=96 * GIB, usable=95 * GIB, free=20 * GIB)
    found = of(machine=Machine(nodes=(Node(gpus=(gpu,)),)))
    assert bad(found) == {"gpu_memory_taken": "warning"}
    assert "no process is shown" in found["gpu_memory_taken"].evidence


def test_a_driver_older_than_pytorch_wants() -> None:
    machine = captured("vllm")
    own = frozenset({2711})
    found = of(machine=machine, own_processes=own, torch_cuda="13.0")
    assert bad(found) == {"driver": "problem"}
    assert "CUDA up to 12.2" in found["driver"].evidence
    assert bad(of(machine=machine, own_processes=own, torch_cuda="12.8")) == {}  # minor versions go together


def test_a_driver_that_was_updated_under_the_kernel(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    program.chmod(0o755)
    said = nvidia_smi.failure(str(tmp_path))
    assert said is not None
    found = of(driver_problem=said)
    assert bad(found) == {"driver": "problem"}
    assert "Restart" in (found["driver"].mend or "")
    program.write_text("#!/bin/sh\nexit 0\n")
    assert nvidia_smi.failure(str(tmp_path)) is None
    assert nvidia_smi.failure(str(tmp_path / "empty")) is None


def test_shared_memory_for_several_gpus() -> None:
    two = (Gpu(name="A100", memory=80 * GIB), Gpu(name="A100", memory=80 * GIB))
    small = Machine(nodes=(Node(gpus=two, system=System(shared_memory=64 * 2**20)),))
    assert bad(of(machine=small)) == {"shared_memory": "problem"}
    large = Machine(nodes=(Node(gpus=two, system=System(shared_memory=32 * GIB)),))
    assert bad(of(machine=large)) == {}
    one = Machine(nodes=(Node(gpus=two[:1], system=System(shared_memory=64 * 2**20)),))
    assert bad(of(machine=one)) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"now": 0.0}, {"clock": "problem"}),
        ({"clock_offset": -3600.0}, {"clock": "warning"}),
        ({"mounts": (Mount(Path("/cache"), 100 * 2**20),)}, {"disk": "problem"}),
        ({"mounts": (Mount(Path("/cache"), 4 * GIB),)}, {"disk": "warning"}),
        ({"file_limit": 256}, {"file_limit": "warning"}),
    ],
)
def test_clock_disk_and_limits(changes: dict[str, object], expected: dict[str, str]) -> None:
    assert bad(of(**changes)) == expected


def test_our_engine_is_known_by_who_started_it(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    config = resolve({}, variables={"HOME": str(tmp_path)}, folder=tmp_path)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        child = subprocess.Popen(["sleep", "30"])
        try:
            smi.write_text(
                "#!/bin/sh\ncase $1 in\n*query-gpu*) echo '0, NVIDIA H20, 97871, 1000, 9.0, 570.1, Disabled, GPU-a';;\n"
                f"*query-compute-apps*) echo 'GPU-a, {child.pid}, VLLM::EngineCore, 90000';;\nesac\n"
            )
            smi.chmod(0o755)
            variables = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
            ours = look_local.machine(config, [], variables, offset=None, engines=[address])
            gateway = Running("http://127.0.0.1:1", None, os.getpid(), 0.0)
            started = look_local.machine(config, [gateway], variables, offset=None)
            other = look_local.machine(config, [], variables, offset=None, engines=["http://example.com/v1"])
        finally:
            child.kill()
            child.wait()
    assert ours.own_processes == started.own_processes == {child.pid}
    assert other.own_processes == frozenset()


def test_this_machine(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        variables = {"HOME": str(tmp_path), "PATH": "/usr/bin", "QIAO_PORT": str(port)}
        config = resolve({}, variables=variables, folder=tmp_path)
        stranger = look_local.machine(config, [], variables, offset=None)
        ours = look_local.machine(
            config, [Running(f"http://127.0.0.1:{port}", None, os.getpid(), 0.0)], variables, offset=None
        )
    assert not stranger.ports[0].is_free
    assert stranger.ports[0].owner is not None
    assert stranger.ports[0].owner.process == os.getpid()
    assert [each.check for each in findings(CHECKS, stranger) if each.grade == "problem"] == ["port_in_use"]
    assert [each.check for each in findings(CHECKS, ours) if each.grade == "problem"] == []
    assert stranger.mounts[0].free > 0
