"""Splits of real rows: patients, copies and near-copies of images and texts never cross; a plain split lets them."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image, load_sample_images

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, SKETCH
from speciate.datasets.split_warnings import warnings_of_report
from speciate.datasets.splits import audit_split, members_of, near_pairs, split_rows
from speciate.datasets.versions import Manifest, version
from speciate.modalities.multimodal import MULTIMODAL
from speciate.workspace.workspace import Workspace
from tests import data
from tests.modalities.samples import encode


def crops(folder: Path, count: int) -> Path:
    """Crops of two photographs, each as PNG, as a much compressed JPEG and at two thirds of its size.

    Not of the sky: an almost blank image has no sketch.
    """
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    folder.mkdir()
    for i in range(count):
        photo, spread = photos[i % 2], 0.0
        while spread < 40:
            top, left = rng.integers(0, photo.shape[0] - 160), rng.integers(0, photo.shape[1] - 160)
            pixels = photo[top : top + 160, left : left + 160]
            spread = pixels.std()
        image = Image.fromarray(pixels)
        image.save(folder / f"{i:03}-a.png")
        image.save(folder / f"{i:03}-b.jpg", quality=60)
        image.resize((107, 107), Image.Resampling.LANCZOS).save(folder / f"{i:03}-c.png")
    return folder


@pytest.fixture
def images(workspace: Workspace, tmp_path: Path) -> Manifest:
    return data.ingest(workspace, "crops", source=crops(tmp_path / "crops", 40))


def usable(workspace: Workspace, manifest: Manifest) -> pa.Table:
    return version_rows.read(workspace.folders, manifest, usable=True)


def by_crop(rows: pa.Table, splits: list[str | None]) -> list[set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for source, name in zip(rows["source"].to_pylist(), splits, strict=True):
        found.setdefault(source[:3], set()).add(name)
    return list(found.values())


def test_near_copies_of_a_image_stay_together(workspace: Workspace, images: Manifest) -> None:
    rows = usable(workspace, images)
    together = by_crop(rows, rows["split"].to_pylist())
    assert all(len(names) == 1 for names in together)
    assert {name for names in together for name in names} == {"train", "validation", "test"}
    assert version(workspace.database, "crops").report["split"]["near_duplicates_across"] == 0


def test_a_plain_random_split_tears_them_apart_and_the_audit_says_so(workspace: Workspace, images: Manifest) -> None:
    rows = usable(workspace, images)
    rng = random.Random(0)
    plain: list[str | None] = [*rng.choices(["train", "test"], k=rows.num_rows)]
    assert sum(len(names) > 1 for names in by_crop(rows, plain)) > 10
    found = audit_split(members_of(rows, "image"), plain, rows["id"].to_pylist())
    assert found["near_duplicates_across"] > 10
    first, second = found["near_duplicate_examples"][0]
    stems = {row["id"]: row["source"][:3] for row in rows.to_pylist()}
    assert stems[first] == stems[second]


def test_near_copies_of_a_text_stay_together(workspace: Workspace) -> None:
    words = [f"word{i}" for i in range(400)]
    rng = random.Random(0)
    rows = []
    for i in range(60):
        text = rng.choices(words, k=60)
        rows.append({"text": " ".join(text), "about": i})
        rows.append({"text": " ".join([*text[:59], "changed"]), "about": i})
    manifest = data.ingest(workspace, "texts", rows=tuple(rows), inputs=("text",), modality="text")
    table = usable(workspace, manifest)
    splits: dict[Any, set[str]] = {}
    for row in table.to_pylist():
        splits.setdefault(row["about"], set()).add(row["split"])
    assert all(len(names) == 1 for names in splits.values())
    assert len(near_pairs(table, "text")) >= 55


def test_another_grouping_stratification_and_shares_on_request(workspace: Workspace) -> None:
    manifest = data.ingest(workspace, "reviews", rows=tuple(data.review_rows(200)), label="label")
    rows = version_rows.read(workspace.folders, manifest)
    made = split_rows(
        rows, "text", fractions={"train": 0.5, "test": 0.5}, group_by="film", stratify_by="film", keep=False
    )
    assert abs(made.splits.to_pylist().count("test") - 100) <= 4
    films: dict[str, set[str | None]] = {}
    for film, name in zip(rows["film"].to_pylist(), made.splits.to_pylist(), strict=True):
        films.setdefault(film, set()).add(name)
    assert all(len(names) == 1 for names in films.values())
    assert made.audit["test_units"] <= 25


def test_rows_in_a_split_stay_there_and_unusable_rows_have_none(workspace: Workspace) -> None:
    manifest = data.ingest(workspace, "reviews", rows=tuple(data.review_rows(80)), label="label")
    rows = version_rows.read(workspace.folders, manifest)
    before = rows["split"].to_pylist()
    emptied = [None if i % 4 == 0 else name for i, name in enumerate(before)]
    place = rows.schema.get_field_index("split")
    again = split_rows(rows.set_column(place, "split", pa.array(emptied, pa.string())), "text").splits.to_pylist()
    assert all(new == old for new, old in zip(again, emptied, strict=True) if old is not None)
    assert None not in again
    quality = ["refused" if i < 10 else "ok" for i in range(rows.num_rows)]
    refused = rows.set_column(rows.schema.get_field_index("quality"), "quality", pa.array(quality))
    assert split_rows(refused, "text").splits[:10].null_count == 10


def test_the_audit_gives_the_detectable_difference_of_a_test_split(workspace: Workspace) -> None:
    rows = [{"text": f"visit {i}", "patient": f"p{i // 10}", "y": "ab"[i % 2]} for i in range(400)]
    manifest = data.ingest(workspace, "visits", rows=tuple(rows), label="y", group_by="patient", inputs=("text",))
    report = version(workspace.database, manifest.ref).report["split"]
    assert report["groups_across"] == 0
    assert report["test_units"] == 6, "six patients, not sixty visits"
    assert report["highest_target"] < 0.8
    assert report["smallest_difference"] is None or report["smallest_difference"] > 0.2
    assert report["test_rows"] == 60
    assert report["highest_target_at_best"] > report["highest_target"]
    (warning,) = [each for each in warnings_of_report({"split": report}) if "group(s)" in each]
    assert warning.startswith("The 60 rows of 'test' lie in only 6 group(s)")
    assert warning in version(workspace.database, manifest.ref).report["warnings"]


def test_a_numeric_label_has_no_highest_accuracy(workspace: Workspace) -> None:
    rows = [{"text": f"visit {i}", "y": i / 7} for i in range(100)]
    manifest = data.ingest(workspace, "prices", rows=tuple(rows), label="y", inputs=("text",))
    report = version(workspace.database, manifest.ref).report["split"]
    assert report["test_units"] > 5
    assert "highest_target" not in report


def test_a_row_without_a_sketch_is_near_nothing(workspace: Workspace, images: Manifest) -> None:
    rows = usable(workspace, images)
    assert SKETCH in rows.column_names
    assert KEY in rows.column_names
    bare = rows.set_column(rows.schema.get_field_index(SKETCH), SKETCH, pa.nulls(rows.num_rows, pa.binary()))
    assert len(near_pairs(bare, "image")) == 0
    assert len(near_pairs(rows.drop_columns([SKETCH]), "image")) == 0


def test_two_tables_are_never_near(workspace: Workspace) -> None:
    manifest = data.ingest(
        workspace, "table", rows=tuple({"a": float(i), "y": "xy"[i % 2]} for i in range(30)), label="y"
    )
    assert len(near_pairs(usable(workspace, manifest), "tabular")) == 0


def test_the_images_differ(tmp_path: Path) -> None:
    """The near copies of this file are other bytes and other pixels, or the tests above would prove nothing."""
    folder = crops(tmp_path / "some", 2)
    first = [np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")) for path in sorted(folder.iterdir())]
    assert first[0].shape == first[1].shape
    assert (first[0] != first[1]).any()
    assert first[0].shape != first[2].shape


COUNT = 60


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Crops of a photograph with notes; each crop comes twice, the second time compressed and with another note."""
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    rng = np.random.default_rng(0)
    sketches, prints = [], []
    for i in range(COUNT):
        x, y = (i // 2) % 6 * 96, (i // 2) // 6 * 80
        image = encode(photograph.crop((x, y, x + 96, y + 80)), *([] if i % 2 else ["JPEG"]))
        note = " ".join(rng.choice(["bridge", "roof", "lake", "stone", "gate", "hall", "tree", "path"], 30))
        media = MULTIMODAL.admit({"view.image": image, "note.text": note})
        sketches.append(MULTIMODAL.sketch(media))
        prints.append(MULTIMODAL.fingerprint(media))
    names = [f"ex-{i:03}" for i in range(COUNT)]
    return pa.table(
        {
            "id": names, "source": names, "quality": ["ok"] * COUNT, CONTENT: names, KEY: names, FINGERPRINT: prints,
            "label": ["ab"[i % 2] for i in range(COUNT)], "group_key": pa.nulls(COUNT, pa.string()),
            "split": pa.nulls(COUNT, pa.string()), SKETCH: pa.array(sketches, pa.binary()),
        }
    )  # fmt: skip


def crossing(splits: list[str | None]) -> int:
    return sum(splits[i] != splits[i + 1] for i in range(0, COUNT, 2))


def test_the_same_image_with_another_note_stays_in_one_split(rows: pa.Table) -> None:
    found = split_rows(rows, "multimodal")
    assert set(found.splits.to_pylist()) == {"train", "validation", "test"}
    assert crossing(found.splits.to_pylist()) == 0
    assert found.audit["near_duplicates_across"] == 0


def test_a_random_split_leaks_and_the_audit_says_so(rows: pa.Table) -> None:
    drawn: list[str | None] = list(np.random.default_rng(0).choice(["train", "test"], COUNT))
    assert crossing(drawn) > 5
    assert audit_split(members_of(rows, "multimodal"), drawn)["near_duplicates_across"] >= crossing(drawn)


def test_without_the_sketches_of_parts_it_would_leak(rows: pa.Table) -> None:
    blind = rows.set_column(rows.schema.get_field_index(SKETCH), SKETCH, pa.nulls(COUNT, pa.binary()))
    assert crossing(split_rows(blind, "multimodal").splits.to_pylist()) > 5
