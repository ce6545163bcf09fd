"""Writes which flags a vLLM takes, from its own parser: tests/golden/plans/flags/VERSION.txt.

Run it with the Python of an installation of vLLM (the CPU build will do):

    path/to/vllm/bin/python tests/planner/record_flags.py 0.32.0 tests/golden/plans/flags

A line is the flag and what it takes: nothing, a value, or one of some words. After the flags come the names of the
parsers of tool calls and of reasoning.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_PARSER_MODULES = (
    "vllm.entrypoints.openai.cli_args",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.common.cli_args",
)
_TOOL_MODULES = ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")


def _first(modules: tuple[str, ...]) -> Any:
    for module in modules:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as problem:
            if not module.startswith(str(problem.name)):
                raise
    raise SystemExit(f"none of {modules}")


def _names(manager: Any, kind: str) -> list[str]:
    found: set[str] = set()
    for attribute in (f"{kind}_parsers", "lazy_parsers"):
        found |= set(getattr(manager, attribute, {}))
    return sorted(found)


def record() -> list[str]:
    """The lines."""
    arguments = importlib.import_module("vllm.utils.argparse_utils")
    parser = _first(_PARSER_MODULES).make_arg_parser(arguments.FlexibleArgumentParser(prog="vllm serve"))
    lines = []
    for action in parser._actions:
        is_switch = action.nargs == 0
        choices = "|".join(sorted(str(each) for each in action.choices)) if action.choices else "VALUE"
        lines += [f"{option} {'' if is_switch else choices}".rstrip() for option in action.option_strings]
    tools = _first(_TOOL_MODULES).ToolParserManager
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager
    lines += [f"tool-parser {name}" for name in _names(tools, "tool")]
    lines += [f"reasoning-parser {name}" for name in _names(reasoning, "reasoning")]
    return sorted(lines)


if __name__ == "__main__":
    version, folder = sys.argv[1:]
    (Path(folder) / f"{version}.txt").write_text("\n".join(record()) + "\n", "utf-8")
