"""deduplicate: keeps one of several duplicates, so that no test split shrinks for copies elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from speciate import environment
from speciate.datasets import curate as curate_kind
from speciate.datasets.curate import CurateSpec
from speciate.datasets.operations.deduplicate import DEDUPLICATE, comparable_vectors, least_cosine
from speciate.datasets.similarity import near_duplicates
from speciate.datasets.versions import Manifest, resolve
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.settings import Capacity
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
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


def test_labels_that_disagree_are_reported(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=copies({"copy": "test"}, kind="b"), label="kind")
    made = curate(workspace, "set", {"op": "deduplicate", "by": "content"})
    audit = made.steps[0]["audit"]
    assert audit["conflicting_labels"] == 1
    assert audit["conflicts"][0]["labels"] == {"a": 1, "b": 1}
    assert audit["conflicts"][0]["kept"] in made.rows["id"].to_pylist()


def images(folder: Path) -> Path:
    """Four images; of the first a smaller one in the test split and one a little brighter in train."""
    photo = flower(128, 96)
    for place, image in enumerate(
        (
            photo,
            photo.rotate(90, expand=True),
            photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            photo.crop((60, 30, 128, 96)),
        )
    ):
        target = folder / "train" / "ab"[place % 2] / f"{place}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target)
    (folder / "test" / "a").mkdir(parents=True)
    photo.resize((96, 72)).save(folder / "test" / "a" / "small.png")
    Image.fromarray(np.clip(np.asarray(photo) * 1.05, 0, 255).astype(np.uint8)).save(
        folder / "train" / "a" / "bright.png"
    )
    return folder


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with `images`, to be copied."""
    folder = tmp_path_factory.mktemp("near")
    return data.seeded(folder / "workspace", "set", source=images(folder / "set"), label="folder")


