"""One examination: what the person named is looked at, every check is run, and the findings are put in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from qiao.config import Config
from qiao.core.fault import Fault
from qiao.doctor import check_client, check_engine, check_log, check_machine, check_server, look_engine, look_local
from qiao.doctor.check_server import Door
from qiao.doctor.facts import EngineFacts
from qiao.doctor.finding import ORDER, Finding, findings
from qiao.doctor.look_server import look
from qiao.doctor.replay.run import LIMIT, replay
from qiao.doctor.replay.sheet import Point, Sheet
from qiao.ledger.keys import stored_key
from qiao.ledger.running import Running, running
from qiao.options import Secret

_LITELLM_FILES = ("litellm_config.yaml", "config/litellm_config.yaml")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a person named. `limit`: seconds for the replay. Without `url`, `upstream` and `logs`: what runs here."""

    url: str | None = None
    upstream: str | None = None
    logs: tuple[tuple[str, str], ...] = ()
    key: Secret | None = None
    model: str | None = None
    limit: float = LIMIT


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome. `sheet`: of the endpoint that was named, if one was."""

    findings: tuple[Finding, ...]
    sheet: Sheet | None = None

    @property
    def is_well(self) -> bool:
        """No problem, and no point of the sheet missed without which Claude Code does not work."""
        return not any(each.grade == "problem" for each in self.findings) and not (
            self.sheet is not None and self.sheet.failed_musts
        )


Told = Callable[[str | Point], None]
"""Hears what is being looked at, and of every point of the sheet."""


async def examine(
    config: Config, wishes: Wishes, variables: Mapping[str, str], folder: Path, told: Told
) -> Examination:
    """Look at everything that the wishes name."""
    found: list[Finding] = []
    for name, text in wishes.logs:
        told(f"reading {name}")
        found += check_log.of_file(name, text)
    gateways = running(config.folders.state)
    sheet, offset, behind = None, None, None
    url, upstream = _targets(config, wishes, gateways)
    if url is not None:
        told(f"asking {url}")
        at_url, sheet, offset, behind = await _gateway(config, wishes, url, gateways, told)
        found += at_url
    if upstream is not None:
        told(f"asking {upstream}")
        at_upstream, other = await _engine(config, wishes, upstream)
        found += at_upstream
        offset = offset if offset is not None else other
    if wishes.url is not None or wishes.upstream is not None or not wishes.logs:
        told("looking at this machine")
        engines = [each for each in (behind, upstream, config.upstream.url) if each is not None]
        local = look_local.machine(config, gateways, variables, offset=offset, engines=engines)
        found += findings(check_machine.CHECKS, local)
        client = look_local.client(config, variables, folder, url)
        found += findings(check_client.CHECKS, client)
        if wishes.url is None and wishes.upstream is None:
            found += _nearby(folder)
        if url is None and upstream is None:
            found.append(_nothing_runs())
        found += [_without_effect(warning) for warning in config.warnings]
    ordered = sorted(found, key=lambda each: ORDER.index(each.grade))
    return Examination(findings=tuple(ordered), sheet=sheet)


def _targets(config: Config, wishes: Wishes, gateways: list[Running]) -> tuple[str | None, str | None]:
    """The gateway and the engine to ask: those named; without a name those that run or are configured."""
    if wishes.url is not None or wishes.upstream is not None or wishes.logs:
        return wishes.url, wishes.upstream
    url = config.client.url or (gateways[0].url if gateways else None)
    return url, None if url is not None else config.upstream.url


async def _gateway(
    config: Config, wishes: Wishes, url: str, gateways: list[Running], told: Told
) -> tuple[list[Finding], Sheet | None, float | None, str | None]:
    """Findings, score sheet, the clock's offset, and the address of the engine behind a gateway of qiao."""
    key = _gateway_key(config, wishes, url, gateways)
    access, offset = await look(url, key, anthropic=True, now=time.time())
    door = Door(access=access, anthropic=True)
    if access.failure is not None or not access.has_messages or access.status in (401, 403):
        return findings(check_server.CHECKS, door), None, offset, None
    sheet = None
    if wishes.url is not None:
        told("replaying Claude Code's requests")
        sheet = await replay(
            access.address, key, server=access.server, model=wishes.model, limit=wishes.limit, told=told
        )
        door = Door(access=access, anthropic=True, errors=sheet.errors)
    found = findings(check_server.CHECKS, door)
    engine = await look_engine.of_gateway(access.address, key) if access.kind == "qiao" else None
    behind = engine.about if engine is not None else None
    if engine is not None and engine.model and any(each.url == access.address for each in gateways):
        engine = await _behind(config, engine)
    if engine is None and sheet is not None:
        engine = EngineFacts(about=url, window=sheet.window)
    if engine is not None:
        found += findings(check_engine.CHECKS, engine)
        if access.kind == "qiao" and not engine.model:
            found.append(_upstream_down(engine))
    return found, sheet, offset, behind


