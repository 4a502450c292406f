"""Who plans or measures on a split that lacks a label is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.training import specialize
from speciate.training.cascade.candidates import SpecializeSpec
from speciate.training.planning.training_plan import plan_training
from speciate.workspace.workspace import Workspace
from tests import data
from tests.training.world import define


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    rows = [
        {"text": f"{word} number {i}", "y": label, "who": "one" if label == "sphere" else f"{label} {i}"}
        for label, word in (("box", "edges and corners"), ("cone", "a tip"), ("sphere", "all round"))
        for i in range(20)
    ]
    data.ingest(workspace, "forms", rows=rows, label="y", group_by="who", inputs=("text",))
    define(workspace, "form", "text-classification", target=0.7)
    return workspace


def test_labels_that_a_split_lacks_are_told_by_plans_and_evaluations(workspace: Workspace) -> None:
    (said,) = plan_training(workspace, "forms", use_case="form").warnings
    assert "No example labelled 'sphere' lies in 'validation' or 'test'" in said
    planned = specialize.plan(SpecializeSpec(use_case="form", dataset="forms", budget_minutes=1), workspace)
    lacking, too_few = planned.resolved["warnings"]
    assert lacking == said
    assert too_few.startswith("Even a model without an error shows at most 0.65 in accuracy on 7 test rows")
    model = data.run_job(
        workspace, "train", name="form-model", dataset="forms", method="classical", task="text-classification",
        hyperparameters={"candidates": ["logistic"]},
    )["model"]  # fmt: skip
    notes = data.run_job(workspace, "evaluate", models=[model], dataset="forms:test")["report"]["notes"]
    assert any(note.startswith("No example labelled 'sphere' lies in 'test', for its 20 ex") for note in notes), notes
    notes = data.run_job(workspace, "evaluate", models=[model], dataset="forms:train")["report"]["notes"]
    assert not any("sphere" in note for note in notes)
