"""Of every row of docs/training.md a model is trained for real, exported, and asked elsewhere: tasks times methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.datasets.versions import resolve
from speciate.exports.card_check import compare, differing, run_card
from speciate.exports.exportable import in_float32
from speciate.exports.judging import evaluation_of_parent
from speciate.exports.reload_check import load_questions
from speciate.models import registry
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.training.problems import BASES, PROBLEMS
from tests.training.test_table import NONE, ROWS, Row

pytestmark = pytest.mark.slow
pytest.importorskip("torch")
N = 50


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_a_row_answers_elsewhere_as_it_does_here(workspace: Workspace, tmp_path: Path, row: Row) -> None:
    if row.base_model in BASES:
        task, method, base, tried_on = BASES[row.base_model]
        first = next(each for each in ROWS if (each.task, each.method, each.base_model) == (task, method, base))
        PROBLEMS[tried_on].make(workspace, tmp_path / "earlier", "earlier")
        _train(workspace, row.base_model.partition("@")[0], "earlier", first._replace(tried_on=tried_on))
    PROBLEMS[row.tried_on].make(workspace, tmp_path / "data", "data")
    model = _train(workspace, "model", "data", row)
    out = tmp_path / "out"
    report = run_job(workspace, "export_model", model=model, path=str(out))["report"]
    version = registry.resolve(workspace.database, workspace.folders, model)
    assert report["checked_on"] > 1
    test = evaluation_of_parent(version.card, f"{resolve(workspace.database, 'data').ref}:test", None, workspace)
    examples = load_questions(workspace.folders, test)[:N]
    told = run_card(out, [each.media for each in examples], images=report["form"] == "transformers")
    here = predictor.load(version.path)
    found = compare(told, (in_float32(here) or here).predict(examples))
    assert found.ties <= 1
    if in_float32(here) is not None:
        assert "bfloat16" in (out / "README.md").read_text()
        print(f"to bfloat16: {differing(in_float32(here).predict(examples), here.predict(examples))}")
    print(f"\n{row.name}: {report['form']}, {found.n} inputs, {found.largest_difference:.1e}")


def _train(workspace: Workspace, name: str, dataset: str, row: Row) -> str:
    """Little: how good a model is does not matter here."""
    settings = dict(PROBLEMS[row.tried_on].terms)
    if row.method in ("lora", "full"):
        settings |= {"learning_rate": [1e-3], "num_train_epochs": 1}
    result = run_job(
        workspace, "train", name=name, dataset=dataset, method=row.method, task=row.task, hyperparameters=settings,
        base_model=None if row.base_model == NONE else row.base_model,
        target=None if row.label == NONE else row.label,
    )  # fmt: skip
    return str(result["model"])
