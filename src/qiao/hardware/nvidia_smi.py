"""What `nvidia-smi` prints, read as text: for machines without NVML's library, for logs and reports from elsewhere.

Pure functions over text; `query` runs the program. What the driver does not know ("[N/A]", "ERR!") stays None.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from qiao.planner.gpu_table import DRIVER_SHARE, by_driver_name
from qiao.planner.machine import MIB, Gpu, Holder, Interconnect

FIELDS = ("index", "name", "memory.total", "memory.free", "compute_cap", "driver_version", "mig.mode.current", "uuid")
_APPS = ("gpu_uuid", "pid", "process_name", "used_memory")
_TIMEOUT = 20.0
# Where Windows puts it; not on the PATH of every shell there.
_IN_WSL = "/usr/lib/wsl/lib/nvidia-smi"

_HEAD = re.compile(r"Driver Version:\s*(?P<driver>[\d.]+)(?:.*?CUDA(?: UMD)? Version:\s*(?P<cuda>[\d.]+))?")
_NAME = re.compile(r"^\|\s*(?P<index>\d+)\s+(?P<name>\S.*?)\s+(?:On|Off|N/A|WDDM|TCC)\s*\|")
_MEMORY = re.compile(r"(?P<used>\d+)MiB\s*/\s*(?P<total>\d+)MiB")
_MIG = re.compile(r"\|\s*(?:Enabled|Disabled|N/A)\s*\|\s*$")
_PROCESS = re.compile(
    r"^\|\s*(?P<gpu>\d+)\s+\S+\s+\S+\s+(?P<pid>\d+)\s+\S+\s+(?P<name>\S.*?)\s+(?P<memory>\d+)MiB\s*\|"
)
_LINKS = re.compile(r"\bNV\d+\b")
_PCIE = re.compile(r"\b(?:PIX|PXB|PHB|NODE|SYS)\b")


def query(search_path: str | None = None) -> str | None:
    """The answer of nvidia-smi to FIELDS, as CSV without head and units; None where there is none."""
    return _run(
        [f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"],
        search_path,
    )


def query_apps(search_path: str | None = None) -> str | None:
    """Who uses the GPUs, as CSV."""
    return _run([f"--query-compute-apps={','.join(_APPS)}", "--format=csv,noheader,nounits"], search_path)


def query_topology(search_path: str | None = None) -> str | None:
    """How the GPUs are connected, as nvidia-smi draws it."""
    return _run(["topo", "-m"], search_path)


def failure(search_path: str | None = None) -> str | None:
    """What nvidia-smi says when it is there and cannot work; None where it works, or is not there."""
    done = _done([], search_path)
    if done is None or done.returncode == 0:
        return None
    return " ".join(f"{done.stdout} {done.stderr}".split()) or f"nvidia-smi ends with status {done.returncode}"


def _run(arguments: list[str], search_path: str | None) -> str | None:
    done = _done(arguments, search_path)
    return done.stdout if done is not None and done.returncode == 0 else None


def _done(arguments: list[str], search_path: str | None) -> subprocess.CompletedProcess[str] | None:
    program = shutil.which("nvidia-smi", path=search_path)
    if program is None and search_path is None and os.access(_IN_WSL, os.X_OK):
        program = _IN_WSL
    if program is None:
        return None
    try:
        return subprocess.run(  # noqa: S603 - the path is what `which` found, the arguments are ours
            [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def parse_query(text: str, interconnect: Interconnect | None = None) -> tuple[tuple[Gpu, ...], str | None]:
    """GPUs and driver version from the answer to `query`; a head line and units are taken too."""
    found: list[Gpu] = []
    driver = None
    for cells in _rows(text):
        _, name, total, free, capability, version, mig, _ = cells
        driver = driver or (version if re.fullmatch(r"[\d.]+", version) else None)
        found.append(
            gpu_of(
                name,
                _mebibytes(total),
                _mebibytes(free),
                capability=_capability(capability),
                interconnect=interconnect,
                parts=() if mig == "Enabled" else None,
                source="nvidia-smi",
            )
        )
    return tuple(found), driver


def parse_uuids(text: str) -> tuple[str, ...]:
    """The names that no other GPU has, of the GPUs of `parse_query` and in their order; "" where it is not told."""
    return tuple(cells[-1] for cells in _rows(text))


def _rows(text: str) -> Iterator[list[str]]:
    """One list a GPU, as long as FIELDS."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) >= 4 and cells[0].isdigit():
            yield [*cells, *[""] * len(FIELDS)][: len(FIELDS)]


