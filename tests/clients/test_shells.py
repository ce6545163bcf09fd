"""What is printed for a shell sets exactly these values in that shell."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiao.clients.claude_code import Variable, variables
from qiao.clients.shells import Shell, own_shell, quote_dotenv, quote_fish, quote_posix, quote_powershell, render
from tests.clients.connections import connection

TRICKY = [
    "",
    " ",
    "plain",
    "a b",
    "it's",
    'say "hi"',
    "$HOME",
    "`id`",
    "back\\slash",
    "!!",
    "a;b&c|d",
    "*",
    "~",
    "é'€",
    "x\\'y",
]


def test_bash_takes_what_is_printed() -> None:
    script = render(variables(connection(model="it's $HOME `id` \\ model")), "bash")
    done = subprocess.run(
        [
            "/bin/bash",
            "-c",
            'eval "$1"; printf "%s|%s|%s" "$ANTHROPIC_MODEL" "$ANTHROPIC_BASE_URL" "${ANTHROPIC_API_KEY-gone}"',
            "_",
            script,
        ],
        env={"ANTHROPIC_API_KEY": "theirs", "HOME": "/h"},
        capture_output=True,
        encoding="utf-8",
        timeout=20,
        check=True,
    )
    assert done.stdout == "it's $HOME `id` \\ model|http://127.0.0.1:4000|gone"
    assert done.stderr == ""


def said_by(shell: str, *quoted: str) -> list[str]:
    """What the shell makes of these words."""
    script = "printf '%s\\0' " + " ".join(quoted) + "\n"
    done = subprocess.run([shell], input=script.encode(), capture_output=True, timeout=20, check=True)
    return done.stdout.decode("utf-8").split("\0")[:-1]


def test_quoting_for_posix_shells() -> None:
    assert said_by("/bin/sh", *map(quote_posix, TRICKY)) == TRICKY
    assert said_by("/bin/bash", *map(quote_posix, TRICKY)) == TRICKY


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=30))
def test_any_text_survives_bash(texts: list[str]) -> None:
    assert said_by("/bin/bash", *map(quote_posix, texts)) == texts


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_quoting_for_fish() -> None:
    assert said_by("fish", *map(quote_fish, TRICKY)) == TRICKY


@pytest.mark.parametrize(
    ("text", "fish", "powershell", "dotenv"),
    [
        ("plain-1.2/x", "plain-1.2/x", "'plain-1.2/x'", "plain-1.2/x"),
        ("a b", "'a b'", "'a b'", "'a b'"),
        ("it's", "'it\\'s'", "'it''s'", '"it\'s"'),
        ("a\\b", "'a\\\\b'", "'a\\b'", "'a\\b'"),
        ("’", "'’'", "'’’'", "'’'"),
        ("it's $1", "'it\\'s $1'", "'it''s $1'", '"it\'s \\$1"'),
    ],
)
def test_quoting_elsewhere(text: str, fish: str, powershell: str, dotenv: str) -> None:
    assert (quote_fish(text), quote_powershell(text), quote_dotenv(text)) == (fish, powershell, dotenv)


EXPECTED = {
    "bash": "# why a\nexport A='x y'\n# why b\nunset B\n",
    "fish": "# why a\nset -gx A 'x y'\n# why b\nset -e B\n",
    "powershell": "# why a\n$Env:A = 'x y'\n# why b\nRemove-Item Env:B -ErrorAction SilentlyContinue\n",
    "dotenv": "# why a\nA='x y'\n# why b\nB=''\n",
}


@pytest.mark.parametrize("shell", ["bash", "fish", "powershell", "dotenv"])
def test_each_shell_with_reasons(shell: Shell) -> None:
    assert render([Variable("A", "x y", "why a"), Variable("B", None, "why b")], shell) == EXPECTED[shell]


def test_json_is_what_a_settings_file_takes() -> None:
    assert json.loads(render([Variable("A", "x", "why"), Variable("B", None, "why")], "json")) == {
        "env": {"A": "x", "B": ""}
    }


@pytest.mark.parametrize(
    ("shell", "platform", "expected"),
    [
        ("/usr/bin/fish", "linux", "fish"),
        ("/bin/zsh", "darwin", "bash"),
        ("", "linux", "bash"),
        ("", "win32", "powershell"),
        ("/usr/bin/pwsh", "linux", "powershell"),
    ],
)
def test_own_shell(shell: str, platform: str, expected: Shell) -> None:
    assert own_shell({"SHELL": shell} if shell else {}, platform) == expected


def test_reasons_are_comments_in_every_shell(tmp_path: Path) -> None:
    for shell in ("bash", "fish", "powershell", "dotenv"):
        for line in render(variables(connection()), shell).splitlines()[::2]:
            assert line.startswith("# ")
