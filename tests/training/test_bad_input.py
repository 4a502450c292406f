"""Data that nobody would wish for: each is learned from or refused in a sentence, and what was done is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.training import train, train_run
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.data import ingest
from tests.training.world import make_dataset, thirds, train_now

Columns = dict[str, list[Any]]


def _table(workspace: Workspace, columns: Columns, labels: list[Any], splits: list[str] | None = None) -> None:
    splits = splits or thirds(len(labels))
    make_dataset(workspace, "data", "tabular", columns, labels=labels, splits=splits, inputs=list(columns))


def _learn(workspace: Workspace, task: str = "tabular-classification", **more: Any) -> dict[str, Any]:
    report: dict[str, Any] = train_now(workspace, name="model", dataset="data", method="classical", task=task, **more)[
        "report"
    ]
    return report


def _signal(count: int = 200) -> tuple[list[float], list[str]]:
    chance = np.random.default_rng(0)
    numbers = chance.normal(size=count)
    return numbers.tolist(), ["yes" if number > 0 else "no" for number in numbers]


USELESS: dict[str, list[Any]] = {
    "a constant number": [7.0] * 200,
    "a constant word": ["always"] * 200,
    "nothing": [None] * 200,
    "dates": [f"2026-01-{day % 28 + 1:02d}" for day in range(200)],
    "free text": [f"a long remark of nobody, number {number}, about nothing at all" for number in range(200)],
    "huge numbers": [1e300 * (-1) ** number for number in range(200)],
}


@pytest.mark.slow(reason="all of them together are learned from in the next test")
@pytest.mark.parametrize("useless", USELESS.values(), ids=USELESS)
def test_a_column_that_says_nothing_does_no_harm(workspace: Workspace, useless: list[Any]) -> None:
    numbers, labels = _signal()
    _table(workspace, {"number": numbers, "useless": useless}, labels)
    assert _learn(workspace)["validation"]["value"] > 0.85


@pytest.mark.slow
def test_columns_that_say_nothing_do_no_harm_together(workspace: Workspace) -> None:
    numbers, labels = _signal()
    _table(workspace, {"number": numbers, **USELESS}, labels)
    assert _learn(workspace)["validation"]["value"] > 0.85


def test_a_label_of_one_example_is_learned_beside_the_others(workspace: Workspace) -> None:
    numbers, labels = _signal()
    labels[0] = "once"  # in the training split
    _table(workspace, {"number": numbers}, labels)
    report = _learn(workspace)
    assert report["labels"] == ["no", "once", "yes"]
    assert report["validation"]["value"] > 0.85


def test_a_label_that_only_validation_has_cannot_be_learned_and_does_not_stop_the_rest(workspace: Workspace) -> None:
    numbers, labels = _signal()
    splits = thirds(200)
    labels[splits.index("validation")] = "never"
    _table(workspace, {"number": numbers}, labels, splits)
    report = _learn(workspace)
    assert report["labels"] == ["no", "yes"]
    assert not any("then learned from validation examples" in note for note in report["notes"])


def test_a_fifth_of_wrong_labels_costs_little(workspace: Workspace) -> None:
    chance = np.random.default_rng(1)
    numbers, right = _signal(600)
    labels = [{"yes": "no", "no": "yes"}[label] if chance.random() < 0.2 else label for label in right]
    _table(workspace, {"number": numbers, "noise": chance.normal(size=600).tolist()}, labels)
    assert _learn(workspace)["validation"]["value"] == pytest.approx(0.8, abs=0.08)


def test_many_labels_of_few_examples_end_in_a_model_within_seconds(workspace: Workspace) -> None:
    chance = np.random.default_rng(0)
    kinds = [i % 400 for i in range(2400)]
    columns: Columns = {
        "x": [kind % 20 + float(chance.normal(0, 0.1)) for kind in kinds],
        "y": [kind // 20 + float(chance.normal(0, 0.1)) for kind in kinds],
    }
    splits = [("train", "validation", "test")[i // 400 % 3] for i in range(2400)]
    _table(workspace, columns, [f"kind {kind:03d}" for kind in kinds], splits)
    report = _learn(workspace)
    assert report["validation"]["value"] > 0.4, "two examples of each were learned from"
    assert {one["name"] for one in report["candidates"] if one["value"] is None} >= {
        "columns: svm",
        "columns: trees",
        "columns: boosting",
    }


def test_three_rows_are_refused_in_a_sentence(workspace: Workspace) -> None:
    _table(workspace, {"number": [1.0, 2.0, 3.0]}, ["no", "yes", "no"], ["train", "train", "test"])
    with pytest.raises(SpeciateError, match="needs at least 2 examples of each label"):
        _learn(workspace)


def test_of_very_many_rows_a_sample_is_learned_and_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_run, "_MOST_LEARNED", 60)
    monkeypatch.setattr(train_run, "_MOST_VALIDATED", 30)
    numbers, labels = _signal(400)
    _table(workspace, {"number": numbers}, labels)
    report = _learn(workspace)
    assert report["examples"] == 90
    assert any(note == "60 of 200 training examples were learned from: a random sample." for note in report["notes"])
    assert report["validation"]["value"] > 0.85


def test_a_copy_of_the_label_among_the_inputs_is_told_before_it_is_learned(workspace: Workspace) -> None:
    rows = [{"number": i % 7, "outcome": f"class {i % 3}", "answer": ("no", "yes", "maybe")[i % 3]} for i in range(90)]
    ingest(workspace, "data", rows=rows, modality="tabular", label="answer", inputs=["number", "outcome"])
    planned = train.plan(TrainSpec(name="model", dataset="data", method="classical"), workspace)
    (told,) = planned.resolved["warnings"]
    assert "An input alone tells the label: 'outcome'" in told
    assert _learn(workspace)["validation"]["value"] == 1.0


def test_numbers_that_were_given_in_the_order_of_the_labels_are_told(workspace: Workspace) -> None:
    """As where each class was exported by itself, and the rows were numbered after that."""
    chance = np.random.default_rng(0)
    rows = [
        {
            "order": f"{'SP' if i < 200 else 'HM'}-{chance.integers(1000, 9999)}",
            "row": i,
            "size": float(chance.normal()),
        }
        | {"kind": "spam" if i < 200 else "ham"}
        for i in range(400)
    ]
    order = chance.permutation(400).tolist()
    ingest(
        workspace,
        "data",
        rows=[rows[i] for i in order],
        modality="tabular",
        label="kind",
        inputs=["order", "row", "size"],
    )
    planned = train.plan(TrainSpec(name="model", dataset="data", method="classical"), workspace)
    (told,) = planned.resolved["warnings"]
    assert "'order'" in told
    assert "'row'" in told
    assert "'size'" not in told


@pytest.mark.slow
def test_ten_thousand_labels_of_two_examples_end_in_a_model(workspace: Workspace) -> None:
    """The nearest mean of a class: what needs a matrix of examples and labels is not tried."""
    chance = np.random.default_rng(0)
    kinds = [i % 10_000 for i in range(30_000)]
    columns: Columns = {
        "x": [kind % 100 + float(chance.normal(0, 0.1)) for kind in kinds],
        "y": [kind // 100 + float(chance.normal(0, 0.1)) for kind in kinds],
    }
    splits = [("train", "train", "validation")[i // 10_000] for i in range(30_000)]
    _table(workspace, columns, [f"kind {kind:05d}" for kind in kinds], splits)
    report = _learn(workspace)
    assert report["validation"]["value"] > 0.9
    assert any("labels" in one.get("reason", "") for one in report["candidates"])
