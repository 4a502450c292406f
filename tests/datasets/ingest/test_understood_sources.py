"""Sources are taken for what they are, and the report says how, with the argument that would change it."""

from __future__ import annotations

import csv
import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from speciate.datasets import version_rows
from speciate.datasets.gathering import manifests
from speciate.datasets.ingest.ingest import Labels
from speciate.datasets.inspect.contact_sheet import ask_for_contact_sheet
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest, version
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.server.next_actions import after_dataset
from speciate.training import train
from speciate.training.planning.training_plan import plan_training
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests import data

COUNT = 12


def warnings(workspace: Workspace, name: str = "set") -> list[str]:
    return list(version(workspace.database, name).report["warnings"])


def next_task(workspace: Workspace, made: Manifest) -> str:
    *_, last = after_dataset(workspace.database, made.ref)
    return str(last.arguments.get("task"))


def image(path: Path, box: tuple[int, int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 64, 3), 150 + 5 * seed, np.uint8)
    x, y, width, height = box
    pixels[y : y + height, x : x + width] = seed
    Image.fromarray(pixels).save(path)


def tone(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        steps = np.sin(np.arange(1600) * (0.2 + 0.05 * number)) * 9000
        file.writeframes(steps.astype("<i2").tobytes())


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def coco(folder: Path) -> Path:
    boxes = [(4 + i, 6 + 2 * i, 20, 16) for i in range(COUNT)]
    for i, box in enumerate(boxes):
        image(folder / "images" / f"{i:03}.png", box, i)
    document = {
        "images": [{"id": i, "file_name": f"{i:03}.png", "width": 64, "height": 64} for i in range(COUNT)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": i % 2, "bbox": list(box)} for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 0, "name": "pump"}, {"id": 1, "name": "valve"}],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances.json").write_text(json.dumps(document))
    return folder


def test_a_folder_of_coco_is_detection(workspace: Workspace, tmp_path: Path) -> None:
    source = coco(tmp_path / "set")
    made = data.ingest(workspace, "set", source=source)
    assert made.label is None
    assert "target of object-detection" in warnings(workspace)[0]
    assert "label='label'" in warnings(workspace)[0]
    named = data.ingest(workspace, "named", source=source, label="objects")
    assert (named.label, named.id) == (None, made.id)
    classes = data.ingest(workspace, "classes", source=source, label="label")
    assert classes.labels == {"pump": 6, "valve": 6}
    assert plan_training(workspace, "set").candidates[0].method == "full"
    plan = train.plan(TrainSpec(name="m", dataset="set", method="full", base_model="new:vit"), workspace)
    assert (plan.resolved["task"], plan.resolved["target"]) == ("object-detection", "objects")


def test_previews_show_the_boxes(workspace: Workspace, tmp_path: Path) -> None:
    made = data.ingest(workspace, "set", source=coco(tmp_path / "set"))
    pool = Pool(workspace.folders, workspace.settings)
    try:
        sheet = ask_for_contact_sheet(pool, workspace.folders, made, where="source = 'images/000.png'")
    finally:
        pool.close()
    pixels = np.asarray(Image.open(io.BytesIO(sheet.png)))[6:166, 6:166].astype(int)
    colourful = (pixels.max(axis=2) - pixels.min(axis=2)) > 60
    scale = 160 / 64
    left, top = round(4 * scale), round(6 * scale)
    right, bottom = round((4 + 20) * scale), round((6 + 16) * scale)
    assert colourful[top + 5 : bottom - 5, left - 1 : left + 3].any(axis=1).all()
    assert colourful[bottom - 2 : bottom + 2, left + 5 : right - 5].any(axis=0).all()
    assert not colourful[top + 8 : bottom - 8, left + 8 : right - 8].any()


def test_a_folder_as_the_hub_has_it_tells_its_target(workspace: Workspace, tmp_path: Path) -> None:
    rows = []
    for i in range(COUNT):
        image(tmp_path / "set" / f"{i:03}.png", (4, 4, 8 + i, 8), i)
        rows.append({"file_name": f"{i:03}.png", "text": f"a bar that is {8 + i} wide", "shape": "ab"[i % 2]})
    write_rows(tmp_path / "set" / "metadata.csv", rows)
    made = data.ingest(workspace, "set", source=tmp_path / "set")
    assert next_task(workspace, made) == "image-text-to-text"
    assert warnings(workspace)[0] == (
        "The column 'text' holds texts: the target of image-text-to-text. To learn a class instead, call "
        "create_dataset again with label='shape'."
    )
    lists = [
        {"file_name": f"{i:03}.png", "objects": {"bbox": [[4, 4, 8, 8]], "categories": [i % 2]}} for i in range(COUNT)
    ]
    (tmp_path / "set" / "metadata.csv").unlink()
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lists)))
    boxed = data.ingest(workspace, "boxed", source=tmp_path / "set")
    assert next_task(workspace, boxed) == "object-detection"


