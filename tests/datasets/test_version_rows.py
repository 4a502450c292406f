"""Rows of a version by their ids: the same, wherever they lie, as of all rows those with these ids."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset


def _two_parts(workspace: Workspace) -> Manifest:
    """The first rows of one part are removed."""
    parts = []
    for name in ("old", "new"):
        made = make_dataset(workspace, name, "tabular", {"x": list(range(50))}, labels=["a", "b"] * 25,
                            splits=["train"] * 50, inputs=["x"])  # fmt: skip
        parts.append(made.parts[0])
    removed = Path("datasets") / "removed.parquet"
    pq.write_table(pa.table({"position": pa.array([0, 1, 2], pa.int64())}), workspace.folders.root / removed)
    first = parts[0].model_copy(update={"removed": str(removed)})
    return made.model_copy(update={"parts": (first, parts[1])})


@pytest.mark.parametrize(
    "ids", [[], ["old-000001"], ["old-000003", "new-000000"], ["none"], [f"new-{n:06d}" for n in range(50)]]
)
def test_rows_of_some_ids_are_those_of_all_rows(workspace: Workspace, ids: list[str]) -> None:
    manifest = _two_parts(workspace)
    every = version_rows.read(workspace.folders, manifest)
    assert every.num_rows == 97
    some = version_rows.read(workspace.folders, manifest, ids=ids)
    assert some.to_pylist() == [row for row in every.to_pylist() if row["id"] in ids]
    assert some.schema == every.schema
    columns = version_rows.read(workspace.folders, manifest, ["x"], ids=ids)
    assert columns["x"].to_pylist() == some["x"].to_pylist()


def test_of_a_large_file_only_groups_with_these_ids_are_read(workspace: Workspace, tmp_path: Path) -> None:
    """By the bounds of each group: what lies in another one may be damaged."""
    table = pa.table({"id": [f"{n:06d}" for n in range(4000)], "x": list(range(4000))})
    part = _two_parts(workspace).parts[1].model_copy(update={"file": "datasets/large.parquet", "rows": 4000})
    path = workspace.folders.root / part.file
    pq.write_table(table, path, row_group_size=1000)
    group = pq.read_metadata(path).row_group(3).column(1)
    data = bytearray(path.read_bytes())
    data[group.data_page_offset : group.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    wanted = pa.array(["000005", "001999"])
    assert version_rows.live_rows(workspace.folders, part, ids=wanted)["x"].to_pylist() == [5, 1999]
    with pytest.raises((OSError, pa.ArrowException)):
        version_rows.live_rows(workspace.folders, part)


@pytest.mark.parametrize("inputs", [("x",), ("steps",)])
def test_a_column_of_the_user_that_is_called_as_a_measure_is_no_length(
    workspace: Workspace, inputs: tuple[str, ...]
) -> None:
    columns = {"x": [1.0, 2.0], "steps": ["mix, then heat", "heat"]}
    manifest = make_dataset(
        workspace, "recipes", "tabular", columns, labels=["a", "b"], splits=["train"] * 2, inputs=inputs
    )
    assert version_rows.mean_length(workspace.folders, manifest) == 1.0


def test_the_length_of_media_is_their_measured_mean(workspace: Workspace) -> None:
    columns = {"level": [[1.0, 2.0], [3.0] * 6], "steps": [2, 6]}
    manifest = make_dataset(
        workspace, "waves", "time-series", columns, labels=["a", "b"], splits=["train"] * 2, inputs=["level"]
    )
    assert version_rows.mean_length(workspace.folders, manifest) == 4.0


def test_the_length_of_texts_in_files_is_their_characters(workspace: Workspace) -> None:
    """Their rows hold no text, so a training on long documents looked as short as one on single letters."""
    columns = {"bytes": [900, 2200], "characters": [800, 2000], "words": [150, 350]}
    manifest = make_dataset(workspace, "documents", "text", columns, labels=["a", "b"], splits=["train"] * 2, inputs=[])
    assert version_rows.mean_length(workspace.folders, manifest) == 1400.0
