"""Decoded examples: the same inside the sandbox and through it, and nothing taken on trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading import decoding
from speciate.datasets.loading.loader import load_examples
from speciate.errors import SpeciateError
from speciate.workspace.workspace import Workspace
from tests import data


def test_media_through_the_sandbox_are_unchanged(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_LONGEST_CHUNK", 13)
    manifest = data.ingest(workspace, "digits", source=data.digit_folder(tmp_path / "digits", 50), label="folder")
    through, here = (
        load_examples(workspace.folders, manifest),
        load_examples(workspace.folders, manifest, in_sandbox=True),
    )
    assert [example.id for example in through] == [example.id for example in here]
    for one, other in zip(through, here, strict=True):
        assert np.array_equal(one.media, other.media)
        assert one.media.dtype == np.uint8
        assert one.media.flags.writeable


def test_splits_and_ids_narrow_what_is_loaded(workspace: Workspace) -> None:
    manifest = data.ingest(workspace, "reviews", rows=tuple(data.review_rows()), label="label")
    test = load_examples(workspace.folders, manifest, ("test",))
    assert {example.split for example in test} == {"test"}
    assert len(test) == manifest.splits["test"]
    assert load_examples(workspace.folders, manifest, ids=[test[0].id]) == [test[0]]


@pytest.mark.parametrize(
    "items",
    [[["uint8", [5]]], [["object", [1]]], [["uint8", [-1, -4]]], [["uint8", [2**40, 2**40]]], [["float32", ["4"]]]],
)
def test_an_answer_that_makes_no_sense_is_refused(tmp_path: Path, items: list[Any]) -> None:
    file = tmp_path / "decoded"
    file.write_bytes(bytes(4))
    with pytest.raises(SpeciateError, match="invalid answer"):
        decoding._read(file, {"items": items, "failure": None})
