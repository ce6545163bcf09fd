"""How much of a Claude Code session an engine has to compute behind qiao, behind LiteLLM, and by vLLM's /v1/messages.

A session of the real program is recorded (`claude_session`) and replayed through each candidate onto one real vLLM.
Two counts, which have to agree: the tokens of every prompt, as vLLM renders them, held against a cache of 16-token
blocks (`prefix_cache`); and vLLM's own counters. A third adds what an engine saves that wrote the session's answers
itself, and finds them in its cache. A word in the head of its prompts keeps each candidate from meeting what another
left there.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit

from tests.live.vllm import install
from tests.live.vllm.server import ENGINE_FILES, NAME, Pool, Server, Setup, absence
from tests.support import claude_code, litellm
from tests.support.background import Background
from tests.support.gateway import gateway, tools_known
from tests.support.tap import Exchange, Tap, tapping

from bench.claude_session import KEY, MODEL, Recording, Request, record
from bench.prefix_cache import BLOCK, Counted, count
from bench.prefix_ideal import KEEP, Body, History, ideal

ENGINE_BLOCK = 32

KEEPER = "qwen3.6-35b"
"""The engine's other name: a model whose template can keep reasoning, so that qiao says so to it."""

_COLUMNS = (
    "gateway",
    "setting",
    "prompt tokens",
    "prefilled",
    "by vLLM's counters",
    "with answers reused",
    "of the ideal",
    "worst turn",
    "worst turn without a new prompt",
    "breaks by tools or hoisting",
    "other breaks",
    "new session reuses",
)
_SETTINGS: dict[History, str] = {"drop": "dropped", "send": "sent back", "keep": "kept"}
_SAID = re.compile(r"@@SAY:([A-Za-z0-9_=-]+)@@")
_END_OF_TURN = 151_645  # <|im_end|> of Qwen's vocabulary
_ANSWER_LIMIT = 300.0


@dataclass
class Candidate:
    """A way from Claude Code's request to the engine.

    `open(engine's address)`: where it listens while it is open; `fields`: what its clients add to their requests.
    """

    name: str
    setting: str
    history: History
    open: Callable[[str], AbstractContextManager[str]]
    is_engine: bool = False
    key: str = KEY
    model: str = MODEL
    fields: Body = field(default_factory=dict)


@dataclass
class Outcome:
    """What came of a candidate's replay.

    `counted`: each request by its prompts only; `with_answers`: by an engine that also keeps the answers it wrote;
    `told`: (tokens asked of vLLM's cache, tokens found there).
    """

    candidate: Candidate
    requests: list[Request]
    counted: list[Counted] = field(default_factory=list)
    with_answers: list[Counted] = field(default_factory=list)
    told: tuple[int, int] = (0, 0)
    head_breaks: list[int] = field(default_factory=list)
    other_breaks: list[int] = field(default_factory=list)


class Engine(NamedTuple):
    """A vLLM that is asked what it would do."""

    server: Server

    def post(self, path: str, body: Any) -> Any:
        status, answer = post(self.server.url, path, json.dumps(body).encode(), {})
        if status != 200:
            raise RuntimeError(f"{path}: {status} {answer[:500]!r}")
        return json.loads(answer)

    def rendered(self, path: str, body: Body) -> list[int]:
        """The prompt that a request becomes, in tokens."""
        asked = {name: value for name, value in body.items() if name not in ("stream", "stream_options")}
        tokens: list[int] = self.post(f"{path}/render", asked)["token_ids"]
        return tokens

    def tokens(self, text: str) -> list[int]:
        body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
        tokens: list[int] = self.post("/tokenize", body)["tokens"]
        return tokens

    def text(self, tokens: list[int]) -> str:
        body = {"model": MODEL, "tokens": tokens}
        text: str = self.post("/detokenize", body)["prompt"]
        return text

    def told(self) -> tuple[int, int]:
        """Its counters: tokens looked up in the prefix cache, tokens found."""
        queries = self.server.metric("vllm:prefix_cache_queries_total")
        return int(queries), int(self.server.metric("vllm:prefix_cache_hits_total"))


def post(url: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_LIMIT)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- candidates ------------------------------------------------------------------------------------------------------


