"""The examination as JSON: a stable schema."""

from __future__ import annotations

from typing import Any

from qiao import __version__
from qiao.doctor.examine import Examination
from qiao.doctor.finding import ORDER, Finding
from qiao.doctor.mending import Mending
from qiao.doctor.replay.sheet import Sheet

SCHEMA_VERSION = 1


def as_json(examination: Examination, mendings: tuple[Mending, ...] = ()) -> dict[str, Any]:
    """Fields are added, never renamed or taken away, while SCHEMA_VERSION stays."""
    return {
        "schema_version": SCHEMA_VERSION,
        "qiao": __version__,
        "status": "well" if examination.is_well else "problems",
        "counts": {grade: sum(1 for each in examination.findings if each.grade == grade) for grade in ORDER},
        "findings": [_finding(each) for each in examination.findings],
        "score": _sheet(examination.sheet) if examination.sheet is not None else None,
        "fixes": [
            {"name": each.name, "path": str(each.path), "what": each.what, "foreign": each.foreign, "done": each.done}
            for each in mendings
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "grade": finding.grade,
        "about": finding.about,
        "evidence": finding.evidence,
        "mend": finding.mend,
    }


def _sheet(sheet: Sheet) -> dict[str, Any]:
    return {
        "url": sheet.url,
        "server": sheet.server,
        "model": sheet.model,
        "window": sheet.window,
        "passed": sheet.passed,
        "failed": sheet.count("fail"),
        "skipped": sheet.count("skipped"),
        "total": sheet.total,
        "points": [
            {
                "name": point.name,
                "group": point.group,
                "about": point.about,
                "must": point.must,
                "verdict": point.verdict,
                "evidence": point.evidence,
                "seconds": point.seconds,
            }
            for point in sheet.points
        ],
    }
