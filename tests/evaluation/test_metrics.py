from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from speciate.evaluation.metrics import Answers, contributions, corpus, label_answers, number_answers
from speciate.vocabulary import find_metric, metrics_of

RANDOM = np.random.default_rng(11)
LABELS = ("a", "b", "c")
N = 200
TRUTH = RANDOM.choice(LABELS, N, p=(0.6, 0.3, 0.1))
CHANCES = RANDOM.dirichlet((1, 1, 1), N)
CHANCES[:, 0] += 0.2 * (TRUTH == "a")
CHANCES = (CHANCES / CHANCES.sum(1, keepdims=True)).round(2) + 0.001  # rounding makes ties
CHANCES /= CHANCES.sum(1, keepdims=True)
GIVEN = np.array(LABELS)[CHANCES.argmax(1)]


def answers(positive: str | None = None) -> Answers:
    chances = [dict(zip(LABELS, row, strict=True)) for row in CHANCES]
    return label_answers(list(TRUTH), list(GIVEN), chances, LABELS, positive)


def value(name: str, given: Answers) -> float:
    metric = find_metric(name)
    if metric.shape == "mean":
        return float(np.nanmean(contributions(metric, given)))
    n = len(given.truth)
    return float(corpus(metric, given, np.arange(n))(np.ones((1, n)))[0])


def one_versus_rest(score: object) -> float:
    return float(np.mean([score(label == TRUTH, CHANCES[:, i]) for i, label in enumerate(LABELS)]))  # type: ignore[operator]


def test_every_metric_of_labels_is_scikit_learns() -> None:
    expected = {
        "accuracy": oracle.accuracy_score(TRUTH, GIVEN),
        "balanced_accuracy": oracle.balanced_accuracy_score(TRUTH, GIVEN),
        "f1_macro": oracle.f1_score(TRUTH, GIVEN, average="macro"),
        "mcc": oracle.matthews_corrcoef(TRUTH, GIVEN),
        "recall": oracle.recall_score(TRUTH == "b", GIVEN == "b"),
        "specificity": oracle.recall_score(TRUTH != "b", GIVEN != "b"),
        "precision": oracle.precision_score(TRUTH == "b", GIVEN == "b"),
        "f1": oracle.f1_score(TRUTH == "b", GIVEN == "b"),
        "auroc": oracle.roc_auc_score(TRUTH == "b", CHANCES[:, 1]),
        "auprc": oracle.average_precision_score(TRUTH == "b", CHANCES[:, 1]),
        "log_loss": oracle.log_loss(TRUTH, CHANCES, labels=LABELS),
    }
    assert set(expected) == set(metrics_of("classification", "b"))
    assert {name: value(name, answers("b")) for name in expected} == pytest.approx(expected)


def test_metrics_of_ranks_average_the_labels_where_none_is_positive() -> None:
    assert value("auroc", answers()) == pytest.approx(
        oracle.roc_auc_score(TRUTH, CHANCES, multi_class="ovr", average="macro", labels=LABELS)
    )
    assert value("auprc", answers()) == pytest.approx(one_versus_rest(oracle.average_precision_score))


def test_every_metric_of_numbers_is_scikit_learns() -> None:
    truth = RANDOM.normal(1000, 3, N)
    given = truth + RANDOM.normal(0.5, 1, N)
    expected = {
        "mae": oracle.mean_absolute_error(truth, given),
        "rmse": oracle.root_mean_squared_error(truth, given),
        "r2": oracle.r2_score(truth, given),
    }
    numbers = number_answers(list(truth), list(given))
    assert set(expected) == set(metrics_of("regression"))
    assert {name: value(name, numbers) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1", "auroc", "auprc", "mcc"])
def test_weights_of_clusters_mean_repeated_examples(name: str) -> None:
    """A cluster that is drawn twice counts as if its examples were there twice."""
    clusters = np.arange(N) // 4
    weights = RANDOM.integers(0, 3, clusters.max() + 1).astype(float)
    twice = np.repeat(np.arange(N), weights[clusters].astype(int))
    chances = [dict(zip(LABELS, row, strict=True)) for row in CHANCES[twice]]
    repeated = label_answers(list(TRUTH[twice]), list(GIVEN[twice]), chances, LABELS, "b")
    weighted = corpus(find_metric(name), answers("b"), clusters)(weights[None, :])[0]
    assert weighted == pytest.approx(value(name, repeated))


@pytest.mark.parametrize("name", [*metrics_of("classification", "b"), *metrics_of("regression")])
def test_an_error_is_never_better_than_an_answer(name: str) -> None:
    metric = find_metric(name)
    if "regression" in metric.families:
        truth = list(RANDOM.normal(size=40))
        good = number_answers(truth, truth)
        bad = number_answers(truth, [None, *truth[1:]])
    else:
        truth = list(TRUTH)
        certain = [{label: 1.0} for label in truth]
        good = label_answers(truth, truth, certain, LABELS, "b")
        lost = [None if label == "b" else label for label in truth]
        bad = label_answers(truth, lost, [None if a is None else {a: 1.0} for a in lost], LABELS, "b")
        if metric.name == "specificity":
            lost = [None if label != "b" else label for label in truth]
            bad = label_answers(truth, lost, [None if a is None else {a: 1.0} for a in lost], LABELS, "b")
    assert metric.sign * value(name, bad) < metric.sign * value(name, good)


def test_a_label_that_the_model_does_not_know_counts_as_wrong() -> None:
    got = label_answers(["a", "z"], ["a", "a"], [None, None], ("a", "b"))
    assert got.labels == ("a", "b", "z")
    assert value("accuracy", got) == 0.5
    assert value("balanced_accuracy", got) == 0.5


def test_a_label_that_a_resample_does_not_hold_leaves_it_undefined() -> None:
    got = label_answers(["a", "b"], ["a", "b"], [None, None], ("a", "b"), "b")
    drawn = corpus(find_metric("auroc"), got, np.arange(2))(np.array([[2.0, 0.0], [1.0, 1.0]]))
    assert math.isnan(drawn[0])
    assert drawn[1] == 1