def candidates() -> list[Candidate]:
    has_litellm = litellm.absence() is None
    own = "vLLM's own /v1/messages"
    found = [
        Candidate("qiao", "reasoning dropped (its default for Qwen3)", "drop", qiao("drop")),
        Candidate("qiao", "reasoning sent back", "send", qiao("send")),
    ]
    if has_litellm:
        found.append(Candidate("LiteLLM", "as it is", "send", through_litellm(), key=litellm.KEY))
    found.append(Candidate(own, "as it is", "send", contextlib.nullcontext, is_engine=True))
    setting = "reasoning kept (its default for Qwen3.6 and 3.8)"
    found.append(Candidate("qiao", setting, "keep", qiao("auto"), model=KEEPER))
    if has_litellm:
        told = through_litellm(extra_body=KEEP)
        found.append(
            Candidate("LiteLLM", "its configuration tells the template to keep", "keep", told, key=litellm.KEY)
        )
    told_by_client = "the client tells the template to keep"
    found.append(Candidate(own, told_by_client, "keep", contextlib.nullcontext, is_engine=True, fields=KEEP))
    return found


def qiao(history: str) -> Callable[[str], AbstractContextManager[str]]:
    @contextlib.contextmanager
    def opened(engine: str) -> Iterator[str]:
        with (
            tempfile.TemporaryDirectory() as folder,
            gateway(engine, Path(folder), "--reasoning-history", history, key=KEY) as started,
        ):
            tools_known(started.url)
            yield started.url

    return opened


def through_litellm(**parameters: object) -> Callable[[str], AbstractContextManager[str]]:
    """LiteLLM's proxy as its documentation sets it up for a vLLM. `parameters`: of the model in its configuration."""

    @contextlib.contextmanager
    def opened(engine: str) -> Iterator[str]:
        config = litellm.route(MODEL, engine, **parameters)
        with tempfile.TemporaryDirectory() as folder, litellm.litellm(config, Path(folder)) as proxy:
            yield proxy.url

    return opened


# --- replay ----------------------------------------------------------------------------------------------------------


def replay(candidate: Candidate, number: int, recording: Recording, engine: Engine, background: Background) -> Outcome:
    """Send the session through one candidate, then count."""
    word = f"Replay {number}"
    asked = list(recording.bodies(word, model=candidate.model, **candidate.fields))
    outcome = Outcome(candidate, [request for request, _ in asked])
    behind = background.enter(tapping(engine.server.url))
    with candidate.open(behind.url) as url:
        time.sleep(1.0)
        before = engine.told()
        for place, (request, body) in enumerate(asked):
            headers = {**request.headers, "x-api-key": candidate.key}
            status, answer = post(url, "/v1/messages?beta=true", body, headers)
            if status != 200 or b"event: message_stop" not in answer:
                raise RuntimeError(f"{candidate.name}, request {place}: {status} {answer[-800:]!r}")
        after = engine.told()
    outcome.told = after[0] - before[0], after[1] - before[1]
    if candidate.is_engine:
        prompts = [engine.rendered("/v1/messages", json.loads(body)) for _, body in asked]
    else:
        prompts = [engine.rendered("/v1/chat/completions", chat.asked) for chat in chats(behind, word)]
    judge(outcome, prompts, [json.loads(body) for _, body in asked], engine)
    return outcome


def chats(behind: Tap, word: str) -> list[Exchange]:
    """What a gateway asked the engine for the session; not its own probes."""
    return [
        exchange
        for exchange in behind.exchanges
        if exchange.path == "/v1/chat/completions" and exchange.status == 200 and word.encode() in exchange.request
    ]


def judge(outcome: Outcome, prompts: list[list[int]], bodies: list[Body], engine: Engine) -> None:
    """Count a replay's prompts, and say what broke where."""
    sessions = [request.session for request in outcome.requests]
    if len(prompts) != len(sessions):
        raise RuntimeError(f"{outcome.candidate.name}: {len(prompts)} prompts for {len(sessions)} requests")
    answers = [engine.tokens(said(body)) for body in bodies]
    outcome.counted = count(prompts, [[] for _ in prompts], sessions)
    outcome.with_answers = count(prompts, answers, sessions)
    before: dict[int, list[int]] = {}
    for prompt, counted, session in zip(prompts, outcome.counted, sessions, strict=True):
        earlier = before.get(session, [])
        # A token or two at the end of a prompt may melt into the first ones of the answer.
        if counted.lost > 3:
            head = earlier.index(_END_OF_TURN)
            breaks = outcome.head_breaks if len(earlier) - counted.lost < head else outcome.other_breaks
            breaks.append(counted.lost)
        before[session] = prompt


def said(body: Body) -> str:
    """What the scripted engine answers to a request: the marker's text for this turn."""
    turn, texts = 0, ["Done."]
    for message in body["messages"]:
        if message["role"] == "assistant":
            turn += 1
        elif found := _SAID.findall(json.dumps(message)):
            code = found[-1]
            turn, texts = 0, json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    text: str = texts[turn] if turn < len(texts) else "Done."
    return text


