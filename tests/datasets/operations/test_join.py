"""join: columns and labels of another dataset by a key that both have."""

from __future__ import annotations

from collections import Counter

import pytest

from speciate.datasets.versions import version
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate


@pytest.fixture
def two(workspace: Workspace) -> Workspace:
    texts = [{"doc": f"d{i}", "text": f"a report about pump number {i}, which leaks or not"} for i in range(20)]
    kinds = [{"doc": f"d{i}", "kind": "ab"[i % 2], "size": i / 4} for i in range(25) if i != 3]
    data.ingest(workspace, "texts", rows=tuple(texts), modality="text", inputs=("text",))
    data.ingest(workspace, "kinds", rows=tuple(kinds))
    return workspace


def test_rows_get_columns_and_a_label_by_the_key(two: Workspace) -> None:
    made = curate(two, "texts", {"op": "join", "dataset": "kinds", "key": "doc", "label": "kind"})
    (step,) = made.steps
    assert step["audit"] == {"matched": 19, "unmatched": 1, "unused": 5, "columns": ["kind", "size"], "labelled": 19}
    assert (made.manifest.label, made.manifest.inputs) == ("kind", ("text",))
    assert made.column("label", "doc")["d4"] == "a"
    assert made.column("size", "doc")["d6"] == 1.5
    assert Counter(made.rows["quality"].to_pylist()) == {"ok": 19, "partial": 1}
    assert made.column("reason", "doc")["d3"] == "The label is missing."
    assert version(two.database, "texts").parents == ["texts@v1", "kinds@v1"]
    again = curate(two, "texts", {"op": "join", "dataset": "kinds", "key": "doc", "columns": [], "label": "size"})
    assert (again.manifest.label, again.manifest.numeric) == ("size", True)


def test_what_cannot_be_joined_is_refused_before_a_job(two: Workspace) -> None:
    for step, message in (
        ({"key": "dok"}, "did you mean 'doc'"),
        ({"key": "doc", "columns": ["kin"]}, "did you mean 'kind'"),
        ({"key": "doc", "columns": ["doc"]}, "has a column 'doc' already"),
        ({"key": "doc", "label": "colour"}, "There is no column 'colour'"),
    ):
        with pytest.raises(SpeciateError, match=message):
            curate(two, "texts", {"op": "join", "dataset": "kinds", **step})
    assert version(two.database, "texts").manifest.version == 1


def test_a_key_that_names_several_rows_is_refused(two: Workspace) -> None:
    data.ingest(two, "twice", rows=({"doc": "d1", "kind": "a"}, {"doc": "d1", "kind": "b"}, {"doc": "d2", "kind": "a"}))
    with pytest.raises(SpeciateError, match=r"several different rows of 'twice@v1'"):
        curate(two, "texts", {"op": "join", "dataset": "twice", "key": "doc"})


def test_rows_that_differ_elsewhere_only_are_one(two: Workspace) -> None:
    visits = [{"doc": f"d{i}", "age": 20 + i, "sex": "fm"[i % 2], "visit": v} for i in range(20) for v in range(3)]
    data.ingest(two, "visits", rows=tuple(visits))
    made = curate(two, "texts", {"op": "join", "dataset": "visits", "key": "doc", "columns": ["age"], "label": "sex"})
    assert made.column("age", "doc")["d7"] == 27
    assert made.column("label", "doc")["d7"] == "m"
    with pytest.raises(SpeciateError, match=r"several different rows of 'visits@v1'"):
        curate(two, "texts", {"op": "join", "dataset": "visits", "key": "doc", "columns": ["visit"]})