def parse_table(text: str) -> tuple[tuple[Gpu, ...], str | None, str | None]:
    """GPUs, driver version and CUDA version from the table that plain `nvidia-smi` prints."""
    head = _HEAD.search(text)
    found: list[Gpu] = []
    name: str | None = None
    memory: re.Match[str] | None = None
    for line in text.splitlines():
        named = _NAME.match(line)
        if named is not None:
            name, memory = named["name"], None
            continue
        if name is None:
            continue
        memory = _MEMORY.search(line) or memory
        if _MIG.search(line) or line.startswith("+"):
            found.append(_from_table(name, memory, () if line.rstrip("| ").endswith("Enabled") else None))
            name = None
    return tuple(found), head["driver"] if head else None, head["cuda"] if head else None


def _from_table(name: str, memory: re.Match[str] | None, parts: tuple[int, ...] | None) -> Gpu:
    total = int(memory["total"]) * MIB if memory else None
    free = total - int(memory["used"]) * MIB if memory and total is not None else None
    return gpu_of(name.removesuffix("..."), total, free, parts=parts, source="nvidia-smi")


def parse_processes(text: str) -> tuple[Holder, ...]:
    """Who holds memory, from the lower table of plain `nvidia-smi`."""
    return tuple(
        Holder(int(found["gpu"]), int(found["pid"]), found["name"], int(found["memory"]) * MIB)
        for line in text.splitlines()
        if (found := _PROCESS.match(line)) is not None
    )


def parse_apps(text: str, uuids: Sequence[str] = ()) -> tuple[Holder, ...]:
    """Who holds memory, from the answer to `query_apps`.

    `uuids`: of all GPUs, in their order. Those that are not among them are numbered by their first mention.
    """
    gpus = {each: number for number, each in enumerate(uuids) if each}
    found: list[Holder] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 4 or not cells[1].isdigit():
            continue
        number = gpus.setdefault(cells[0], len(gpus))
        found.append(Holder(number, int(cells[1]), cells[2] or None, _mebibytes(cells[3])))
    return tuple(found)


def parse_topology(text: str) -> Interconnect | None:
    """NVLink or PCIe, from `nvidia-smi topo -m`; None for a single GPU."""
    rows = [line for line in text.splitlines() if re.match(r"^GPU\d+\s", line)]
    if len(rows) < 2:
        return None
    cells = [row.split()[1 : len(rows) + 1] for row in rows]
    between = [cell for row in cells for cell in row if cell != "X"]
    if between and all(_LINKS.fullmatch(cell) for cell in between):
        return "nvlink"
    return "pcie" if any(_PCIE.fullmatch(cell) for cell in between) else None


def gpu_of(
    name: str,
    total: int | None,
    free: int | None,
    *,
    capability: tuple[int, int] | None = None,
    interconnect: Interconnect | None = None,
    parts: tuple[int, ...] | None = None,
    source: str,
) -> Gpu:
    """A Gpu from what a driver says, completed from the table where the driver is silent."""
    facts = by_driver_name(name, total)
    if parts is not None:
        return Gpu(name=name, memory=total, parts=parts, source=f"{source}: split by MIG, so its parts decide")
    usable = facts.usable if facts and total and abs(facts.memory - total) < 600 * MIB else None
    if usable is None and total is not None:
        usable = total - DRIVER_SHARE
    return Gpu(
        name=name,
        memory=total,
        usable=usable,
        free=min(free, usable) if free is not None and usable is not None else free,
        capability=capability or (facts.capability if facts else None),
        interconnect=interconnect or (facts.interconnect if facts else None),
        source=source,
    )


def _mebibytes(text: str) -> int | None:
    found = re.match(r"(\d+)(?:\s*MiB)?$", text)
    return int(found[1]) * MIB if found else None


def _capability(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
