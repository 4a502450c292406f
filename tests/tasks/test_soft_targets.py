"""What another model says, as something to learn from: the right columns, and a distance that is nothing only there."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.tasks.families.classification import Classification
from speciate.tasks.families.multi_label import MultiLabel
from speciate.tasks.families.ordinal import Ordinal
from speciate.tasks.families.regression import Regression
from speciate.tasks.network_predictor import merge_task_heads
from speciate.tasks.soft_targets import align_columns, average_targets, soft_target_loss, targets_from_predictions
from speciate.tasks.task import Prediction

torch = pytest.importorskip("torch")
AB, ABC = Classification(labels=("a", "b")), Classification(labels=("a", "b", "c"))


def said(**table: float) -> Prediction:
    return Prediction(max(table, key=lambda label: table[label]), None, table)


def test_probabilities_stand_in_the_students_columns_and_what_a_teacher_does_not_know_is_open() -> None:
    found = targets_from_predictions(ABC, [said(b=0.75, a=0.25, z=0.0)])
    np.testing.assert_allclose(np.exp(found[0, :2]), [0.25, 0.75], rtol=1e-6)
    assert np.isnan(found[0, 2])


@pytest.mark.parametrize(
    ("task_head", "prediction", "own"),
    [
        pytest.param(AB, said(a=0.2, b=0.8), [np.log(0.2), np.log(0.8)], id="classification"),
        pytest.param(
            MultiLabel(labels=("a", "b"), thresholds=(0.5, 0.5)), Prediction([], None, {"a": 0.2, "b": 0.9}),
            [np.log(0.25), np.log(9)], id="multi-label",
        ),
        pytest.param(
            Ordinal(labels=("low", "mid", "high")), said(low=0.5, mid=0.25, high=0.25), [0.0, np.log(1 / 3)],
            id="ordinal",
        ),
        pytest.param(Regression(mean=10.0, spread=2.0), Prediction(13.0, None, None), [1.5], id="regression"),
    ],
)  # fmt: skip
def test_a_student_that_says_the_same_is_nowhere_off_and_any_other_is(
    task_head: Classification | MultiLabel | Ordinal | Regression, prediction: Prediction, own: list[float]
) -> None:
    wanted = torch.from_numpy(targets_from_predictions(task_head, [prediction]))
    scores = torch.tensor([own], dtype=torch.float32)
    same = soft_target_loss("probabilities", task_head.family, scores, wanted, 2.0)
    other = soft_target_loss(
        "probabilities", task_head.family, scores + torch.tensor([[0.7] + [0.0] * (len(own) - 1)]), wanted, 2.0
    )
    assert same.item() == pytest.approx(0, abs=1e-6)
    assert other.item() > 0.01


def test_open_columns_neither_count_nor_get_a_gradient() -> None:
    wanted = torch.tensor([[0.3, -1.0, float("nan")]])
    for match in ("probabilities", "scores"):
        scores = torch.tensor([[1.0, 2.0, 50.0]], requires_grad=True)
        apart = soft_target_loss(match, "classification", scores, wanted, 2.0)  # type: ignore[arg-type]
        apart.sum().backward()
        assert torch.isfinite(apart).all()
        assert scores.grad is not None
        assert scores.grad[0, 2] == 0
        assert scores.grad[0, 0] != 0


def test_several_teachers_say_their_mean_probability_of_what_each_knows() -> None:
    one, other = (
        targets_from_predictions(ABC, [said(a=0.2, b=0.8)]),
        targets_from_predictions(ABC, [said(a=0.4, b=0.4, c=0.2)]),
    )
    np.testing.assert_allclose(np.exp(average_targets([one, other], ABC)), [[0.3, 0.6, 0.2]], rtol=1e-5)


def test_old_scores_go_to_the_columns_of_their_labels() -> None:
    grown = merge_task_heads(Classification(labels=("b", "d")), Classification(labels=("a", "c")))
    assert grown.labels == ("a", "b", "c", "d")
    found = align_columns(Classification(labels=("b", "d")), grown, [np.array([1.0, 2.0])])
    np.testing.assert_array_equal(found, [[np.nan, 1.0, np.nan, 2.0]])
