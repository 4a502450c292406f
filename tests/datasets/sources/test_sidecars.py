"""Labels that lie beside images, found without being named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from speciate.datasets.sources.labels import LabelsFile
from speciate.datasets.sources.listing import Listing
from speciate.datasets.sources.prepare import prepare_source
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import SpeciateError
from tests.datasets.source_context import source_context


@pytest.fixture
def context(tmp_path: Path) -> Iterator[SourceContext]:
    with source_context(tmp_path) as made:
        yield made


def images(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(folder / name)
    return folder


def labels(found: Listing) -> dict[str, dict[str, Any]]:
    assert found.labels is not None
    return dict(zip((file.name for file in found.files), found.labels.to_pylist(), strict=True))


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "what_is_seen.json"])
def test_a_table_with_file_names(context: SourceContext, tmp_path: Path, name: str) -> None:
    folder = images(tmp_path / "set", "1.png", "007.png", "3.png")
    rows = [{"file_name": "1.png", "kind": "cat"}, {"file_name": "007.png", "kind": "dog"}]
    if name.endswith(".csv"):
        (folder / name).write_text("file_name,kind\n1.png,cat\n007.png,dog\nlost.png,dog\n")
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    else:
        (folder / name).write_text("\n".join(map(json.dumps, rows)) if name.endswith("l") else json.dumps(rows))
    found = prepare_source(folder, context)
    assert labels(found) == {"1.png": {"kind": "cat"}, "007.png": {"kind": "dog"}, "3.png": {"kind": None}}
    assert found.modality == "image"
    assert found.excluded == []
    assert found.notes == (
        ("'metadata.csv': a row names a file that is not there: 'lost.png'.",) if name.endswith(".csv") else ()
    )


def test_a_table_in_each_folder_of_a_split(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", "train/1.png", "train/2.png", "test/1.png")
    (folder / "train" / "metadata.csv").write_text("file_name,kind\n1.png,cat\n2.png,dog\n")
    (folder / "test" / "metadata.csv").write_text("file_name,kind,seen\n1.png,dog,yes\n")
    found = prepare_source(folder, context)
    assert [(file.name, file.split) for file in found.files] == [
        ("test/1.png", "test"), ("train/1.png", "train"), ("train/2.png", "train"),
    ]  # fmt: skip
    assert [row["kind"] for row in labels(found).values()] == ["dog", "cat", "dog"]
    assert labels(found)["train/1.png"]["seen"] is None


def test_a_column_split_of_labels_is_the_split(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", "1.png", "2.png")
    (folder / "metadata.csv").write_text("file_name,split,kind\n1.png,training,a\n2.png,val,b\n")
    found = prepare_source(folder, context)
    assert [file.split for file in found.files] == ["train", "validation"]
    assert labels(found)["1.png"] == {"kind": "a"}


def test_ambiguous_tables_are_not_used_and_the_reason_is_given(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", "a/1.png", "b/1.png", "b/2.png", "b/3.png", "b/4.png", "b/5.png", "b/6.png")
    (folder / "metadata.csv").write_text("file_name,kind\n1.png,cat\n")
    (folder / "other.csv").write_text("x,y\n1,2\n")
    (folder / "strangers.csv").write_text("file_name,kind\nlost.png,cat\n")
    (folder / "use.csv").write_text("file_name,kind\nb/2.png,cat\n")
    (folder / "use_again.csv").write_text("file_name,kind\nb/2.png,dog\n")
    (folder / "broken.json").write_text("{")
    found = prepare_source(folder, context, modality="image")
    assert [row["kind"] for row in labels(found).values()] == [None, None, "cat", None, None, None, None]
    assert {name: reason.partition(":")[0] for name, reason in found.excluded} == {
        "metadata.csv": "A table beside media that is not used",
        "other.csv": "A table beside media without a column 'file_name'",
        "strangers.csv": "A table beside media whose 'file_name' names none of them.",
        "use_again.csv": "It labels files that 'use.csv' labels already.",
        "broken.json": "A table beside media that is not used",
    }


def coco(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {
        "images": [{"id": i, "file_name": name, "width": 8, "height": 8} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": 9, "image_id": i, "category_id": 1 + i % 2, "bbox": [1, 1, 2, 3], "iscrowd": 0}
            for i in range(len(names))
        ] + [{"id": 10, "image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1]}],
    }  # fmt: skip
    path.write_text(json.dumps(value))


def test_coco_beside_its_images(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", *(f"images/{s}2017/{i}{s}.png" for s in ("train", "val") for i in range(3)))
    coco(folder / "annotations" / "instances_train2017.json", "0train.png", "1train.png", "gone.png")
    coco(folder / "annotations" / "instances_val2017.json", "0val.png")
    found = prepare_source(folder, context, modality="image")
    seen = labels(found)
    assert {name.rpartition("/")[2]: row["label"] for name, row in seen.items()} == {
        "0train.png": "cat", "1train.png": "dog", "2train.png": None,
        "0val.png": "cat", "1val.png": None, "2val.png": None,
    }  # fmt: skip
    assert seen["images/train2017/0train.png"]["objects"] == [
        {"category": "cat", "bbox": [1, 1, 2, 3], "area": 6, "iscrowd": False, "segmentation": None}
    ]
    assert {file.split for file in found.files} == {"train", "validation"}
    assert "'instances_train2017.json': a row names a file that is not there: 'gone.png'." in found.notes
    assert any("1 annotation(s) name an image that is not in the file" in note for note in found.notes)


def test_labels_that_are_named_may_be_json_by_key(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", "1.png", "2.png")
    (folder / "metadata.csv").write_text("file_name,kind\n1.png,other\n")
    (tmp_path / "kinds.json").write_text(json.dumps({"1.png": "cat", "2": "dog"}))
    found = prepare_source(folder, context, labels=LabelsFile(tmp_path / "kinds.json", "key"))
    assert [row["value"] for row in labels(found).values()] == ["cat", "dog"]
    assert [name for name, _ in found.excluded] == ["metadata.csv"]


def test_labels_named_as_coco(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", "1.png", "2.png")
    coco(tmp_path / "boxes.json", "1.png", "2.png")
    found = prepare_source(folder, context, labels=LabelsFile(tmp_path / "boxes.json", "file_name"))
    assert [row["label"] for row in labels(found).values()] == ["cat", "dog"]


def test_labels_for_a_table_are_joined_later_and_in_no_table_refused(context: SourceContext, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    wanted = LabelsFile(tmp_path / "b.csv", "a")
    assert prepare_source(tmp_path / "a.csv", context, labels=wanted).join == wanted
    folder = images(tmp_path / "set", "1.png")
    (tmp_path / "labels.docx").write_bytes(b"x")
    with pytest.raises(SpeciateError, match="is not a CSV, JSON"):
        prepare_source(folder, context, labels=LabelsFile(tmp_path / "labels.docx", "a"))


def test_sidecars_in_an_archive(context: SourceContext, tmp_path: Path) -> None:
    folder = images(tmp_path / "set", "train/1.png", "test/1.png")
    (folder / "metadata.csv").write_text("file_name,kind\ntrain/1.png,cat\ntest/1.png,dog\n")
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    found = prepare_source(tmp_path / "packed.zip", context)
    assert labels(found) == {"test/1.png": {"kind": "dog"}, "train/1.png": {"kind": "cat"}}
