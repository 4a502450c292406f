"""Rows that share a part never lie in two splits; in a split drawn at random they do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from speciate.datasets.columns import CONTENT, FINGERPRINT, KEY, SKETCH
from speciate.datasets.splitting import audit, members_of, split_rows
from speciate.modalities.mixed.multimodal import MULTIMODAL
from tests.modalities.samples import encode

COUNT = 60


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Crops of a photograph with notes; each crop comes twice, the second time compressed and with another note."""
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    chance = np.random.default_rng(0)
    sketches, prints = [], []
    for i in range(COUNT):
        x, y = (i // 2) % 6 * 96, (i // 2) // 6 * 80
        picture = encode(photograph.crop((x, y, x + 96, y + 80)), *([] if i % 2 else ["JPEG"]))
        note = " ".join(chance.choice(["bridge", "roof", "lake", "stone", "gate", "hall", "tree", "path"], 30))
        media = MULTIMODAL.admit({"view.image": picture, "note.text": note})
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


def test_the_same_picture_with_another_note_stays_in_one_split(rows: pa.Table) -> None:
    found = split_rows(rows, "multimodal")
    assert set(found.splits) == {"train", "validation", "test"}
    assert crossing(found.splits) == 0
    assert found.audit["near_duplicates_across"] == 0


def test_a_random_split_leaks_and_the_audit_says_so(rows: pa.Table) -> None:
    drawn: list[str | None] = list(np.random.default_rng(0).choice(["train", "test"], COUNT))
    assert crossing(drawn) > 5
    assert audit(members_of(rows, "multimodal"), drawn)["near_duplicates_across"] >= crossing(drawn)


def test_without_the_sketches_of_parts_it_would_leak(rows: pa.Table) -> None:
    blind = rows.set_column(rows.schema.get_field_index(SKETCH), SKETCH, pa.nulls(COUNT, pa.binary()))
    assert crossing(split_rows(blind, "multimodal").splits) > 5
