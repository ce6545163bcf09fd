"""Checks of an engine: parsers, template, window, cache, version. The facts come from asking it, or from its log."""

from __future__ import annotations

from qiao.doctor.facts import EngineFacts
from qiao.doctor.finding import Check, Finding, Grade
from qiao.planner import vllm
from qiao.profiles import find
from qiao.profiles.claude_code import FIRST_REQUEST, FIRST_REQUEST_WORDS, USEFUL_WINDOW
from qiao.profiles.engines import version_of

_ANSWER = 3_000
_RENDERS_TOOLS = (0, 10)
_KNOWS_QWEN3 = (0, 8, 5)
_LOW_HIT_RATE = 20.0
_ABILITIES = {
    "tokenize": "count prompts (/tokenize)",
    "structured_outputs": "hold to a schema",
    "structural_tags": "structural tags",
    "images": "see images",
    "prefill": "continue an answer (prefill)",
}
_IN_FRONT = "put qiao in front (`qiao up --upstream URL`), which"


def _finding(facts: EngineFacts, check: str, grade: Grade, evidence: str, mend: str | None = None) -> Finding:
    return Finding(check=check, grade=grade, about=facts.about, evidence=evidence, mend=mend)


def _flags(facts: EngineFacts) -> str:
    """The flags for this model's tool calls, as its vLLM knows them."""
    version = version_of(facts.version) or (0, 32, 0)
    chosen = vllm.tool_parser(find(facts.root, facts.model), (*version, 0, 0)[:3])
    name = chosen.name or "hermes"
    return f"--enable-auto-tool-choice --tool-call-parser {name}"


def parser_missing(facts: EngineFacts) -> Finding | None:
    """The engine was started without a tool parser."""
    if facts.tool_parser is None:
        return None
    if facts.tool_parser:
        return _finding(facts, "parser_missing", "ok", "The engine takes tools and reads the calls.")
    if facts.reader == "qiao":
        evidence = f"The engine has no tool parser ({facts.reason or 'it refuses tools'}); qiao reads the calls itself."
        return _finding(facts, "parser_missing", "note", evidence)
    return _finding(
        facts,
        "parser_missing",
        "problem",
        f"The engine refuses tools: {facts.reason or 'it was started without a tool parser'}",
        f"Restart it with {_flags(facts)}; or leave it as it is and {_IN_FRONT} reads the calls itself.",
    )


def tool_reading(facts: EngineFacts) -> Finding | None:
    """Who reads tool calls, and why."""
    if not facts.is_behind_qiao or facts.tool_parser is None:
        return None
    if facts.reader == "engine":
        because = f", because: {facts.reason}" if facts.reason else "."
        return _finding(facts, "tool_reading", "note", f"The engine's own parser reads tool calls{because}")
    why = facts.reason or "--tool-parser says so"
    written = "writes them into the prompt" if facts.tools_written_by == "qiao" else "leaves them to the template"
    dialect = facts.dialect or "from the text"
    if facts.dialect_from:
        dialect = f"{dialect}, as told by {facts.dialect_from}"
    evidence = f"qiao reads tool calls ({dialect}) and {written}, because: {why}"
    return _finding(facts, "tool_reading", "note", evidence)


def parser_wrong(facts: EngineFacts) -> Finding | None:
    """The tool parser is not the one that this model writes for: its calls leak as text."""
    if facts.leak and facts.reader == "qiao":
        return _finding(facts, "parser_wrong", "note", "The engine's own parser leaks calls as text; qiao reads them.")
    if facts.leak:
        return _finding(
            facts,
            "parser_wrong",
            "problem",
            f"A call came back as plain text although the engine has a tool parser: {facts.leak!r}.",
            f"Restart it with {_flags(facts)}; or {_IN_FRONT} reads the calls itself (--tool-parser NAME).",
        )
    if facts.parser_name is None or facts.model is None:
        return None if facts.leak is None else _finding(facts, "parser_wrong", "ok", "A tool call came back as a call.")
    version = version_of(facts.version) or (0, 32, 0)
    wanted = vllm.tool_parser(find(facts.root, facts.model), (*version, 0, 0)[:3])
    same = {"qwen3_xml": "qwen3_coder", "glm47": "glm45"}
    if wanted.name is None or same.get(facts.parser_name, facts.parser_name) == same.get(wanted.name, wanted.name):
        return None
    return _finding(
        facts,
        "parser_wrong",
        "problem",
        f"The engine reads tool calls with the parser {facts.parser_name}, and {facts.model} writes them for "
        f"{wanted.name} ({wanted.why}).",
        f"Restart it with {_flags(facts)}; or {_IN_FRONT} reads the calls itself.",
    )


