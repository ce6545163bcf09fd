"""Cases of `tests/golden/text_tools`: what is sent to a server that renders no tools, and the prompt that it becomes.

    # what the case shows
    # with model=… template=… [without=Environment:_ipython\\n] [list=own] [order=free]
    {an Anthropic request}
    ----------
    {"messages": […]}           what is sent, without tools
    ----------
    the prompt

The prompt is what the model's published template makes of the tools, calls and results of the same request. Templates
are not part of this repository, and neither is what renders them, so the tests hold the messages, and this program, run
where jinja2 and folders of templates are, holds the prompts:

    python -m tests.policies.text_tools_cases FOLDER…

It renders both ways, with tools and in words, says where they differ, and writes the prompt into the case. `without`:
text that no message can bring about (`_` for a space); `list=own`: the template knows calls and results, but lists no
tools, so that both ways get our list; `order=free`: the same sections in another order.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from qiao.core.anthropic.request import decode
from qiao.core.openai.request import encode
from qiao.policies import prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import find
from qiao.profiles.engines import target_for

FOLDER = Path(__file__).parents[1] / "golden" / "text_tools"
DASHES = "\n----------\n"
NATIVE = Quirks(no_tool_parser=True)
IN_WORDS = Quirks(no_tool_parser=True, no_tool_rendering=True)


class Case(msgspec.Struct):
    """One file."""

    path: Path
    title: str
    settings: dict[str, str]
    request: str
    messages: str = ""
    prompt: str = ""

    def text(self) -> str:
        """The file's content."""
        words = " ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.title}\n# with {words}\n{self.request}{DASHES}{self.messages}{DASHES}{self.prompt}\n"


def read(path: Path) -> Case:
    """The case in a file."""
    given, _, rest = path.read_text("utf-8").partition(DASHES)
    title, second, request = given.split("\n", 2)
    messages, _, prompt = rest.partition(DASHES)
    settings = dict(word.split("=", 1) for word in second.removeprefix("# with ").split(" "))
    return Case(path, title, settings, request, messages, prompt.removesuffix("\n"))


def cases() -> list[Case]:
    """All of them."""
    return [read(path) for path in sorted(FOLDER.glob("*.case"))]


def sent(case: Case, quirks: Quirks) -> dict[str, Any]:
    """The body for a server with these quirks."""
    model = case.settings["model"]
    target = target_for("vllm", "0.16.0", model)
    prepared = prepare(decode(case.request.encode()), find(model), target=target, quirks=quirks)
    body: dict[str, Any] = json.loads(encode(prepared.conversation, target))
    return body


def shown(messages: list[dict[str, Any]]) -> str:
    """Messages as they stand in a case."""
    return json.dumps({"messages": messages}, indent=2, ensure_ascii=False)


def render(template: str, body: dict[str, Any], *, arguments_as_text: bool = False) -> str:
    """The prompt as vLLM renders it with transformers' environment."""
    sandbox = importlib.import_module("jinja2.sandbox")
    environment = sandbox.SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def tojson(value: object, ensure_ascii: bool = False, indent: int | None = None, **_: object) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    messages = [_as_engines_hand_it_over(message, arguments_as_text) for message in body["messages"]]
    prompt = environment.from_string(template).render(
        messages=messages,
        tools=body.get("tools"),
        bos_token="",
        eos_token="</s>",
        add_generation_prompt=True,
        **body.get("chat_template_kwargs", {}),
    )
    return str(prompt)


def _as_engines_hand_it_over(message: dict[str, Any], arguments_as_text: bool) -> dict[str, Any]:
    """vLLM's changes before it renders: no text is an empty one, arguments are objects, reasoning has both names."""
    message = {**message, "content": message["content"] or ""}
    if "reasoning" in message:
        message["reasoning_content"] = message["reasoning"]
    if "tool_calls" in message:
        calls = []
        for call in message["tool_calls"]:
            arguments: Any = json.loads(call["function"]["arguments"])
            if arguments_as_text:
                arguments = json.dumps(arguments, ensure_ascii=False)
            calls.append({**call, "function": {**call["function"], "arguments": arguments}})
        message["tool_calls"] = calls
    return message


def judge(case: Case, template: str) -> str:
    """The prompt of a case. Raises AssertionError where words and tools do not give the same."""
    words, native = sent(case, IN_WORDS), sent(case, NATIVE)
    settings = case.settings
    if settings.get("list") == "own":
        native["messages"] = [words["messages"][0], *(m for m in native["messages"] if m["role"] != "system")]
    prompt = render(template, words)
    try:
        wanted = render(template, native)
    except TypeError:  # templates that join texts want the arguments as one
        wanted = render(template, native, arguments_as_text=True)
    if "without" in settings:
        wanted = wanted.replace(json.loads(f'"{settings["without"]}"').replace("_", " "), "", 1)
    if settings.get("order") == "free":
        assert sections(prompt) == sections(wanted), difference(wanted, prompt)
    else:
        assert prompt == wanted, difference(wanted, prompt)
    return prompt


def sections(prompt: str) -> list[str]:
    """What stands between the ends of turns, sorted."""
    return sorted(section.strip() for section in prompt.split("<|im_end|>"))


def difference(wanted: str, actual: str) -> str:
    """Where two prompts part."""
    pairs = zip(wanted, actual, strict=False)
    place = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(wanted), len(actual)))
    start = max(0, place - 60)
    return f"\n  template: …{wanted[start : place + 80]!r}\n  in words: …{actual[start : place + 80]!r}"


def main() -> int:
    """Judge every case by the templates in the folders, and write the prompts into the cases."""
    failed = 0
    for case in cases():
        found = [Path(folder) / case.settings["template"] for folder in sys.argv[1:]]
        template = next((path.read_text("utf-8") for path in found if path.exists()), None)
        if template is None:
            print(f"{case.path.stem}: no {case.settings['template']} in the folders")
            failed += 1
            continue
        try:
            case.prompt = judge(case, template)
        except AssertionError as problem:
            print(f"{case.path.stem}: {problem}")
            failed += 1
        case.messages = shown(sent(case, IN_WORDS)["messages"])
        case.path.write_text(case.text(), "utf-8")
    print(f"{len(cases()) - failed} of {len(cases())} cases are the same prompt")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
