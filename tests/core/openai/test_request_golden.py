"""From the client's request to the engine's, as cases in files: `tests/golden/openai_request/*.case`.

First line: what the case shows. Second line, optional: `# with KEY=VALUE …` (model, engine, version, window, side_text,
reasoning, quirks). Then the Anthropic request, ten dashes, and what is sent, with what was noted on the way.
`GOLDEN_ACCEPT=1` writes the outcome into the files; a person reads the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from qiao.core.anthropic.request import decode
from qiao.core.fault import Fault
from qiao.core.openai.request import encode, encode_tokenize
from qiao.core.openai.target import Flavor, Target
from qiao.policies import Prepared, Switches, document_key, documents_needed, prepare
from qiao.policies.quirks import Quirks
from qiao.profiles import find
from qiao.profiles.engines import target_for
from tests.fakes import hygiene, validation
from tests.fakes.behaviour import Behaviour

FOLDER = Path(__file__).parents[2] / "golden" / "openai_request"
CASES = sorted(FOLDER.glob("*.case"))
DASHES = "\n----------\n"
# All but the cases in which nothing is sent.
SENT = [path for path in CASES if '\n  "fault": ' not in path.read_text("utf-8")]


def settings_of(line: str) -> dict[str, str]:
    """The second line, filled up with the usual engine."""
    usual = {"model": "Qwen/Qwen3-235B-A22B-Instruct-2507", "engine": "vllm", "version": "0.32.0"}
    words = line.removeprefix("# with ").split() if line.startswith("# with ") else []
    return usual | dict(word.split("=", 1) for word in words)


def run(body: str, chosen: dict[str, str]) -> tuple[Prepared, Target]:
    """The request as it is prepared for the engine that the case names. Every document reads "Words of KEY"."""
    target = target_for(
        msgspec.convert(chosen["engine"], Flavor),
        chosen["version"] or None,
        chosen["model"],
    )
    conversation = decode(body.encode())
    documents = {
        document_key(document): "Words of the document."
        for document in documents_needed(conversation)
        if document.title != "scan.pdf"
    }
    prepared = prepare(
        conversation,
        find(chosen["model"]),
        target=target,
        window=int(chosen["window"]) if "window" in chosen else None,
        documents=documents,
        switches=msgspec.convert(
            {name: chosen[name] for name in ("side_text", "reasoning") if name in chosen}, Switches
        ),
        quirks=Quirks(**dict.fromkeys(chosen.get("quirks", "").split(",") if "quirks" in chosen else (), True)),
    )
    return prepared, target


def outcome(body: str, chosen: dict[str, str]) -> str:
    try:
        prepared, target = run(body, chosen)
        shown: dict[str, Any] = {"body": json.loads(encode(prepared.conversation, target))}
        if "tokenize" in chosen:
            shown["tokenize"] = json.loads(encode_tokenize(prepared.conversation, target))
    except Fault as fault:
        return json.dumps({"fault": fault.message}, indent=2, ensure_ascii=False)
    for name in ("notes", "scan_stops", "one_call", "warm_only", "applied_edits"):
        if value := getattr(prepared, name):
            shown[name] = msgspec.to_builtins(value)
    return json.dumps(shown, indent=2, ensure_ascii=False)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    given, dashes, expected = path.read_text("utf-8").partition(DASHES)
    first, _, rest = given.partition("\n")
    assert first.startswith("# "), "the first line says what the case shows"
    second, _, body = rest.partition("\n")
    chosen = settings_of(second)
    actual = outcome(body if second.startswith("# with ") else rest, chosen)
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_text(given + DASHES + actual + "\n", "utf-8")
        return
    assert dashes, "no line of ten dashes"
    assert actual == expected.rstrip("\n")


@pytest.mark.parametrize("path", SENT, ids=lambda path: path.stem)
def test_no_engine_has_a_reason_to_refuse(path: Path) -> None:
    """The expected bodies, against what a recorded vLLM 0.32 refuses and what no model can make sense of."""
    given, _, expected = path.read_text("utf-8").partition(DASHES)
    body = json.loads(expected)["body"]
    chosen = settings_of(given.split("\n")[1])
    validation.check_shape(body)
    validation.check_fields(body)
    sees = find(chosen["model"]).images is not False
    validation.check_conversation(body, chosen["model"], Behaviour(multimodal=sees))
    validation.check_sampling(body, int(chosen.get("window", 262_144)))
    assert hygiene.problems(body) == []


def test_there_are_cases() -> None:
    assert len(CASES) > 30
