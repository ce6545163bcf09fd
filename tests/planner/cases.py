"""Golden cases of the planner: a comment, a JSON object, a line of dashes, the expected JSON object."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qiao.planner import catalogue, specification, vllm
from qiao.planner.choose import plan
from qiao.planner.gpu_table import by_name
from qiao.planner.machine import Gpu
from qiao.planner.model import ModelFacts
from qiao.planner.plan import Goal, Outcome, Plan
from qiao.planner.request import Request
from qiao.planner.weights import Division

FOLDER = Path(__file__).parent.parent / "golden" / "plans"
_SEPARATOR = "----------\n"


class Case:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head, _, expected = path.read_text("utf-8").partition(_SEPARATOR)
        self.given: dict[str, Any] = json.loads(self._head.partition("\n")[2])
        self.expected: dict[str, Any] = json.loads(expected) if expected.strip() else {}

    def accept(self, found: dict[str, Any]) -> bool:
        """With GOLDEN_ACCEPT=1 the file is written anew."""
        if os.environ.get("GOLDEN_ACCEPT") != "1":
            return False
        text = json.dumps(found, indent=2, ensure_ascii=False)
        self.path.write_text(f"{self._head}{_SEPARATOR}{text}\n", "utf-8")
        return True


def cases(folder: str) -> list[Path]:
    """The files of a folder."""
    return sorted((FOLDER / folder).glob("*.case"))


def model(name: str) -> ModelFacts:
    """One checkpoint."""
    return catalogue.find(name).models[0]


def gpu(name: str) -> Gpu:
    """One GPU by its written name."""
    return specification.gpus(name).gpus[0] if not by_name(name, None) else by_name(name, None)[0].gpu()


def division(given: dict[str, Any]) -> Division:
    """How a case cuts the model."""
    return Division(**{key: given[key] for key in ("tensor", "pipeline", "data", "expert") if key in given})


def request(
    *,
    gpus: str | None = None,
    nodes: str | None = None,
    model: str = "qwen3-235b",
    vllm_version: str | None = None,
    **goal: Any,
) -> Request:
    """A request as `qiao plan` makes it."""
    machine = specification.nodes(nodes) if nodes else specification.gpus(gpus or "")
    found = catalogue.find(model)
    version = vllm.parse_version(vllm_version) if vllm_version else vllm.NEWEST
    return Request(
        machine=machine,
        models=found.models,
        goal=Goal(version=version, **goal),
        wanted=model,
        notes=found.notes,
        since=found.family.since,
    )


def made(**asked: Any) -> Outcome:
    """The outcome for a request."""
    return plan(request(**asked))


def a_plan(**asked: Any) -> Plan:
    """The plan for a request that fits."""
    outcome = made(**asked)
    assert isinstance(outcome, Plan), outcome
    return outcome
