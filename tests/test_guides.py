"""The guides keep their word: both languages say the same, every command is one, what can be run here is run."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from qiao.cli.main import COMMANDS, load
from qiao.policies import remedies_page
from tests.support.troubleshooting import chinese, english, hints, page

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [ROOT / "docs/index.md", *GUIDES]
EVERY = [*PAGES, *(ROOT / "docs/zh" / page.relative_to(ROOT / "docs") for page in PAGES)]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What a person replaces is written in capitals; any word does for the shell's grammar.
SHELLS = ("", "bash")
LANGUAGES = (*SHELLS, "powershell", "python", "yaml", "text")
# Commands whose effect needs a GPU, a cluster, an engine or a person are only read.
RUNS = re.compile(r"^(?:\.venv/bin/)?qiao (plan|export) .*--(?:gpus|nodes) ")


def identity(path: Path) -> str:
    return path.relative_to(ROOT / "docs").as_posix()


def fenced(path: Path) -> list[tuple[str, str]]:
    """Language and content of every block."""
    return FENCED.findall(path.read_text("utf-8"))


def without_comments(block: tuple[str, str]) -> tuple[str, str]:
    return block[0], re.sub(r"[ \t]+#.*", "", block[1])


def commands(path: Path) -> list[str]:
    """Every command line of the page: in blocks, and in the text between backticks."""
    found: list[str] = []
    text = path.read_text("utf-8")
    for language, content in fenced(path):
        if language in SHELLS:
            found += [line.removeprefix("$ ") for line in content.replace("\\\n", "").splitlines()]
    found += re.findall(r"`((?:qiao|make|\.venv/bin/qiao) [^`]+)`", FENCED.sub("", text))
    return [line.strip() for line in found if line.strip() and not line.startswith(" ")]


def qiao_commands(path: Path) -> list[list[str]]:
    """The words behind `qiao`, of every call of it."""
    calls = re.compile(r"(?:^|[\s(`/])qiao ([a-z]+[^&|;)#`]*)")
    return [call.split() for line in commands(path) for call in calls.findall(line)]


def test_every_page_has_both_languages() -> None:
    english = {page.name for page in GUIDES}
    chinese = {page.name for page in (ROOT / "docs/zh/guides").glob("*.md")}
    assert english == chinese


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_both_languages_are_equal(page: Path) -> None:
    other = ROOT / "docs/zh" / page.relative_to(ROOT / "docs")
    assert [*map(without_comments, fenced(page))] == [*map(without_comments, fenced(other))]
    first, second = (FENCED.sub("", path.read_text("utf-8")) for path in (page, other))
    for mark in (r"^#+ ", r"^\|", r"^\* ", r"^\d+\. ", r"^\*\*"):
        counts = [len(re.findall(mark, text, re.MULTILINE)) for text in (first, second)]
        assert counts[0] == counts[1], mark
    if page.name == "troubleshooting.md":
        return  # made from one table; its words are held below
    named = [set(re.findall(r"`([^`]+)`", text)) for text in (first, second)]
    assert named[0] == named[1]


@pytest.mark.parametrize("page", EVERY, ids=identity)
def test_blocks_are_what_they_say(page: Path) -> None:
    for language, content in fenced(page):
        assert language in LANGUAGES
        if language in SHELLS:
            script = re.sub(r"^\$ ", "", content, flags=re.MULTILINE)
            if "→" in script:
                continue  # a drawing
            checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
            assert checked.returncode == 0, checked.stderr
        elif language == "python":
            ast.parse(content)
        elif language == "yaml":
            assert yaml.safe_load(content)


@pytest.mark.parametrize("page", EVERY, ids=identity)
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for line in commands(page):
        if line.startswith("make "):
            assert line.split()[1] in targets, line
    for words in qiao_commands(page):
        if not words or words[0].startswith("-"):
            continue
        assert words[0] in COMMANDS, words
        command = load(words[0]).command
        assert isinstance(command, click.Command)
        if words[0] == "claude":
            continue  # what follows is Claude Code's
        known = {flag for parameter in command.params for flag in parameter.opts}
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in known, words


@pytest.mark.parametrize("page", GUIDES, ids=identity)
def test_plans_and_files_are_made(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands(page):
        if RUNS.match(line):
            words = shlex.split(line, comments=True)
            arguments = [*words[2:], *(["--force"] if words[1] == "export" else [])]
            command = load(words[1]).command
            assert isinstance(command, click.Command)
            result = CliRunner().invoke(command, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}"
            assert result.output.strip() or any(tmp_path.iterdir())


def test_the_commands_that_run_are_found() -> None:
    found = [line for page in GUIDES for line in commands(page) if RUNS.match(line)]
    assert sum("qiao plan" in line for line in found) >= 5
    assert sum("qiao export" in line for line in found) >= 5


@pytest.mark.parametrize("folder", ["guides", "zh/guides"])
def test_through_litellm_every_model_is_one_of_its_file(folder: str) -> None:
    """Claude Code asks for haiku by itself, and LiteLLM refuses names that its file does not list."""
    blocks = [content for _, content in fenced(ROOT / "docs" / folder / "litellm.md")]
    (client,) = [content for content in blocks if "ANTHROPIC_BASE_URL" in content]
    exported = CliRunner().invoke(load("export").command, ["litellm", "--gpus", "4xH20-96G", "--stdout"])
    (model,) = yaml.safe_load(exported.stdout)["model_list"]
    named = dict(re.findall(r"^export (\w+)=(\S+)", client, re.MULTILINE))
    assert named["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == model["model_name"]
    assert f"claude --model {model['model_name']}" in client
    assert int(named["CLAUDE_CODE_MAX_CONTEXT_TOKENS"]) <= model["model_info"]["max_input_tokens"]


@pytest.mark.parametrize("folder", ["guides", "zh/guides"])
def test_hubs_that_are_reached_in_china_are_named(folder: str) -> None:
    text = (ROOT / "docs" / folder / "beginners.md").read_text("utf-8")
    for name in re.findall(r"export ((?:HF|QIAO)_\w+)=", text):
        assert name in (ROOT / "docs/reference/configuration.md").read_text("utf-8")
    assert "QIAO_ENGINE_HUB=https://www.modelscope.cn" in text
    assert "HF_ENDPOINT=" in text


def test_every_page_is_in_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    for each in sorted((ROOT / "docs").rglob("*.md")):
        assert f"- {identity(each)}" in site, each


@pytest.mark.parametrize("language", ["en", "zh"])
def test_troubleshooting_is_current(language: str) -> None:
    words, folder = (english(), "guides") if language == "en" else (chinese(), "zh/guides")
    path = ROOT / "docs" / folder / "troubleshooting.md"
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_text(page(words), "utf-8")
    assert path.read_text("utf-8") == page(words), "GOLDEN_ACCEPT=1 pytest tests/test_guides.py"


@pytest.mark.parametrize(
    "words",
    [
        "Address already in use",
        "No space left on device",
        "is not a valid model identifier",
        "Invalid tool_choice",
        "context length exceeded",
    ],
)
@pytest.mark.parametrize("folder", ["guides", "zh/guides"])
def test_troubleshooting_is_found_by_the_words_of_a_log(folder: str, words: str) -> None:
    assert words in (ROOT / "docs" / folder / "troubleshooting.md").read_text("utf-8")


def test_every_sentence_has_its_chinese_and_no_other() -> None:
    words = chinese()
    rows = remedies_page.rows()
    assert set(words.sentences) == {text for row in rows for text in (row.cause, row.done, row.mend) if text}
    assert set(words.hints) == {hint.name for hint, _ in hints()}
    for hint, _ in hints():
        for sentence, other in zip((hint.cause, hint.mend), words.hints[hint.name], strict=True):
            assert set(re.findall(r"\{\w+\}|--[a-z-]+", sentence)) == set(re.findall(r"\{\w+\}|--[a-z-]+", other)), (
                other
            )
