"""What a line in the log of an engine or of LiteLLM means, and what to do about it.

Pure: `hint(line)` gives the `Hint` of one line or None. The launcher asks for each line as it comes; `log_reading`
looks at a whole log. What an engine answers to a request is not repeated here: `remedies` and `overflow` know those
wordings, and `hint` asks them where the table is silent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from qiao.policies import log_serving, log_start, remedies
from qiao.policies.log_rule import Hint, LogRule
from qiao.policies.overflow import find_excess

MAX_LINE = 4_000
"""Characters of a line that are searched: logs print whole prompts."""

TABLE: tuple[LogRule, ...] = (*log_serving.RULES, *log_start.RULES, *log_serving.GENERAL)
"""Tried in this order: what is more particular stands before what is more general."""

_COMPILED = tuple((rule.hint, tuple(re.compile(each, re.IGNORECASE) for each in rule.patterns)) for rule in TABLE)
_PARTICULAR = _COMPILED[: -len(log_serving.GENERAL)]
_GENERAL = _COMPILED[-len(log_serving.GENERAL) :]
_REQUESTS = tuple(
    (remedy, tuple(re.compile(each, re.IGNORECASE) for each in remedy.patterns)) for remedy in remedies.TABLE
)

# Access lines, statistics and prompts never hold a reason; the options in force are facts, not faults.
_UNTELLING = re.compile(
    r"^INFO:(?!.*/v1/responses)|Received request |Avg prompt throughput|"
    r"non-default args:|Initializing a V\d LLM engine|HTTP/1\.1\" 2\d\d"
)

# Said by the way: a warning, a try that is repeated, something else taken instead. Never alone the end of a start.
_IN_PASSING = re.compile(
    r"^(?:(?!\b(?:ERROR|CRITICAL)\b).){0,80}?\bWARNING\b|thrown while requesting (?:HEAD|GET)\b|"
    r"\bRetrying (?:in \d|\(Retry)|\bfalling back\b",
    re.IGNORECASE,
)

TOO_LONG = Hint(
    "context_exceeded",
    "A request was longer than the context window.",
    "Raise --max-model-len if the memory allows it, and tell Claude Code the true window (`qiao claude` does), so that "
    "it compacts in time.",
    severity="refused",
)

_MENDS = {
    "no_tool_parser": "Restart vLLM with --enable-auto-tool-choice --tool-call-parser hermes (Qwen3-Coder: "
    "qwen3_coder), or leave it as it is and put qiao in front, which reads the calls itself.",
    "tool_choice_refused": 'Words such as "any" are Anthropic\'s: a gateway passed them on untranslated. Put qiao in '
    "front; do not remove the parser, as some guides say.",
    "system_position": "Claude Code sends system turns in the middle, and this template refuses them: put qiao in "
    "front, which moves them.",
}
_MEND = "qiao mends this by itself: put it in front (`qiao up --upstream URL`)."


def hint(line: str) -> Hint | None:
    """What `line` of a log means; None where it is not known to matter."""
    known = suspicion(line)
    if known is not None and known.severity == "fatal" and is_in_passing(line):
        return msgspec.structs.replace(known, severity="warning")
    return known


def suspicion(line: str) -> Hint | None:
    """The same, however the line says it: a warning of what would be fatal counts as fatal."""
    text = line[:MAX_LINE]
    if _UNTELLING.search(text):
        return None
    return _listed(text, _PARTICULAR) or _of_request(text) or _listed(text, _GENERAL)


def is_in_passing(line: str) -> bool:
    """Whether `line` is a warning, a try that is repeated, or a fall-back: what it tells of ended nothing by itself."""
    return _IN_PASSING.search(line[:MAX_LINE]) is not None


def _listed(text: str, rows: Sequence[tuple[Hint, tuple[re.Pattern[str], ...]]]) -> Hint | None:
    for known, patterns in rows:
        for pattern in patterns:
            if found := pattern.search(text):
                return _filled(known, found)
    return None


def _filled(known: Hint, match: re.Match[str]) -> Hint:
    caught = {name: value or "?" for name, value in match.groupdict().items()}
    if not caught:
        return known
    return msgspec.structs.replace(known, cause=known.cause.format(**caught), mend=known.mend.format(**caught))


def _of_request(text: str) -> Hint | None:
    """A refusal that the gateway knows how to heal."""
    if find_excess(text):
        return TOO_LONG
    for remedy, patterns in _REQUESTS:
        if any(pattern.search(text) for pattern in patterns):
            cause = f"A request was refused: {remedy.explanation.split(';')[0]}."
            return Hint(remedy.name, cause, _MENDS.get(remedy.name, _MEND), severity="refused")
    return None