@pytest.fixture
def near(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_of_near_copies_the_one_in_the_test_split_stays(near: Workspace) -> None:
    made = curate(near, "set", {"op": "deduplicate", "by": "perceptual"})
    assert made.manifest.splits == {"train": 3, "test": 1}
    assert made.steps[0]["audit"]["removed_by_split"] == {"train": 2}
    assert "test/a/small.png" in made.rows["source"].to_pylist()
    again = curate(near, "set", {"op": "deduplicate", "by": "perceptual"})
    assert again.manifest.ref == made.manifest.ref


def test_of_a_image_and_its_copies_the_original_stays(workspace: Workspace, tmp_path: Path) -> None:
    """Names and pixels change from one to the next, so that ids cannot have decided."""
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(6):
        photo = flower(128, 96).crop((i * 7, i * 3, i * 7 + 80, i * 3 + 60)).rotate(60 * i)
        photo.save(folder / f"{i}-best.jpg", quality=95)
        photo.save(folder / f"{i}-again.jpg", quality=35)
        photo.resize((64, 48)).save(folder / f"{i}-small.png")
    data.ingest(workspace, "set", source=folder)
    every = read(workspace, "set")
    every = every.set_column(1, "split", pa.array(["train"] * every.num_rows))
    manifest = resolve(workspace.database, "set")
    context = context_of(workspace, manifest, Pool(workspace.folders, workspace.settings, size=1))
    kept = apply(every, context, op="deduplicate", by="perceptual")["source"].to_pylist()
    assert sorted(kept) == [f"{i}-best.jpg" for i in range(6)]


def test_the_copy_that_belongs_to_a_group_stays(workspace: Workspace) -> None:
    rows = [
        {"text": f"a text about the number {i % 12}", "note": f"n{i}", "who": "p" if i >= 12 else None}
        for i in range(24)
    ]
    data.ingest(workspace, "set", rows=tuple({**row, "split": "train"} for row in rows), inputs=("text",))
    made = curate(
        workspace, "set", {"op": "split", "group_by": "who", "fractions": {"train": 1}}, {"op": "deduplicate"}
    )
    assert made.rows["group_key"].to_pylist() == ["p"] * 12


def test_vectors_find_alike_ones_too(near: Workspace) -> None:
    made = curate(near, "set", {"op": "deduplicate", "by": "embedding", "threshold": 0.995})
    assert made.manifest.splits == {"train": 3, "test": 1}


def test_vectors_are_compared_on_the_cores_of_the_job(near: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = ({"op": "deduplicate", "by": "embedding", "threshold": 0.995},)
    spec = CurateSpec(dataset="set", steps=steps)
    assert curate_kind.plan(spec, near).resources.cpu == 1, "of few rows"
    monkeypatch.setattr(curate_kind, "_MANY_ROWS", 1)
    near.settings = near.settings.model_copy(update={"capacity": Capacity(cpu=3)})
    assert curate_kind.plan(spec, near).resources.cpu == 3
    assert curate_kind.plan(CurateSpec(dataset="set", steps=({"op": "deduplicate"},)), near).resources.cpu == 1
    asked = list[int]()
    monkeypatch.setattr(environment, "cores", lambda: 2)

    def leaders(order: list[int], units: Any, threshold: float, threads: int) -> Any:
        asked.append(threads)
        return np.arange(len(order))

    monkeypatch.setattr(near_duplicates, "leaders_by_cosine", leaders)
    data.run_job(near, "curate", dataset="set", steps=steps)
    assert asked == [2], "no more than the process may use"


def test_different_crops_of_a_photograph_are_no_copies_by_their_vectors(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, pixels in enumerate(load_sample_images().images):
        photo = Image.fromarray(pixels)
        for y in range(0, 384, 64):
            for x in range(0, 640, 64):
                photo.crop((x, y, x + 64, y + 64)).save(folder / f"{number}-{y}-{x}.png")
        photo.crop((300, 200, 364, 264)).save(folder / f"{number}-extra.png")
        photo.crop((300, 200, 364, 264)).save(folder / f"{number}-extra.jpg", quality=35)
    data.ingest(workspace, "set", source=folder)
    audit = curate(workspace, "set", {"op": "deduplicate", "by": "embedding"}).steps[0]["audit"]
    rows = read(workspace, "set@v1")
    source = dict(zip(rows["id"].to_pylist(), rows["source"].to_pylist(), strict=True))
    assert sum(audit["removed_by_split"].values()) <= 6  # of 124: two copies, and sky
    found = {source[each["kept"]]: [source[name] for name in each["ids"]] for each in audit["largest_clusters"]}
    assert sum("extra" in name for name in found) == 2
    assert all("extra" in name for kept, names in found.items() if "extra" in kept for name in names)


@given(st.sampled_from(["audio", "tabular", "time-series"]), st.integers(0, 9))
def test_measurements_are_compared_by_their_differences_between_rows(modality: str, seed: int) -> None:
    """One huge number that all have makes any two alike by plain cosine."""
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([rng.normal(size=(40, 8)), np.full((40, 1), 1e4)], axis=1).astype(np.float32)
    vectors[1, :8] = vectors[0, :8] * np.float32(1.001)
    units = comparable_vectors(vectors, modality, None)
    alike = np.argwhere(np.triu(units @ units.T, 1) >= least_cosine(modality, None))
    assert alike.tolist() == [[0, 1]]
    plain = comparable_vectors(vectors, modality, "some-model@1")
    assert (plain @ plain.T).min() > 0.999


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


def test_a_medium_without_sketches_has_no_perceptual_copies(shared: Workspace, tumours: Manifest) -> None:
    episodes = tumours.model_copy(update={"modality": "episode"})
    with pytest.raises(SpeciateError, match="no sketches that tell near-duplicates of episode"):
        DEDUPLICATE.preflight(DEDUPLICATE.parameters(by="perceptual"), episodes, {})


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"by": "content", "threshold": 0.5}, "takes no threshold"),
        ({"by": "content", "extractor": "descriptor"}, "takes no extractor"),
        ({"by": "embedding", "extractor": "descripter"}, "did you mean 'descriptor'"),
        ({"by": "embedding", "threshold": 2}, "less than or equal to 1"),
        ({"by": "colour"}, "'content', 'perceptual' or 'embedding'"),
        ({"bye": "content"}, "did you mean 'by'"),
    ],
)
def test_invalid_parameters_are_refused(
    shared: Workspace, tumours: Manifest, step: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, tumours.name, {"op": "deduplicate", **step})
    assert message in raised.value.message
    assert "Step 1" in raised.value.message
