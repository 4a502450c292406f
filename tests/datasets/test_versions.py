from __future__ import annotations

import pytest

from speciate.datasets.versions import names, newest, resolve
from speciate.errors import Code, SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data


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
