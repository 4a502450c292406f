"""What a dry run of `create_dataset` tells of a source, and that it keeps nothing of it."""

from __future__ import annotations

import json
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.ingest import preview
from speciate.datasets.sources.sandbox_calls import Sample, unpack_into
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import IN_PROCESS, App, DryRun
from speciate.tools.datasets import create_dataset
from speciate.workspace.workspace import Workspace
from tests.data import digit_folder, review_csv
from tests.datasets.source_context import source_context


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


def test_numbers_that_are_read_as_text_are_told_before_a_job(app: App, tmp_path: Path) -> None:
    rows = [f"{i},5;{'-' if i < 3 else i};{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["heat;age;seen", *rows]))
    shown = resolved(app, source=str(tmp_path / "a.csv"), label="seen")
    told = [warning.partition(". ")[0] for warning in shown["warnings"] if "is text" in warning]
    assert told == [
        "Column 'heat' is text, for 60 of its 60 cells are numbers with a comma",
        "Column 'age' is text, for 3 of its 60 cells are no numbers",
    ]


def test_some_media_of_a_folder_are_decoded(app: App, tmp_path: Path) -> None:
    folder = digit_folder(tmp_path / "digits", 60, classes=3)
    for path in (folder / "0").iterdir():
        if int(path.stem) % 2:
            path.write_bytes(b"\x89PNG broken")
    shown = resolved(app, source=str(folder), label="folder")
    assert shown["looked_at"] == "24 of 60 files"
    assert shown["modality"] == "image"
    assert set(shown["labels"]) == {"0", "1", "2"}
    assert sum(shown["quality"].values()) == 24
    assert shown["untrusted"]["reasons"]
    assert list(app.workspace.folders.packs.iterdir()) == []


def test_files_whose_names_have_dots_are_drawn_one_by_one(app: App, tmp_path: Path) -> None:
    """All files of a label begin alike: taken together, they filled the sample or were too many for it."""
    for label, prefix, count in (("statistics", "scipy.stats", 40), ("signals", "scipy.signal", 20)):
        (tmp_path / "docs" / label).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "docs" / label / f"{prefix}.f{i}.txt").write_text(f"{label} of the function number {i}")
    shown = resolved(app, source=str(tmp_path / "docs"), label="folder")
    assert shown["looked_at"] == "24 of 60 files"
    assert set(shown["labels"]) == {"statistics", "signals"}
    assert "warnings" not in shown


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


UNPACK = "speciate.datasets.sources.archives:unpack"
PART = "Of the rows that were looked at: "


def sampling(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    monkeypatch.setattr(preview, "_SAMPLE", Sample(**limits))


def copies(folder: Path, count: int, beside: str = "") -> Path:
    """As many images of one digit; `beside`: the suffix of a text for each."""
    image = (digit_folder(folder.parent / "one", 1) / "0" / "0000.png").read_bytes()
    folder.mkdir()
    for i in range(count):
        (folder / f"img{i:05}.png").write_bytes(image)
        if beside:
            (folder / f"img{i:05}{beside}").write_text(f"caption {i}")
    return folder


@pytest.mark.parametrize("first", ["late", "empty"])
def test_what_the_first_rows_lack_is_a_warning(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    sampling(monkeypatch, table_bytes=1000)
    begin = {} if first == "late" else {"label": None}
    rows = [{"text": "word " * 20 + str(i)} | (begin if i < 4000 else {"label": "ab"[i % 2]}) for i in range(6000)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = resolved(app, source=str(tmp_path / "rows.jsonl"), label="label")
    assert shown["warnings"]
    assert all(warning.startswith(PART) for warning in shown["warnings"])


def test_a_label_that_the_first_rows_share_is_told_of_them_alone(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling(monkeypatch, table_bytes=1000)
    lines = [f"{'word ' * 20}{i},{'a' if i < 4000 else 'b'}\n" for i in range(6000)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(lines))
    shown = resolved(app, source=str(tmp_path / "rows.csv"), label="label")
    (warning,) = (each for each in shown["warnings"] if "one and the same label" in each)
    assert warning.startswith(PART)


def test_a_sidecar_of_many_files_is_read(app: App, tmp_path: Path) -> None:
    folder = copies(tmp_path / "set", 2602)
    lines = [f"img{i:05}.png,{'ab'[i % 2]}\n" for i in range(2602)]
    (folder / "metadata.csv").write_text("file_name,label\n" + "".join(lines))
    shown = resolved(app, source=str(folder), label="label")
    assert shown["looked_at"] == "24 of 2,602 files"
    assert sum(shown["labels"].values()) == 24


def test_files_of_one_name_are_drawn_together(app: App, tmp_path: Path) -> None:
    shown = resolved(app, source=str(copies(tmp_path / "set", 60, ".txt")), modality="multimodal")
    assert shown["looked_at"] == "24 of 60 files"
    assert shown["quality"]["ok"] == 24


def test_long_archives_are_left_to_the_job(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.txt", os.urandom(4000).hex())
    sampling(monkeypatch, archive_bytes=6000)
    for source in (folder, folder / "a.zip"):
        looked_at = resolved(app, source=str(source))["looked_at"]
        assert re.fullmatch(r"Nothing: an archive of 7\.9\d? kB, which only the job reads\.", looked_at)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "word " * 600_000)
    sampling(monkeypatch, unpacked_bytes=1 << 20)
    looked_at = resolved(app, source=str(folder))["looked_at"]
    assert looked_at == "Nothing: a file that unpacks to more than 1 MB, which only the job reads."
    assert not list(app.workspace.folders.cache.iterdir())


def test_all_tables_together_are_as_long_as_the_sample(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(50_000)))
    sampling(monkeypatch, table_bytes=500_000)
    shown = resolved(app, source=str(folder), label="y")
    assert 50_000 < int(re.sub(r"\D", "", shown["looked_at"])) < 100_000
    (folder / "c.json").write_text(json.dumps([{"x": i, "y": i % 2} for i in range(30_000)]))
    assert re.fullmatch(
        r"Nothing: a table of \d+ kB, which only the job reads\.", resolved(app, source=str(folder))["looked_at"]
    )


def test_a_file_of_a_folder_may_be_too_long(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling(monkeypatch, media_bytes=10)
    looked_at = resolved(app, source=str(copies(tmp_path / "set", 3)))["looked_at"]
    assert looked_at == "Nothing: 3 files, too many or too long for a sample, which only the job reads."


def test_a_source_that_goes_meanwhile_is_told_all_the_same(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = review_csv(tmp_path / "r.csv"), preview.read_source

    def read_and_lose(*arguments: Any) -> Any:
        found = read(*arguments)
        source.unlink()
        return found

    monkeypatch.setattr(preview, "read_source", read_and_lose)
    assert resolved(app, source=str(source), label="label")["looked_at"] == "all 80 rows"


def test_two_sources_are_looked_at_together(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_SEAT_SECONDS", 0.01)
    with preview._SEATS, preview._SEATS:
        looked_at = resolved(app, rows=[{"a": 1, "b": "x"}])["looked_at"]
    assert looked_at.startswith("Nothing: two other sources")
    assert resolved(app, rows=[{"a": 1, "b": "x"}])["looked_at"] == "all 1 rows"


def test_the_limit_ends_what_unpacks(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "a.zip")  # nobody writes into it
    with source_context(tmp_path) as context:
        threading.Timer(2.0, context.pool.close).start()
        with pytest.raises(SpeciateError) as ended:
            unpack_into(context.work, UNPACK, {"path": str(pipe)}, readable=(pipe,), context=context)
    assert ended.value.code is Code.UNAVAILABLE
