"""Who gets which tool-call text right: qiao, vLLM's own /v1/messages and LiteLLM, on the same real servers.

    python -m bench tool-calls --markdown docs/tool-calling-comparison.md

A scripted model says every text of `tests/golden/tool_call_texts`; every candidate is asked for it, whole and streamed,
and one judge (`tests.live.tricky_texts`) holds what a client is given against what the table wants. Needs what
`make live` installs.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.core.dialects.answers import Case
from tests.live.tricky_texts import VERDICTS, Verdict, all_cases, asked, heard, is_markup, judged, thinks, tokens_of
from tests.live.vllm import server
from tests.live.vllm.install import VERSION
from tests.live.vllm.server import NAME, OPENING, Pool, Setup
from tests.support import litellm
from tests.support.gateway import gateway, tools_known
from tests.support.plain_http import ask

KEY = "sk-bench-key-of-one-run-7b1e"
AT_ONCE = 16
ENOUGH = 2000

RESTARTED = "qiao, server without a parser (no restart)"
AUTO = "qiao, server with its parser"
ENGINE = "qiao `--tool-parser engine`, server with its parser"
OWN = "vLLM's own /v1/messages"
OTHER = "LiteLLM in front of vLLM"
CANDIDATES = (RESTARTED, AUTO, ENGINE, OWN, OTHER)


class Group(NamedTuple):
    """Cases that share their servers. `parser`: of the server that has one."""

    cases: Mapping[str, Case]
    parser: str
    flags: tuple[str, ...] = ()


class Asking(NamedTuple):
    """Where a candidate is asked."""

    url: str
    headers: Mapping[str, str]


Results = dict[tuple[str, str, bool], Verdict]
"""By candidate, case, and whether it was streamed."""


def groups(cases: Mapping[str, Case]) -> list[Group]:
    """Cases by the servers that they want: with the parser that fits."""
    opened = {name: case for name, case in cases.items() if case.settings.get("reasoning") == "open"}
    markup = {name: case for name, case in cases.items() if is_markup(case)}
    others = {name: case for name, case in cases.items() if name not in opened and name not in markup}
    return [
        Group(others, "hermes"),
        Group(markup, "qwen3_coder"),
        Group(opened, "hermes", flags=OPENING),
    ]


@contextlib.contextmanager
def candidates(group: Group, pool: Pool, folder: Path) -> Iterator[dict[str, Asking]]:
    """The candidates of a group: on a server without a parser, or on the one with it that they share."""
    own = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    parsing = pool.server(Setup(parser=group.parser, flags=group.flags)).url
    with contextlib.ExitStack() as stack:

        def asking(candidate: str, home: Path) -> Asking:
            match candidate:
                case name if name == OWN:
                    return Asking(parsing, own)
                case name if name == OTHER:
                    proxy = stack.enter_context(litellm.litellm(litellm.route(NAME, parsing), home))
                    return Asking(proxy.url, {**own, "x-api-key": proxy.key})
                case name if name == RESTARTED:
                    bare = pool.server(Setup(parser="off", reasoning="off", flags=group.flags)).url
                    return Asking(probed(stack.enter_context(gateway(bare, home, key=KEY)).url), own)
                case _:
                    options = ("--tool-parser", "engine") if candidate == ENGINE else ()
                    return Asking(probed(stack.enter_context(gateway(parsing, home, *options, key=KEY)).url), own)

        yield {name: asking(name, folder / str(number)) for number, name in enumerate(CANDIDATES)}


def probed(url: str) -> str:
    """The gateway at `url`, after it has looked at its engine."""
    tools_known(url, limit=300.0)
    return url


def ask_all(group: Group, at: Mapping[str, Asking], tokenizer: str) -> Results:
    """Every case of a group, of every candidate, whole and streamed."""
    limits = {
        name: tokens_of(tokenizer, case.text) if case.settings.get("finish") == "length" else ENOUGH
        for name, case in group.cases.items()
    }

    def one(key: tuple[str, str, bool]) -> Verdict:
        candidate, name, stream = key
        case, where = group.cases[name], at[candidate]
        thinking = thinks(case)
        body = asked(case, limit=limits[name], thinking=thinking, stream=stream)
        reply = ask(where.url, "POST", "/v1/messages", body, headers=dict(where.headers), limit=300.0)
        return judged(case, heard(reply), thinking=thinking, stream=stream)

    keys = [(candidate, name, stream) for candidate in at for name in group.cases for stream in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as workers:
        return dict(zip(keys, workers.map(one, keys), strict=True))


def measure(cases: Mapping[str, Case]) -> Results:
    """All groups, each on its own servers."""
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder, Pool(Path(folder) / "engines") as pool:
        for number, group in enumerate(groups(cases)):
            if not group.cases:
                continue
            with candidates(group, pool, Path(folder) / str(number)) as at:
                results |= ask_all(group, at, pool.server(Setup(parser=group.parser, flags=group.flags)).url)
    return results


def table(results: Results) -> str:
    """The counts, and which cases were not right."""
    cases = list(dict.fromkeys(name for _, name, _ in results))
    lines = [
        f"| of {len(cases)} texts | right, whole | right, streamed | {' | '.join(VERDICTS[1:])} |",
        "|---|---|---|" + "---|" * len(VERDICTS[1:]),
    ]
    missed = ["", "Not right (w: whole, s: streamed):", ""]
    for candidate in CANDIDATES:
        mine = {(name, stream): verdict for (who, name, stream), verdict in results.items() if who == candidate}
        right = Counter(stream for (_, stream), verdict in mine.items() if verdict == "right")
        kinds = Counter(mine.values())
        counts = " | ".join(str(kinds[verdict]) for verdict in VERDICTS[1:])
        lines.append(f"| {candidate} | {right[False]} | {right[True]} | {counts} |")
        wrong = {name: _ways(mine, name) for name in cases if _ways(mine, name)}
        named = ", ".join(f"{name} {ways}" for name, ways in wrong.items())
        missed.append(f"* {candidate}: {named or 'none'}.")
    return "\n".join([*lines, *missed])


def _ways(mine: Mapping[tuple[str, bool], Verdict], name: str) -> str:
    letters = ((False, "w"), (True, "s"))
    return "".join(letter for stream, letter in letters if mine[name, stream] != "right")


def run() -> str:
    """The table, and how it was made."""
    reason = server.absence() or litellm.absence()
    if reason is not None:
        return f"Not measured: {reason}\n"
    results = measure(all_cases())
    return (
        f"{table(results)}\n\nvLLM {VERSION} (CPU) and LiteLLM {litellm.version()}, route `hosted_vllm/`. "
        "The last four columns count whole and streamed answers together.\n"
    )
