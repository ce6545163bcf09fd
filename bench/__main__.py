"""`python -m bench [PART] [--markdown FILE] [--quick]`: measure, print, and keep the tables in FILE.

Parts: `gateway`, `embedded`, `dialects`; `all` is these three; `tool-calls` compares qiao with vLLM and LiteLLM on real
servers (what `make live` installs; minutes) and has a page of its own, docs/tool-calling-comparison.md; `prefix`
replays a session of Claude Code through the three onto a real vLLM (ten minutes) and writes docs/prefix-cache.md. A
section of FILE that was not measured this time keeps its last table.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

from bench import gateway

TITLES = {
    "gateway": "The gateway",
    "embedded": "The embedded engine",
    "dialects": "Calls read out of text",
    "tool-calls": "Tool-call texts",
    "prefix": "A session of Claude Code",
}
APART = {"tool-calls", "prefix"}
PREFIX_PAGE = Path(__file__).parent.parent / "docs" / "prefix-cache.md"
PACKAGES = ("qiao", "aiohttp", "uvloop", "msgspec", "xllamacpp")

INTRODUCTION = """# Performance

Measured by `make bench` (`python -m bench all --markdown docs/performance.md`), which writes this page. Every table is
one run on one machine, candidates beside each other; compare numbers of one table only.
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", default="all", choices=[*TITLES, "all"])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables into FILE")
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; not for comparing")
    options = parser.parse_args()
    parts = [part for part in TITLES if part not in APART] if options.part == "all" else [options.part]
    page: Path | None = options.markdown or (PREFIX_PAGE if options.part == "prefix" else None)
    for part in parts:
        print(f"bench: measuring {TITLES[part].lower()}", file=sys.stderr)
        section = f"## {TITLES[part]}\n\n{facts(quick=options.quick)}\n\n{measured(part, quick=options.quick)}"
        print(section)
        if page is not None:
            page.write_text(with_section(previous(page), part, section))
    return 0


def measured(part: str, *, quick: bool) -> str:
    if part == "gateway":
        return gateway.run(effort=gateway.QUICK if quick else gateway.FULL)
    # Loaded late: they need engines, which the gateway's own measurement does not.
    run: Callable[..., str] = importlib.import_module(f"bench.{part.replace('-', '_')}").run
    return run(quick=quick) if part == "embedded" else run()


def facts(*, quick: bool) -> str:
    """When and on what: enough to compare, nothing that names the machine."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if installed(name))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    haste = " A quick look, not for comparing." if quick else ""
    return (
        f"{today}, {os.cpu_count()} cores ({platform.machine()}), {platform.system()}, Python "
        f"{platform.python_version()}, {versions}.{haste}"
    )


def installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def previous(path: Path) -> str:
    return path.read_text() if path.exists() else INTRODUCTION


def with_section(text: str, part: str, section: str) -> str:
    """`text` with the section between the part's markers replaced, or added at the end."""
    begin, end = f"<!-- bench:{part} -->", f"<!-- /bench:{part} -->"
    block = f"{begin}\n{section.rstrip()}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: block, text)
    return f"{text.rstrip()}\n\n{block}\n"


if __name__ == "__main__":
    raise SystemExit(main())
