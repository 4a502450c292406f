"""relabel: labels renamed, joined, removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.datasets.ingest.draft import MISSING
from speciate.datasets.next_version import MOST_LABELS
from speciate.datasets.operations.relabel import RelabelParameters, preflight
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.datasets import sealed
from tests.datasets.operations.world import curate, read


def animals() -> tuple[dict[str, str], ...]:
    kinds = ("cat", "dog", "fish")
    return tuple({"text": f"a text about the number {i}", "kind": kinds[i % 3]} for i in range(30))


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace with thirty texts about animals, to be copied."""
    return data.seeded(tmp_path_factory.mktemp("zoo") / "workspace", "set", rows=animals(), label="kind")


@pytest.fixture
def zoo(ingested: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(ingested, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_labels_are_joined_swapped_and_taken_away_at_once(zoo: Workspace) -> None:
    made = curate(zoo, "set", {"op": "relabel", "mapping": {"cat": "dog", "dog": "pet", "fish": None}})
    assert made.manifest.labels == {"dog": 10, "pet": 10}
    assert made.steps[0]["audit"]["changed"] == 30
    gone = [row for row in made.rows.to_pylist() if row["label"] is None]
    assert [(row["kind"], row["quality"], row["reason"]) for row in gone] == [("fish", "partial", MISSING)] * 10
    back = data.label(zoo, "set", {gone[0]["id"]: "pet"})
    assert back.labels == {"pet": 11, "dog": 10}


def test_labels_of_any_length_stay_apart(zoo: Workspace) -> None:
    long = "a label that describes at length what can be seen on the image, which is "
    curate(zoo, "set", {"op": "relabel", "mapping": {"cat": f"{long}shoes", "dog": f"{long}hats"}})
    made = curate(zoo, "set", {"op": "relabel", "mapping": {f"{long}shoes": "shoes"}})
    assert sorted(made.manifest.labels.values()) == [10, 10, 10]
    assert "shoes" in made.manifest.labels
    assert max(map(len, made.manifest.labels)) == 64


def test_unknown_labels_are_refused_with_those_that_there_are(shared: Workspace, reviews: Manifest) -> None:
    with pytest.raises(SpeciateError) as raised:
        curate(shared, "reviews", {"op": "relabel", "mapping": {"excellent": "good"}})
    assert raised.value.code is Code.NOT_FOUND
    assert "'bad', 'good'" in raised.value.message
    assert read(shared, "reviews").num_rows


def test_a_label_that_an_earlier_step_made_is_known(zoo: Workspace) -> None:
    steps = [{"op": "relabel", "mapping": {"cat": "pet"}}, {"op": "relabel", "mapping": {"pet": "friend"}}]
    assert curate(zoo, "set", *steps).manifest.labels["friend"] == 10
    with pytest.raises(SpeciateError, match=r"Step 2 \(relabel\): There is no label 'cat'"):
        curate(zoo, "set@v1", steps[0], {"op": "relabel", "mapping": {"cat": "x"}})


def test_a_label_that_a_sample_happened_to_lose_is_no_error(zoo: Workspace) -> None:
    made = curate(
        zoo,
        "set",
        {"op": "filter", "where": "kind <> 'fish'"},
        {"op": "relabel", "mapping": {"fish": "x", "cat": "y"}},
    )
    assert made.manifest.labels == {"dog": 10, "y": 10}


def test_of_very_many_classes_those_that_no_manifest_lists_can_be_renamed() -> None:
    listed = {f"class {i}": 2 for i in range(MOST_LABELS)}
    many = sealed.blank("text", ["text"]).model_copy(update={"label": "kind", "labels": listed})
    parameters = RelabelParameters(mapping={"rare": "class 0"})
    assert preflight(parameters, many, {}).labels == listed
    with pytest.raises(SpeciateError, match="no label 'rare'"):
        preflight(parameters, many.model_copy(update={"labels": {"class 0": 2}}), {})


@pytest.mark.parametrize("new", ["", "  ", "\u200b"])
def test_a_label_can_be_read(shared: Workspace, reviews: Manifest, new: str) -> None:
    with pytest.raises(SpeciateError, match=r"mapping\.good: .*(at least 1 character|can be printed)"):
        curate(shared, "reviews", {"op": "relabel", "mapping": {"good": new}})


def test_numbers_have_no_names(workspace: Workspace) -> None:
    data.ingest(workspace, "set", rows=tuple({"x": float(i), "y": i / 7} for i in range(20)), label="y")
    with pytest.raises(SpeciateError, match="are numbers"):
        curate(workspace, "set", {"op": "relabel", "mapping": {"1": "2"}})
