"""Writes which flags a vLLM takes, from its own parser: tests/golden/plans/flags/VERSION.txt.

Run it with the Python of an installation of vLLM (the CPU build will do):

    path/to/vllm/bin/python tests/planner/record_flags.py 0.32.0 tests/golden/plans/flags

A line is the flag and what it takes: nothing, a value, or one of some words. After the flags come the names of the
parsers of tool calls and of reasoning.

With `--parse` in the folder's place it writes nothing: it reads lists of arguments as JSON from stdin, has each parsed
and checked as `vllm serve` does, and says as JSON on its last line how many were, beside the version and the flags.
"""

from __future__ import annotations

import importlib
import json
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


def _parser() -> Any:
    arguments = importlib.import_module("vllm.utils.argparse_utils")
    return _first(_PARSER_MODULES).make_arg_parser(arguments.FlexibleArgumentParser(prog="vllm serve"))


def parse(asked: list[list[str]]) -> dict[str, Any]:
    """Have every list of arguments parsed. A list that is refused ends the process, with the parser's own words."""
    parser, check = _parser(), _first(_PARSER_MODULES).validate_parsed_serve_args
    for words in asked:
        parsed = parser.parse_args(words)
        if hasattr(parsed, "model_tag"):
            parsed.model = parsed.model_tag
        check(parsed)
    return {"parsed": len(asked), "version": importlib.import_module("vllm").__version__, "flags": record()}


def record() -> list[str]:
    """The lines."""
    parser = _parser()
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
    if folder == "--parse":
        print(json.dumps(parse(json.load(sys.stdin))))
        sys.exit(0)
    (Path(folder) / f"{version}.txt").write_text("\n".join(record()) + "\n", "utf-8")
