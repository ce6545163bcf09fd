"""The doctor on a real vLLM: what it finds there, what its log says, how its own /v1/messages scores beside qiao."""

from __future__ import annotations

from qiao.doctor import look_engine
from qiao.doctor.check_engine import CHECKS
from qiao.doctor.check_log import of_file
from qiao.doctor.finding import Finding, findings
from qiao.doctor.replay.run import replay
from qiao.doctor.replay.sheet import Sheet
from tests.live.stage import Stage
from tests.live.vllm.script import call, marker


def graded(found: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.grade for finding in found}


def verdicts(sheet: Sheet) -> dict[str, str]:
    return {point.name: f"{point.verdict}: {point.evidence}" for point in sheet.points}


async def test_a_server_with_parsers(stage: Stage) -> None:
    facts = await look_engine.look(stage.server.url, None, ask=marker(call("get_weather", city="Paris")))
    found = graded(findings(CHECKS, facts))
    assert {name: grade for name, grade in found.items() if grade != "ok"} == {}
    assert found["parser_wrong"] == found["prefix_caching_off"] == found["token_details_off"] == "ok"


async def test_a_server_without_parsers(bare: Stage) -> None:
    facts = await look_engine.look(bare.server.url, None)
    found = {finding.check: finding for finding in findings(CHECKS, facts)}
    assert [name for name, finding in found.items() if finding.grade == "problem"] == ["parser_missing"]
    assert "--tool-call-parser" in found["parser_missing"].evidence
    behind = await look_engine.of_gateway(bare.gateway.url, bare.gateway.key)
    assert behind is not None
    assert graded(findings(CHECKS, behind))["parser_missing"] == "note"


async def test_what_the_logs_say(stage: Stage, bare: Stage) -> None:
    start = stage.server.output.partition("Application startup complete")[0]
    assert {each.grade for each in of_file("vllm.log", start)} <= {"ok", "warning"}
    without = bare.server.output.partition("Application startup complete")[0]
    assert graded(of_file("vllm.log", without))["parser_missing"] == "problem"


async def test_the_score_beside_vllms_own_route(bare: Stage) -> None:
    """The model speaks at random, so what depends on its words is not compared."""
    ours = await replay(bare.gateway.url, bare.gateway.key, limit=200)
    theirs = await replay(bare.server.url, None, limit=200)
    missed = {name: said for name, said in verdicts(ours).items() if said.startswith("fail")}
    # On a busy machine tokens under a grammar take long, and the point says nothing of the gateway.
    missed = {name: said for name, said in missed.items() if "nothing within" not in said}
    # Random weights fill a forced call with white space, which its grammar allows, until the answer's limit cuts it.
    assert {name for name, said in missed.items() if "max_tokens" not in said or "no call came" not in said} == set()
    assert theirs.passed < ours.passed
    assert {"forced_tool", "error_field", "models"} <= {
        name for name, said in verdicts(theirs).items() if said.startswith("fail")
    }
