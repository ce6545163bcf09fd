"""The documents keep their word: links lead somewhere, commands exist, versions are those that are pinned.

`GOLDEN_ACCEPT=1 pytest tests/test_docs.py` rewrites docs/reference/configuration.md from the declared options.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest

from qiao.cli.main import COMMANDS, load
from qiao.config import Config, options
from qiao.doctor.check_engine import CHECKS as ENGINE_CHECKS
from qiao.doctor.facts import EngineFacts
from qiao.doctor.finding import findings
from qiao.planner.review import review
from qiao.profiles.claude_code import FIRST_REQUEST, FIRST_REQUEST_ALL_TOOLS, USEFUL_WINDOW

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests/golden/README.md"])
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
CONFIGURATION = ROOT / "docs/reference/configuration.md"


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def without_comments(block: str) -> str:
    return re.sub(r"[ \t]+#.*", "", block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|mailto:|#", target):
            assert (document.parent / target.split("#")[0]).exists(), target


def test_both_readmes_have_the_same_commands_and_tables() -> None:
    english, chinese = (path.read_text("utf-8") for path in READMES)
    assert list(map(without_comments, blocks(english))) == list(map(without_comments, blocks(chinese)))
    assert english.count("\n## ") == chinese.count("\n## ")
    assert english.count("\n* ") == chinese.count("\n* ")
    assert english.count("\n| ") == chinese.count("\n| ")
    links = [
        sorted(set(re.findall(r"\]\(([^)\s]+)\)", text)) - {"README.md", "README.zh-CN.md"})
        for text in (english, chinese)
    ]
    assert links[0] == links[1]


def rows(path: str) -> dict[str, list[str]]:
    """The rows of a page's tables by their first cell; of several that begin alike, the first."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / path).read_text("utf-8").splitlines():
        first, *rest = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and rest:
            found.setdefault(first, rest)
    return found


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_comparison_is_what_the_tables_say(readme: Path) -> None:
    calls, prefix = rows("docs/tool-calling-comparison.md"), rows("docs/prefix-cache.md")
    told = readme.read_text("utf-8")
    read = [
        " / ".join(calls[name][:2])
        for name in ("qiao, server with its parser", "vLLM's own /v1/messages", "LiteLLM in front of vLLM")
    ]
    without = " / ".join(calls["qiao, server without a parser (no restart)"][:2])
    ideal = [prefix[name][5] for name in ("qiao", "vLLM's own /v1/messages", "LiteLLM")]
    assert f"| {' | '.join(read)} |" in told
    assert f"| {without} | – | – |" in told
    assert f"| {' | '.join(ideal)} |" in told


GUIDES = sorted(ROOT.glob("docs/guides/*.md"))


@pytest.mark.parametrize("english", GUIDES, ids=lambda path: path.stem)
def test_guides_are_equal_in_both_languages(english: Path) -> None:
    chinese = ROOT / "docs/zh/guides" / english.name
    texts = english.read_text("utf-8"), chinese.read_text("utf-8")
    assert list(map(without_comments, blocks(texts[0]))) == list(map(without_comments, blocks(texts[1])))
    for mark in ("\n## ", "\n* ", "\n| "):
        assert texts[0].count(mark) == texts[1].count(mark), mark


@pytest.mark.parametrize("document", [*READMES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for target in re.findall(r"(?:^|`|\$ )make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"
    for name, rest in re.findall(r"\bqiao (up|serve|claude|env|key|plan|export|doctor)\b([^\n`]*)", text):
        assert name in COMMANDS, f"qiao {name}"
        command = load(name).command
        assert isinstance(command, click.Command)
        known = {flag for parameter in command.params for flag in parameter.opts}
        if name != "claude":
            for flag in re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0]):
                assert flag in known, f"qiao {name} {flag}"


@pytest.mark.parametrize("document", READMES, ids=lambda path: path.name)
def test_verified_versions_are_the_pinned_ones(document: Path) -> None:
    text = document.read_text("utf-8")
    requirements = "\n".join(path.read_text("utf-8") for path in (ROOT / "requirements").glob("*.txt"))
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", requirements, re.MULTILINE))
    first_screen = text.split("\n## ")[0]
    assert len(first_screen.splitlines()) <= 45
    assert f"| {pinned['xllamacpp']} |" in text
    assert pinned["xllamacpp"] in first_screen
    assert f"aiohttp {pinned['aiohttp']}" in text
    sdks = set(re.findall(r"^anthropic==([^\s;]+)", requirements, re.MULTILINE))
    typescript = re.search(
        r'"@anthropic-ai/sdk": "([^"]+)"', (ROOT / "tests/integration/ts/package.json").read_text("utf-8")
    )
    assert typescript is not None
    for version in (*sdks, typescript[1]):
        assert version in text, version
        assert version in first_screen, version
    for claude in set(re.findall(r"claude-code@([0-9.]+)", text)):
        assert f"Claude Code {claude}" in first_screen


def described() -> str:
    """The reference of all options, from their one declaration."""
    lines = [
        "# Configuration",
        "",
        "A flag wins over the environment, the environment over `qiao.toml` (in the working folder, or `--config`),",
        "the file over the default. `tests/test_docs.py` makes this page from the declarations in",
        "`src/qiao/config.py`.",
    ]
    section = ""
    defaults = Config()
    for option in options():
        if option.section != section:
            section = option.section
            lines += [
                "",
                f"## [{section}]",
                "",
                "| key | flag | variable | default | meaning |",
                "|---|---|---|---|---|",
            ]
        default = defaults.value(option.key)
        shown = "" if default in (None, {}, Path()) else f"`{default}`"
        flag = f"`{option.about.flag}`" if option.about.flag else ""
        variables = ", ".join(f"`{name}`" for name in (option.variable, *option.about.also) if name)
        meaning = option.about.help.replace("|", "\\|")
        lines.append(f"| `{option.name}` | {flag} | {variables} | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def test_the_configuration_page_is_current() -> None:
    if os.environ.get("GOLDEN_ACCEPT"):
        CONFIGURATION.write_text(described(), "utf-8")
    assert CONFIGURATION.read_text("utf-8") == described(), "GOLDEN_ACCEPT=1 rewrites it"


def test_one_story_of_what_claude_code_needs() -> None:
    docs = ROOT / "docs"
    first, most = f"{FIRST_REQUEST:,}", f"{FIRST_REQUEST_ALL_TOOLS:,}"
    for name in ("guides/beginners.md", "guides/original-guide.md", "reference/planner.md", "embedded.md"):
        assert f"{first} to {most}" in (docs / name).read_text("utf-8"), name
    for name in ("beginners.md", "original-guide.md"):
        assert f"{first} 到 {most}" in (docs / "zh/guides" / name).read_text("utf-8"), name
    for name in ("guides/beginners.md", "zh/guides/beginners.md", "reference/planner.md"):
        assert f"{USEFUL_WINDOW:,}" in (docs / name).read_text("utf-8"), name
    (small,) = (
        fault
        for fault in review(f"vllm serve Qwen/Qwen3-8B --max-model-len {USEFUL_WINDOW - 1}")
        if fault.code == "small_window"
    )
    assert f"{first} to {most}" in small.text
    facts = EngineFacts(about="http://h", flavor="vllm", window=USEFUL_WINDOW - 1)
    assert "window_too_small" in {each.check for each in findings(ENGINE_CHECKS, facts) if each.grade == "warning"}
    facts = EngineFacts(about="http://h", flavor="vllm", window=USEFUL_WINDOW)
    assert {each.grade for each in findings(ENGINE_CHECKS, facts) if each.check == "window_too_small"} == {"ok"}
