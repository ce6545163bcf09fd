"""The reference of the doctor, made from its checks, points and log lines.

`GOLDEN_ACCEPT=1 pytest tests/doctor/test_page.py` rewrites docs/reference/doctor.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from qiao.doctor import check_client, check_engine, check_log, check_machine, check_server
from qiao.doctor.examine import OTHER_CHECKS
from qiao.doctor.replay.run import QUESTIONS
from qiao.policies.log_hints import TABLE

PAGE = Path(__file__).parents[2] / "docs/reference/doctor.md"

HEAD = """# qiao doctor

`qiao doctor` finds out what is wrong, and says how to mend it. `tests/doctor/test_page.py` makes this page from the
checks themselves.

```
qiao doctor                                # this machine, Claude Code, and the gateway that runs here
qiao doctor --upstream http://HOST:8000    # an engine: parsers, template, window, prefix cache
qiao doctor --url http://HOST:4000         # any Anthropic endpoint: a score sheet, point by point
qiao doctor --log vllm.log                 # a log of vLLM or LiteLLM, a start script, a LiteLLM configuration
qiao doctor --fix                          # mends what is qiao's, after saying what
```

* `--key` is for what `--url` or `--upstream` names; without it the key of the gateway that runs here, or
  `QIAO_API_KEY`, or (for an engine) `QIAO_UPSTREAM_KEY`.
* A finding is a `problem` (it does not work, or not as asked), a `warning` (it works, but worse), a `note` or `ok`.
* Exit status: 0 no problem; 1 a problem, or a point marked with * is missed; 2 wrong usage.
* `--json` prints one object: `schema_version`, `status` (`well`, `problems`), `counts`, `findings` (`check`, `grade`,
  `about`, `evidence`, `mend`), `score` (`passed`, `failed`, `skipped`, `total`, `points`) and `fixes`.
* `--fix` closes key files to others, removes left-over temporary files and downloads that broke off. Settings of
  Claude Code that send the session elsewhere are not qiao's: only `--fix --yes` changes them, and keeps a copy.
* An engine is asked a dozen small requests. The score sheet takes about fifty, nearly all with at most 24 tokens of
  answer, and `--limit` seconds at most.
"""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def described() -> str:
    lines = [HEAD, "## Checks", ""]
    groups = (
        ("an address", check_server.CHECKS),
        ("an engine", check_engine.CHECKS),
        ("this machine", check_machine.CHECKS),
        ("Claude Code", check_client.CHECKS),
    )
    rows = [(f"`{check.name}`", place, check.looks_for) for place, checks in groups for check in checks]
    rows += [(f"`{name}`", "a file", what) for name, what in check_log.LOOKS_FOR]
    rows += [(f"`{name}`", "the whole", what) for name, what in OTHER_CHECKS]
    lines += table(("check", "looks at", "finds"), rows)
    lines += ["", "## The score sheet", ""]
    lines += ["Requests as Claude Code 2.1.330 sends them. Without the points marked with * it does not work.", ""]
    points = [(f"`{each.name}`{' *' if each.must else ''}", each.group, each.about) for each in QUESTIONS]
    lines += table(("point", "group", "what is asked for"), points)
    lines += ["", "## Lines of logs", ""]
    lines += ["What `--log` knows. Refusals of requests are known as well, by the gateway's own table of remedies.", ""]
    seen: dict[str, tuple[str, ...]] = {}
    for rule in TABLE:
        hint = rule.hint
        seen.setdefault(hint.name, (f"`{hint.name}`", hint.source, hint.cause, hint.mend))
    lines += table(("line", "from", "what it means", "what to do"), seen.values())
    return "\n".join(lines) + "\n"


def test_the_page_is_current() -> None:
    if os.environ.get("GOLDEN_ACCEPT"):
        PAGE.write_text(described(), "utf-8")
    assert PAGE.read_text("utf-8") == described(), "GOLDEN_ACCEPT=1 rewrites it"


def test_every_check_is_listed_once() -> None:
    groups = (check_server.CHECKS, check_engine.CHECKS, check_machine.CHECKS, check_client.CHECKS)
    names = [check.name for checks in groups for check in checks]  # type: ignore[attr-defined]
    names += [name for name, _ in (*check_log.LOOKS_FOR, *OTHER_CHECKS)]
    assert len(names) == len(set(names))
