"""Facts about GPUs by name, each with its source. Data only.

`memory_mib` is the total that `nvidia-smi` shows, `usable_gib` the total that a CUDA process sees (engines print it as
total capacity); where only the first is known, 0.85 GiB less is assumed, the largest difference among the others.
`capability` is from NVIDIA's table of CUDA GPUs (developer.nvidia.com/cuda-gpus).
"""

from __future__ import annotations

import re

import msgspec

from qiao.planner.machine import GIB, MIB, Gpu, Interconnect

DRIVER_SHARE = int(0.85 * GIB)
_SYSTEMS = "ai-dynamo/aiconfigurator, systems/{}.yaml (2026-08-21)"


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a GPU. `gigabytes` is what its maker calls its size, and part of how people name it."""

    name: str
    pattern: str
    gigabytes: int
    memory_mib: int
    usable_gib: float | None = None
    capability: tuple[int, int]
    interconnect: Interconnect
    source: str

    @property
    def memory(self) -> int:
        """Bytes in total."""
        return self.memory_mib * MIB

    @property
    def usable(self) -> int:
        """Bytes that a process sees."""
        return int(self.usable_gib * GIB) if self.usable_gib is not None else self.memory - DRIVER_SHARE

    @property
    def full_name(self) -> str:
        """With the kind of board, where others of this name have NVLink and this one has not."""
        boards = {each.interconnect for each in GPUS if each.name == self.name}
        return f"{self.name} PCIe" if self.interconnect == "pcie" and len(boards) > 1 else self.name

    @property
    def written(self) -> str:
        """As a person writes it, and `specification` reads it: `H20-96G`."""
        return f"{self.full_name.replace(' ', '-')}-{self.gigabytes}G"

    def gpu(self) -> Gpu:
        """As a part of a described machine, all of it free."""
        return Gpu(
            name=self.full_name,
            memory=self.memory,
            usable=self.usable,
            free=self.usable,
            capability=self.capability,
            interconnect=self.interconnect,
            source=self.source,
        )


def _facts(
    name: str,
    pattern: str,
    sizes: tuple[int, int, float | None],
    capability: tuple[int, int],
    interconnect: Interconnect,
    source: str,
) -> GpuFacts:
    gigabytes, memory_mib, usable = sizes
    return GpuFacts(
        name=name,
        pattern=pattern,
        gigabytes=gigabytes,
        memory_mib=memory_mib,
        usable_gib=usable,
        capability=capability,
        interconnect=interconnect,
        source=source,
    )


# Words of a name that do not say which GPU it is; boards only sometimes do.
_BESIDE = re.compile(
    r"nvidia|tesla|geforce|quadro|sxm\d?|hbm\d?e?|nvlink|blackwell|server|workstation|edition|generation|d"
)
_BOARDS = ("pcie", "nvl")

_SMI = "nvidia-smi's total; `GPU 0 has a total capacity of …` of PyTorch, the smallest of ten reports each"

# Longer names first: the first pattern that is found in a driver's name wins, of the size that is nearest.
GPUS: tuple[GpuFacts, ...] = (
    _facts("GB300", r"\bgb300", (288, 284208, None), (10, 3), "nvlink", _SYSTEMS.format("gb300")),
    _facts("GB200", r"\bgb200", (192, 189471, None), (10, 0), "nvlink", _SYSTEMS.format("gb200")),
    _facts("B300", r"\bb300", (288, 275040, None), (10, 3), "nvlink", _SYSTEMS.format("b300_sxm")),
    _facts("B200", r"\bb200", (180, 183359, 178.35), (10, 0), "nvlink", _SMI),
    _facts("H200", r"\bh200", (141, 143771, 139.72), (9, 0), "nvlink", _SMI),
    _facts("H100 NVL", r"\bh100 nvl", (94, 95830, None), (9, 0), "nvlink", "nvidia-smi's total"),
    _facts("H100", r"\bh100 pcie", (80, 81559, 79.10), (9, 0), "pcie", _SMI),
    _facts("H100", r"\bh100", (80, 81559, 79.10), (9, 0), "nvlink", _SMI),
    _facts("H800", r"\bh800", (80, 81559, 79.10), (9, 0), "nvlink", "the H100 with a slower NVLink; same memory"),
    _facts("H20", r"\bh20(?: 3e)?\b", (141, 143771, 139.72), (9, 0), "nvlink", "H20-3e, the memory of the H200"),
    _facts("H20", r"\bh20\b", (96, 97871, 95.00), (9, 0), "nvlink", _SMI),
    _facts("A100", r"\ba100\b.*pcie", (80, 81920, 79.15), (8, 0), "pcie", _SYSTEMS.format("a100_pcie")),
    _facts("A100", r"\ba100\b", (80, 81920, 79.15), (8, 0), "nvlink", _SMI),
    _facts("A100", r"\ba100\b.*pcie", (40, 40960, 39.38), (8, 0), "pcie", "vllm#16570: 39.38 GiB"),
    _facts("A100", r"\ba100\b", (40, 40960, 39.38), (8, 0), "nvlink", "vllm#16570: 39.38 GiB"),
    _facts("A800", r"\ba800", (80, 81920, 79.15), (8, 0), "nvlink", "the A100 with a slower NVLink; same memory"),
    _facts("RTX PRO 6000", r"rtx pro 6000", (96, 97887, None), (12, 0), "pcie", _SYSTEMS.format("rtx_pro_6000_server")),
    _facts("RTX PRO 5000", r"rtx pro 5000", (72, 73000, None), (12, 0), "pcie", "vllm-project/recipes, taxonomy.yaml"),
    _facts("RTX 6000 Ada", r"rtx 6000 ada", (48, 49140, None), (8, 9), "pcie", "nvidia-smi's total"),
    _facts("RTX A6000", r"rtx a6000|\ba6000", (48, 49140, None), (8, 6), "pcie", "nvidia-smi's total"),
    _facts("RTX 5090", r"rtx 5090|\b5090", (32, 32607, 31.36), (12, 0), "pcie", "vllm#34076, vllm#18107: 31.36 GiB"),
    _facts("RTX 4090", r"rtx 4090|\b4090", (24, 24564, 23.52), (8, 9), "pcie", _SMI),
    _facts("RTX 3090", r"rtx 3090|\b3090", (24, 24576, 23.58), (8, 6), "pcie", "vllm#10517: 23.58 GiB"),
    _facts("L40S", r"\bl40s", (48, 46068, 44.34), (8, 9), "pcie", _SYSTEMS.format("l40s")),
    _facts("L40", r"\bl40\b", (48, 46068, 44.34), (8, 9), "pcie", "the memory of the L40S"),
    _facts("L20", r"\bl20\b", (48, 46068, 44.34), (8, 9), "pcie", "the memory of the L40S"),
    _facts("L4", r"\bl4\b", (24, 23034, None), (8, 9), "pcie", "nvidia-smi's total"),
    _facts("A30", r"\ba30\b", (24, 24576, None), (8, 0), "pcie", _SYSTEMS.format("a30")),
    _facts("A10", r"\ba10g?\b", (24, 23028, None), (8, 6), "pcie", "nvidia-smi's total"),
    _facts("V100", r"v100", (32, 32768, None), (7, 0), "nvlink", "nvidia-smi's total"),
    _facts("V100", r"v100", (16, 16384, None), (7, 0), "nvlink", "nvidia-smi's total"),
    _facts("T4", r"\bt4\b", (16, 15360, None), (7, 5), "pcie", "nvidia-smi's total"),
)


def known_names() -> tuple[str, ...]:
    """Every variant as a person may write it: `H20-96G`."""
    return tuple(dict.fromkeys(each.written for each in GPUS))


def by_name(name: str, gigabytes: int | None) -> list[GpuFacts]:
    """The variants that a written name can mean, best first; several where only the size tells them apart."""
    wanted = _plain(name)
    found = [each for each in GPUS if _plain(each.name) == wanted] or _by_words(name)
    if gigabytes is not None:
        found = [each for each in found if abs(each.gigabytes - gigabytes) <= 1]
    unique: dict[int, GpuFacts] = {}
    for each in found:
        # SXM boards, with NVLink, are what servers have; a PCIe board says so in its name.
        if each.gigabytes not in unique or each.interconnect == "nvlink":
            unique[each.gigabytes] = each
    return list(unique.values())


def _by_words(name: str) -> list[GpuFacts]:
    """The variants whose pattern is the whole name, but for the maker and the kind of board and memory."""
    words = [word for word in re.split(r"[\s_-]+", name.lower()) if not _BESIDE.fullmatch(word)]
    for text in (" ".join(words), " ".join(word for word in words if word not in _BOARDS)):
        found = [each for each in GPUS if re.fullmatch(each.pattern, text)]
        if found:
            return found
    return []


def by_driver_name(name: str, memory: int | None) -> GpuFacts | None:
    """The variant that a driver calls `name`; the nearest in size where several share the name."""
    text = re.sub(r"[-_]", " ", name.lower()).replace("nvidia ", "")
    found = [each for each in GPUS if re.search(each.pattern, text)]
    if not found:
        return None
    first = [each for each in found if each.interconnect == found[0].interconnect or "pcie" not in text]
    if memory is None:
        return first[0]
    return min(first, key=lambda each: abs(each.memory - memory))


def _plain(name: str) -> str:
    text = re.sub(r"[^a-z0-9]", "", name.lower())
    for prefix in ("nvidia", "geforce"):
        text = text.removeprefix(prefix)
    return text if text.startswith("rtx") or not text[:4].isdigit() else f"rtx{text}"
