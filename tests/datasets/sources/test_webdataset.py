"""Tars in which members with one key are one example, as other tools than ours write them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from speciate.datasets import version_rows
from speciate.datasets.sources.webdataset import is_shard
from speciate.workspace.workspace import Workspace
from tests import data


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_images_with_classes_and_captions(workspace: Workspace, tmp_path: Path) -> None:
    images = sorted(data.digit_folder(tmp_path / "digits", 20, classes=2).rglob("*.png"))
    for name, part in (
        ("train-000000", images[:8]),
        ("train-000001", images[8:14]),
        ("test-000000", images[14:]),
    ):
        members: dict[str, bytes] = {}
        for i, image in enumerate(part):
            members[f"a/{i:03}.png"] = image.read_bytes()
            members[f"a/{i:03}.cls"] = image.parent.name.encode()
            members[f"a/{i:03}.txt"] = f"a drawing of {image.parent.name}".encode()
            members[f"a/{i:03}.json"] = json.dumps({"site": i}).encode() if i else b"{broken"
        shard(tmp_path / "shards" / f"{name}.tar", members)
    made = data.ingest(workspace, "digits", source=tmp_path / "shards", label="label")
    assert (made.modality, made.splits) == ("image", {"train": 12, "test": 5})
    rows = version_rows.read(workspace.folders, made).to_pylist()
    assert {row["quality"] for row in rows} == {"ok", "partial"}  # what of an image could not be read: no label
    told = [row for row in rows if row["quality"] == "ok"]
    assert len(told) == 17
    assert all(row["text"] == f"a drawing of {row['label']}" and row["site"] > 0 for row in told)


def test_rows_of_text(workspace: Workspace, tmp_path: Path) -> None:
    members = {}
    for i, row in enumerate(data.review_rows(10)):
        members |= {f"{i}.txt": str(row["text"]).encode(), f"{i}.cls": str(i % 2).encode()}
    shard(tmp_path / "reviews.tar", members)
    made = data.ingest(workspace, "reviews", source=tmp_path / "reviews.tar", label="label")
    assert (made.modality, made.inputs, made.labels) == ("text", ("text",), {"0": 5, "1": 5})


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["1.jpg", "1.json", "2.jpg", "2.json"], True),
        (["1.jpg", "1.cls", "2.txt", "2.cls"], True),
        (["a/1.jpg", "b/1.json"], False),
        (["annotations.json", "1.jpg", "2.jpg"], False),
        (["1.jpg", "2.jpg"], False),
        (["train.json", "test.json"], False),
        ([], False),
    ],
)
def test_which_tars_are_shards(names: list[str], wanted: bool) -> None:
    assert is_shard(names) is wanted
