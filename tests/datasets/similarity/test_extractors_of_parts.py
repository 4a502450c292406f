"""Models and mixed rows: a model embeds the parts that it reads, and is offered only where there are such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speciate.datasets import version_rows
from speciate.datasets.similarity import embed, extractors
from speciate.datasets.similarity.extractors import DESCRIPTOR
from speciate.datasets.similarity.nearest_neighbours import NearestRequest, nearest
from speciate.errors import SpeciateError
from speciate.models import packaged
from speciate.workspace.workspace import Workspace
from tests import data

NOTES = ("strong pain in the chest", "slept well", "a calm night", "her breast hurts badly", "no complaint", "walked")


@pytest.fixture
def rows(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Notes with images; the last has no note."""
    images = sorted(data.digit_folder(tmp_path / "digits", 7, 3).rglob("*.png"))
    for i, image in enumerate(images):
        below = tmp_path / "rows" / f"{i:02}"
        below.mkdir(parents=True)
        (below / "scan.png").write_bytes(image.read_bytes())
        if i < len(NOTES):
            (below / "note.txt").write_text(NOTES[i])
    data.ingest(workspace, "rounds", source=tmp_path / "rows", modality="multimodal")
    return workspace


def test_mixed_rows_are_compared_by_all_parts_where_nobody_names_a_model(rows: Workspace) -> None:
    assert extractors.resolve(None, "multimodal", rows, ("text", "image")) == DESCRIPTOR


def test_a_model_is_offered_where_it_reads_a_part_and_refused_elsewhere(rows: Workspace) -> None:
    if not packaged.installed("minilm"):
        pytest.skip("MiniLM is not installed")
    parts = version_rows.part_modalities(rows.folders, data.resolve(rows.database, "rounds"))
    assert extractors.resolve("pkg:minilm", "multimodal", rows, parts) == "pkg:minilm"
    with pytest.raises(SpeciateError, match="'pkg:minilm' embeds text, and the parts of these rows are audio, image"):
        extractors.resolve("pkg:minilm", "multimodal", rows, ("image", "audio"))


@pytest.mark.slow
def test_a_model_of_texts_finds_mixed_rows_by_their_notes_and_by_words(rows: Workspace) -> None:
    manifest = data.resolve(rows.database, "rounds")
    data.run_job(rows, "embed", dataset="rounds", extractor="pkg:minilm")
    table = version_rows.read(rows.folders, manifest, usable=True)
    vectors = embed.row_vectors(rows.folders, manifest, table, "pkg:minilm")
    without = [place for place, cell in enumerate(table["parts"].to_pylist()) if "note" not in cell]
    assert [place for place, one in enumerate(vectors) if not np.any(one)] == without
    assert len(without) == 1, "it is like no other"
    request = NearestRequest(
        root=rows.folders.root, manifest=manifest, extractor="pkg:minilm", id=None, text="it hurts", split=None, k=2
    )
    found = nearest(request.model_dump(mode="json"))
    assert "neighbours" in found
    sources = dict(zip(table["id"].to_pylist(), table["source"].to_pylist(), strict=True))
    assert {sources[name] for name, _ in found["neighbours"]} == {"00", "03"}
