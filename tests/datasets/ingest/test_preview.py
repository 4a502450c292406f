"""What a dry run of `create_dataset` tells of a source, and that it keeps nothing of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.ingest import preview
from speciate.datasets.sources.sandbox_calls import Sample
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import IN_PROCESS, App, DryRun
from speciate.tools.datasets import create_dataset
from speciate.workspace.workspace import Workspace
from tests.data import digit_folder, review_csv


@pytest.fixture
def app(workspace: Workspace, tmp_path: Path) -> Iterator[App]:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    yield App(workspace, Engine(workspace), pool, IN_PROCESS._replace(folder=tmp_path))
    pool.close()


def resolved(app: App, **arguments: Any) -> dict[str, Any]:
    answer = create_dataset(app, name="made", dry_run=True, **arguments)
    assert isinstance(answer, DryRun)
    return dict(answer.resolved)


def test_columns_are_told_with_their_types_and_roles(app: App, tmp_path: Path) -> None:
    shown = resolved(app, source=str(review_csv(tmp_path / "r.csv")), label="label", group_by="film", inputs=["text"])
    assert shown["looked_at"] == "all 80 rows"
    assert (shown["modality"], shown["label"], shown["inputs"]) == ("text", "label", ["text"])
    assert shown["labels"] == {"bad": 40, "good": 40}
    assert shown["groups"] == 20
    assert {each["name"]: (each["type"], each["role"]) for each in shown["columns"]} == {
        "text": ("VARCHAR", "input"),
        "film": ("VARCHAR", "group"),
        "label": ("VARCHAR", "label"),
    }
    assert [path.name for path in app.workspace.folders.cache.iterdir()] == ["pool"]
    assert list(app.workspace.folders.runs.iterdir()) == []


def test_a_wrong_guess_is_seen_before_a_job(app: App, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id,weight,when\n" + "".join(f"{i},{i % 7}.5,2024-01-0{i % 9 + 1}\n" for i in range(40))
    )
    shown = resolved(app, source=str(tmp_path / "a.csv"))
    assert "label" not in shown
    assert {each["name"]: each["role"] for each in shown["columns"]}["when"] == "other"
    assert any("No label was named" in warning for warning in shown["warnings"])
    assert any("No model sees dates" in warning for warning in shown["warnings"])


def test_some_media_of_a_folder_are_decoded(app: App, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", 60, classes=3)
    (folder / "0" / "0000.png").write_bytes(b"\x89PNG broken")
    shown = resolved(app, source=str(folder), label="folder")
    assert shown["looked_at"] == "20 of 60 files"
    assert shown["modality"] == "image"
    assert set(shown["labels"]) == {"0", "1", "2"}
    assert sum(shown["quality"].values()) == 20
    assert shown["untrusted"]["reasons"]
    assert list(app.workspace.folders.packs.iterdir()) == []


def test_of_a_long_table_the_first_rows_are_read(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_SAMPLE", Sample(table_bytes=1000))
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(60_000)))
    shown = resolved(app, source=str(tmp_path / "a.csv"), label="y")
    assert re.fullmatch(r"the first \d\d,\d{3} rows", shown["looked_at"])
    assert shown["inputs"] == ["x"]


def test_numbers_as_labels_are_told_by_their_range(app: App) -> None:
    shown = resolved(app, rows=[{"area": i, "price": i * 2.5} for i in range(30)], label="price")
    assert shown["labels"] == {"min": 0.0, "max": 72.5}


def test_what_the_job_would_end_with_is_refused_at_once(app: App) -> None:
    with pytest.raises(SpeciateError) as refused:
        resolved(app, rows=[{"area": 1}], label="price")
    assert refused.value.code is Code.INVALID


def test_a_source_that_is_fetched_is_not_looked_at(app: App) -> None:
    assert resolved(app, source="gym:chain_sum")["looked_at"] == "Nothing: the job fetches it."


def test_what_takes_too_long_is_not_waited_for(app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preview, "_SECONDS", 0.0)
    (tmp_path / "digits").mkdir()
    shown = resolved(app, source=str(digit_folder(tmp_path / "digits", 30)))
    assert shown["looked_at"] == "Nothing: it took more than 0 s."


def test_classes_that_differ_in_case_alone_are_told(app: App) -> None:
    rows = [{"text": f"text {i}", "label": ("good", "Good", "bad")[i % 3]} for i in range(30)]
    shown = resolved(app, rows=rows, modality="text")
    assert any("differ in case or blanks alone: 'Good' (10) and 'good' (10)" in each for each in shown["warnings"])
