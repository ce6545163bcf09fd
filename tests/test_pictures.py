"""The pictures in the guides are of real runs: each is made anew here, and what does not vary is the same.

`GOLDEN_ACCEPT=1 pytest tests/test_pictures.py` draws them again. They hold nothing of the machine that drew them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.claude_code import PROGRAM
from tests.support.gateway import free_port
from tests.support.terminal import COLUMNS, Typist, lines_of, picture, rows

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs/pictures"
CACHE = ROOT / ".cache/qiao"
PORT = 4000
"""The gateway's usual port, which the pictures show."""

NAMES = ("plan", "plan-explained", "up", "doctor", "claude")
# What the doctor says of the machine instead of the gateway, the engine and the client.
ABOUT_MACHINE = r"(?:ok|note|warning|problem) +(?:file_limit|clock|disk|port_in_use|gpu\w*|driver\w*|wsl\w*)\b"


class Desk:
    """A person at a terminal, with a gateway before the embedded model from the moment that it is wanted."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        qiao = Path(sys.executable).with_name("qiao")
        self.typist = Typist(
            home,
            {"qiao": qiao, "claude": PROGRAM},
            {"QIAO_CACHE": str(CACHE), "QIAO_PORT": str(self.port)},
            {str(self.port): str(PORT), str(PROGRAM): "~/.local/bin/claude", str(CACHE): "~/.cache/qiao"},
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk") / "home")


@pytest.fixture(scope="module")
def up(desk: Desk) -> Iterator[str]:
    """What `qiao up` said; it runs on."""
    with desk.typist.running("qiao up") as said:
        yield said(lambda text: "Ctrl-C stops everything." in text, 240.0)


def same(name: str, said: str, unvarying: Callable[[list[str]], list[str]]) -> None:
    """The kept picture shows what was said now, in the lines that do not vary."""
    path = PICTURES / f"{name}.svg"
    drawn = picture(said)
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_text(drawn, "utf-8")
    kept = path.read_text("utf-8")
    assert unvarying(lines_of(kept)) == unvarying(lines_of(drawn)), "GOLDEN_ACCEPT=1 draws it again"


def masked(line: str) -> str:
    """Without numbers, and without what the model said."""
    return re.sub(r"-?\d+(?:\.\d+)?", "0", re.sub(r'"(?:[^"\\]|\\.)*"', '"…"', line))


@pytest.mark.parametrize(
    ("name", "command"),
    [("plan", "qiao plan --gpus 4xH20-96G"), ("plan-explained", "qiao plan --gpus 8xH100-80G --explain")],
)
def test_plans(desk: Desk, name: str, command: str) -> None:
    same(name, desk.typist.types(command), list)


@pytest.mark.timeout(300)
def test_up(up: str) -> None:
    def unvarying(lines: list[str]) -> list[str]:
        begin = next(number for number, line in enumerate(lines) if line.startswith("The gateway listens"))
        return [lines[0], *map(masked, lines[begin:])]

    # How far a download has come is one line in the memory of whoever watched it.
    same("up", re.sub(r"^.* \d+%\r?\n", "", up, flags=re.MULTILINE), unvarying)


@pytest.mark.timeout(300)
def test_doctor(desk: Desk, up: str) -> None:
    def unvarying(lines: list[str]) -> list[str]:
        heads = [line for line in lines if re.match(r"(?:\$|ok|note|warning|problem) ", line)]
        return [masked(line) for line in heads if not re.match(ABOUT_MACHINE, line)]

    same("doctor", re.sub(r"127\.0\.0\.1:(?!4000\b)\d+", "127.0.0.1:4001", desk.typist.types("qiao doctor")), unvarying)


@pytest.mark.timeout(300)
def test_claude(desk: Desk, up: str) -> None:
    said = desk.typist.types('qiao claude -p "Say hello."', 200.0)
    assert len(rows(said)) >= 3
    same("claude", said, lambda lines: [line for line in lines if line.startswith(("$ ", "note: "))])


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_names_no_machine_and_is_shown(name: str) -> None:
    text = (PICTURES / f"{name}.svg").read_text("utf-8")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"/(?:root|home|tmp|work|usr|Users|private|var)/", text)
    assert not re.search(r"sk-[A-Za-z0-9]", text)
    assert max(map(len, lines_of(text))) <= COLUMNS
    for folder, way in (("guides", "../pictures"), ("zh/guides", "../../pictures")):
        pages = [page.read_text("utf-8") for page in (ROOT / "docs" / folder).glob("*.md")]
        assert any(f"]({way}/{name}.svg)" in page for page in pages), f"{name}.svg is in no page of {folder}"


def test_every_picture_is_drawn_here() -> None:
    assert {path.stem for path in PICTURES.iterdir()} == set(NAMES)


def test_what_a_model_says_is_masked_however_it_says_it() -> None:
    said = ("I'm here", "Hello there! Welcome to my little corner", 'a "b" c\n')
    assert {masked(f"  ok      text: {json.dumps(text)} (0.5 s)") for text in said} == {'  ok      text: "…" (0 s)'}
    assert masked("report_sum(-3)") == masked("report_sum(12)")


def test_what_stands_in_a_terminal() -> None:
    said = "$ go\nold\rnew\r\n\x1b[31m\x1b[1mred\x1b[0m & <plain>\n" + "x" * (COLUMNS + 1)
    assert rows(said)[:3] == [
        [("$ go", None, True)],
        [("new", None, False)],
        [("red", "#ff7b72", True), (" & <plain>", None, False)],
    ]
    assert lines_of(picture(said)) == ["$ go", "new", "red & <plain>", "x" * COLUMNS, "x"]
