"""variants: further examples that keep their label, their group and their split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.content_hash import unpack_lanes
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.operations import variants
from speciate.datasets.operations.variants import AUGMENTATIONS, USUAL, augment
from speciate.datasets.versions import packed_lanes, resolve
from speciate.errors import SpeciateError
from speciate.jobs.kinds import Kinds
from speciate.privacy import purge_datasets
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.test_answer import register
from tests.datasets.operations.world import Curated, curate, read
from tests.drawn import drawn
from tests.evaluation.predictors.answering import Answering, answering

pytestmark = pytest.mark.slow


def check_families(made: Curated, count: int) -> None:
    """Each variant lies with its original, says what it is, and is an example of its own."""
    rows = {row["id"]: row for row in made.rows.to_pylist()}
    variants = [row for row in rows.values() if row["made_from"]]
    assert len(variants) == count
    for row in variants:
        original = rows[row["made_from"]]
        assert original["made_by"] is None
        assert original["made_from"] is None
        for name in ("split", "label", "group_key", "source"):
            assert row[name] == original[name], name
        assert row["group_key"] is not None
        assert row["split"] == "train"
        assert row["made_by"]
        assert row["how"]
        assert row["_origin"] == original["_key"]
        assert row["_key"] != original["_key"]
        assert row["_content"] != original["_content"]


@pytest.fixture
def digits(workspace: Workspace, tmp_path: Path) -> Workspace:
    data.ingest(workspace, "digits", source=str(data.digit_folder(tmp_path / "digits", 40, 4)), label="folder")
    return workspace


def test_images_get_variants_that_decode_and_look_alike(digits: Workspace) -> None:
    before = read(digits, "digits")
    made = curate(digits, "digits", {"op": "variants", "count": 2})
    trained = int(pc.sum(pc.equal(before["split"], "train")).as_py())
    audit = made.steps[0]["audit"]
    assert audit["variants"] + audit["same_as_another"] == 2 * trained
    assert audit["variants"] == 2 * trained
    check_families(made, audit["variants"])
    examples = {one.id: one for one in load_examples(digits.folders, made.manifest)}
    for row in made.rows.to_pylist():
        if row["made_from"]:
            image, original = examples[row["id"]].media, examples[row["made_from"]].media
            assert image.shape == original.shape
            assert 0 < np.abs(image.astype(float) - original).mean() < 40
    again = curate(digits, "digits@v1", {"op": "variants", "count": 2})
    assert again.manifest.id == made.manifest.id
    other = curate(digits, "digits@v1", {"op": "variants", "count": 2, "seed": 1})
    assert other.manifest.id != made.manifest.id


def test_a_later_split_drops_variants_of_evaluation_examples(digits: Workspace) -> None:
    curate(digits, "digits", {"op": "variants"})
    made = curate(digits, "digits", {"op": "split", "seed": 5})
    rows = {row["id"]: row for row in made.rows.to_pylist()}
    variants = [row for row in rows.values() if row["made_from"]]
    assert variants
    assert made.steps[0]["audit"]["variants_left_out"] > 0
    for row in variants:
        assert (row["split"], rows[row["made_from"]]["split"]) == ("train", "train")


def test_variants_that_lie_near_a_row_of_another_split_are_left_out() -> None:
    """Directly or by another variant; a row of its own split, or a refused one, keeps none away."""
    rows = pa.table({
        "id": ["a", "b", "c", "d"], "split": ["train", "train", "test", "test"],
        "quality": ["ok", "ok", "ok", "refused"],
    })  # fmt: skip
    made = pa.table({
        "id": ["a1", "a2", "b1", "b2", "b3"], "split": ["train"] * 5, "quality": ["ok"] * 5,
    })  # fmt: skip

    class Near:
        def near_pairs(self, stacked: pa.Table) -> Any:
            places = {name: place for place, name in enumerate(stacked["id"].to_pylist())}
            near = [("a", "a1"), ("c", "a2"), ("a2", "b1"), ("b", "b2")]
            return np.array([[places[one], places[other]] for one, other in near])

    kept, left_out = variants._without_near_copies(made, rows, cast(Any, Near()))
    assert (kept["id"].to_pylist(), left_out) == (["a1", "b2", "b3"], 2)


def test_variants_have_no_variants_and_all_can_be_filtered_away(digits: Workspace) -> None:
    first = curate(digits, "digits", {"op": "variants"})
    second = curate(digits, "digits", {"op": "variants", "seed": 9})
    originals = [row["id"] for row in second.rows.to_pylist() if not row["made_from"]]
    assert {row["made_from"] for row in second.rows.to_pylist() if row["made_from"]} <= set(originals)
    assert second.rows.num_rows > first.rows.num_rows
    plain = curate(digits, "digits", {"op": "filter", "where": "made_by IS NULL"})
    assert plain.rows["id"].to_pylist() == read(digits, "digits@v1")["id"].to_pylist()


def test_who_forgets_an_example_forgets_its_variants(digits: Workspace) -> None:
    made = curate(digits, "digits", {"op": "variants"})
    purged_id = next(row["made_from"] for row in made.rows.to_pylist() if row["made_from"])
    manifests = [resolve(digits.database, ref) for ref in ("digits@v1", "digits@v2")]
    held = [(each, unpack_lanes(packed_lanes(digits.database, each))) for each in manifests]
    target = purge_datasets.Target(dataset="digits", example=purged_id)
    purged = purge_datasets.purge(digits.folders, held, target, lambda done, total, unit: None)
    assert [each.rows for each in purged.versions] == [1, 2]


def test_series_get_variants_in_their_cells(workspace: Workspace, tmp_path: Path) -> None:
    data.ingest(workspace, "moves", source=str(data.series_ts(tmp_path / "moves", 24)))
    made = curate(workspace, "moves", {"op": "variants", "kinds": ["jitter", "scale"]})
    check_families(made, made.steps[0]["audit"]["variants"])
    examples = {one.id: one for one in load_examples(workspace.folders, made.manifest)}
    for row in made.rows.to_pylist():
        if row["made_from"]:
            series, original = (np.asarray(examples[name].media, float) for name in (row["id"], row["made_from"]))
            assert series.shape == original.shape
            assert np.corrcoef(series.ravel(), original.ravel())[0, 1] > 0.98


def test_audio_gets_variants(workspace: Workspace, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    rng = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "audio" / ("low", "high")[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = 0.4 * np.sin(np.arange(8000) * (0.05 + 0.2 * (number % 2))) + rng.normal(0, 0.01, 8000)
        soundfile.write(path, tone, 16000)
    data.ingest(workspace, "audio", source=str(tmp_path / "audio"), label="folder")
    made = curate(workspace, "audio", {"op": "variants"})
    check_families(made, made.steps[0]["audit"]["variants"])
    assert made.steps[0]["audit"]["variants"] > 0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[Workspace, Answering]]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto", private_hosts=("127.0.0.1",)))
    rows = [{**row, "split": "test" if i >= 12 else "train"} for i, row in enumerate(data.review_rows(16))]
    data.ingest(workspace, "reviews", rows=rows, label="label", group_by="film", inputs=["text"])
    with answering() as server:
        server.answer = lambda asked: f"In other words: {asked.split(chr(10))[1][:200]}"
        register(workspace, "writer", server)
        yield workspace, server
    workspace.close()


def test_texts_are_written_anew_by_a_model_and_stay_in_their_group(writer: tuple[Workspace, Answering]) -> None:
    workspace, server = writer
    step = {"op": "variants", "model": "writer"}
    made = curate(workspace, "reviews", step)
    assert len(server.asked) == 12
    check_families(made, 12)
    assert all(row["text"].startswith("In other") for row in made.rows.to_pylist() if row["made_from"])
    assert {row["made_by"] for row in made.rows.to_pylist() if row["made_from"]} == {"writer@v1"}
    again = curate(workspace, "reviews@v1", step)
    assert len(server.asked) == 12  # none is paid twice
    assert again.manifest.id == made.manifest.id


def test_unchanged_texts_are_left_out_and_counted(writer: tuple[Workspace, Answering]) -> None:
    workspace, server = writer
    server.answer = lambda asked: "" if "number 3." in asked else asked.split("\n")[1] if "number 4." in asked else "so"
    made = curate(workspace, "reviews", {"op": "variants", "model": "writer", "count": 2})
    audit = made.steps[0]["audit"]
    assert audit["variants"] == 1  # "so", once
    assert audit["not_made"] == 2
    assert audit["same_as_another"] == 21
    assert len(audit["reasons"]) == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({}, "written anew by a model"),
        ({"kinds": ["light"], "model": "writer"}, "written anew by a model"),
        ({"model": "nobody"}, "nobody"),
        ({"model": "writer", "template": "Anew!"}, "shows nothing of the example"),
        ({"model": "writer", "count": 11}, "count"),
    ],
)
def test_invalid_variants_of_texts_are_refused(
    writer: tuple[Workspace, Answering], step: dict[str, Any], message: str
) -> None:
    assert message in refused(writer[0], "reviews", step)
    assert writer[1].asked == []


def test_invalid_variants_of_media_are_refused(digits: Workspace, tmp_path: Path) -> None:
    assert "no change 'ligth'" in refused(digits, "digits", {"kinds": ["ligth"]})
    assert "holds image" in refused(digits, "digits", {"model": "writer"})
    data.ingest(digits, "tumours", source=str(data.tumour_csv(tmp_path / "tumours.csv", 40)), label="diagnosis")
    assert "no changes to tabular" in refused(digits, "tumours", {})
    curate(digits, "digits", {"op": "derive", "column": "objects", "sql": "'[]'"})
    assert "moves what 'objects'" in refused(digits, "digits", {})
    assert "moves what" in refused(digits, "digits", {"kinds": ["flip"]})
    assert curate(digits, "digits", {"op": "variants", "kinds": ["light"]}).steps[0]["audit"]["variants"] > 0


def refused(workspace: Workspace, dataset: str, step: dict[str, Any]) -> str:
    kind = Kinds()["curate"]
    with pytest.raises(SpeciateError) as caught:
        kind.plan(kind.spec(dataset=dataset, steps=[{"op": "variants", **step}]), workspace)
    assert caught.value.recovery
    return caught.value.message


@given(st.integers(0, 10_000), st.sampled_from(sorted(USUAL)))
@settings(max_examples=drawn(60), deadline=None)
def test_changes_are_small_valid_and_the_same_for_the_same_seed(seed: int, modality: str) -> None:
    rng = np.random.default_rng(seed)
    medium: Any = {
        "image": rng.integers(0, 256, (40, 30, 3)).astype(np.uint8),
        "audio": np.sin(np.arange(400) / 9).astype(np.float32) * rng.uniform(0.01, 1),
        "time-series": np.cumsum(rng.normal(0, 1, (2, 30)), 1),
    }[modality]
    for kind in AUGMENTATIONS[modality]:
        one, two = (augment(modality, [kind], medium.copy(), np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(one, two)
        assert one.shape == medium.shape
        assert one.dtype == medium.dtype
        assert np.isfinite(one).all()
        assert not np.array_equal(one, medium)
        if modality == "audio":
            assert np.abs(one).max() <= 1.0 + 1e-6


def test_a_image_of_a_few_pixels_does_not_move() -> None:
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert np.array_equal(augment("image", ["shift"], small, np.random.default_rng(0)), small)


def test_a_series_of_gaps_and_one_that_stands_still_stay_what_they_are() -> None:
    flat = np.ones((1, 5))
    assert np.array_equal(augment("time-series", ["jitter"], flat, np.random.default_rng(0)), flat)
    gaps = np.array([[1.0, np.nan, 3.0]])
    found = augment("time-series", ["jitter"], gaps, np.random.default_rng(0))
    assert np.isnan(found).tolist() == [[False, True, False]]
    nothing = augment("time-series", ["jitter"], np.full((1, 3), np.nan), np.random.default_rng(0))
    assert np.isnan(nothing).all()
