"""Renew requirements/live-ray.txt: what Ray needs beside the packages of live.txt. Used by `make lock`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[3] / "requirements"
HEAD = "# requirements/live-ray.in, locked like live.txt under its constraint, without what that one has.\n"
COMPILE = (
    *("pip", "compile", "--quiet", "--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--upgrade"),
)


def main() -> None:
    there = REQUIREMENTS / "live.txt"
    command = [sys.argv[1], *COMPILE, "--constraint", there, REQUIREMENTS / "live-ray.in"]
    locked = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^([a-z0-9-]+)==", there.read_text("utf-8"), re.MULTILINE))
    parts = re.split(r"^(?=\S)", locked, flags=re.MULTILINE)
    new = [part for part in parts if part and re.split(r"[=\[]", part)[0] not in known]
    (REQUIREMENTS / "live-ray.txt").write_text(HEAD + "".join(new), "utf-8")


if __name__ == "__main__":
    main()
