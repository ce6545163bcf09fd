"""docs/guides/troubleshooting.md and its 中文 twin, made from the tables that the gateway, launcher and doctor use."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from qiao.policies import log_hints, remedies_page
from qiao.policies.log_rule import Hint

DOCS = Path(__file__).parents[2] / "docs"
GOLDEN = Path(__file__).parents[1] / "golden" / "guides"
LINES = GOLDEN.parent / "log_hints"


class Words(NamedTuple):
    """What a language says around and inside the tables."""

    introduction: str
    refusals: str
    logs: str
    refusals_head: str
    logs_head: str
    sentences: dict[str, str]
    hints: dict[str, list[str]]

    def of(self, sentence: str) -> str:
        return self.sentences[sentence] if self.sentences else sentence

    def hint(self, hint: Hint) -> tuple[str, str]:
        if not self.hints:
            return hint.cause, hint.mend
        cause, mend = self.hints[hint.name]
        return cause, mend


def lines() -> list[tuple[str, str]]:
    """Name of the hint and line, of every captured line."""
    text = (LINES / "lines.txt").read_text("utf-8")
    return [(name, line) for row in text.splitlines() if not row.startswith("#") for name, line in [row.split("\t", 1)]]


def examples(name: str, pattern: str) -> list[str]:
    """What `pattern` finds in the captured lines of the hint `name`: words as they stand in logs."""
    wanted = re.compile(pattern, re.IGNORECASE)
    return [found[0] for known, line in lines() if known == name and (found := wanted.search(line))]


def hints() -> list[tuple[Hint, list[str]]]:
    """Every hint once, with an example of each wording by which its lines are known."""
    found: dict[str, tuple[Hint, list[str]]] = {}
    for rule in log_hints.TABLE:
        _, known = found.setdefault(rule.hint.name, (rule.hint, []))
        for pattern in rule.patterns:
            known += [each for each in examples(rule.hint.name, pattern)[:1] if each not in known]
    return list(found.values())


def page(words: Words) -> str:
    refusals = "".join(
        f"| `` {_cell(row.says)} `` | {_cell(words.of(row.cause))} | {_cell(words.of(row.done))} | "
        f"{_cell(words.of(row.mend)) if row.mend else '–'} |\n"
        for row in remedies_page.rows()
    )
    logs = "".join(
        f"| {'<br>'.join(f'`` {_cell(each)} ``' for each in known)} | {_cell(words.hint(hint)[0])} | "
        f"{_cell(words.hint(hint)[1])} |\n"
        for hint, known in hints()
    )
    return (
        f"{words.introduction}\n## {words.refusals}\n\n{words.refusals_head}\n|---|---|---|---|\n{refusals}"
        f"\n## {words.logs}\n\n{words.logs_head}\n|---|---|---|\n{logs}"
    )


def _cell(text: str) -> str:
    # What a line itself tells stands for a number here.
    return re.sub(r"\{\w+\}", "N", text).replace("|", "\\|").replace("\n", " ")


def english() -> Words:
    return Words(
        introduction=(GOLDEN / "troubleshooting.en.md").read_text("utf-8"),
        refusals="By what an engine answers",
        logs="By a line in the log of vLLM or LiteLLM",
        refusals_head="| exact words | why | what qiao does | mend for good |",
        logs_head="| in the line | what it is | what to do |",
        sentences={},
        hints={},
    )


def chinese() -> Words:
    words = tomllib.loads((DOCS / "zh/words.toml").read_text("utf-8"))
    return Words(
        introduction=(GOLDEN / "troubleshooting.zh.md").read_text("utf-8"),
        refusals="按引擎的回答",
        logs="按 vLLM 或 LiteLLM 日志里的一行",
        refusals_head="| 原文 | 原因 | qiao 怎么做 | 彻底修好 |",
        logs_head="| 行里有 | 是什么 | 怎么办 |",
        sentences=words["sentences"],
        hints=words["hints"],
    )
