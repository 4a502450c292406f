"""The job: nothing half done at the path, nothing overwritten, nothing lost in silence."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speciate.datasets.columns import START, STOP
from speciate.datasets.exports import export
from speciate.datasets.exports.export import KIND, ExportSpec
from speciate.errors import Code, SpeciateError
from speciate.jobs import atomic_folder
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run, Stopped
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.exports.worlds import seal

_PNG = b"\x89PNG\r\n\x1a\n"
_IN_A_PROCESS = """
import sys
from pathlib import Path
from speciate.datasets.exports.export import run
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
run(Run(RunFolder(Path(sys.argv[1]))))
"""


def reviews(workspace: Workspace, name: str = "reviews") -> None:
    rows = [{**row, "split": "train" if i % 4 else "test"} for i, row in enumerate(data.review_rows(40))]
    rows[3] |= {"quality": "refused", "reason": "=cmd|' /C calc'!A0"}
    seal(workspace, name, rows, inputs=("text",), label="label")


def attempt(workspace: Workspace, path: Path, number: int = 1, format_: str = "csv") -> RunFolder:
    """A run folder as the engine would make it for one job."""
    plan = KIND.plan(ExportSpec(dataset="reviews", format=format_, path=path), workspace)
    folder = RunFolder(workspace.folders.runs / f"job-export.{number}")
    earlier = [str(workspace.folders.runs / f"job-export.{i}") for i in range(number - 1, 0, -1)]
    root = str(workspace.folders.root)
    folder.create({"payload": plan.payload_json(), "job": "job-export", "workspace": root, "resume_from": earlier})
    return folder


def killed(folder: RunFolder, point: str) -> None:
    """The run in a process of its own that is killed there."""
    environment = {**os.environ, "SPECIATE_FAULT": f"{point}:kill", "SPECIATE_TESTING": "1"}
    ended = subprocess.run([sys.executable, "-c", _IN_A_PROCESS, str(folder.path)], env=environment, check=False)
    assert ended.returncode == -9


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_usable_rows_leave_and_the_others_are_listed(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    result = data.run_job(workspace, "export", dataset="reviews", format="csv", path=tmp_path / "out")
    assert result["path"] == str(tmp_path / "out")
    report = result["report"]
    assert (report["examples"], report["splits"]) == (39, {"train": 29, "test": 10})
    assert report["set_aside"] == {"refused": 1}
    with (tmp_path / "out" / "set_aside.csv").open() as file:
        (excluded,) = csv.DictReader(file)
    assert (excluded["quality"], excluded["reason"]) == ("refused", "'=cmd|' /C calc'!A0")
    assert report["escaped_cells"] == 1
    wanted = {"README.md", "speciate.json", "set_aside.csv", "data/train.csv", "data/test.csv"}
    assert set(files(tmp_path / "out")) == wanted


def test_partial_rows_leave_on_request_and_are_named(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{**row, "split": "train"} for row in data.review_rows(12)]
    rows[3] |= {"quality": "partial", "reason": "One slice is missing."}
    rows[4] |= {"quality": "refused", "reason": "A copy."}
    seal(workspace, "reviews", rows, inputs=("text",), label="label")
    made = [
        data.run_job(
            workspace, "export", dataset="reviews", format="csv", path=tmp_path / str(partial), partial=partial
        )
        for partial in (False, True)
    ]
    assert [each["report"]["examples"] for each in made] == [10, 11]
    assert [each["report"]["set_aside"] for each in made] == [{"partial": 1, "refused": 1}, {"refused": 1}]
    assert made[1]["report"]["notes"][-1] == (
        "1 rows are partial and were exported on request. rows#4: One slice is missing."
    )
    assert len(made[0]["report"]["notes"]) == len(made[1]["report"]["notes"]) - 1


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "hf", "webdataset"])
def test_the_same_version_gives_the_same_bytes(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    for name in ("one", "two"):
        data.run_job(workspace, "export", dataset="reviews@v1", format=format_, path=tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_nothing_is_overwritten(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    path = tmp_path / "out"
    folder = attempt(workspace, path)
    path.mkdir()  # comes between the plan and the run
    with pytest.raises(SpeciateError) as raised:
        export.run(Run(folder))
    assert raised.value.code is Code.CONFLICT
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path / "link"):
        with pytest.raises(SpeciateError, match="never overwrite"):
            KIND.plan(ExportSpec(dataset="reviews", format="csv", path=taken), workspace)
    assert list(path.iterdir()) == []


def test_a_kill_leaves_nothing_at_the_path_and_the_next_attempt_cleans_up(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    room = tmp_path / "room"
    killed(attempt(workspace, room / "out"), "export_before_rename")
    (leftover,) = room.iterdir()
    assert leftover.name.startswith(".")
    export.run(Run(attempt(workspace, room / "out", 2)))
    assert [path.name for path in room.iterdir()] == ["out"]


def test_a_kill_after_the_rename_is_a_finished_export(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    first = attempt(workspace, tmp_path / "out")
    second = RunFolder(workspace.folders.runs / "job-export.2")
    second.create({**first.spec(), "resume_from": [str(first.path)]})
    killed(first, "export_after_rename")
    before = files(tmp_path / "out")
    result = export.run(Run(second))
    assert result["report"]["examples"] == 39
    assert files(tmp_path / "out") == before


def test_a_stopped_export_leaves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    folder = attempt(workspace, tmp_path / "room" / "out")
    (folder.path / "cancel").touch()
    with pytest.raises(Stopped):
        export.run(Run(folder))
    assert list((tmp_path / "room").iterdir()) == []


def test_files_of_another_export_beside_it_stay(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    with atomic_folder.hidden_folder_beside(tmp_path / "out") as other:
        export.run(Run(attempt(workspace, tmp_path / "out")))
        assert other.is_dir()
    assert not other.exists()


def test_a_full_disk_is_reported_before_anything_is_written(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews(workspace)
    folder = attempt(workspace, tmp_path / "room" / "out")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    with pytest.raises(SpeciateError, match="is full"):
        export.run(Run(folder))
    assert not (tmp_path / "room").exists()


def test_a_split_without_usable_rows_and_a_format_that_does_not_fit(workspace: Workspace, tmp_path: Path) -> None:
    reviews(workspace)
    with pytest.raises(SpeciateError) as raised:
        KIND.plan(ExportSpec(dataset="reviews", format="folder", path=tmp_path / "out"), workspace)
    assert "parquet, csv, jsonl, hf, webdataset" in raised.value.recovery
    with pytest.raises(SpeciateError, match="did you mean 'parquet'"):
        KIND.plan(ExportSpec(dataset="reviews", format="parket", path=tmp_path / "out"), workspace)
    seal(workspace, "bad", [{"text": "x", "quality": "error", "reason": "no"}], inputs=("text",))
    with pytest.raises(SpeciateError, match="no usable row"):
        data.run_job(workspace, "export", dataset="bad", format="csv", path=tmp_path / "out")


def test_two_files_with_one_name_and_foreign_names_and_labels(workspace: Workspace, tmp_path: Path) -> None:
    sources = ["a/x.png", "b/x.png", "c/X.PNG", "../../etc/x.png", "d/=cmd().png", "t.parquet#3"]
    labels = ["../up", "../up", "../up", "../up", "CON", "größe"]
    rows = [
        {"source": source, "label": label, "split": "train", "note": f"+{i}x", "change": f"+{i}", "score": -i}
        for i, (source, label) in enumerate(zip(sources, labels, strict=True))
    ]
    media = [_PNG + bytes([i]) for i in range(len(rows))]
    seal(workspace, "odd", rows, media=media, label="folder")
    result = data.run_job(workspace, "export", dataset="odd", format="folder", path=tmp_path / "out")
    assert {path.resolve().is_relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")} == {True}
    with (tmp_path / "out" / "data" / "train" / "metadata.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["file_name"] for row in written] == [
        "_up/x.png", "_up/x-2.png", "_up/X-3.PNG", "_up/x-4.png", "_CON/_cmd().png", "größe/t-3.png",
    ]  # fmt: skip
    for row, original, medium in zip(written, rows, media, strict=True):
        assert (tmp_path / "out" / "data" / "train" / row["file_name"]).read_bytes() == medium
        assert (row["label"], row["note"]) == (original["label"], f"'{original['note']}")
        assert row["change"] == original["change"]  # its own value, whoever evaluates it
        assert int(row["score"]) == original["score"]  # a number stays one
    assert result["report"]["escaped_cells"] == len(rows)


def test_windows_share_their_medium_which_stays_whole(workspace: Workspace, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"source": "a.csv", "label": "x", "split": "train", START: float(i), STOP: float(i + 8)} for i in range(3)
    ]
    seal(workspace, "cut", rows, media=[b"t,v\n1,2\n"] * 3, modality="time-series", label="folder")
    result = data.run_job(workspace, "export", dataset="cut", format="folder", path=tmp_path / "out")
    wanted = ["README.md", "data/train/metadata.csv", "data/train/x/a.csv", "speciate.json"]
    assert sorted(files(tmp_path / "out")) == wanted
    with (tmp_path / "out" / "data" / "train" / "metadata.csv").open() as file:
        assert [(row["window_start"], row["window_stop"]) for row in csv.DictReader(file)] == [
            ("0.0", "8.0"), ("1.0", "9.0"), ("2.0", "10.0"),
        ]  # fmt: skip
    assert "in steps" in json.dumps(result["report"]["notes"])
    assert "in steps" in (tmp_path / "out" / "README.md").read_text()
