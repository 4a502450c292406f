"""Every row of the table in docs/training.md is trained for real on the processor, and judged on a test split.

Networks' losses fall, every model surely beats the constant answer, and those that the table says beat the classical
recipe are at least as good. A row that cannot be tried is a failure.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from speciate.datasets.versions import Manifest, resolve
from speciate.models.backbones.architectures import ARCHITECTURES, usual_rate
from speciate.training.planning.available_methods import available_candidates, methods_for
from speciate.vocabulary import TASKS, find_metric, find_task
from speciate.workspace.workspace import Workspace
from tests.data import run_job
from tests.training.problems import BASES, PROBLEMS

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
HEAD = "task | modality | method | base model | label column | tried on | beats classical | wants a GPU"
NONE = "—"
QUICK = {
    "text-classification text classical",
    "feature-extraction text classical",
}
"""These run always; all others take minutes together."""
LORA_RATE = 3e-3


class Row(NamedTuple):
    task: str
    modality: str
    method: str
    base_model: str
    label: str
    tried_on: str
    beats_classical: str
    wants_gpu: str

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.task, self.modality, self.method, self.base_model) if part != NONE)


def table() -> list[Row]:
    """The page's only table with this head."""
    lines = iter(PAGE.read_text().splitlines())
    assert any(line.strip("| ") == HEAD for line in lines), f"{PAGE.name} has no table {HEAD}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip().strip("`") for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        rows.append(Row(*cells))
    return rows


ROWS = table()
CASES = [pytest.param(row, id=row.name, marks=() if row.name in QUICK else pytest.mark.slow) for row in ROWS]


def test_the_table_has_every_task_with_every_method_that_suits_it_and_every_architecture() -> None:
    assert len(ROWS) >= 34
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.name for row in ROWS} >= QUICK
    shown = {(find_task(row.task).family, row.method) for row in ROWS}
    families = {task.family for task in TASKS.values() if methods_for("path:/any", task.family)}
    apart = {"generation", "image-generation"}  # docs/language.md and docs/images.md have these
    assert families - apart == {family for family, _ in shown}
    classified = {row.modality for row in ROWS if find_task(row.task).family == "classification"}
    assert classified >= {"text", "image", "audio", "time-series", "tabular", "protein"}
    assert set(ARCHITECTURES) <= {row.base_model for row in ROWS}
    for row in ROWS:
        fitting = {option.method for option in available_candidates(row.modality, find_task(row.task).family)}
        assert row.method in fitting | {"probe", "lora"}, row.name  # these two also do with a base trained here
        assert find_task(row.task).suits(row.modality), row.name


@pytest.mark.parametrize("row", CASES)
def test_a_row_is_true(workspace: Workspace, tmp_path: Path, row: Row) -> None:
    began = time.monotonic(), time.process_time()
    if row.base_model in BASES:
        _train_base(workspace, tmp_path, row.base_model)
    assert _dataset(workspace, tmp_path, row.tried_on, "data").modality == row.modality
    model = _train(workspace, "model", "data", row)
    if row.method in ("lora", "full"):
        _assert_loss_falls(_newest_metrics(workspace))
    rivals = [model]
    if row.beats_classical:
        rivals.append(_train(workspace, "classical-model", "data", row._replace(method="classical", base_model=NONE)))
    report = run_job(workspace, "evaluate", models=["constant:", *rivals], dataset="data", latency=False)["report"]
    values = {each["model"]: each["value"] for each in report["leaderboard"]}
    spent = f"{time.monotonic() - began[0]:.1f} s, {time.process_time() - began[1]:.1f} s of processor"
    print(f"\n{row.name}: {report['metric']} {values}, {spent}")
    sign = find_metric(report["metric"]).sign
    compared = next(each for each in report["comparisons"] if each["candidate"] == model)
    assert min(sign * bound for bound in compared["interval"]) > 0, compared
    if row.beats_classical:
        assert sign * values[model] >= sign * values[rivals[1]], values


def _dataset(workspace: Workspace, folder: Path, tried_on: str, name: str) -> Manifest:
    assert tried_on in PROBLEMS, f"{PAGE.name} was tried on {tried_on!r}, which tests/training/problems.py lacks"
    PROBLEMS[tried_on].make(workspace, folder / name, name)
    return resolve(workspace.database, name)


def _train_base(workspace: Workspace, folder: Path, base_model: str) -> None:
    """The row of the table that the base model comes from."""
    task, method, base, tried_on = BASES[base_model]
    row = next((row for row in ROWS if (row.task, row.method, row.base_model) == (task, method, base)), None)
    assert row is not None, f"{base_model} comes from a row that the table lacks"
    _dataset(workspace, folder, tried_on, "earlier")
    name = base_model.partition("@")[0]
    assert _train(workspace, name, "earlier", row._replace(tried_on=tried_on)) == base_model


def _train(workspace: Workspace, name: str, dataset: str, row: Row) -> str:
    problem = PROBLEMS[row.tried_on]
    settings: dict[str, Any] = dict(problem.terms)
    if row.method in ("lora", "full"):
        rate = LORA_RATE if row.method == "lora" else usual_rate(row.base_model)
        own = problem.by_base.get(row.base_model, {})
        settings |= {"learning_rate": [rate], "num_train_epochs": 12, **problem.learning, **own}
    result = run_job(
        workspace, "train", name=name, dataset=dataset, method=row.method, task=row.task, hyperparameters=settings,
        base_model=None if row.base_model == NONE else row.base_model,
        target=None if row.label == NONE else row.label,
    )  # fmt: skip
    return str(result["model"])


def _newest_metrics(workspace: Workspace) -> Path:
    return max(workspace.folders.runs.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def _assert_loss_falls(metrics: Path) -> None:
    losses = [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    assert last < first, f"the loss went from {first:.4g} to {last:.4g}"
