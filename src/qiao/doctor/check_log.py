"""Checks of a file: a log of vLLM or LiteLLM, a script that starts vLLM, a configuration of LiteLLM."""

from __future__ import annotations

import re
from collections.abc import Iterator

from qiao.doctor.check_engine import CHECKS as ENGINE_CHECKS
from qiao.doctor.facts import EngineFacts, LogFacts
from qiao.doctor.finding import Finding, Grade, findings
from qiao.planner import review
from qiao.policies import log_reading
from qiao.policies.log_rule import Severity

_GRADES: dict[Severity, Grade] = {"fatal": "problem", "refused": "problem", "warning": "warning", "echo": "problem"}
_LITELLM_FILE = re.compile(r"^model_list\s*:", re.MULTILINE)
_SCRIPT = re.compile(
    r"vllm[\s\\`]+serve\b|vllm\.entrypoints\.openai\.api_server|^\s*(?:uv\s+)?pip3?\s+install\b.*\bvllm\b", re.MULTILINE
)
_LOG_LINE = re.compile(r"^(?:\(.*pid=\d+\)\s*)?(?:INFO|WARNING|ERROR)[ :]", re.MULTILINE)

LOOKS_FOR = (
    ("log_line", "lines of a vLLM or LiteLLM log that matter (every kind is listed below)"),
    ("log_requests", "requests that a log shows as refused, without a reason"),
    ("log_quiet", "a log in which nothing known is wrong"),
    ("start_script", "traps in a script that starts vLLM"),
    (
        "litellm_config",
        "traps in a LiteLLM configuration: sk-1234, drop_params in the wrong section, the prefix openai/",
    ),
)


def of_file(file: str, text: str) -> list[Finding]:
    """What is wrong in a file; which kind it is, its content tells."""
    if _LITELLM_FILE.search(text):
        return list(_litellm(file, text))
    if _SCRIPT.search(text) and not _LOG_LINE.search(text):
        return list(_script(file, text))
    return of_log(LogFacts(file, log_reading.read(text.splitlines())))


def of_log(facts: LogFacts) -> list[Finding]:
    """The lines that matter, then what the options of the last start say."""
    found = list(_lines(facts))
    engine = engine_of(facts)
    if engine is not None:
        found += [each for each in findings(ENGINE_CHECKS, engine) if each.grade != "ok"]
    if not found:
        version = f" vLLM {facts.reading.version}." if facts.reading.version else ""
        evidence = f"{facts.reading.count} lines, and none that is known to matter.{version}"
        found.append(Finding(check="log_quiet", grade="ok", about=facts.file, evidence=evidence))
    return found


def _lines(facts: LogFacts) -> Iterator[Finding]:
    for line in facts.reading.lines:
        again = f" ({line.times} times)" if line.times > 1 else ""
        yield Finding(
            check=f"log_line.{line.hint.name}",
            grade=_GRADES[line.hint.severity],
            about=f"{facts.file}:{line.number}",
            evidence=f"{line.hint.cause}{again} The line: {line.text}",
            mend=line.hint.mend,
        )
    if facts.reading.refused and not any(line.hint.severity == "refused" for line in facts.reading.lines):
        listed = ", ".join(f"{times} × {name}" for name, times in facts.reading.refused.items())
        yield Finding(
            check="log_requests",
            grade="warning",
            about=facts.file,
            evidence=f"Requests were refused, and the log does not say why: {listed}.",
            mend="The answer to the client says why: `qiao doctor --url` or `--upstream` asks for it.",
        )


def engine_of(facts: LogFacts) -> EngineFacts | None:
    """What the options in a log say of the engine; None where the log does not list them."""
    reading = facts.reading
    if not reading.arguments:
        return EngineFacts(about=facts.file, version=reading.version, hit_rate=reading.hit_rate)
    given = reading.arguments
    parser = given.get("tool_call_parser") if given.get("enable_auto_tool_choice") else None
    reasoning = given.get("reasoning_parser")
    served = given.get("served_model_name")
    name = served[0] if isinstance(served, list | tuple) and served else served
    root = given.get("model_tag") or given.get("model")
    return EngineFacts(
        about=facts.file,
        flavor="vllm",
        version=reading.version,
        model=str(name or root) if name or root else None,
        root=str(root) if root else None,
        window=reading.window,
        tool_parser=bool(parser),
        parser_name=str(parser) if parser else None,
        reason="" if parser else "the options in the log name no --tool-call-parser with --enable-auto-tool-choice.",
        reasoning_parser=str(reasoning) if reasoning else None,
        prefix_caching=False if given.get("enable_prefix_caching") is False else None,
        hit_rate=reading.hit_rate,
        token_details=bool(given.get("enable_prompt_tokens_details")),
    )


def _script(file: str, text: str) -> Iterator[Finding]:
    faults = review.review(text)
    for fault in faults:
        yield Finding(
            check=f"start_script.{fault.code}",
            grade="problem" if fault.code != "no_token_details" else "warning",
            about=f"{file}:{fault.line}",
            evidence=fault.text,
            mend=fault.mend,
        )
    if not faults:
        evidence = "A script that starts vLLM, with no trap that is known."
        yield Finding(check="start_script", grade="ok", about=file, evidence=evidence)


_SECTION = re.compile(r"^(?P<name>\w+)\s*:")
_EXPORT = "`qiao export litellm` writes a file that starts."


def _litellm(file: str, text: str) -> Iterator[Finding]:
    """Line by line: the file may be broken, and no YAML is needed for these traps."""
    section, count = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split(" #")[0].rstrip()
        if top := _SECTION.match(line):
            section = top["name"]
        for code, evidence, mend in _traps(section, line.strip().removeprefix("- ")):
            count += 1
            yield Finding(
                check=f"litellm_config.{code}",
                grade="problem",
                about=f"{file}:{number}",
                evidence=evidence,
                mend=f"{mend} {_EXPORT}",
            )
    if not count:
        evidence = "A configuration of LiteLLM with no trap that is known."
        yield Finding(check="litellm_config", grade="ok", about=file, evidence=evidence)


def _traps(section: str, line: str) -> Iterator[tuple[str, str, str]]:
    name, _, value = (part.strip() for part in line.partition(":"))
    value = value.strip("\"'")
    if name == "master_key" and value == "sk-1234":
        yield (
            "sample_key",
            "The master key is sk-1234: LiteLLM does not start with a publicly known key.",
            "Write master_key: os.environ/LITELLM_MASTER_KEY and set that variable to an own key.",
        )
    if name == "master_key" and section == "litellm_settings":
        yield "key_section", "master_key is read in general_settings only.", "Move it there."
    if name == "drop_params" and section != "litellm_settings" and value.lower() == "true":
        yield (
            "drop_params_section",
            f"drop_params stands in {section}: there it does not drop what the model lacks for every request.",
            "Move `drop_params: true` to litellm_settings.",
        )
    if name == "model" and value.startswith("openai/") and section == "model_list":
        yield (
            "openai_prefix",
            f"The prefix openai/ ({value}) sends /v1/messages to the engine's Responses API.",
            "Write hosted_vllm/NAME for a vLLM, or anthropic/NAME with qiao's address.",
        )
