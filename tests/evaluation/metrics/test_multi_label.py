"""Sets of labels are judged as scikit-learn judges the table of examples and labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from speciate.evaluation.metrics import contributions, corpus, judged
from speciate.evaluation.metrics.answers import Answers
from speciate.vocabulary import find_metric

LABELS = ("a", "b", "c")
SETS = st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=2, max_size=12)


def answers(truth: list[list[str]], given: list[list[str] | None]) -> Answers:
    return judged("multi-label", truth, given, [None] * len(truth), LABELS)


def f1(made: Answers, weights: np.ndarray | None = None) -> float:
    n = len(made.truth)
    return float(
        corpus(find_metric("f1_micro"), made, np.arange(n))(np.ones((1, n)) if weights is None else weights)[0]
    )


def table(sets: list[list[str]]) -> np.ndarray:
    return np.array([[label in labels for label in LABELS] for labels in sets])


@settings(deadline=None)
@given(st.data())
def test_metrics_are_scikit_learns(data: st.DataObject) -> None:
    truth = data.draw(SETS)
    said = data.draw(st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=len(truth), max_size=len(truth)))
    made = answers(truth, list(said))
    exact = contributions(find_metric("subset_accuracy"), made)
    assert exact.mean() == pytest.approx(oracle.accuracy_score(table(truth), table(said)))
    if any(truth) or any(said):
        assert f1(made) == pytest.approx(oracle.f1_score(table(truth), table(said), average="micro"))
    else:
        assert np.isnan(f1(made))


@settings(deadline=None)
@given(SETS, st.data())
def test_an_example_drawn_twice_counts_twice(truth: list[list[str]], data: st.DataObject) -> None:
    said = [data.draw(st.sets(st.sampled_from(LABELS)).map(sorted)) for _ in truth]
    counts = np.array([data.draw(st.integers(0, 2)) for _ in truth])
    places = np.repeat(np.arange(len(truth)), counts)
    if not any(truth[i] or said[i] for i in places):
        return
    repeated = answers([truth[i] for i in places], [said[i] for i in places])
    assert f1(answers(truth, list(said)), counts[None, :].astype(float)) == pytest.approx(f1(repeated))


@pytest.mark.parametrize("truth", [[], ["a"], ["a", "b"]])
def test_an_error_is_worse_than_any_answer_that_is_partly_right(truth: list[str]) -> None:
    others = [["a"], ["b", "c"]]
    wrong = answers([truth, *others], [None, *others])
    assert contributions(find_metric("subset_accuracy"), wrong)[0] == 0
    for said in (truth, truth[:1], []):
        assert f1(wrong) <= f1(answers([truth, *others], [said, *others]))
    assert f1(wrong) < f1(answers([truth, *others], [truth, *others]))


def macro(made: Answers) -> float:
    n = len(made.truth)
    return float(corpus(find_metric("f1_macro_labels"), made, np.arange(n))(np.ones((1, n)))[0])


@settings(deadline=None)
@given(st.data())
def test_label_by_label_they_are_scikit_learns(data: st.DataObject) -> None:
    truth = data.draw(SETS)
    said = data.draw(st.lists(st.sets(st.sampled_from(LABELS)).map(sorted), min_size=len(truth), max_size=len(truth)))
    made = answers(truth, list(said))
    wrong = contributions(find_metric("hamming_loss"), made)
    assert wrong.mean() == pytest.approx(oracle.hamming_loss(table(truth), table(said)))
    shown = (table(truth) | table(said)).any(0)
    if not shown.any():
        assert np.isnan(macro(made))
        return
    each = [oracle.f1_score(table(truth)[:, k], table(said)[:, k]) for k in np.flatnonzero(shown)]
    assert macro(made) == pytest.approx(np.mean(each))


def test_an_error_is_wrong_about_every_label() -> None:
    right: list[list[str] | None] = [["a"], ["b", "c"], []]
    truth = [["a"], ["b", "c"], []]
    for place in range(3):
        lost = [None if i == place else each for i, each in enumerate(right)]
        made = answers(truth, lost)
        assert contributions(find_metric("hamming_loss"), made)[place] == 1
        assert macro(made) < macro(answers(truth, right)) == 1
