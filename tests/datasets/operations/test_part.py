"""Steps that name a part of mixed rows: what they look at, what stays whole, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.similarity import near_duplicates
from speciate.errors import SpeciateError
from speciate.modalities.multimodal import MULTIMODAL
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets.operations.world import curate
from tests.modalities.samples import chirp, encode, sound

COUNT = 12


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace, to be copied, with twelve rows; the last two have the image of the first, the last its note,
    too, and no sound."""
    folder = tmp_path_factory.mktemp("part")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        below = folder / "rows" / f"{i:02}"
        below.mkdir(parents=True)
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        if i == 0:
            first = pixels
        (below / "scan.png").write_bytes(encode(Image.fromarray(first if i >= COUNT - 2 else pixels)))
        (below / "note.txt").write_text("the first note" if i in (0, COUNT - 1) else f"note number {i}")
        if i < COUNT - 1:
            (below / "hum.wav").write_bytes(sound("WAV", chirp(0.5 + i / 10)))
    return data.seeded(folder / "workspace", "set", source=folder / "rows", modality="multimodal")


@pytest.fixture
def rows(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_rows_are_alike_in_the_part_that_is_named_or_in_all(rows: Workspace) -> None:
    kept = {}
    for by in ("content", "perceptual"):
        for part in ("scan", "note", "hum", None):
            step = {"op": "deduplicate", "by": by} | ({"part": part} if part else {})
            if (by, part) == ("perceptual", "hum"):
                continue
            kept[by, part] = curate(rows, "set@v1", step).rows.num_rows
    # Notes are too short for sketches; the first and the last row differ in the sound, so they are no copies.
    assert kept == {
        ("content", "scan"): 10, ("content", "note"): 11, ("content", "hum"): 12, ("content", None): 12,
        ("perceptual", "scan"): 10, ("perceptual", "note"): 12, ("perceptual", None): 12,
    }  # fmt: skip
    by_vectors = curate(rows, "set@v1", {"op": "deduplicate", "by": "embedding", "part": "note", "threshold": 0.999})
    assert by_vectors.rows.num_rows == 11


def test_a_window_of_a_part_keeps_the_others_whole(rows: Workspace) -> None:
    made = curate(rows, "set@v1", {"op": "window", "seconds": 0.5, "part": "hum"})
    audit = made.steps[0]["audit"]
    assert audit == {"examples": 12, "windows": 19, "shorter_than_a_window": 1, "with_a_rest_left_out": 8}
    found = load_examples(rows.folders, made.manifest)
    assert {len(each.media["hum.audio"]) for each in found if each.media["hum.audio"] is not None} == {8000}
    assert sum(each.media["hum.audio"] is None for each in found) == 1
    assert all(each.media["scan.image"].shape == (16, 16, 3) and each.media["note.text"] for each in found)
    lengths = made.rows["hum_seconds"].to_pylist()
    assert sorted(lengths, key=str) == [0.5] * 18 + [None]
    pairs = near_duplicates.near_duplicate_pairs(made.rows["_sketch"], MULTIMODAL.sketching)
    assert len(pairs) > 7  # windows of one row share its image
    assert curate(rows, made.manifest.ref, {"op": "split"}).steps[0]["audit"]["near_duplicates_across"] == 0


def test_a_part_that_cannot_be_meant_is_refused(rows: Workspace) -> None:
    steps = [
        ({"op": "window", "seconds": 1, "part": "note"}, "here that is 'hum'"),
        ({"op": "window", "steps": 5}, "cut in seconds"),
        ({"op": "drop_outliers", "part": "scam"}, "did you mean 'scan'"),
        ({"op": "deduplicate", "by": "content", "part": "text"}, "No usable example has a part 'text'"),
    ]
    for step, says in steps:
        with pytest.raises(SpeciateError, match=says):
            curate(rows, "set@v1", step)


def test_examples_of_one_part_have_none_to_name(workspace: Workspace) -> None:
    data.ingest(workspace, "texts", rows=tuple(data.review_rows(12)), label="label")
    for step in ({"op": "window", "seconds": 1}, {"op": "deduplicate"}, {"op": "drop_outliers"}):
        with pytest.raises(SpeciateError, match="examples of text have none"):
            curate(workspace, "texts", {**step, "part": "scan"})
