"""Examples to try a version on: as clients would send them, few, and none where a client could not send them so."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.versions import Manifest
from speciate.serving.examples import gather
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, png


def gathered(workspace: Workspace, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    answer = gather({"root": str(workspace.folders.root), "manifest": manifest.model_dump(mode="json")})
    return json.loads((folder / answer["file"]).read_text())


def test_rows_are_given_column_by_column_spread_over_the_version(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"x1": [float(i) for i in range(80)], "x2": ["a", None] * 40, "note": ["private"] * 80}
    manifest = make_dataset(
        workspace, "rows", "tabular", columns, labels=["a"] * 80, splits=["train"] * 80, inputs=["x1", "x2"]
    )
    items = gathered(workspace, manifest, tmp_path, monkeypatch)
    assert [item["row"]["x1"] for item in items] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    assert all(set(item["row"]) == {"x1", "x2"} for item in items)


def test_files_are_given_byte_by_byte(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = [png(np.full((4, 4), shade, np.uint8)) for shade in (1, 2, 3)]
    manifest = make_dataset(
        workspace, "pictures", "image", {}, labels=["a"] * 3, splits=["train"] * 3, media=media
    )  # fmt: skip
    items = gathered(workspace, manifest, tmp_path, monkeypatch)
    assert [base64.b64decode(item["data"]) for item in items] == media


def test_of_windows_there_are_none(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks sends a whole file, and a model of windows was not trained on those."""
    media = [png(np.full((4, 4), 1, np.uint8))]
    columns = {"_start": [0.0], "_stop": [1.0]}
    manifest = make_dataset(workspace, "clips", "image", columns, labels=["a"], splits=["train"], media=media)
    assert gathered(workspace, manifest, tmp_path, monkeypatch) == []
