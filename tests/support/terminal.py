"""A terminal that programs write to, and a picture (SVG) of what stood in it.

    person = Typist(home, work)
    said = person.types("qiao plan --gpus 8xH100-80G")
    svg = picture(said)

The programs have a real terminal, so they colour what they say. The picture has no font and no script in it: it is
text, which can be searched, and read again by `lines_of`.
"""

from __future__ import annotations

import contextlib
import fcntl
import html
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = 110
_CELL, _LINE, _MARGIN, _BAR = 8.0, 18, 16, 28
_ESCAPE = re.compile(r"\x1b\[([0-9;?>]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[78=>]")
_COLOURS = {31: "#ff7b72", 32: "#7ee787", 33: "#f2cc60", 34: "#79c0ff", 35: "#d2a8ff", 36: "#76e3ea"}
_FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace"
_PROMPT = "$ "

Span = tuple[str, str | None, bool]
"""Text, its colour, whether it is bold."""


@dataclass
class Typist:
    """Somebody at a terminal, with `qiao` and `claude` on the PATH; nothing of the developer's environment gets in.

    What would name this machine is written otherwise: the home as `~`, and what `hidden` names.
    """

    home: Path
    programs: dict[str, Path]
    extra: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.home / ".local/bin").mkdir(parents=True)
        for name, path in self.programs.items():
            (self.home / ".local/bin" / name).symlink_to(path)

    def types(self, command: str, limit: float = 120.0) -> str:
        """The command, and what it said until its end."""
        with self.running(command) as said:
            return said(lambda _: False, limit)

    @contextlib.contextmanager
    def running(self, command: str) -> Iterator[Callable[[Callable[[str], bool], float], str]]:
        """Yields a function that reads until its first argument holds of what was said, or the command has ended."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        process = subprocess.Popen(
            command.split() if '"' not in command else ["/bin/bash", "-c", "exec " + command],
            env=self._environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        said = ""

        def until(done: Callable[[str], bool], limit: float) -> str:
            nonlocal said
            end = time.monotonic() + limit
            while not done(said) and time.monotonic() < end:
                if select.select([ours], [], [], 0.1)[0]:
                    try:
                        piece = os.read(ours, 65536)
                    except OSError:  # how Linux says that nobody has the terminal any more
                        return self._shown(command, said)
                    if not piece:
                        return self._shown(command, said)
                    said += piece.decode("utf-8", errors="replace")
            assert time.monotonic() < end, f"{command}: not within {limit} s:\n{said}"
            return self._shown(command, said)

        try:
            yield until
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
            os.close(ours)

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{self.home / '.local/bin'}:/usr/local/bin:/usr/bin:/bin"
        fixed = {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
        return {**fixed, "COLUMNS": str(COLUMNS), "SHELL": "/bin/bash", "IS_SANDBOX": "1", **self.extra}

    def _shown(self, command: str, said: str) -> str:
        for real, shown in {**self.hidden, str(self.home): "~"}.items():
            said = said.replace(real, shown)
        return f"{_PROMPT}{command}\n{said}"


def rows(said: str) -> list[list[Span]]:
    """What stands in the terminal, line by line, as wide as it is."""
    found: list[list[Span]] = []
    colour: str | None = None
    is_bold = False
    for number, line in enumerate(said.replace("\r\n", "\n").rstrip().split("\n")):
        line = line.rpartition("\r")[2] if "\r" in line else line
        row: list[Span] = []
        place = 0
        if number == 0:
            row.append((line, None, True))
            line = ""
        for escape in _ESCAPE.finditer(line):
            row.append((line[place : escape.start()], colour, is_bold))
            place = escape.end()
            if escape[2] == "m":
                for code in map(int, filter(None, (escape[1] or "0").split(";"))):
                    colour = _COLOURS.get(code, None if code in (0, 39) else colour)
                    is_bold = code == 1 or (is_bold and code not in (0, 22))
        row.append((line[place:], colour, is_bold))
        found += _wrapped([span for span in row if span[0]])
    return found


def _wrapped(row: list[Span]) -> Iterator[list[Span]]:
    line: list[Span] = []
    width = 0
    for text, colour, is_bold in row:
        while width + len(text) > COLUMNS:
            head, text = text[: COLUMNS - width], text[COLUMNS - width :]
            yield [*line, (head, colour, is_bold)]
            line, width = [], 0
        line.append((text, colour, is_bold))
        width += len(text)
    yield line


def picture(said: str) -> str:
    """The SVG."""
    shown = rows(said)
    width = round(COLUMNS * _CELL + 2 * _MARGIN)
    height = len(shown) * _LINE + 2 * _MARGIN + _BAR
    title = html.escape(shown[0][0][0])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<title>{title}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#161b22"/>',
        *(f'<circle cx="{x}" cy="18" r="5.5" fill="{_COLOURS[code]}"/>' for x, code in ((20, 31), (38, 33), (56, 32))),
        f'<g font-family="{_FONTS}" font-size="13" fill="#e6edf3" xml:space="preserve">',
    ]
    for number, row in enumerate(shown):
        column = 0
        for text, colour, is_bold in row:
            look = (f' fill="{colour}"' if colour else "") + (' font-weight="bold"' if is_bold else "")
            # Each is given its place and length, so that columns stand below each other in whatever font there is.
            place = f'x="{_MARGIN + column * _CELL:g}" y="{_BAR + _MARGIN + _LINE * number + 12}"'
            said = html.escape(text, quote=False)
            lines.append(f'<text {place} textLength="{len(text) * _CELL:g}"{look}>{said}</text>')
            column += len(text)
    return "\n".join([*lines, "</g>", "</svg>"]) + "\n"


def lines_of(svg: str) -> list[str]:
    """The lines of text in a picture."""
    found: dict[str, str] = {}
    for row, text in re.findall(r'<text [^>]*?y="(\d+)"[^>]*>(.*?)</text>', svg, re.DOTALL):
        found[row] = found.get(row, "") + html.unescape(text)
    return [line.rstrip() for line in found.values()]