def manifest_of_three(folder: Path) -> Path:
    rows = []
    for i in range(COUNT):
        image(folder / "img" / f"{i:03}.png", (4, 4, 8 + i, 8), i)
        tone(folder / "snd" / f"{i:03}.wav", i)
        text = f"the machine number {i} as it was seen and heard"
        rows.append({"image": f"img/{i:03}.png", "audio": f"snd/{i:03}.wav", "text": text, "label": "ab"[i % 2]})
    return write_rows(folder / "manifest.csv", rows)


def test_a_table_that_names_files_makes_mixed_rows(workspace: Workspace, tmp_path: Path) -> None:
    table = manifest_of_three(tmp_path / "set")
    made = data.ingest(workspace, "set", source=table)
    assert (made.modality, made.rows, made.label) == ("multimodal", COUNT, "label")
    assert "names files in 'image', 'audio' and holds texts in 'text'" in warnings(workspace)[0]
    assert "modality='tabular'" in warnings(workspace)[0]
    assert next_task(workspace, made) == "multimodal-classification"
    folder = data.ingest(workspace, "folder", source=tmp_path / "set")
    assert folder.id == made.id


def test_inputs_beside_one_column_of_files_are_told_how_mixed_rows_are_made(
    workspace: Workspace, tmp_path: Path
) -> None:
    rows = []
    for i in range(COUNT):
        image(tmp_path / "set" / "img" / f"{i:03}.png", (4, 4, 8 + i, 8), i)
        rows.append({"image": f"img/{i:03}.png", "word": "a few", "label": "ab"[i % 2]})
    table = write_rows(tmp_path / "set" / "manifest.csv", rows)
    made = data.ingest(workspace, "set", source=table, inputs=["image", "word"])
    assert made.modality == "image"
    assert "for mixed rows with 'word', with modality='multimodal'." in warnings(workspace)[0]
    data.ingest(workspace, "alone", source=table)
    assert "mixed rows" not in warnings(workspace, "alone")[0]


@pytest.mark.parametrize(
    ("choice", "modality"),
    [({"modality": "tabular"}, "tabular"), ({"modality": "audio"}, "audio"), ({"inputs": ("image",)}, "image")],
)
def test_the_arguments_that_the_report_names_change_it(
    workspace: Workspace, tmp_path: Path, choice: dict[str, Any], modality: str
) -> None:
    made = data.ingest(workspace, "set", source=manifest_of_three(tmp_path / "set"), **choice)
    assert (made.modality, made.rows, sum(made.labels.values())) == (modality, COUNT, COUNT)
    assert len(load_examples(workspace.folders, made)) == COUNT