def template_without_tools(facts: EngineFacts) -> Finding | None:
    """The chat template does not show the tools to the model."""
    if facts.renders_tools is None:
        return None
    if facts.renders_tools:
        return _finding(facts, "template_without_tools", "ok", "The chat template writes the tools into the prompt.")
    if facts.reader == "qiao":
        evidence = (
            "The engine's template does not show the tools with tool_choice none; qiao writes them into the text."
        )
        return _finding(facts, "template_without_tools", "note", evidence)
    return _finding(
        facts,
        "template_without_tools",
        "problem",
        "A prompt with a tool has as many tokens as without: the model never sees the tools.",
        "Use the model's own chat template (leave --chat-template out, or take the template of its repository)."
        if facts.tool_parser
        else "Start vLLM without --exclude-tools-when-tool-choice-none, with the model's own chat template, and not "
        f"older than 0.10; or {_IN_FRONT} writes the tools into the text.",
    )


def system_in_the_middle(facts: EngineFacts) -> Finding | None:
    """The chat template refuses system messages in the middle, which Claude Code sends from its first request on."""
    if "fold_system" in facts.quirks:
        evidence = "The chat template refuses system turns in the middle; qiao moves them into user turns."
        return _finding(facts, "system_in_the_middle", "note", evidence)
    if facts.system_refusal is None:
        return None
    if facts.system_refusal and facts.is_behind_qiao:
        evidence = f"The chat template refuses system turns in the middle ({facts.system_refusal}); qiao moves them."
        return _finding(facts, "system_in_the_middle", "note", evidence)
    if not facts.system_refusal:
        return _finding(facts, "system_in_the_middle", "ok", "The chat template takes system turns in the middle.")
    return _finding(
        facts,
        "system_in_the_middle",
        "problem",
        f"The chat template refuses a system turn after the first message: {facts.system_refusal}",
        f"Claude Code sends such turns: {_IN_FRONT} moves them; or use a template that takes them.",
    )


def _larger_window(facts: EngineFacts) -> str:
    """How this engine gets one."""
    match facts.flavor:
        case "llamacpp":
            return "Start llama.cpp with a larger --ctx-size (the embedded model has no more to give)"
        case "sglang":
            return "Raise --context-length"
        case _:
            return "Raise --max-model-len"


def window_too_small(facts: EngineFacts) -> Finding | None:
    """The context window is smaller than Claude Code's first request."""
    if facts.window is None:
        return None
    if facts.window < FIRST_REQUEST + _ANSWER:
        return _finding(
            facts,
            "window_too_small",
            "problem",
            f"The window has {facts.window} tokens, and Claude Code's first request alone has {FIRST_REQUEST_WORDS}.",
            f"{_larger_window(facts)}; {USEFUL_WINDOW} or more is good (`qiao plan` says what fits). Until then "
            "`qiao claude` starts Claude Code with --bare, which needs 1 000.",
        )
    if facts.window < USEFUL_WINDOW:
        return _finding(
            facts,
            "window_too_small",
            "warning",
            f"The window has {facts.window} tokens: Claude Code starts, and compacts after a few steps.",
            f"{_larger_window(facts)}; {USEFUL_WINDOW} or more is good.",
        )
    return _finding(facts, "window_too_small", "ok", f"The window has {facts.window} tokens.")


def prefix_caching_off(facts: EngineFacts) -> Finding | None:
    """The engine computes every prompt anew."""
    if facts.prefix_caching is False:
        return _finding(
            facts,
            "prefix_caching_off",
            "problem",
            "The same prompt, sent again, was computed again: prefix caching is off. Each turn of a session then costs "
            "the whole conversation.",
            "Start vLLM without --no-enable-prefix-caching (before 0.8 with --enable-prefix-caching).",
        )
    if facts.hit_rate is not None and facts.hit_rate < _LOW_HIT_RATE:
        return _finding(
            facts,
            "prefix_caching_off",
            "warning",
            f"Only {facts.hit_rate:g} % of the prompts' tokens came from the prefix cache; sessions of Claude Code "
            "reach 90 % and more.",
            "Something changes the head of the prompt each turn (Claude Code's billing header, hoisted system turns): "
            f"{_IN_FRONT} keeps it stable.",
        )
    return (
        None if facts.prefix_caching is None else _finding(facts, "prefix_caching_off", "ok", "Prefix caching is on.")
    )


