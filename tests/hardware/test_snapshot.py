"""The machine as its drivers tell it, from captured text and from captured answers of NVML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qiao.hardware import host, nvidia_smi, nvml, snapshot
from qiao.planner.choose import plan
from qiao.planner.gpu_table import DRIVER_SHARE
from qiao.planner.machine import GIB, MIB, Machine, Node, System
from qiao.planner.plan import Plan, Refusal
from tests.planner.cases import FOLDER, made, request

CAPTURED = FOLDER / "nvidia_smi"


def captured(name: str) -> str:
    return (CAPTURED / name).read_text("utf-8")


def test_table_of_an_idle_machine() -> None:
    gpus, driver, cuda = nvidia_smi.parse_table(captured("table_h20_535.txt"))
    assert [gpu.name for gpu in gpus] == ["NVIDIA H20", "NVIDIA H20"]
    assert (driver, cuda) == ("535.161.03", "12.2")
    assert gpus[0].memory == 97871 * MIB
    assert gpus[0].usable == 95 * GIB
    assert gpus[0].free == gpus[0].usable
    assert gpus[0].fp8_arithmetic is True
    assert nvidia_smi.parse_processes(captured("table_h20_535.txt")) == ()


def test_table_of_a_busy_machine() -> None:
    text = captured("table_a100_busy.txt")
    gpus, driver, cuda = nvidia_smi.parse_table(text)
    assert (driver, cuda) == ("580.95.05", "13.0")
    assert gpus[0].free == (81920 - 41822) * MIB
    assert gpus[0].fp8_arithmetic is False
    (holder,) = nvidia_smi.parse_processes(text)
    assert (holder.gpu, holder.process, holder.name, holder.memory) == (0, 418211, "python3", 41808 * MIB)


def test_a_gpu_that_is_split_has_no_known_size() -> None:
    (gpu,), _, _ = nvidia_smi.parse_table(captured("table_h20_mig_570.txt"))
    assert gpu.usable is None
    assert "MIG" in gpu.source


def test_query() -> None:
    gpus, driver = nvidia_smi.parse_query(captured("query_4090.csv"), "pcie")
    assert [gpu.name for gpu in gpus] == ["NVIDIA GeForce RTX 4090"] * 2
    assert driver == "570.124.06"
    assert gpus[0].capability == (8, 9)
    assert gpus[0].interconnect == "pcie"
    assert gpus[0].usable is not None
    assert gpus[0].memory is not None
    assert gpus[0].usable < gpus[0].memory


def test_query_with_head_and_units_is_the_same() -> None:
    plain, _ = nvidia_smi.parse_query("0, NVIDIA H200, 143771, 143000, 9.0, 570.1, Disabled\n")
    told, _ = nvidia_smi.parse_query(
        "index, name, memory.total [MiB], memory.free [MiB], compute_cap, driver_version, mig.mode.current\n"
        "0, NVIDIA H200, 143771 MiB, 143000 MiB, 9.0, 570.1, Disabled\n"
    )
    assert plain == told


def test_what_the_driver_does_not_know_stays_none() -> None:
    (gpu,), _ = nvidia_smi.parse_query(captured("query_gb10.csv"))
    assert gpu.memory is None
    assert gpu.usable is None
    assert gpu.free is None
    assert gpu.capability == (12, 1)


@pytest.mark.parametrize(("name", "expected"), [("topology_nvlink.txt", "nvlink"), ("topology_pcie.txt", "pcie")])
def test_topology(name: str, expected: str) -> None:
    assert nvidia_smi.parse_topology(captured(name)) == expected


def test_topology_of_one_gpu_says_nothing() -> None:
    assert nvidia_smi.parse_topology("\tGPU0\nGPU0\t X \n") is None


def test_apps() -> None:
    text = "GPU-aaaa, 11, /usr/bin/python3, 41808\nGPU-bbbb, 12, [Not Found], [N/A]\nGPU-aaaa, 13, x, 5\n"
    assert [(each.gpu, each.process, each.memory) for each in nvidia_smi.parse_apps(text)] == [
        (0, 11, 41808 * MIB),
        (1, 12, None),
        (0, 13, 5 * MIB),
    ]


def test_apps_of_the_second_gpu_alone() -> None:
    row = "{0}, NVIDIA H200, 143771, 143000, 9.0, 570.1, Disabled, GPU-{0}\n"
    uuids = nvidia_smi.parse_uuids(row.format(0) + row.format(1))
    assert uuids == ("GPU-0", "GPU-1")
    assert [each.gpu for each in nvidia_smi.parse_apps("GPU-1, 11, python3, 41808\n", uuids)] == [1]
    assert nvidia_smi.parse_uuids("0, NVIDIA H200, 143771, 143000\n") == ("",)


def test_garbage_is_no_gpu() -> None:
    for text in ("", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "\0" * 50):
        assert nvidia_smi.parse_query(text) == ((), None)
        assert nvidia_smi.parse_table(text)[0] == ()


class NotSupportedError(Exception):
    """What NVML raises."""


class Answers:
    """NVML with the answers of a machine with two H100, one of them in use."""

    NVMLError = NotSupportedError

    def __init__(self, *, links: int = 1, driver: bool = True) -> None:
        self.is_open = False
        self._links = links
        self._driver = driver

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._driver:
            raise NotSupportedError
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:  # noqa: N802
        return b"NVIDIA H100 80GB HBM3" if handle else "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        free = 81559 * MIB if handle else 30 * GIB
        return type("Memory", (), {"total": 81559 * MIB, "free": free})

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        return (9, 0)

    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        raise NotSupportedError

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:  # noqa: N802
        return [] if handle else [type("Process", (), {"pid": 77, "usedGpuMemory": 49 * GIB})]

    def nvmlDeviceGetNvLinkState(self, handle: Any, link: int) -> int:  # noqa: N802
        if link >= 4:
            raise NotSupportedError
        return self._links

    def nvmlSystemGetDriverVersion(self) -> str | bytes:  # noqa: N802
        return "580.95.05"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 13000

    def nvmlSystemGetProcessName(self, process: int) -> str | bytes:  # noqa: N802
        return "vllm"


def test_nvml() -> None:
    library = Answers()
    seen = nvml.look(library)
    assert seen is not None
    assert not library.is_open
    assert [gpu.name for gpu in seen.gpus] == ["NVIDIA H100 80GB HBM3"] * 2
    assert seen.gpus[0].free == 30 * GIB
    assert seen.gpus[1].free == seen.gpus[1].usable
    assert {gpu.interconnect for gpu in seen.gpus} == {"nvlink"}
    assert (seen.driver, seen.cuda) == ("580.95.05", "13.0")
    assert [(each.gpu, each.process, each.name, each.memory) for each in seen.holders] == [(0, 77, "vllm", 49 * GIB)]


def test_nvml_without_links_is_pcie() -> None:
    seen = nvml.look(Answers(links=0))
    assert seen is not None
    assert {gpu.interconnect for gpu in seen.gpus} == {"pcie"}


def test_without_driver_nvml_has_no_answer() -> None:
    assert nvml.look(Answers(driver=False)) is None


def test_the_real_library_does_not_raise() -> None:
    seen = nvml.look()
    assert seen is None or all(gpu.name for gpu in seen.gpus)


def machine_of(library: nvml.Library) -> Machine:
    return snapshot.look(library=library)


def test_a_gpu_that_somebody_uses_is_planned_with_what_is_left() -> None:
    asked = request(gpus="8xH100", model="qwen3-8b")
    outcome = plan(msgspec.structs.replace(asked, machine=machine_of(Answers())))
    assert isinstance(outcome, Plan)
    assert outcome.load.utilisation < 0.4
    assert "memory_taken" in {warning.code for warning in outcome.warnings}


def test_a_gpu_that_is_full_is_refused_with_the_holder() -> None:
    library = Answers()
    library.nvmlDeviceGetMemoryInfo = lambda handle: type(  # type: ignore[method-assign]
        "Memory", (), {"total": 81559 * MIB, "free": 2 * GIB}
    )
    asked = request(gpus="8xH100", model="qwen3-8b")
    outcome = plan(msgspec.structs.replace(asked, machine=machine_of(library)))
    assert isinstance(outcome, Refusal)
    assert any("process 77 (vllm) holds 49.0 GiB" in near.text for near in outcome.nearest)


class Split(Answers):
    """NVML where MIG splits the first GPU in two, and the second is whole."""

    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        return (0, 0) if handle else (1, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:  # noqa: N802
        if index > 1:
            raise NotSupportedError
        return 10 + index

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        if handle in (10, 11):
            return type("Memory", (), {"total": 39 * GIB, "free": 39 * GIB})
        return type("Memory", (), {"total": 81559 * MIB, "free": 81559 * MIB})


def test_the_parts_of_a_gpu_that_is_split() -> None:
    seen = nvml.look(Split())
    assert seen is not None
    assert [gpu.parts for gpu in seen.gpus] == [(39 * GIB, 39 * GIB), None]
    unread = Split()
    unread.nvmlDeviceGetMaxMigDeviceCount = Answers().nvmlDeviceGetMigMode  # type: ignore[method-assign, assignment]
    seen = nvml.look(unread)
    assert seen is not None
    assert seen.gpus[0].parts == ()


def test_the_plan_takes_the_gpus_that_are_whole() -> None:
    asked = request(gpus="8xH100", model="qwen3-8b")
    outcome = plan(msgspec.structs.replace(asked, machine=machine_of(Split())))
    assert isinstance(outcome, Plan)
    assert outcome.division.gpus == 1
    assert outcome.load.utilisation == 0.92  # GPU 0 is the one somebody uses
    (told,) = [warning.text for warning in outcome.warnings if warning.code == "mig"]
    assert "GPU 0 (NVIDIA H100 80GB HBM3) is split by MIG into 2 parts of 39.0 GiB" in told
    assert outcome.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert outcome.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_machine_whose_gpus_are_all_split_is_told_so() -> None:
    gpus, _, _ = nvidia_smi.parse_table(captured("table_h20_mig_570.txt"))
    asked = request(gpus="8xH100", model="qwen3-8b")
    outcome = plan(msgspec.structs.replace(asked, machine=Machine(nodes=(Node(gpus=gpus),))))
    assert isinstance(outcome, Refusal)
    assert "GPU 0 (NVIDIA H20) is split by MIG" in outcome.message
    assert [near.command for near in outcome.nearest] == ["nvidia-smi -i 0 -mig 0"]
    parts = msgspec.structs.replace(gpus[0], parts=(20 * GIB, 10 * GIB))
    outcome = plan(msgspec.structs.replace(asked, machine=Machine(nodes=(Node(gpus=(parts,)),))))
    assert isinstance(outcome, Refusal)
    assert "into 2 parts of 10.0, 20.0 GiB" in outcome.message
    command = outcome.nearest[0].command
    assert command == "qiao plan --gpus 1xH20-MIG-20G"
    small = made(gpus=command.split()[-1], model="qwen3-8b")
    assert small.machine.gpus[0].usable == 20 * GIB - DRIVER_SHARE


@pytest.mark.skipif(os.name != "posix", reason="starts a program of ours in place of nvidia-smi")
def test_nvidia_smi_is_asked_where_nvml_is_silent(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$1" in\n  --query-gpu*) cat {CAPTURED}/query_4090.csv ;;\n'
        f"  topo) cat {CAPTURED}/topology_pcie.txt ;;\n"
        "  --query-compute-apps*) echo 'GPU-a, 5, python3, 100' ;;\nesac\n"
    )
    program.chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    found = snapshot.look(search_path=path, library=Answers(driver=False))
    assert str(found) == "2 x NVIDIA GeForce RTX 4090"
    assert found.gpus[0].interconnect == "pcie"
    assert found.nodes[0].holders[0].process == 5
    assert found.nodes[0].system.driver == "570.124.06"


@pytest.mark.skipif(os.name != "posix", reason="starts a program of ours in place of nvidia-smi")
def test_a_broken_nvidia_smi_is_no_gpu(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    program.chmod(0o755)
    found = snapshot.look(search_path=str(tmp_path), library=Answers(driver=False))
    assert found.gpus == ()
    assert found.nodes[0].system.platform


def test_host() -> None:
    total, free = host.parse_meminfo("MemTotal:       65536000 kB\nMemFree: 1 kB\nMemAvailable:   60000000 kB\n")
    assert (total, free) == (65536000 * 1024, 60000000 * 1024)
    assert host.parse_meminfo("nothing") == (None, None)
    assert host.is_wsl("Linux version 5.15.167.4-microsoft-standard-WSL2 (root@f9c826d3017f) (gcc 11.2.0)")
    assert not host.is_wsl("Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)")


def test_host_where_nothing_can_be_read(tmp_path: Path) -> None:
    system = host.look(tmp_path / "not" / "there", proc=tmp_path / "proc")
    assert system.memory is None
    assert system.is_wsl is None
    assert system.disk_free is not None


def test_wsl_is_warned_of() -> None:
    asked = request(gpus="1x4090-24G", model="qwen3-8b")
    node = Node(gpus=asked.machine.gpus, system=System(is_wsl=True, disk_free=GIB))
    outcome = plan(msgspec.structs.replace(asked, machine=Machine(nodes=(node,))))
    assert isinstance(outcome, Plan)
    assert {"wsl", "disk"} <= {warning.code for warning in outcome.warnings}
    assert isinstance(made(gpus="1x4090-24G", model="qwen3-8b"), Plan)
