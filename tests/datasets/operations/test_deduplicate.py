"""deduplicate: one of several alike, chosen so that no test split shrinks for copies elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import apply, context_of, curate, read
from tests.modalities.samples import flower


def copies(split_of: dict[str, str], **more: Any) -> tuple[dict[str, Any], ...]:
    """Texts in splits that the source brings; NAME of `split_of` is a copy of the first text under another note."""
    rows = [
        {"text": f"a text about the number {i}", "kind": "ab"[i % 2], "note": f"n{i}", "split": "train"}
        for i in range(12)
    ]
    rows[0]["split"] = "test"
    for name, split in split_of.items():
        rows.append({**rows[0], "note": name, "split": split, **more})
    return tuple(rows)


def test_of_equal_content_the_labelled_one_of_the_smallest_id_stays(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=copies({"copy": "test", "again": "test"}), label="kind")
    made = curate(workspace, "set", {"op": "deduplicate"})
    assert made.rows.num_rows == 12
    audit = made.steps[0]["audit"]
    assert (audit["clusters"], audit["largest"], audit["removed_by_split"]) == (1, 3, {"test": 2})
    same = [row for row in read(workspace, "set@v1").to_pylist() if row["text"] == "a text about the number 0"]
    assert min(row["id"] for row in same) in made.rows["id"].to_pylist()


def test_labels_that_disagree_are_told(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=copies({"copy": "test"}, kind="b"), label="kind")
    made = curate(workspace, "set", {"op": "deduplicate", "by": "content"})
    audit = made.steps[0]["audit"]
    assert audit["conflicting_labels"] == 1
    assert audit["conflicts"][0]["labels"] == {"a": 1, "b": 1}
    assert audit["conflicts"][0]["kept"] in made.rows["id"].to_pylist()


def pictures(folder: Path) -> Path:
    """Four pictures; of the first a smaller one in the test split and one a little brighter in train."""
    photo = flower(128, 96)
    for place, picture in enumerate(
        (
            photo,
            photo.rotate(90, expand=True),
            photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            photo.crop((60, 30, 128, 96)),
        )
    ):
        target = folder / "train" / "ab"[place % 2] / f"{place}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
    (folder / "test" / "a").mkdir(parents=True)
    photo.resize((96, 72)).save(folder / "test" / "a" / "small.png")
    Image.fromarray(np.clip(np.asarray(photo) * 1.05, 0, 255).astype(np.uint8)).save(
        folder / "train" / "a" / "bright.png"
    )
    return folder


def test_of_near_copies_the_one_in_the_test_split_stays(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", source=pictures(tmp_path / "set"), label="folder")
    made = curate(workspace, "set", {"op": "deduplicate", "by": "perceptual"})
    assert made.manifest.splits == {"train": 3, "test": 1}
    assert made.steps[0]["audit"]["removed_by_split"] == {"train": 2}
    assert "test/a/small.png" in made.rows["source"].to_pylist()
    again = curate(workspace, "set", {"op": "deduplicate", "by": "perceptual"})
    assert again.manifest.ref == made.manifest.ref


def test_vectors_find_alike_ones_too(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "set", source=pictures(tmp_path / "set"), label="folder")
    made = curate(workspace, "set", {"op": "deduplicate", "by": "embedding", "threshold": 0.995})
    assert made.manifest.splits == {"train": 3, "test": 1}


@pytest.mark.parametrize(
    "step",
    [{"by": "content"}, {"by": "perceptual", "threshold": 0.4}, {"by": "embedding", "threshold": 0.9}],
    ids=lambda step: step["by"],
)
def test_once_is_enough(shared: Workspace, reviews: Manifest, pool: Pool, step: dict[str, Any]) -> None:
    context = context_of(shared, reviews, pool, f"job-dedup-{step['by']}")
    rows = read(shared, reviews.ref)
    once = apply(rows, context, op="deduplicate", **step)
    assert apply(once, context, op="deduplicate", **step).equals(once)
    if step["by"] != "content":
        assert 1 < once.num_rows < rows.num_rows


@pytest.fixture(scope="module")
def tumours(shared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return data.ingest(
        shared, "tumours", source=data.tumour_csv(tmp_path_factory.mktemp("t") / "t.csv", 80), label="diagnosis"
    )


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"by": "perceptual"}, "no sketches that tell near-duplicates of tabular"),
        ({"by": "content", "threshold": 0.5}, "takes no threshold"),
        ({"by": "content", "extractor": "descriptor"}, "takes no extractor"),
        ({"by": "embedding", "extractor": "descripter"}, "did you mean 'descriptor'"),
        ({"by": "embedding", "threshold": 2}, "less than or equal to 1"),
        ({"by": "colour"}, "'content', 'perceptual' or 'embedding'"),
        ({"bye": "content"}, "did you mean 'by'"),
    ],
)
def test_what_makes_no_sense_is_refused(shared: Workspace, tumours: Manifest, step: dict[str, Any], said: str) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, tumours.name, {"op": "deduplicate", **step})
    assert said in raised.value.message
    assert "Step 1" in raised.value.message