def test_folders_are_looked_up_once_for_each_table(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, keys = list[Path](), manifests.config_folder

    def counted() -> Path:
        asked.append(keys())
        return asked[-1]

    monkeypatch.setattr(manifests, "config_folder", counted)
    made = data.ingest(workspace, "set", source=manifest_of_three(tmp_path / "set"))
    assert made.modality == "multimodal"
    assert 0 < len(asked) <= 4 < COUNT


@pytest.mark.parametrize("place", ["linked", ".hidden", "keys"])
def test_no_cell_leads_out_or_to_the_keys_of_a_person(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    real = tmp_path / "elsewhere" if place == "linked" else tmp_path / "set" / place
    for i in range(COUNT):
        image(real / f"{i}.png", (4, 4, 8 + i, 8), i)
    monkeypatch.setattr(manifests, "config_folder", lambda: tmp_path / "set" / "keys")
    if place == "linked":
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / place).symlink_to(real)
    rows = [{"path": f"{place}/{i}.png", "size": i / 4, "kind": "ab"[i % 2]} for i in range(COUNT)]
    made = data.ingest(workspace, "set", source=write_rows(tmp_path / "set" / "table.csv", rows), label="kind")
    assert made.modality == "tabular"


def test_a_table_outside_of_its_files_reads_none_above_it(workspace: Workspace, tmp_path: Path) -> None:
    image(tmp_path / "secret.png", (4, 4, 8, 8), 1)
    rows = [{"path": "../secret.png", "kind": "ab"[i % 2]} for i in range(COUNT)]
    made = data.ingest(workspace, "set", source=write_rows(tmp_path / "set" / "table.csv", rows), label="kind")
    assert made.modality == "tabular"


def test_manifests_for_each_split_are_read_together(workspace: Workspace, tmp_path: Path) -> None:
    table = manifest_of_three(tmp_path / "set")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    table.unlink()
    write_rows(tmp_path / "set" / "train.csv", rows[:9])
    write_rows(tmp_path / "set" / "test.csv", rows[9:])
    made = data.ingest(workspace, "set", source=tmp_path / "set")
    assert (made.modality, made.splits) == ("multimodal", {"train": 9, "test": 3})


def two_tables(folder: Path) -> Path:
    folder.mkdir()
    texts = [{"doc": f"d{i}", "text": f"a report about machine number {i} and its noise"} for i in range(COUNT)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    write_rows(folder / "answers.csv", [{"doc": f"d{i}", "fault": "ab"[i % 2], "site": i % 3} for i in range(COUNT)])
    return folder


def test_two_tables_with_a_plain_key_are_joined(workspace: Workspace, tmp_path: Path) -> None:
    folder = two_tables(tmp_path / "set")
    made = data.ingest(workspace, "set", source=folder, label="fault")
    assert (made.modality, made.rows, made.labels) == ("text", COUNT, {"a": 6, "b": 6})
    assert "joined by 'doc'" in warnings(workspace)[0]
    named = data.ingest(
        workspace, "named", source=folder / "texts.jsonl",
        labels=Labels(path=folder / "answers.csv", key="doc", column="fault"),
    )  # fmt: skip
    assert (named.id, named.labels) == (made.id, made.labels)
    added = [{"doc": "x", "text": "a report about another machine"}]
    (folder / "more.jsonl").write_text(json.dumps(added[0]))
    write_rows(folder / "more.csv", [{"doc": "x", "fault": "a", "site": 1}])
    more = data.ingest(
        workspace, "named", source=folder / "more.jsonl", add=True,
        labels=Labels(path=folder / "more.csv", key="doc", column="fault"),
    )  # fmt: skip
    assert more.labels == {"a": 7, "b": 6}


def test_tables_that_stay_apart_are_a_warning(workspace: Workspace, tmp_path: Path) -> None:
    folder = two_tables(tmp_path / "set")
    write_rows(folder / "answers.csv", [{"doc": f"d{i % 2}", "fault": "ab"[i % 2], "site": i} for i in range(COUNT)])
    data.ingest(workspace, "set", source=folder)
    assert f"source='{folder}/texts.jsonl'" in warnings(workspace)[0]
    assert f"labels={{'path': '{folder}/answers.csv', 'key': 'doc'}}" in warnings(workspace)[0]
    labels = Labels(path=folder / "answers.csv", key="doc", column="fault")
    with pytest.raises(SpeciateError, match=r"several different rows of 'answers\.csv'"):
        data.ingest(workspace, "other", source=folder / "texts.jsonl", labels=labels)


def test_a_file_that_cannot_be_used_has_the_group_of_its_name_too(workspace: Workspace, tmp_path: Path) -> None:
    """A purge of a patient finds by the group what nobody can read, and copies."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(scans / f"p{number}_first.png")
    (scans / "p1_copy.png").write_bytes((scans / "p1_first.png").read_bytes())
    (scans / "p2_cut.png").write_bytes((scans / "p2_first.png").read_bytes()[:40])
    (scans / "p3_empty.png").write_bytes(b"")
    manifest = data.ingest(workspace, "scans", source=scans, group_by=r"(p\d+)_")
    rows = version_rows.read(workspace.folders, manifest).to_pylist()
    found = {row["source"]: (row["group_key"], row["quality"]) for row in rows}
    assert found["p2_cut.png"] == ("p2", "partial")
    assert found["p3_empty.png"] == ("p3", "error")
    assert found["p1_first.png"] == ("p1", "ok")
    assert {group for name, (group, _) in found.items() if name.startswith("p1")} == {"p1"}


def test_columns_of_lists_that_are_named_are_the_channels_of_one_series(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "moves"
    source.mkdir()
    steps = np.random.default_rng(0).normal(size=(3, COUNT, 16))
    columns = {name: values.tolist() for name, values in zip(("x", "y", "z"), steps, strict=True)}
    pq.write_table(pa.table({**columns, "label": ["a", "b"] * (COUNT // 2)}), source / "moves.parquet")
    made = data.ingest(workspace, "set", source=source, modality="time-series", inputs=("z", "x"))
    assert made.inputs == ("series",)
    stored = version_rows.read(workspace.folders, made, ["series", "y"]).to_pylist()
    wanted = [{"series": [z.tolist(), x.tolist()], "y": y.tolist()} for x, y, z in zip(*steps, strict=True)]
    assert sorted(map(str, stored)) == sorted(map(str, wanted))
    with pytest.raises(SpeciateError, match="names 'w', and the source has no such column"):
        data.ingest(workspace, "other", source=source, modality="time-series", inputs=("x", "w"))


@pytest.mark.parametrize("prefix", ["../pictures", "{tmp_path}/pictures"])
def test_a_table_that_names_files_outside_its_folder_says_so_and_follows_none(
    workspace: Workspace, tmp_path: Path, prefix: str
) -> None:
    for i in range(COUNT):
        image(tmp_path / "pictures" / f"{i:02}.png", (8, 8, 20, 20), i)
    table = tmp_path / "tables" / "labels.csv"
    table.parent.mkdir()
    folder = prefix.format(tmp_path=tmp_path)
    lines = [f"{folder}/{i:02}.png,{'odd' if i % 2 else 'even'},{i}" for i in range(COUNT)]
    table.write_text("\n".join(["path,kind,number", *lines]))
    made = data.ingest(workspace, "set", source=table, label="kind")
    assert made.modality in ("tabular", "text"), "cells, whatever they are read as"
    assert made.packs == (), "no file is read"
    (told,) = [each for each in warnings(workspace) if "outside the folder" in each]
    assert "The column 'path' names files outside the folder of 'labels.csv'" in told
    assert f"labels={{'path': '{table}', 'key': 'path'" in told
    labels = Labels(path=table, key="path", column="kind")
    read = data.ingest(workspace, "images", source=tmp_path / "pictures", labels=labels)
    assert (read.modality, read.labels) == ("image", {"even": 6, "odd": 6})


def test_a_table_of_plain_words_is_not_said_to_name_files(workspace: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text("text,kind\n" + "\n".join(f"see ../notes for more {i}.,{'ab'[i % 2]}" for i in range(COUNT)))
    data.ingest(workspace, "set", source=table, label="kind")
    assert not [each for each in warnings(workspace) if "outside the folder" in each]
