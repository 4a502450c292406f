"""Exports as the libraries read them that they are made for."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.datasets import version_rows
from speciate.datasets.exports.format import class_names, collect_content
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.exports.worlds import seal

datasets = pytest.importorskip("datasets")


def image(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def images(workspace: Workspace, **more: Any) -> None:
    """Six in two splits and two classes; a brightness of 10 per place."""
    rows = [
        {"source": f"{i}.png", "label": "cat" if i % 2 else "dog", "split": "train" if i < 4 else "test", "width": 8,
         "height": 6, **{name: values[i] for name, values in more.items()}}
        for i in range(6)
    ]  # fmt: skip
    seal(workspace, "pets", rows, media=[image(10 * i) for i in range(6)], label="folder")


def export(workspace: Workspace, format_: str, path: Path, dataset: str = "pets") -> dict[str, Any]:
    return data.run_job(workspace, "export", dataset=dataset, format=format_, path=path)["report"]


@pytest.mark.filterwarnings("ignore")  # of a third party's library
@pytest.mark.parametrize("format_", ["hf", "parquet", "folder"])
def test_images_in_hugging_face_datasets(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    images(workspace)
    path = tmp_path / "out"
    export(workspace, format_, path)
    if format_ == "hf":
        found = datasets.load_from_disk(str(path))
        assert found["train"].features["label"].names == ["cat", "dog"]
        named = found["train"].features["label"].int2str
    else:
        found = datasets.load_dataset(str(path), cache_dir=str(tmp_path / "cache"))
        named = str
    assert {name: rows.num_rows for name, rows in found.items()} == {"train": 4, "test": 2}
    assert isinstance(found["train"].features["image"], datasets.Image)
    for row in found["train"]:
        place = np.asarray(row["image"])[0, 0, 0] // 10
        assert named(row["label"]) == ("cat" if place % 2 else "dog")
    gc.collect()  # the library leaves files open: what the collector says of them belongs to this test


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "hf"])
def test_a_table_in_hugging_face_datasets(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"x": i / 3, "n": i, "text": f"text {i}", "split": "train" if i < 5 else "my-own"} for i in range(8)]
    seal(workspace, "table", rows, modality="tabular", inputs=("x", "n", "text"))
    export(workspace, format_, tmp_path / "out", "table")
    if format_ == "hf":
        found = datasets.load_from_disk(str(tmp_path / "out"))
    else:
        found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in found.items()} == {"train": 5, "my_own": 3}
    assert found["my_own"]["n"][:] == [5, 6, 7]
    assert found["my_own"]["x"][:] == [5 / 3, 2.0, 7 / 3]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format_", ["parquet", "hf"])
def test_splits_that_the_hub_would_call_the_same_stay_apart(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    names = ["my-own", "my own", "my_own", "MY:own", "MY*own"]
    seal(workspace, "odd", [{"text": name, "split": name} for name in names], inputs=("text",))
    export(workspace, format_, tmp_path / "out", "odd")
    if format_ == "hf":
        found = datasets.load_from_disk(str(tmp_path / "out"))
    else:
        found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert sorted(row["text"] for part in found.values() for row in part) == sorted(names)


@pytest.mark.filterwarnings("ignore")
def test_rows_without_a_split_are_one_hugging_face_dataset(workspace: Workspace, tmp_path: Path) -> None:
    seal(workspace, "plain", [{"text": "one"}, {"text": "two"}], inputs=("text",))
    export(workspace, "hf", tmp_path / "out", "plain")
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert found["text"][:] == ["one", "two"]


@pytest.mark.filterwarnings("ignore")
def test_audio_in_hugging_face_datasets(workspace: Workspace, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(1600), 16_000, format="WAV")
    seal(workspace, "calls", [{"source": "a.wav", "split": "train"}], media=[buffer.getvalue()], modality="audio")
    export(workspace, "hf", tmp_path / "out", "calls")
    found = datasets.load_from_disk(str(tmp_path / "out"))["train"]
    assert isinstance(found.features["audio"], datasets.Audio)
    (row,) = found.cast_column("audio", datasets.Audio(decode=False))
    assert row["audio"]["bytes"] == buffer.getvalue()


def test_shards_are_plain_tar_files_with_a_key_per_example(workspace: Workspace, tmp_path: Path) -> None:
    images(workspace)
    export(workspace, "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "data" / "train-000000.tar") as tar:
        members = tar.getmembers()
        assert {(each.mtime, each.uid, each.uname) for each in members} == {(0, 0, "")}
        assert [each.name for each in members][:3] == ["ex-0000.png", "ex-0000.cls", "ex-0000.json"]
    classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    assert classes == ["cat", "dog"]


@pytest.mark.filterwarnings("ignore")
def test_shards_in_webdataset(workspace: Workspace, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    images(workspace)
    export(workspace, "webdataset", tmp_path / "out")
    found = webdataset.WebDataset(str(tmp_path / "out" / "data" / "train-000000.tar"), shardshuffle=False).decode("pil")
    rows = list(found)
    assert len(rows) == 4
    for row in rows:
        place = np.asarray(row["png"])[0, 0, 0] // 10
        assert row["cls"] == (0 if place % 2 else 1)
        assert row["json"]["label"] == ("cat" if place % 2 else "dog")


@pytest.mark.filterwarnings("ignore")
def test_shards_in_hugging_face_datasets(workspace: Workspace, tmp_path: Path) -> None:
    images(workspace)
    export(workspace, "webdataset", tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: part.num_rows for name, part in found.items()} == {"train": 4, "test": 2}


def test_texts_in_shards(workspace: Workspace, tmp_path: Path) -> None:
    seal(workspace, "texts", [{"text": "größe", "split": "train"}], inputs=("text",))
    export(workspace, "webdataset", tmp_path / "out", "texts")
    with tarfile.open(tmp_path / "out" / "data" / "train-000000.tar") as tar:
        assert tar.getnames() == ["ex-0000.txt", "ex-0000.json"]
        assert tar.extractfile("ex-0000.txt").read() == "größe".encode()  # type: ignore[union-attr]  # it is a file


_BOXES = [{"bbox": [1.0, 2.0, 3.0, 4.0], "category": "ear", "segmentation": "[[1, 2, 3, 4, 5, 6]]"}]


@pytest.mark.parametrize(
    "objects",
    [_BOXES, json.dumps(_BOXES), {"bbox": [[1, 2, 3, 4]], "categories": ["ear"]}],
    ids=["list", "json", "columns"],
)
def test_boxes_as_coco(objects: Any, workspace: Workspace, tmp_path: Path) -> None:
    images(workspace, objects=[objects] * 6)
    export(workspace, "coco", tmp_path / "out")
    below = tmp_path / "out" / "data"
    found = json.loads((below / "annotations" / "instances_train.json").read_text())
    assert found["categories"] == [{"id": 1, "name": "ear"}]
    assert found["images"][0] == {"id": 1, "file_name": "0.png", "width": 8, "height": 6}
    assert (below / "train_images" / "0.png").read_bytes() == image(0)
    first = found["annotations"][0]
    assert (first["image_id"], first["category_id"], first["bbox"], first["area"]) == (1, 1, [1, 2, 3, 4], 12)
    assert [each["id"] for each in found["annotations"]] == [1, 2, 3, 4]
    if not isinstance(objects, dict):
        assert first["segmentation"] == [[1, 2, 3, 4, 5, 6]]


def test_coco_comes_back_with_its_boxes(workspace: Workspace, tmp_path: Path) -> None:
    images(workspace, objects=[_BOXES] * 6)
    report = export(workspace, "coco", tmp_path / "out")
    again = data.ingest(workspace, "again", **{**report["create_again"], "label": None})
    assert again.splits == {"train": 4, "test": 2}
    assert "objects" in again.columns


def test_an_object_without_a_box_is_left_out_and_counted(workspace: Workspace, tmp_path: Path) -> None:
    images(workspace, objects=[[{"bbox": [1.0], "category": "ear"}]] * 6)
    report = export(workspace, "coco", tmp_path / "out")
    assert report["notes"] == ["6 objects without a box of four numbers were left out."]


def test_classes_beyond_those_that_a_manifest_lists_leave_too(workspace: Workspace) -> None:
    rows = [{"text": f"text {i}", "label": f"class {i}", "split": "train"} for i in range(3)]
    made = seal(workspace, "many", rows, inputs=("text",), label="label").model_copy(update={"labels": {"class 1": 1}})
    assert class_names(collect_content(made, version_rows.read(workspace.folders, made), None)) == [
        "class 0",
        "class 1",
        "class 2",
    ]


def test_media_that_are_json_lie_beside_their_columns_in_shards(workspace: Workspace, tmp_path: Path) -> None:
    rows = [{"source": f"{i}.json", "split": "train", "site": f"s{i}"} for i in range(3)]
    media = [json.dumps({"x": i}).encode() for i in range(3)]
    seal(workspace, "readings", rows, media=media, modality="tabular")
    export(workspace, "webdataset", tmp_path / "out", "readings")
    with tarfile.open(next((tmp_path / "out" / "data").iterdir())) as shard:
        found = {member.name: json.load(shard.extractfile(member) or io.BytesIO()) for member in shard}
        assert len(shard.getnames()) == len(found) == 6
    assert [found[f"ex-{i:04}.medium.json"] for i in range(3)] == [{"x": i} for i in range(3)]
    assert [found[f"ex-{i:04}.json"]["site"] for i in range(3)] == ["s0", "s1", "s2"]


def test_boxes_of_a_model_in_pycocotools(workspace: Workspace, tmp_path: Path) -> None:
    """Answers as results, beside the boxes that the dataset has."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    objects = [json.dumps([{"bbox": [1, 1, 4, 3], "category": "eye"}]) for _ in range(6)]
    found = [json.dumps([{"box": [1, 1, 4, 3], "label": "eye", "score": 0.9}]) for _ in range(5)] + ["[]"]
    images(workspace, objects=objects, found=found)
    spec = {"dataset": "pets", "format": "coco", "path": tmp_path / "out", "column": "found"}
    data.run_job(workspace, "export", **spec)
    for split, recalled in (("train", 1.0), ("test", 0.5)):
        below = tmp_path / "out" / "data" / "annotations"
        known = coco.COCO(str(below / f"instances_{split}.json"))
        judged = evaluation.COCOeval(known, known.loadRes(str(below / f"predictions_{split}.json")), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        assert judged.stats[8] == pytest.approx(recalled)


def test_boxes_of_a_model_without_any_that_are_known(workspace: Workspace, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    images(workspace, found=[[{"box": [0, 0, 2, 2], "label": "ear", "score": 0.5}]] * 6)
    spec = {"dataset": "pets", "format": "coco", "path": tmp_path / "out", "column": "found"}
    data.run_job(workspace, "export", **spec)
    below = tmp_path / "out" / "data" / "annotations"
    known = coco.COCO(str(below / "instances_test.json"))
    assert [each["name"] for each in known.cats.values()] == ["ear"]
    assert len(known.loadRes(str(below / "predictions_test.json")).anns) == 2
