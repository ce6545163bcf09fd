"""Prompts as an engine makes them, with the chat templates that Qwen published (they come with the package trl)."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox

DISTRIBUTION = "trl"


class Refused(Exception):
    """The template raised."""


def absence() -> str | None:
    """Why there are no templates here; None if there are."""
    try:
        importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "no chat templates: `make test` installs requirements/chat-templates.txt"
    return None


def prompt(name: str, body: Mapping[str, Any]) -> str:
    """The prompt that vLLM makes of a chat-completions body with the template `name` (`qwen3`, `qwen3_6`, …).

    As vLLM does it: arguments of calls are parsed, reasoning goes under both of its names. Raises `Refused`.
    """
    messages = [_message(message) for message in body["messages"]]
    return _template(name).render(
        messages=messages,
        tools=body.get("tools"),
        add_generation_prompt=body.get("add_generation_prompt", True),
        **(body.get("chat_template_kwargs") or {}),
    )


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    ready = dict(message)
    if ready.get("content") is None:
        ready["content"] = ""
    if calls := ready.get("tool_calls"):
        ready["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in calls
        ]
    thought = ready.get("reasoning") or ready.get("reasoning_content")
    if thought:
        ready["reasoning"] = ready["reasoning_content"] = thought
    return ready


@functools.cache
def _template(name: str) -> jinja2.Template:
    file = importlib.metadata.distribution(DISTRIBUTION).locate_file(f"trl/chat_templates/{name}.jinja")
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _as_json
    environment.globals["raise_exception"] = _raise
    return environment.from_string(Path(str(file)).read_text("utf-8"))


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _raise(message: str) -> NoReturn:
    raise Refused(message)
