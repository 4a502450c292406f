from __future__ import annotations

import pytest

from speciate.datasets import next_version
from speciate.datasets.ingest import ingest
from speciate.datasets.versions import Manifest, names, newest, register, resolve
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets import sealed


def test_an_unknown_ref_names_known_ones(workspace: Workspace) -> None:
    data.ingest(workspace, "reviews", rows=tuple(data.review_rows(20)), label="label")
    for ref, message in {
        "review": "did you mean 'reviews'",
        "reviews@v3": "the newest is v1",
        "reviews:holdout": "its splits are test, train, validation",
        "a b": "is not a dataset",
    }.items():
        with pytest.raises(SpeciateError, match=message) as raised:
            resolve(workspace.database, ref)
        assert raised.value.code in (Code.NOT_FOUND, Code.INVALID)
    assert names(workspace.database) == ["reviews"]
    assert newest(workspace.database, "reviews") == resolve(workspace.database, "reviews@v1:train")


def test_as_many_copies_of_one_row_as_add_nothing_to_the_hash_are_a_version(workspace: Workspace) -> None:
    def made(ids: list[str]) -> Manifest:
        texts = ["other"] + ["same"] * (len(ids) - 1)
        rows = sealed.rows({"id": ids, "text": texts})
        version = next_version.seal_first(workspace.folders, rows, sealed.blank("text", ["text"]))
        return workspace.database.transact(
            lambda tx: register(tx, version.manifest, version.lanes, operation={"op": "test"}, report={}, job=None)
        )

    first, again = made(["ex-0"]), made(["ex-0"])
    many = made([f"ex-{number}" for number in range(2**16 + 1)])
    assert (first.id, first.version, again.version) == (many.id, 1, 1)
    assert many.version == 2


def test_a_dataset_of_before_that_is_ingested_again_is_the_same_version(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(data.review_rows(20))
    monkeypatch.setattr(ingest, "HASHING", 1)
    before = data.ingest(workspace, "reviews", rows=rows, label="label")
    monkeypatch.undo()
    assert before.hashing == 1
    assert data.ingest(workspace, "reviews", rows=rows, label="label") == before
    other = data.ingest(workspace, "reviews", rows=rows[1:], label="label")
    assert (other.version, other.hashing) == (2, 1)
    assert data.ingest(workspace, "new", rows=rows, label="label").hashing == 2
