"""`qiao export` on a disk: what it writes, what it leaves alone, and what it says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qiao.exports.stamp import is_untouched
from tests.support.command import Person

PLAN = ("--gpus", "4xH20-96G")


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path / "home", tmp_path / "work")


def export(person: Person, kind: str, *words: str) -> subprocess.CompletedProcess[str]:
    return person.qiao("export", kind, *PLAN, *words)


def modified(folder: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}


def test_files_are_written_once_and_left_when_nothing_changed(person: Person) -> None:
    first = export(person, "shell", "--out", "deploy")
    assert first.returncode == 0, first.stderr
    folder = person.work / "deploy"
    assert sorted(each.name for each in folder.iterdir()) == ["start_gateway.sh", "start_vllm.sh"]
    for each in folder.iterdir():
        assert os.access(each, os.X_OK)
        assert is_untouched(each.read_text("utf-8"))
    before = modified(folder)
    again = export(person, "shell", "--out", "deploy")
    assert again.returncode == 0
    assert (again.stdout + again.stderr).count("unchanged") == 2
    assert modified(folder) == before


def test_an_older_export_is_replaced(person: Person) -> None:
    export(person, "shell", "--window", "64K")
    told = export(person, "shell", "--window", "128K")
    assert told.returncode == 0
    assert "replaced start_vllm.sh" in told.stdout + told.stderr
    assert "--max-model-len 131072" in (person.work / "start_vllm.sh").read_text("utf-8")


@pytest.mark.parametrize("content", ["mine\n", None])
def test_nothing_is_written_over_an_edited_file(person: Person, content: str | None) -> None:
    gateway, engine = person.work / "start_gateway.sh", person.work / "start_vllm.sh"
    if content is None:  # one of ours, with one letter more
        export(person, "shell")
        content = engine.read_text("utf-8").replace("--port", "--seed 1 --port", 1)
        gateway.unlink()
    engine.write_text(content, "utf-8")
    told = export(person, "shell", "--window", "64K")
    assert told.returncode != 0
    assert "start_vllm.sh" in told.stderr
    assert "--force" in told.stderr
    assert engine.read_text("utf-8") == content
    assert not gateway.exists()
    forced = export(person, "shell", "--window", "64K", "--force")
    assert forced.returncode == 0
    assert "--max-model-len 65536" in engine.read_text("utf-8")


def test_what_does_not_fit_is_not_written(person: Person) -> None:
    told = person.qiao("export", "shell", "--gpus", "1xT4-16G")
    assert told.returncode == 1
    assert "does not fit" in told.stdout
    assert list(person.work.iterdir()) == []


def test_printed_files_are_the_written_ones(person: Person) -> None:
    printed = export(person, "litellm", "--stdout")
    assert list(person.work.iterdir()) == []
    export(person, "litellm")
    assert (person.work / "litellm_config.yaml").read_text("utf-8") == printed.stdout


def test_a_folder_in_the_way_is_named(person: Person) -> None:
    (person.work / "start_vllm.sh").mkdir()
    told = export(person, "shell")
    assert told.returncode != 0
    assert "start_vllm.sh cannot be read" in told.stderr
    assert not (person.work / "start_gateway.sh").exists()


def test_nothing_is_left_where_writing_fails(person: Person) -> None:
    (person.work / "file").write_text("")
    told = export(person, "shell", "--out", "file/inside")
    assert told.returncode != 0
    assert "Traceback" not in told.stderr
    assert [each.name for each in person.work.iterdir()] == ["file"]


def test_ray_gets_a_plan_without_data_parallel(person: Person) -> None:
    told = person.qiao("export", "ray", "--gpus", "8xH100-80G", "--model", "qwen3-coder-next", "--stdout")
    assert told.returncode == 0, told.stderr
    assert "without it, not tensor parallel 4, data parallel 2" in " ".join(told.stderr.split())
    assert "tensor_parallel_size: 4" in told.stdout
    assert "data_parallel" not in told.stdout
