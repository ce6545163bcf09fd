"""docs/guides/troubleshooting.md and its 中文 twin, made from the tables that the gateway, the launcher and doctor use."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from qiao.policies import log_hints, remedies_page
from qiao.policies.log_rule import Hint

DOCS = Path(__file__).parents[2] / "docs"


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


def hints() -> list[tuple[Hint, str]]:
    """Every hint once, with a wording by which its line is known."""
    found: dict[str, tuple[Hint, str]] = {}
    for rule in log_hints.TABLE:
        found.setdefault(rule.hint.name, (rule.hint, rule.patterns[0]))
    return list(found.values())


def page(words: Words) -> str:
    refusals = "".join(
        f"| `` {_cell(row.says)} `` | {_cell(words.of(row.cause))} | {_cell(words.of(row.done))} | "
        f"{_cell(words.of(row.mend)) if row.mend else '–'} |\n"
        for row in remedies_page.rows()
    )
    logs = "".join(
        f"| `` {_cell(_readable(pattern))} `` | {_cell(words.hint(hint)[0])} | {_cell(words.hint(hint)[1])} |\n"
        for hint, pattern in hints()
    )
    return (
        f"{words.introduction}\n## {words.refusals}\n\n{words.refusals_head}\n|---|---|---|---|\n{refusals}"
        f"\n## {words.logs}\n\n{words.logs_head}\n|---|---|---|\n{logs}"
    )


def _readable(pattern: str) -> str:
    """A regular expression as a person would look for it."""
    text = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", r"<\1>", pattern)
    text = re.sub(r"\(\?[:!=<][^()]*\)|\.\{\d+,\d+\}\??", "…", text)
    text = re.sub(r"\\b|\\s\*|\^|\$", "", text)
    text = re.sub(r"(?:\[[^\]]*\]|\\[dwsS]|\.)[*+?]\??", "…", text)
    return re.sub(r"\\(.)", r"\1", text).strip()


def _cell(text: str) -> str:
    # What a line itself tells stands for a number here.
    return re.sub(r"\{\w+\}", "N", text).replace("|", "\\|").replace("\n", " ")


ENGLISH = Words(
    introduction="""# Troubleshooting

<!-- Generated: GOLDEN_ACCEPT=1 pytest tests/test_guides.py -->

Begin with `qiao doctor`: it looks at the gateway, the engine, Claude Code and this machine. `qiao doctor --log FILE` names the line of a log that
matters. `qiao doctor --url URL` holds any Anthropic endpoint against what Claude Code sends.

## By symptom

| what you see | what it is | what to do |
|---|---|---|
| tool calls printed as text: `<tool_call>{…}` | nobody reads the model's calls, or in the wrong dialect | put qiao in front; `GET /readyz` says who reads them |
| 400 at once, with every request | see the exact words below | most are mended by themselves |
| the first answer takes minutes, every time | no prefix cache, or something changes the prompt's beginning | `--enable-prefix-caching`; qiao keeps the beginning as it was |
| the same request arrives again and again | the client gave up on a silent engine | `qiao claude` sets its timers; qiao pings |
| Claude Code never compacts, then fails | it believes in another window | `qiao claude`, or the lines of `qiao env` |
| Claude Code asks to log in | a stored login or a settings file wins over the environment | `qiao claude` says which |
| 401 `invalid x-api-key` | not the gateway's key | `qiao key` prints it |
| 404 `model: NAME` | a name that means nothing here | `GET /v1/models` lists the names |
| 529 `overloaded_error` | more requests wait than `--queue-limit` | they come back by themselves |
""",
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
        introduction="""# 排错

<!-- Generated: GOLDEN_ACCEPT=1 pytest tests/test_guides.py -->

先运行 `qiao doctor`：它检查网关、引擎、Claude Code 和这台机器。`qiao doctor --log FILE` 指出日志里关键的那一行。`qiao doctor --url URL` 用 Claude Code
发送的内容检验任何 Anthropic 端点。

## 按现象

| 看到什么 | 是什么 | 怎么办 |
|---|---|---|
| 工具调用被当作文本打印：`<tool_call>{…}` | 没有人读模型的调用，或方言不对 | 把 qiao 放在前面；`GET /readyz` 说明由谁读 |
| 每个请求立刻得到 400 | 见下面的原文 | 大多会自动修复 |
| 每次第一个回答都要几分钟 | 没有前缀缓存，或提示的开头总在变 | `--enable-prefix-caching`；qiao 保持开头不变 |
| 同一个请求反复到来 | 引擎没有动静，客户端放弃了 | `qiao claude` 会设好计时器；qiao 会发 ping |
| Claude Code 从不压缩，然后失败 | 它以为窗口是别的大小 | `qiao claude`，或 `qiao env` 的几行 |
| Claude Code 要求登录 | 已保存的登录或设置文件优先于环境变量 | `qiao claude` 会说是哪一个 |
| 401 `invalid x-api-key` | 不是网关的密钥 | `qiao key` 打印它 |
| 404 `model: NAME` | 这个名字在这里没有意义 | `GET /v1/models` 列出名字 |
| 529 `overloaded_error` | 等待的请求超过 `--queue-limit` | 它们会自己再来 |
""",
        refusals="按引擎的回答",
        logs="按 vLLM 或 LiteLLM 日志里的一行",
        refusals_head="| 原文 | 原因 | qiao 怎么做 | 彻底修好 |",
        logs_head="| 行里有 | 是什么 | 怎么办 |",
        sentences=words["sentences"],
        hints=words["hints"],
    )
