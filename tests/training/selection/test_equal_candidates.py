"""Which of two candidates is kept that are right about as many held-out examples."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from speciate.models.estimators import Linear
from speciate.tasks.representations import Columns
from speciate.training.recipes import classical
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset, train_now

WRONG = 0.2
"""Share of the examples about which either is wrong."""


def _line(name: str, weight: tuple[float, float]) -> Learner:
    """It answers by one column, whatever it learns from."""
    return Learner(name, lambda inputs, targets, seed: Linear(np.array([weight]), np.zeros(1)))


def _log_loss(doubt: float) -> float:
    """The least, over temperatures, of answers whose margin is 1 where they are right and `doubt` where not."""
    scales = np.linspace(0, 60, 60_001)
    losses = (1 - WRONG) * np.logaddexp(0, -scales) + WRONG * np.logaddexp(0, scales * doubt)
    return float(losses.min())


@pytest.fixture
def two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(*given: Any) -> list[LearnerGroup]:
        lines = _line("first", (1.0, 0.0)), _line("second", (0.0, 1.0))
        return [LearnerGroup("columns", partial(Columns.fit, inputs=("first", "second")), lines)]

    monkeypatch.setattr(classical, "learner_groups", groups)


def _kept(workspace: Workspace, doubts: tuple[float, float], count: int, wrong: tuple[float, float]) -> str:
    """The candidate that is kept, judged in folds; `doubts`: of each, how far it goes astray where it is wrong."""
    label = np.arange(count) % 2
    columns = {}
    for name, doubt, share in zip(("first", "second"), doubts, wrong, strict=True):
        margin = np.where(np.arange(count) // 2 % 100 < round(100 * share), -doubt, 1.0)
        columns[name] = (np.where(label == 1, margin, -margin)).tolist()
    make_dataset(
        workspace, "data", "tabular", columns, labels=[f"label {each}" for each in label], splits=["train"] * count,
        inputs=list(columns),
    )  # fmt: skip
    define(workspace, "sort", "tabular-classification")
    report = train_now(workspace, name="model", dataset="data", method="classical", use_case="sort")["report"]
    (chosen,) = (row["name"] for row in report["candidates"] if row["chosen"])
    return str(chosen).removeprefix("columns: ")


@pytest.mark.usefixtures("two_lines")
@pytest.mark.parametrize(
    ("doubts", "surer", "kept"),
    [
        ((1.0, 0.9), 0.02, "second"),  # log loss .50 and .47
        ((1.0, 0.97), 0.0, "first"),  # and .49: not by enough
        ((1.0, 1.1), -1.0, "first"),
    ],
)
def test_of_equal_ones_on_few_examples_the_surer_is_kept(
    workspace: Workspace, doubts: tuple[float, float], surer: float, kept: str
) -> None:
    gain = _log_loss(doubts[0]) - _log_loss(doubts[1])
    assert surer < gain < (0.02 if kept == "first" else math.inf)
    assert _kept(workspace, doubts, 200, (WRONG, WRONG)) == kept


@pytest.mark.usefixtures("two_lines")
@pytest.mark.parametrize(("count", "wrong", "kept"), [(400, (WRONG, WRONG), "first"), (200, (WRONG, 0.21), "first")])
def test_neither_on_many_examples_nor_against_the_metric(
    workspace: Workspace, count: int, wrong: tuple[float, float], kept: str
) -> None:
    assert _kept(workspace, (1.0, 0.1), count, wrong) == kept
