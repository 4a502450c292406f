"""split: ours lets nothing cross that a plain random split does."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets.versions import Manifest, version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets.operations.world import curate, read

_WORDS = ("river", "stone", "garden", "winter", "letter", "window", "market", "silver", "morning", "engine")


def rows() -> tuple[dict[str, Any], ...]:
    """Sixty long texts of thirty patients; of every fifth a near copy without a patient."""
    rng = random.Random(0)
    found: list[dict[str, Any]] = []
    for i in range(60):
        words = [f"{rng.choice(_WORDS)}{rng.randrange(99)}" for _ in range(40)]
        found.append({"text": " ".join(words), "kind": "ab"[i % 2], "patient": f"p{i // 2}", "clinic": f"c{i // 20}"})
        if i % 5 == 0:
            found.append(
                {"text": " ".join([*words, "end"]), "kind": "ab"[i % 2], "patient": None, "clinic": f"c{i // 20}"}
            )
    return tuple(found)


def crossing(table: Sequence[dict[str, Any]], splits: Sequence[str], key: str) -> int:
    """How many groups lie in several splits; for `near`, texts that begin alike."""
    found = defaultdict(set)
    for row, split in zip(table, splits, strict=True):
        name = row["text"][:60] if key == "near" else row[key]
        if name is not None:
            found[name].add(split)
    return sum(len(names) > 1 for names in found.values())


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with `rows`, to be copied."""
    return data.seeded(
        tmp_path_factory.mktemp("patients") / "workspace", "set", rows=rows(), label="kind", group_by="patient"
    )


@pytest.fixture
def patients(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_groups_and_near_duplicates_cross_a_random_split_and_not_ours(patients: Workspace) -> None:
    made = curate(patients, "set", {"op": "split", "fractions": {"train": 0.6, "test": 0.4}, "seed": 5})
    table = made.rows.to_pylist()
    plain = random.Random(5).choices(("train", "test"), (0.6, 0.4), k=len(table))
    ours = [row["split"] for row in table]
    for key in ("group_key", "near"):
        assert crossing(table, plain, key) > 0
        assert crossing(table, ours, key) == 0
    assert set(made.manifest.splits) == {"train", "test"}
    audit = made.steps[0]["audit"]
    assert audit["groups_across"] == audit["near_duplicates_across"] == 0
    assert audit["label_drift"] < 0.1
    assert audit["test_units"] > 5
    assert 0 < audit["highest_target"] < 1
    assert version(patients.database, "set").report["split"]["made_by"].startswith("speciate: 60/40 train/test")


def test_a_further_column_keeps_together_and_another_seed_is_another_split(patients: Workspace) -> None:
    step = {"op": "split", "fractions": {"train": 0.67, "test": 0.33}, "group_by": "clinic", "stratify_by": "kind"}
    made = curate(patients, "set", step)
    assert crossing(made.rows.to_pylist(), made.rows["split"].to_pylist(), "clinic") == 0
    assert len(made.manifest.splits) == 2
    assert {row["group_key"] for row in made.rows.to_pylist() if row["patient"] is None} == {"c0", "c1", "c2"}
    assert all(row["group_key"] == row["patient"] for row in made.rows.to_pylist() if row["patient"])
    one = curate(patients, "set@v1", {"op": "split", "seed": 1})
    two = curate(patients, "set@v1", {"op": "split", "seed": 2})
    assert one.manifest.id != two.manifest.id
    assert curate(patients, "set@v1", {"op": "split", "seed": 1}).manifest.id == one.manifest.id


def test_unusable_rows_get_no_split(workspace: Workspace) -> None:
    some = [*data.review_rows(20), {"text": None, "label": "good", "film": "f"}]
    data.ingest(workspace, "set", rows=tuple(some), label="label")
    curate(workspace, "set", {"op": "split"})
    assert [row["split"] for row in read(workspace, "set").to_pylist() if row["quality"] != "ok"] == [None]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"fractions": {"train": 1, "dev": 1}}, "no split 'dev'"),
        ({"fractions": {"train": -1, "test": 2}}, "none below 0"),
        ({"fractions": {}}, "at least one"),
        ({"fractions": {"train": 0}}, "sum to 0"),
        ({"fractions": {"train": 0.9, "test": 0.3}}, "sum to 1.2, and not to 1"),
        ({"stratify_by": "flim"}, "did you mean 'film'"),
        ({"group_by": "label"}, "each class into one split"),
        ({"group_by": "patient"}, "patient"),
    ],
)
def test_invalid_parameters_are_refused(
    shared: Workspace, reviews: Manifest, step: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "split", **step})
    assert message in raised.value.message
