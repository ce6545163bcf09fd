"""The Makefile's promises: nothing is done twice, and what was removed is made again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MADE = {
    "setup": [".venv"],
    "test": [".venv-test", ".venv-anthropic-0", "tests/integration/ts/node_modules", ".venv-docs"],
    "live": [".venv-test", ".venv-live", ".venv-litellm"],
    "fuzz": [".venv-fuzz"],
    "docs": [".venv-docs"],
    "lock": [".venv-lock"],
}


@pytest.mark.parametrize("target", MADE)
def test_what_is_set_up_stays_and_what_was_removed_is_made_again(target: str, tmp_path: Path) -> None:
    for needed in ("Makefile", "pyproject.toml", "requirements", "src/qiao/__init__.py", "tests/live/vllm"):
        place = tmp_path / needed
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / needed).is_dir():
            shutil.copytree(ROOT / needed, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / needed, place)
    lock = tmp_path / "tests/integration/ts/package-lock.json"
    lock.parent.mkdir(parents=True)
    lock.touch()
    for folder in MADE[target]:
        stamp = tmp_path / folder / ".stamp"
        stamp.parent.mkdir(parents=True)
        stamp.touch()
    assert "touch" not in plan(target, tmp_path)
    for folder in MADE[target]:
        shutil.rmtree(tmp_path / folder)
        assert f"touch {folder}/.stamp" in plan(target, tmp_path)
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".stamp").touch()
        assert "touch" not in plan(target, tmp_path)


def plan(target: str, folder: Path) -> str:
    """What make would do, without doing it."""
    done = subprocess.run(["make", "-n", target], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout
