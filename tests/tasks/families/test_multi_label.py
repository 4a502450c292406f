"""Any number of labels per example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from speciate.tasks.families.multi_label import MultiLabel, labels_of
from speciate.tasks.task import TaskTerms
from tests.tasks.world import again, examples, learned

(EXAMPLE,) = examples("x")


@pytest.mark.parametrize(
    ("cell", "target"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ('["b", "a"]', ["a", "b"]),
        ("b|a", ["a", "b"]),
        ("b; a", ["a", "b"]),
        ("a", ["a"]),
        ([1, 2], ["1", "2"]),
        ([], []),
        ("[]", []),
    ],
)
def test_cells_are_lists_however_they_are_written(cell: object, target: list[str]) -> None:
    posed = MultiLabel.evaluation_example(EXAMPLE, cell, TaskTerms())
    assert posed is not None
    assert posed.target == target


@pytest.mark.parametrize("cell", [None, "", float("nan")])
def test_no_cell_is_no_target(cell: object) -> None:
    assert MultiLabel.evaluation_example(EXAMPLE, cell, TaskTerms()) is None
    assert MultiLabel.training_examples(EXAMPLE, cell, TaskTerms()) == []


@pytest.mark.parametrize("cell", [3.5, {"a": 1}, ["a", None], [["a"]], '["a"', "['a', 'b']"])
def test_what_is_no_list_of_labels_is_said(cell: object) -> None:
    with pytest.raises(ValueError, match=r"is no l|and is none"):
        labels_of(cell)


def test_a_head_learns_each_label_by_itself() -> None:
    random = np.random.default_rng(1)
    media = [random.normal(size=(3, 4)).astype(np.float32) for _ in range(80)]
    targets = [[name for name, x in zip("abc", medium.mean(0), strict=False) if x > 0] for medium in media]
    task_head = MultiLabel.fit(targets, {})
    scores, losses = learned(task_head, media[:60], targets[:60])
    assert losses[-1] < losses[0] / 2
    made = task_head.predictions(np.stack(scores(media[60:])))
    right = np.mean([one.output == target for one, target in zip(made, targets[60:], strict=True)])
    assert right > 0.6  # of eight sets
    assert made[0].probabilities is not None
    assert set(made[0].probabilities) == set("abc")


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 2), st.integers(0, 2**31))
def test_thresholds_have_the_greatest_f1_that_any_have(n: int, labels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, wanted = random.normal(size=(n, labels)).round(1), random.random((n, labels)) < 0.4
    if not wanted.any():
        return
    names = tuple("ab"[:labels])
    task_head = MultiLabel(labels=names, thresholds=(0.5,) * labels).calibrated(scores, wanted.astype(float))
    given_ = np.array([[name in one.output for name in names] for one in task_head.predictions(scores)])
    cuts = [np.unique(np.append(column, -99)) for column in scores.T]
    grid = np.stack(np.meshgrid(*cuts), -1).reshape(-1, labels)
    best = max(f1_score(wanted.ravel(), (scores > cut).ravel(), zero_division=0) for cut in grid)
    assert f1_score(wanted.ravel(), given_.ravel()) == pytest.approx(best)


def test_without_a_label_among_the_held_out_thresholds_stay_in_the_middle() -> None:
    task_head = MultiLabel(labels=("a",), thresholds=(0.5,)).calibrated(np.array([[1.0], [2.0]]), np.zeros((2, 1)))
    assert task_head.thresholds == (0.5,)


def test_it_comes_back_from_json_and_the_baseline_gives_what_is_common() -> None:
    targets = [["a"], ["a", "b"], ["c"]]
    task_head = MultiLabel.fit(targets, {})
    assert again(task_head) == task_head
    assert MultiLabel.baseline(targets, TaskTerms())(EXAMPLE).output == ["a"]
    assert MultiLabel.baseline([["a"], ["b"], ["c"], []], TaskTerms())(EXAMPLE).output == ["a", "b", "c"]
    assert task_head.encode_targets([["b", "unseen"]]).tolist() == [[0, 1, 0]]


def test_thresholds_follow_the_objective() -> None:
    """Rare labels whose probabilities never reach a half: each gets its own threshold by the mean of the labels' F1."""
    random = np.random.default_rng(5)
    shares = np.array([0.5, 0.1, 0.03])
    wanted = random.random((3000, 3)) < shares
    scores = np.log(shares / (1 - shares)) + 1.5 * wanted + random.normal(size=wanted.shape)
    found = {}
    for metric in ("f1_micro", "f1_macro_labels", "hamming_loss"):
        task_head = MultiLabel.fit([["a", "b", "c"]], {"objective_metric": metric}).calibrated(scores, wanted)
        given = np.array([[name in one.output for name in "abc"] for one in task_head.predictions(scores)])
        found[metric] = (
            f1_score(wanted, given, average="micro"), f1_score(wanted, given, average="macro"), (wanted != given).mean()
        )  # fmt: skip
    assert max(found, key=lambda name: found[name][0]) == "f1_micro"
    assert max(found, key=lambda name: found[name][1]) == "f1_macro_labels"
    assert min(found, key=lambda name: found[name][2]) == "hamming_loss"
    assert found["f1_macro_labels"][1] > found["f1_micro"][1] + 0.01


@pytest.mark.parametrize(
    ("metric", "answer"),
    [
        ("f1_micro", ["a", "b"]),
        ("f1_macro_labels", ["a", "b", "c"]),
        ("hamming_loss", ["a"]),
        ("subset_accuracy", ["a"]),
    ],
)
def test_the_constant_answer_is_the_best_one_by_the_metric(metric: str, answer: list[str]) -> None:
    targets = [["a"]] * 4 + [["a", "b"]] * 3 + [["b"]] * 1 + [["c"]] * 1
    assert MultiLabel.baseline(targets, TaskTerms(), metric)(EXAMPLE).output == answer
