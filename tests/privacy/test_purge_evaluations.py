"""Answers lose the examples that must be forgotten, and a label that only they had loses its name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.evaluation import answer_cache
from speciate.privacy.purge_evaluations import purge_cached_answers, purge_examples
from speciate.workspace.workspace import Folders


def _write(folder: Path) -> None:
    examples = {"example": ["a", "b"], "truth": ["rare", "good"], "preview": ["about jane", "about joe"]}
    predictions = {
        "model": ["m", "m"], "example": ["a", "b"], "output": ["rare", "rare"], "number": [None, 0.5],
        "probabilities": ['{"rare": 1.0}', '{"rare": 0.9, "good": 0.1}'],
    }  # fmt: skip
    scores = {"model": ["m", "m"], "example": ["a", "b"], "metric": ["accuracy"] * 2, "value": [1.0, 0.0]}
    for name, columns in {"examples": examples, "predictions": predictions, "scores": scores}.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _read(folder: Path, name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return rows


def test_the_other_examples_keep_their_answers_and_scores(tmp_path: Path) -> None:
    _write(tmp_path)
    assert purge_examples(tmp_path, {"a", "elsewhere"}, ["rare"])
    assert _read(tmp_path, "examples") == [{"example": "b", "truth": "good", "preview": "about joe"}]
    (answer,) = _read(tmp_path, "predictions")
    assert (answer["output"], answer["number"]) == ("[purged]", 0.5)
    assert answer["probabilities"] == '{"[purged]": 0.9, "good": 0.1}'
    assert _read(tmp_path, "scores") == [{"model": "m", "example": "b", "metric": "accuracy", "value": 0.0}]
    assert not purge_examples(tmp_path, {"a", "elsewhere"}, ["rare"])


@pytest.mark.parametrize(
    ("label", "before", "after"),
    [
        ("cat", '{"label": "category", "cat": 0.913}', '{"label": "category", "[purged]": 0.913}'),
        ("cat", "concatenated", "concatenated"),
        ("3", "0.913", "0.913"),
        ("3", '{"3": 0.93, "y": [3, "3"]}', '{"[purged]": 0.93, "y": [3, "[purged]"]}'),
        ("3", "3", "[purged]"),
        ("1234", "1234.5", "1234.5"),
        ("rare", "[" * 100_000 + " rare", "[" * 100_000 + " [purged]"),
        ("rare", "[" * 100_000 + "]" * 100_000, "[" * 100_000 + "]" * 100_000),
        ("Größe", '{"of": "die Größe"}', '{"of": "die [purged]"}'),
    ],
)
def test_a_label_goes_as_a_whole_word_and_json_stays_json(tmp_path: Path, label: str, before: str, after: str) -> None:
    columns = {"example": ["a", "b"], "output": ["x", before]}
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    assert purge_examples(tmp_path, {"a"}, [label])
    assert [row["output"] for row in _read(tmp_path, "predictions")] == [after]


def test_an_evaluation_without_them_is_left_as_it_was(tmp_path: Path) -> None:
    _write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not purge_examples(tmp_path, {"elsewhere"}, ["rare"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_scorer_said_of_them_goes_too(tmp_path: Path) -> None:
    _write(tmp_path)
    unscored = {"model": ["m", "m"], "example": ["a", "b"], "failure": ["raised"] * 2, "detail": ["of jane", "of rare"]}
    pq.write_table(pa.table(unscored), tmp_path / "unscored.parquet")
    assert purge_examples(tmp_path, {"a"}, ["rare"])
    assert [row["detail"] for row in _read(tmp_path, "unscored")] == ["of [purged]"]


def test_pages_that_showed_them_are_deleted_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "evaluations" / "evaluation-1"
    pages = {
        name: tmp_path / "exports" / "evaluations" / name / "page.html" for name in ("evaluation-1", "evaluation-2")
    }
    folder.mkdir(parents=True)
    _write(folder)
    for page in pages.values():
        page.parent.mkdir(parents=True)
        page.write_text("<p>about jane</p>")
    assert not purge_examples(folder, {"elsewhere"}, [])
    assert pages["evaluation-1"].exists()
    assert purge_examples(folder, {"a"}, ["rare"])
    assert not pages["evaluation-1"].exists()
    assert pages["evaluation-2"].exists()


def test_a_cached_file_that_is_damaged_goes_and_the_others_are_purged(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folder = folders.predictions / "model"
    folder.mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"PAR1 torn")
    whole = pa.table({"key": ["1", "2"], "content": ["a", "b"], "output": ["rare", "good"]})
    pq.write_table(whole, folder / "b.parquet")
    assert purge_cached_answers(folders, {"a"}, ["rare"])
    assert [path.name for path in folder.iterdir()] == ["b.parquet"]
    assert pq.read_table(folder / "b.parquet")["content"].to_pylist() == ["b"]


def test_a_full_disk_ends_the_purge_instead_of_passing_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = Folders(tmp_path)
    folder = folders.predictions / "model"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"key": ["1"], "content": ["a"]}), folder / "a.parquet")

    def full(table: pa.Table, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(answer_cache, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        purge_cached_answers(folders, {"a"}, [])
    assert (folder / "a.parquet").exists()
