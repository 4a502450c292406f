"""An ingest that is stopped half-way: what was finished is not read again, and what changed since is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speciate.datasets.ingest import ingest, survey
from speciate.datasets.ingest.draft import example_ids
from speciate.datasets.ingest.ingest import IngestSpec
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run, Stopped
from speciate.refs import id_from_key
from speciate.workspace.workspace import Workspace

COUNT = 300
PART = 128


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part has 768 files, else."""
    monkeypatch.setattr(survey, "_PART", PART)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return images(tmp_path, COUNT)


def images(tmp_path: Path, count: int) -> Path:
    """Small ones, no two alike."""
    rng = np.random.default_rng(1)
    for i in range(count):
        path = tmp_path / "source" / "ab"[i % 2] / f"{i:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), np.uint8)).save(path, compress_level=1)
    return tmp_path / "source"


class Attempt(Run):
    """Stops after so many files; records its progress reports."""

    def __init__(self, folder: RunFolder, stop_after: int | None) -> None:
        super().__init__(folder)
        self.stop_after, self.reports = stop_after, list[int]()

    def progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
        self.reports.append(int(done))

    @property
    def stopping(self) -> bool:
        return self.stop_after is not None and bool(self.reports) and self.reports[-1] >= self.stop_after

    @property
    def validated(self) -> int:
        return self.reports[-1] - self.reports[0]


def attempt(workspace: Workspace, number: int, source: Path, stop_after: int | None = None) -> Attempt:
    earlier = [str(workspace.folders.runs / f"job-a.{n}") for n in range(number - 1, 0, -1)]
    folder = RunFolder(workspace.folders.runs / f"job-a.{number}")
    plan = ingest.plan(IngestSpec(name="set", source=source, label="folder"), workspace)
    root = str(workspace.folders.root)
    folder.create({"payload": plan.payload_json(), "job": "job-a", "workspace": root, "resume_from": earlier})
    return Attempt(folder, stop_after)


def result(run: Run) -> dict[str, Any]:
    return dict(ingest.run(run)["manifest"])


def test_a_stopped_run_is_taken_up_where_its_parts_end(workspace: Workspace, source: Path) -> None:
    first = attempt(workspace, 1, source, stop_after=200)
    with pytest.raises(Stopped):
        ingest.run(first)
    assert not list(workspace.folders.packs.glob(".*"))
    assert not (first.folder.path / "work").exists()
    second = attempt(workspace, 2, source)
    resumed = result(second)
    assert second.validated <= COUNT - PART
    assert second.reports[0] >= PART
    third = attempt(workspace, 3, source)
    assert result(third) == resumed
    assert third.validated == 0
    for file in workspace.folders.runs.glob("*/checkpoints/*"):
        file.unlink()
    assert result(attempt(workspace, 4, source)) == resumed


@pytest.mark.parametrize("what", ["the source", "a folder on the way"])
def test_a_source_that_leads_elsewhere_than_at_the_call_is_not_read(
    workspace: Workspace, source: Path, tmp_path: Path, what: str
) -> None:
    (tmp_path / "below").mkdir()
    source = source.rename(tmp_path / "below" / "source")
    run = attempt(workspace, 1, source)
    changed = source if what == "the source" else source.parent
    elsewhere = changed.rename(tmp_path / "elsewhere")
    changed.symlink_to(elsewhere)
    with pytest.raises(SpeciateError, match="leads elsewhere than when the call was made") as refused:
        ingest.run(run)
    assert refused.value.code is Code.REFUSED
    assert result(attempt(workspace, 2, source))["rows"] == COUNT, "a call that names a link means where it leads then"


def test_a_file_that_changed_meanwhile_is_read_again(workspace: Workspace, source: Path) -> None:
    ingest.run(attempt(workspace, 1, source))
    changed = source / "a" / "00000.png"
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(changed)
    os.utime(changed, ns=(1, 1))
    (source / "b" / "00001.png").unlink()
    second = attempt(workspace, 2, source)
    manifest = result(second)
    assert manifest["rows"] == COUNT - 1
    assert 0 < second.validated < COUNT - 1
    fresh = Workspace(workspace.folders.root.parent / "fresh", settings=workspace.settings)
    assert result(attempt(fresh, 1, source))["id"] == manifest["id"]
    fresh.close()


def test_other_names_in_another_order_are_the_same_version(workspace: Workspace, tmp_path: Path) -> None:
    source = images(tmp_path, 200)  # more than a part holds
    manifest = result(attempt(workspace, 1, source))
    for path in source.rglob("*.png"):
        target = tmp_path / "renamed" / path.parent.name / f"{200 - int(path.stem):05}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert result(attempt(workspace, 2, tmp_path / "renamed"))["id"] == manifest["id"]


def test_a_source_that_vanishes_is_an_error(workspace: Workspace, source: Path) -> None:
    run = attempt(workspace, 1, source)

    class Vanishing(Attempt):
        def progress(self, done: float, total: float | None = None, unit: str = "", message: str = "") -> None:
            super().progress(done, total, unit, message)
            shutil.rmtree(source, ignore_errors=True)

    with pytest.raises(SpeciateError, match="vanished while they were read") as raised:
        ingest.run(Vanishing(run.folder, None))
    assert raised.value.code is Code.NOT_FOUND


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_ids_made_at_once_are_those_made_one_by_one(keys: list[str]) -> None:
    assert example_ids(pa.array(keys)).to_pylist() == [id_from_key("ex", key) for key in keys]