def least(history: History, recording: Recording, engine: Engine) -> Outcome:
    """The ideal of a setting, counted in the same way."""
    candidate = Candidate("ideal", history, history, contextlib.nullcontext)
    asked = list(recording.bodies(f"Ideal {history}", model=MODEL))
    outcome = Outcome(candidate, [request for request, _ in asked])
    bodies = [json.loads(body) for _, body in asked]
    prompts: list[list[int]] = []
    for session in sorted({request.session for request, _ in asked}):
        of_it = [body for body, (request, _) in zip(bodies, asked, strict=True) if request.session == session]
        prompts += [engine.rendered("/v1/chat/completions", body) for body in ideal(of_it, history)]
    judge(outcome, prompts, bodies, engine)
    return outcome


# --- the run ---------------------------------------------------------------------------------------------------------


def setup() -> Setup:
    """A window for the whole session, and vLLM's cache in the smallest blocks that it takes on a CPU."""
    longer = json.dumps({"max_position_embeddings": 131_072})
    cache = ("--block-size", str(ENGINE_BLOCK), "--enable-scale-out")
    names = ("--served-model-name", NAME, KEEPER, "--chat-template", str(ENGINE_FILES / "template.jinja"))
    return Setup(window=98_304, flags=("--hf-overrides", longer, *cache, *names))


def run(recording: Recording | None = None) -> str:
    """The section of the page. Raises RuntimeError with the reason where there is no vLLM."""
    reason = absence()
    if reason is not None:
        raise RuntimeError(reason)
    with tempfile.TemporaryDirectory() as folder, Pool(Path(folder) / "engines") as pool, Background() as background:
        recording = recording or record(Path(folder) / "session")
        engine = Engine(pool.server(setup()))
        best = {history: least(history, recording, engine) for history in get_args(History)}
        outcomes = []
        for number, candidate in enumerate(candidates()):
            print(f"bench: {candidate.name}, {candidate.setting}", file=sys.stderr, flush=True)
            outcomes.append(replay(candidate, number, recording, engine, background))
    return page(recording, outcomes, best)


def page(recording: Recording, outcomes: Sequence[Outcome], best: dict[History, Outcome]) -> str:
    sizes = [counted.prompt for counted in best["drop"].counted]
    main = [request for request in recording.requests if request.session == 0]
    facts = (
        f"Session of {len(main)} requests, {sizes[0]:,} to {max(sizes):,} prompt tokens, then "
        f"{len(recording.requests) - len(main)} requests of a new session in the same folder. Claude Code "
        f"{claude_code.VERSION}, vLLM {install.VERSION}{litellm_words()}, blocks of {BLOCK} counted, of {ENGINE_BLOCK} "
        "in the engine."
    )
    lines = [
        facts,
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(row(outcome, best[outcome.candidate.history]) for outcome in outcomes),
        "",
        *(
            f"Ideal, reasoning {_SETTINGS[history]}: {total(outcome.counted):,} tokens, "
            f"with answers reused {total(outcome.with_answers):,}."
            for history, outcome in best.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def total(counted: Sequence[Counted]) -> int:
    return sum(each.prefilled for each in counted)


def row(outcome: Outcome, best: Outcome) -> str:
    counted = outcome.counted
    turns = list(zip(outcome.requests, counted, strict=True))
    first_of_new = next(each for request, each in turns if request.session == 1)
    cells = [
        outcome.candidate.name,
        outcome.candidate.setting,
        f"{sum(each.prompt for each in counted):,}",
        f"{total(counted):,}",
        f"{outcome.told[0] - outcome.told[1]:,}",
        f"**{total(outcome.with_answers):,}**",
        f"{total(outcome.with_answers) / total(best.with_answers):.2f}",
        f"{max(each.prefilled for each in counted[1:]):,}",
        f"{max(each.prefilled for request, each in turns if not request.has_prompt):,}",
        breaks(outcome.head_breaks),
        breaks(outcome.other_breaks),
        f"{first_of_new.prompt - first_of_new.prefilled:,} of {first_of_new.prompt:,}",
    ]
    return f"| {' | '.join(cells)} |"


def breaks(lost: Sequence[int]) -> str:
    return f"{len(lost)} ({sum(lost):,} tokens)" if lost else "none"


def litellm_words() -> str:
    absent = litellm.absence()
    return f", LiteLLM {litellm.version()}" if absent is None else f" (LiteLLM is missing: {absent})"