async def _behind(config: Config, known: EngineFacts) -> EngineFacts:
    """The engine behind a gateway of this machine, asked as well, where its door is open to us."""
    key = config.upstream.api_key.reveal() if config.upstream.api_key is not None else None
    access, _ = await look(known.about, key, anthropic=False, now=time.time())
    if access.failure is not None or access.status != 200 or access.kind != "engine":
        return known
    try:
        return look_engine.together(known, await look_engine.look(access.address, key))
    except Fault:
        return known


async def _engine(config: Config, wishes: Wishes, upstream: str) -> tuple[list[Finding], float | None]:
    given = wishes.key if wishes.url is None else None
    own = config.upstream.api_key if wishes.upstream is None or given is None else None
    key = given or own
    shown = key.reveal() if key is not None else None
    access, offset = await look(upstream, shown, anthropic=False, now=time.time())
    found = findings(check_server.CHECKS, Door(access=access, anthropic=False))
    if access.failure is not None or not access.has_chat or access.status in (401, 403):
        return found, offset
    try:
        facts = await look_engine.look(access.address, shown, wishes.model)
    except Fault as fault:
        evidence = f"The engine answers, but not as one: {fault.message}"
        mend = "Check the address; the engine's log (`qiao doctor --log FILE`) may say more."
        return [*found, _problem("engine_answers", upstream, evidence, mend)], offset
    return [*found, *findings(check_engine.CHECKS, facts)], offset


def _gateway_key(config: Config, wishes: Wishes, url: str, gateways: list[Running]) -> str | None:
    """The key named; else the one of the gateway that runs there; the stored one for no other machine's."""
    if wishes.key is not None:
        return wishes.key.reveal()
    same = next((each for each in gateways if each.url == url.rstrip("/").removesuffix("/v1")), None)
    if same is not None:
        return same.key.reveal() if same.key else None
    if config.auth.api_key is not None:
        return config.auth.api_key.reveal()
    if wishes.url is None:
        kept = stored_key(config.folders.state)
        return kept.secret.reveal() if kept is not None else None
    return None


def _nearby(folder: Path) -> list[Finding]:
    """A LiteLLM configuration where the usual guides put it."""
    found: list[Finding] = []
    for name in _LITELLM_FILES:
        try:
            found += check_log.of_file(name, (folder / name).read_text("utf-8", "replace"))
        except OSError:  # the usual case: it is not there
            continue
    return found


def _upstream_down(engine: EngineFacts) -> Finding:
    return _problem(
        "upstream_down",
        engine.about,
        f"The gateway runs, and its engine does not answer: {engine.reason}",
        "Start the engine; `qiao doctor --upstream URL` and `--log FILE` say more of it.",
    )


def _nothing_runs() -> Finding:
    return Finding(
        check="gateway_running",
        grade="note",
        about="this machine",
        evidence="No gateway runs here, and none is configured.",
        mend="`qiao up` starts one; --url and --upstream look at others.",
    )


def _without_effect(warning: str) -> Finding:
    return Finding(check="qiao_settings", grade="warning", about="qiao's settings", evidence=warning)


def _problem(check: str, about: str, evidence: str, mend: str) -> Finding:
    return Finding(check=check, grade="problem", about=about, evidence=evidence, mend=mend)


OTHER_CHECKS = (
    ("upstream_down", "a gateway whose engine does not answer"),
    ("engine_answers", "a server that is no engine"),
    ("gateway_running", "whether a gateway runs here"),
    ("qiao_settings", "QIAO_… variables that have no effect"),
)
