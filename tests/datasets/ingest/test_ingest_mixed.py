"""Mixed rows that come to a dataset: in its roles, where rows are known again and what belongs together stays so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from speciate.datasets import version_rows
from speciate.workspace.workspace import Workspace
from tests import data
from tests.modalities.samples import encode


def write(folder: Path, numbers: range, same: int | None = None) -> Path:
    """`same`: the row whose image the last one has, with a text of its own."""
    for i in numbers:
        below = folder / "ab"[i % 2] / f"{i:02}"
        below.mkdir(parents=True)
        seed = i if i < numbers[-1] or same is None else same
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        (below / "scan.png").write_bytes(encode(Image.fromarray(pixels)))
        (below / "left-out.txt").write_text("not wanted")
        if i % 4:
            (below / "note.txt").write_text(f"a note about row {i}")
    return folder


def test_rows_are_added_in_the_roles_of_the_dataset(workspace: Workspace, tmp_path: Path) -> None:
    spec = {"modality": "multimodal", "label": "folder", "inputs": ("scan", "note")}
    made = data.ingest(workspace, "set", source=write(tmp_path / "first", range(12)), **spec)
    assert made.labels == {"a": 6, "b": 6}
    again = data.ingest(workspace, "set", source=tmp_path / "first", add=True)
    assert again.rows == made.rows == 12
    grown = data.ingest(workspace, "set", source=write(tmp_path / "second", range(20, 25), same=3), add=True)
    rows = version_rows.read(workspace.folders, grown).to_pylist()
    assert len(rows) == 17
    assert {row["parts"] for row in rows} == {"note.text, scan.image", "scan.image"}
    assert {row["missing"] for row in rows} == {None, "note.text"}
    split = {row["source"]: row["split"] for row in rows}
    assert split["a/24"] == split["b/03"]


def test_a_damaged_part_excludes_the_row_by_name(workspace: Workspace, tmp_path: Path) -> None:
    source = write(tmp_path / "rows", range(8))
    broken = source / "b" / "05" / "scan.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    made = data.ingest(workspace, "set", source=source, modality="multimodal", label="folder")
    rows = version_rows.read(workspace.folders, made).to_pylist()
    reasons = {row["source"]: row["reason"] for row in rows if row["quality"] == "partial"}
    assert list(reasons) == ["b/05"]
    assert reasons["b/05"].startswith("The part 'scan': ")
