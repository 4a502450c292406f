"""The modality of a third party, as docs/adding-a-modality.md shows it: found, ingested, trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate import modalities
from speciate.datasets.versions import version
from speciate.training.planning.available_methods import available_candidates, unavailable_candidates
from speciate.workspace.workspace import Workspace
from tests import data
from tests.documentation import programs_in
from tests.modalities.conftest import PLUGIN
from tests.modalities.samples import outline
from tests.training.world import train_now

DOCS = Path(__file__).parents[2] / "docs" / "adding-a-modality.md"


def test_it_is_found_and_can_be_trained() -> None:
    assert modalities.find("outline").name == "outline"
    assert "classical" in {option.method for option in available_candidates("outline")}
    assert "classical" not in {option.method for option, _ in unavailable_candidates("outline")}


def test_what_cannot_describe_itself_is_not_trained_classically(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(modalities.find("outline")), "describe", None)
    assert available_candidates("outline") == []
    assert "classical" in {option.method for option, _ in unavailable_candidates("outline")}


def test_it_is_ingested_and_learned(workspace: Workspace, tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / "outlines" / ("pentagon", "star")[i % 2] / f"{i:02}.wkt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(outline((5, 24)[i % 2], seed=i))
    path.write_bytes(path.read_bytes()[:100])
    manifest = data.ingest(workspace, "outlines", source=tmp_path / "outlines", label="folder")
    assert manifest.modality == "outline"
    assert version(workspace.database, "outlines").report["partial"] == 1
    report = train_now(workspace, name="hand", dataset="outlines", method="classical")["report"]
    assert report["validation"]["value"] > 0.9
    told = data.run_job(workspace, "evaluate", models=["constant:", "hand"], dataset="outlines", latency=False)
    assert {row["model"]: row["value"] > 0.9 for row in told["report"]["leaderboard"]} == {
        "hand@v1": True,
        "constant:": False,
    }


def test_the_page_shows_this_very_file() -> None:
    shown = programs_in(DOCS.read_text())
    assert shown == [(PLUGIN / "speciate_outlines.py").read_text()]
    assert (PLUGIN / "speciate_outlines-0.1.dist-info" / "entry_points.txt").read_text().splitlines()[
        1
    ] in DOCS.read_text().replace('"', "")
    assert len(shown[0].splitlines()) < 80
