"""Parts that several formats share: the engine's arguments with other addresses, words safe for a shell. Pure."""

from __future__ import annotations

import re
import shlex

from qiao.errors import ConfigurationError
from qiao.planner import mig
from qiao.planner.plan import Plan
from qiao.planner.vllm import version_text

_SIMPLE = re.compile(r"^[A-Za-z0-9_./:@%+=,{}$()-]+$")


def engine_arguments(plan: Plan, *, host: str, port: int, without: tuple[str, ...] = ()) -> list[str]:
    """What stands after `vllm serve`, listening on `host` and `port`, without some flags and their values."""
    words: list[str] = []
    is_dropped = False
    for word in plan.arguments:
        if word.startswith("--"):
            is_dropped = word in ("--host", "--port", *without)
        if not is_dropped:
            words.append(word)
    return [words[0], "--host", host, "--port", str(port), *words[1:]]


def container_variables(plan: Plan) -> dict[str, str]:
    """The engine's variables inside a container, which is handed its GPUs and numbers them anew."""
    return {name: value for name, value in plan.environment.items() if name not in mig.VARIABLES}


def model_folder(plan: Plan) -> str | None:
    """The folder that a container needs for a model that lies here; None for one that is downloaded.

    In the cache of Hugging Face's programs the files of a snapshot are links to the folder of all snapshots' files.
    """
    if not plan.model.is_local:
        return None
    path = plan.model.repository
    parent, between, _ = path.rpartition("/snapshots/")
    return parent if between and "/models--" in f"/{parent}" else path


def engine_image(plan: Plan, given: str | None) -> str:
    """The container image of the engine."""
    return given or f"vllm/vllm-openai:v{version_text(plan.goal.version)}"


def lines_of(words: list[str]) -> list[list[str]]:
    """A command's words, one flag with its values a line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(word)
    return lines


def quoted(word: str) -> str:
    """A word for bash."""
    return shlex.quote(word)


def simple(words: list[str], where: str) -> list[str]:
    """`words`, if none needs quoting; formats that hand words through two shells take no others."""
    for word in words:
        if not _SIMPLE.match(word):
            raise ConfigurationError(
                f"{where} cannot carry the word {word!r}: it has characters that a shell would change.",
                hint="Give the model a folder without spaces and quotes.",
            )
    return words


def single_node(plan: Plan, where: str) -> None:
    """Refuse a plan over several computers in a format for one."""
    if plan.nodes > 1:
        raise ConfigurationError(
            f"{where} starts things on one computer, and this plan takes {plan.nodes}.",
            hint="Use `qiao export kubernetes`, `ray`, or `shell` (one script for all computers).",
        )


def about(plan: Plan) -> str:
    """The plan in a line, for comments."""
    return (
        f"{plan.model.repository} on {plan.machine}: {plan.division}; window {plan.window:,} tokens, "
        f"{plan.concurrency:.1f} conversations of that length at once"
    )
