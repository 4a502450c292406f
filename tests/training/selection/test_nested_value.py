"""The value of a choice among candidates, by examples that had no part in it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from speciate.models.estimators import Linear
from speciate.tasks.representations import Columns
from speciate.training.recipes import classical
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.use_cases import Aim
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset, train_now


def _lines(number: int) -> Learner:
    """It answers by chance, whatever it learns from."""
    weight = np.random.default_rng(number).normal(size=(1, 3))
    return Learner(f"line {number}", lambda inputs, targets, seed: Linear(weight, np.zeros(1)))


def _validation(workspace: Workspace, aim: Aim, *, grouped: bool = False) -> Any:
    chance, count = np.random.default_rng(7), 240
    inputs, labels = chance.normal(size=(count, 3)), chance.integers(0, 2, count)
    if grouped:  # four copies of each, so that a row's copies say which line is right about it
        inputs, labels = np.repeat(inputs[: count // 4], 4, axis=0), np.repeat(labels[: count // 4], 4)
    columns = {name: column.tolist() for name, column in zip("abc", inputs.T, strict=True)}
    groups = [f"g{place // 4}" if grouped else f"g{place}" for place in range(count)]
    make_dataset(
        workspace, "data", "tabular", columns, labels=[f"label {label}" for label in labels],
        splits=["train"] * count, inputs=list("abc"), groups=groups,
    )  # fmt: skip
    define(workspace, "sort", "tabular-classification", aim=aim)
    asked = {"name": "model", "dataset": "data", "method": "classical", "use_case": "sort"}
    return train_now(workspace, **asked)["report"]["validation"]


@pytest.fixture
def chosen_by_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(*given: Any) -> list[LearnerGroup]:
        lines = tuple(_lines(number) for number in range(40))
        return [LearnerGroup("columns", partial(Columns.fit, inputs=("a", "b", "c")), lines)]

    monkeypatch.setattr(classical, "learner_groups", groups)


@pytest.mark.usefixtures("chosen_by_luck")
@pytest.mark.parametrize("grouped", [False, True])
def test_the_best_of_forty_that_guess_is_lucky_and_its_nested_value_is_not(workspace: Workspace, grouped: bool) -> None:
    said = _validation(workspace, "best", grouped=grouped)
    nested = said["nested"]
    assert said["value"] > 0.5 + said["standard_error"]
    assert nested["value"] < 0.5 + 0.5 * nested["standard_error"]


@pytest.mark.usefixtures("chosen_by_luck")
def test_it_is_asked_only_where_the_best_is_wanted(workspace: Workspace) -> None:
    assert "nested" not in _validation(workspace, "pass")