def token_details_off(facts: EngineFacts) -> Finding | None:
    """The engine does not tell how much of a prompt came from its cache."""
    if facts.token_details is None:
        return None
    if facts.token_details:
        return _finding(facts, "token_details_off", "ok", "The engine tells how many prompt tokens were cached.")
    return _finding(
        facts,
        "token_details_off",
        "warning",
        "The usage has no prompt_tokens_details: clients cannot see what came from the prefix cache.",
        "Restart vLLM with --enable-prompt-tokens-details.",
    )


def reasoning_swallows_text(facts: EngineFacts) -> Finding | None:
    """The reasoning parser takes the whole answer for reasoning."""
    if facts.swallowed:
        return _finding(
            facts,
            "reasoning_swallows_text",
            "problem",
            f"An answer came as reasoning only, with no text: {facts.swallowed!r}.",
            "This model does not mark its reasoning (Instruct models have none): restart vLLM without "
            "--reasoning-parser.",
        )
    profile = find(facts.root, facts.model)
    if facts.reasoning_parser and facts.model and profile.reasoning == "none" and profile.family != "unknown":
        return _finding(
            facts,
            "reasoning_swallows_text",
            "problem",
            f"--reasoning-parser {facts.reasoning_parser} is set, and {facts.model} does not reason: its whole answers "
            "are taken for reasoning.",
            "Restart vLLM without --reasoning-parser.",
        )
    return (
        None
        if facts.swallowed is None
        else _finding(facts, "reasoning_swallows_text", "ok", "An answer without reasoning comes as text.")
    )


def engine_too_old(facts: EngineFacts) -> Finding | None:
    """The engine's version lacks what the model or the tools need."""
    version = version_of(facts.version)
    if version is None or facts.flavor not in ("vllm", ""):
        return None
    if version < _KNOWS_QWEN3:
        return _finding(
            facts,
            "engine_too_old",
            "problem",
            f"vLLM {facts.version} does not know the Qwen3 models (since 0.8.5).",
            "Update vLLM: 0.10 or newer.",
        )
    if version < _RENDERS_TOOLS:
        return _finding(
            facts,
            "engine_too_old",
            "warning",
            f"vLLM {facts.version} leaves the tools out of the prompt with tool_choice none, so that only its own "
            "parser can be used.",
            "Update vLLM: 0.10 or newer.",
        )
    return _finding(facts, "engine_too_old", "ok", f"vLLM {facts.version}.")


def abilities(facts: EngineFacts) -> Finding | None:
    """What the engine can do, as far as it could be found out."""
    known = {name: can for name, can in facts.abilities.items() if can is not None}
    if not known:
        return None
    said = [f"{_ABILITIES.get(name, name)}: {'yes' if can else 'no'}" for name, can in known.items()]
    if facts.template_dialect:
        said.append(f"its chat template asks for calls in: {facts.template_dialect}")
    return _finding(facts, "abilities", "ok", f"What the engine can do: {'; '.join(said)}.")


def lessons(facts: EngineFacts) -> Finding | None:
    """What the gateway has learned from this engine's refusals, and minds since."""
    if not facts.quirks:
        return None
    learned = ", ".join(facts.quirks)
    return _finding(facts, "lessons", "note", f"The gateway has learned what this engine does not take: {learned}.")


CHECKS: tuple[Check[EngineFacts], ...] = (
    Check("engine_too_old", "an engine that is too old for the model or for tools", engine_too_old),
    Check("parser_missing", "an engine that was started without a tool parser", parser_missing),
    Check("tool_reading", "who reads tool calls, and why (behind a gateway of ours)", tool_reading),
    Check("parser_wrong", "tool calls that come back as text: the wrong parser for the model", parser_wrong),
    Check("template_without_tools", "a chat template that never shows the tools to the model", template_without_tools),
    Check(
        "system_in_the_middle",
        "a chat template that refuses system messages in the middle",
        system_in_the_middle,
    ),
    Check("window_too_small", "a window smaller than Claude Code's first request", window_too_small),
    Check("prefix_caching_off", "prefix caching that is off, or hardly ever hits", prefix_caching_off),
    Check("token_details_off", "an engine that does not tell what was cached", token_details_off),
    Check(
        "reasoning_swallows_text",
        "a reasoning parser that takes the whole answer for reasoning",
        reasoning_swallows_text,
    ),
    Check("abilities", "what the engine can do: /tokenize, schemas, structural tags, images, prefill", abilities),
    Check("lessons", "what the gateway has learned from the engine's refusals", lessons),
)
