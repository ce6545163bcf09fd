"""What the command says, whole: exit status, stdout and stderr of each line in tests/golden/cli/*.case.

`python -m tests.cli.test_snapshots` writes the answers anew; a person reads the difference before it is kept.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

import pytest

from tests.support.command import Person

FOLDER = Path(__file__).parent.parent / "golden" / "cli"
CASES = sorted(FOLDER.glob("*.case"))
_SEPARATOR = "----------\n"


def answer(command: str, person: Person) -> str:
    """Everything that the command line `VARIABLE=… qiao …` gives back."""
    words = shlex.split(command)
    start = words.index("qiao")
    extra = dict(word.split("=", 1) for word in words[:start])
    done = person.qiao(*words[start + 1 :], **extra)
    text = f"exit {done.returncode}\n-- stdout\n{done.stdout}-- stderr\n{done.stderr}"
    if "--dry-run" in words:
        text = re.sub(" {2,}", "  ", text)  # the width of a column depends on the length of temporary paths
    text = text.replace(str(person.home), "HOME").replace(str(person.work), "WORK")
    return re.sub(r"sk-qiao-[\w-]{43}", "sk-qiao-KEY", text)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_snapshot(path: Path, person: Person) -> None:
    command, _, expected = path.read_text("utf-8").partition(_SEPARATOR)
    assert answer(command.strip(), person) == expected


def rewrite() -> None:
    for path in CASES:
        command = path.read_text("utf-8").partition(_SEPARATOR)[0].strip()
        with tempfile.TemporaryDirectory() as folder:
            person = Person(Path(folder) / "home", Path(folder) / "work")
            path.write_text(f"{command}\n{_SEPARATOR}{answer(command, person)}", "utf-8")


if __name__ == "__main__":
    rewrite()
