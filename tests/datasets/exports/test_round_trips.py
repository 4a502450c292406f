"""What is exported and made a dataset again is the same version, in every format that can carry all of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, KEY, ORIGIN
from speciate.datasets.versions import Manifest, resolve
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.exports.worlds import seal
from tests.modalities import protein_samples
from tests.modalities.mesh_samples import ball, cloud_ply
from tests.modalities.samples import encode

pytestmark = pytest.mark.slow

Source = Callable[[Workspace, Path], Manifest]


def images(workspace: Workspace, folder: Path) -> Manifest:
    source = data.digit_folder(folder / "digits", 30, classes=3)
    (source / "0" / "größe ☃.png").write_bytes(next((source / "0").glob("0*.png")).read_bytes())
    return data.ingest(workspace, "digits", source=source, label="folder")


def texts_of_a_table(workspace: Workspace, folder: Path) -> Manifest:
    rows = data.review_rows(40)
    rows[0]["film"], rows[1]["text"] = "007", 'Quotes ", commas,\r\nlines, 你好 and an emoji \N{SNOWMAN}.'
    return data.ingest(workspace, "reviews", rows=tuple(rows), label="label", group_by="film")


def texts_in_files(workspace: Workspace, folder: Path) -> Manifest:
    for i, row in enumerate(data.review_rows(20)):
        path = folder / "texts" / str(row["label"]) / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"\ufeff{row['text']}", encoding="utf-8")
    return data.ingest(workspace, "texts", source=folder / "texts", label="folder", modality="text")


def measurements(workspace: Workspace, folder: Path) -> Manifest:
    return data.ingest(workspace, "tumours", source=data.tumour_csv(folder / "t.csv", 60), label="diagnosis")


def fractions(workspace: Workspace, folder: Path) -> Manifest:
    rows = tuple({"x": i, "z": i / 3, "flag": i % 3 == 0, "y": i / 7} for i in range(40))
    return data.ingest(workspace, "fractions", rows=rows, label="y")


def series(workspace: Workspace, folder: Path) -> Manifest:
    return data.ingest(workspace, "moves", source=data.series_ts(folder / "moves", 30), label="label")


def peptides(workspace: Workspace, folder: Path) -> Manifest:
    return data.ingest(workspace, "peptides", source=data.peptide_fasta(folder / "p.fasta", 40), label="kind")


def awkward(workspace: Workspace, folder: Path) -> Manifest:
    """Classes, groups and cells that a reader of text could take for something else."""
    rows = tuple(
        {"text": f"- a line about {word}, number {i}, which is long enough", "kind": kind, "site": f"{i // 3:03}",
         "code": f"{i}", "note": note}
        for i, (word, kind, note) in enumerate(zip(["tea", "rice"] * 15, ["-1", "@home", "007"] * 10,
                                                   ["=1+1", "'=1", "'plain", "1e5", "+3"] * 6, strict=True))
    )  # fmt: skip
    return data.ingest(workspace, "awkward", rows=rows, label="kind", group_by="site", inputs=("text",))


def audio_clips(workspace: Workspace, folder: Path) -> Manifest:
    import soundfile

    rng = np.random.default_rng(0)
    for i in range(12):
        path = folder / "audio" / ("low", "high")[i % 2] / f"bird{i // 3}-{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(16_000 + 800 * i) / (20, 4)[i % 2]) + rng.normal(0, 0.1, 16_000 + 800 * i)
        soundfile.write(path, tone / 2, 16_000)
    return data.ingest(workspace, "audio", source=folder / "audio", label="folder", group_by=r"(bird\d+)")


def mixed_rows(workspace: Workspace, folder: Path) -> Manifest:
    """Some lack their text, and one part says in its name what it is."""
    rng = np.random.default_rng(0)
    for i in range(24):
        below = folder / "mixed" / "ab"[i % 2] / f"case {i:02}"
        below.mkdir(parents=True)
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        (below / "scan.png").write_bytes(encode(Image.fromarray(pixels)))
        (below / "cloud.point-cloud.ply").write_bytes(cloud_ply(ball(i)))
        (below / "pulse.csv").write_text("x\n" + "".join(f"{value:.3f}\n" for value in rng.normal(size=30)))
        if i % 5:
            (below / "report.txt").write_text(f"what was seen in case {i}")
    return data.ingest(workspace, "mixed", source=folder / "mixed", modality="multimodal", label="folder")


CASES = [
    *((images, name) for name in ("folder", "parquet", "hf", "webdataset")),
    (texts_in_files, "folder"),
    *((texts_of_a_table, name) for name in ("parquet", "csv", "jsonl", "hf", "webdataset")),
    *((measurements, name) for name in ("parquet", "csv")),
    *((fractions, name) for name in ("csv", "jsonl", "hf", "webdataset")),
    *((series, name) for name in ("parquet", "jsonl", "webdataset")),
    *((awkward, name) for name in ("csv", "jsonl")),
    *((mixed_rows, name) for name in ("folder", "webdataset", "parquet")),
    (audio_clips, "folder"),
    (peptides, "csv"),
]
ALWAYS = {
    (images, "webdataset"), (texts_of_a_table, "parquet"), (measurements, "csv"), (fractions, "jsonl"),
    (series, "parquet"), (awkward, "csv"), (mixed_rows, "parquet"),
    (audio_clips, "folder"), (texts_in_files, "folder"), (texts_of_a_table, "hf"),
}  # fmt: skip
"""Each source and each format at least once; the others are slow together."""


def export(workspace: Workspace, dataset: str, format_: str, path: Path) -> dict[str, Any]:
    return data.run_job(workspace, "export", dataset=dataset, format=format_, path=path)


@pytest.mark.parametrize(
    ("source", "format_"),
    [
        pytest.param(*case, id=f"{case[0].__name__}-{case[1]}", marks=() if case in ALWAYS else pytest.mark.slow)
        for case in CASES
    ],
)
def test_the_same_version_comes_back(source: Source, format_: str, workspace: Workspace, tmp_path: Path) -> None:
    made = source(workspace, tmp_path)
    report = export(workspace, made.name, format_, tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    assert again.id == made.id
    assert (again.modality, again.inputs, again.splits) == (made.modality, made.inputs, made.splits)


@pytest.mark.parametrize("format_", ["csv", "hf"])
def test_texts_in_files_come_back_as_a_column(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    """Their bytes differ from the text (a mark of the encoding), so that the version is another one."""
    made = texts_in_files(workspace, tmp_path)
    report = export(workspace, made.name, format_, tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    assert (again.inputs, again.splits, again.labels) == (("text",), made.splits, made.labels)
    found = version_rows.read(workspace.folders, again, ["text"])["text"].to_pylist()
    assert sorted(found) == sorted(row["text"] for row in data.review_rows(20))


def test_peptides_come_back_from_fasta_with_label_and_split_in_the_header(workspace: Workspace, tmp_path: Path) -> None:
    made = peptides(workspace, tmp_path)
    report = export(workspace, made.name, "fasta", tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    wanted = ["sequence", "label", "split"]
    old, new = (version_rows.read(workspace.folders, each, wanted).to_pylist() for each in (made, again))
    assert sorted(map(str, new)) == sorted(map(str, old))


def test_columns_and_what_they_hold_come_back_from_fasta(workspace: Workspace, tmp_path: Path) -> None:
    notes = ["from a frog", 'said "so"', "plain", None, "=1", '"']
    rows = tuple(
        {"sequence": "MKLVAGHE" + "ACDEFGHIKL"[i] * 4, "name": f"pep {i}", "note": notes[i % 6], "tm": 40 + i / 4,
         "code": f"{i:03}", "description": f"number {i}"}
        for i in range(10)
    )  # fmt: skip
    made = data.ingest(workspace, "noted", rows=rows, label="tm", inputs=("sequence",))
    report = export(workspace, made.name, "fasta", tmp_path / "out")["report"]
    again = data.ingest(workspace, "again", **report["create_again"])
    wanted = ["sequence", "note", "tm", "code", "description", "split"]
    old, new = (version_rows.read(workspace.folders, each, wanted).to_pylist() for each in (made, again))
    assert sorted(map(str, new)) == sorted(map(str, old))


def test_structures_leave_as_the_sequences_of_their_chains(workspace: Workspace, tmp_path: Path) -> None:
    for name, chains in (("one", "A"), ("two", "BM")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.pdb").write_bytes(protein_samples.pdb(protein_samples.small(chains)))
    made = data.ingest(workspace, "globins", source=tmp_path / "in")
    assert (made.modality, made.inputs) == ("protein", ())
    report = export(workspace, made.name, "fasta", tmp_path / "out")["report"]
    assert any("format folder" in note for note in report["notes"])
    again = data.ingest(workspace, "again", source=tmp_path / "out" / "data")
    rows = version_rows.read(workspace.folders, again, ["name", "structure", "residues", "sequence"]).to_pylist()
    assert sorted((row["name"], row["structure"], row["residues"]) for row in rows) == [
        ("one", None, 40), ("two.1", "two", 80), ("two.2", "two", 80),
    ]  # fmt: skip
    assert {len(row["sequence"]) for row in rows} == {40}


@pytest.mark.parametrize("format_", ["csv", "hf"])
def test_one_split_keeps_its_name(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    made = measurements(workspace, tmp_path)
    report = export(workspace, f"{made.ref}:test", format_, tmp_path / "out")["report"]
    assert report["splits"] == {"test": made.splits["test"]}
    again = data.ingest(workspace, "again", **report["create_again"])
    assert again.splits == {"test": made.splits["test"]}


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_windows_of_audio_come_back(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    audio_clips(workspace, tmp_path)
    cut = data.run_job(workspace, "curate", dataset="audio", steps=[{"op": "window", "seconds": 0.5}])
    made = resolve(workspace.database, cut["dataset"])
    notes = export(workspace, made.ref, format_, tmp_path / "out")["report"]["notes"]
    assert [note for note in notes if "do not come back" in note] == []
    again = data.ingest(workspace, "again", source=tmp_path / "out")
    assert again.rows == made.rows > 12
    assert again.id == made.id
    rows = version_rows.read(workspace.folders, again, [ORIGIN, CONTENT, KEY]).to_pylist()
    assert all(row[ORIGIN] == row[CONTENT] != row[KEY] for row in rows)  # a file that is forgotten takes its windows


def test_windows_in_a_folder_come_back_as_whole_audio(workspace: Workspace, tmp_path: Path) -> None:
    made = audio_clips(workspace, tmp_path)
    cut = data.run_job(workspace, "curate", dataset="audio", steps=[{"op": "window", "seconds": 0.5}])
    report = export(workspace, cut["dataset"], "folder", tmp_path / "out")["report"]
    assert "the windows do not come back" in report["notes"][-1]
    assert data.ingest(workspace, "again", **report["create_again"]).id == made.id


@pytest.mark.parametrize(("format_", "remark"), [("csv", ""), ("jsonl", None)])
def test_what_csv_cannot_say_is_noted(format_: str, remark: str | None, workspace: Workspace, tmp_path: Path) -> None:
    rows = [row | {"remark": None if i == 3 else f"remark {i}"} for i, row in enumerate(data.review_rows(20))]
    data.ingest(workspace, "set", rows=rows, label="label", inputs=("text",))
    report = export(workspace, "set", format_, tmp_path / "out")["report"]
    assert [note for note in report["notes"] if "no NULL: 1 cells" in note] == report["notes"][: remark == ""]
    again = data.ingest(workspace, "again", **report["create_again"])
    found = version_rows.read(workspace.folders, again, ["remark"])["remark"].to_pylist()
    assert sorted(map(str, found)) == sorted(str(remark if row["remark"] is None else row["remark"]) for row in rows)


def test_an_export_in_an_archive_comes_back(workspace: Workspace, tmp_path: Path) -> None:
    made = images(workspace, tmp_path)
    export(workspace, made.name, "folder", tmp_path / "out")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "out")
    assert data.ingest(workspace, "again", source=packed).id == made.id


@pytest.mark.parametrize("format_", ["csv", "hf"])
def test_excluded_rows_are_no_examples(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    rows = data.review_rows(12)
    seal(workspace, "reviews", [*({**row, "split": "train"} for row in rows[:11]), {**rows[11], "quality": "error"}],
         inputs=("text",), label="label")  # fmt: skip
    export(workspace, "reviews", format_, tmp_path / "out")
    assert (tmp_path / "out" / "set_aside.csv").exists()
    again = data.ingest(workspace, "again", source=tmp_path / "out")
    assert (again.rows, again.splits, again.labels) == (11, {"train": 11}, {"good": 6, "bad": 5})


def test_arguments_override_the_export(workspace: Workspace, tmp_path: Path) -> None:
    texts_of_a_table(workspace, tmp_path)
    export(workspace, "reviews", "csv", tmp_path / "out")
    again = data.ingest(workspace, "again", source=tmp_path / "out", label="film")
    assert (again.label, again.inputs, "good" in again.labels) == ("film", ("text",), False)


def test_rows_are_added_to_an_export_that_came_back(workspace: Workspace, tmp_path: Path) -> None:
    """Its roles are those of the dataset from then on."""
    texts_of_a_table(workspace, tmp_path)
    export(workspace, "reviews", "jsonl", tmp_path / "out")
    data.ingest(workspace, "again", source=tmp_path / "out")
    row = {"text": "A quiet film about a lighthouse, seen twice.", "label": "good", "film": "film-x"}
    grown = data.ingest(workspace, "again", rows=(row,), add=True)
    added = version_rows.read(workspace.folders, grown).to_pylist()
    assert [(each["label"], each["group_key"]) for each in added if each["film"] == "film-x"] == [("good", "film-x")]


@pytest.mark.parametrize("marker", ["not json", '["a"]', '{"format": "csv"}', '{"again": "../..", "modality": "text"}'])
def test_an_invalid_marker_is_ignored(marker: str, workspace: Workspace, tmp_path: Path) -> None:
    data.review_csv(tmp_path / "source" / "reviews.csv", 12)
    (tmp_path / "source" / "speciate.json").write_text(marker)
    assert data.ingest(workspace, "reviews", source=tmp_path / "source", label="label").labels == {"good": 6, "bad": 6}
