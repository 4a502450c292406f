"""Labels that have an order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import SpeciateError
from speciate.tasks.families.ordinal import Ordinal, rank_labels
from speciate.tasks.task import TaskTerms
from tests.tasks.world import again, examples, learned

(EXAMPLE,) = examples("x")
GRADES = ("low", "middle", "high")


def test_labels_are_ordered_as_said_else_by_their_numbers() -> None:
    assert Ordinal.fit(["high", "low", "middle"], {"order": GRADES}).labels == GRADES
    assert Ordinal.fit(["10", "9", "2"], {"order": ()}).labels == ("2", "9", "10")
    assert Ordinal.fit(["10-best", "9-good", "-1 worst"], {}).labels == ("-1 worst", "9-good", "10-best")
    assert Ordinal.fit(["high", "low"], {"order": GRADES}).labels == ("low", "high")
    assert rank_labels(["odd", "high", "low"], GRADES) == ["low", "high", "odd"]


@pytest.mark.parametrize("labels", [["b", "a", "10"], ["excellent", "poor"], ["1-a", "1-b"]])
def test_words_without_an_order_have_no_ranks(labels: list[str]) -> None:
    with pytest.raises(SpeciateError, match="is higher is not known") as refusal:
        Ordinal.fit(labels, {"order": ()})
    assert "'order'" in refusal.value.recovery


@pytest.mark.parametrize(("cell", "target"), [("low", "low"), (3, "3"), (3.0, "3"), (2.5, "2.5")])
def test_cells_are_labels(cell: object, target: str) -> None:
    posed = Ordinal.evaluation_example(EXAMPLE, cell, TaskTerms())
    assert posed is not None
    assert posed.target == target


def test_a_label_outside_the_order_is_said() -> None:
    assert Ordinal.evaluation_example(EXAMPLE, None, TaskTerms(order=GRADES)) is None
    with pytest.raises(ValueError, match="'huge' is not in the order"):
        Ordinal.evaluation_example(EXAMPLE, "huge", TaskTerms(order=GRADES))


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=5))
def test_probabilities_add_up_and_the_answer_is_their_median(rows: list[list[float]]) -> None:
    for one in Ordinal(labels=("a", "b", "c", "d")).predictions(np.array(rows)):
        assert one.probabilities is not None
        probabilities = np.array(list(one.probabilities.values()))
        assert probabilities.min() >= 0
        assert probabilities.sum() == pytest.approx(1)
        place = list(one.probabilities).index(one.output)
        assert probabilities[:place].sum() <= 0.5 + 1e-9
        assert probabilities[: place + 1].sum() >= 0.5 - 1e-9


def test_a_head_learns_ranks_and_calibration_changes_no_answer() -> None:
    random = np.random.default_rng(1)
    media = [random.normal(size=(4, 3)).astype(np.float32) for _ in range(90)]
    targets = [str(np.digitize(medium[:, 0].mean(), [-0.5, 0, 0.5])) for medium in media]
    task_head = Ordinal.fit(targets, {})
    scores, losses = learned(task_head, media[:60], targets[:60], 300)
    assert losses[-1] < losses[0] / 2
    found = np.stack(scores(media[60:]))
    assert (np.diff(found, axis=1) <= 0).all()  # bounds do not cross
    made = task_head.predictions(found)
    errors = [abs(int(one.output) - int(target)) for one, target in zip(made, targets[60:], strict=True)]
    assert np.mean(errors) < 0.35  # chance: 1
    calibrated = task_head.calibrated(found, task_head.encode_targets(targets[60:]))
    assert [one.output for one in calibrated.predictions(found)] == [one.output for one in made]
    assert again(calibrated) == calibrated


def test_labels_that_training_has_not_seen_are_no_training_example() -> None:
    task_head = Ordinal.fit(["1", "2", "3"], {})
    assert task_head.encode_targets(["3", "7"]).tolist() == [2, -1]
    assert task_head.calibrated(np.zeros((1, 2)), np.array([-1])) == task_head
    media = [np.ones((2, 3), np.float32)] * 2
    _, losses = learned(task_head, media, ["7", "7"], 1)
    assert losses == [0]


def test_the_baseline_is_the_median() -> None:
    assert Ordinal.baseline(["1", "1", "2", "10", "10"], TaskTerms())(EXAMPLE).output == "2"
    assert Ordinal.baseline(["low", "middle", "high"], TaskTerms(order=GRADES))(EXAMPLE).output == "middle"
