from __future__ import annotations

import importlib.util
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from speciate.errors import Code, SpeciateError
from speciate.evaluation import metric_libraries as libraries
from speciate.evaluation import metrics
from speciate.evaluation.metrics import Answers, contributions, corpus, label_answers, number_answers
from speciate.vocabulary import METRICS, find_metric, metrics_of

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
RANDOM = np.random.default_rng(11)
LABELS = ("a", "b", "c")
N = 200
REFERENCES = RANDOM.choice(LABELS, N, p=(0.6, 0.3, 0.1))
CHANCES = RANDOM.dirichlet((1, 1, 1), N)
CHANCES[:, 0] += 0.2 * (REFERENCES == "a")
CHANCES = (CHANCES / CHANCES.sum(1, keepdims=True)).round(2) + 0.001  # rounding makes ties
CHANCES /= CHANCES.sum(1, keepdims=True)
GIVEN = np.array(LABELS)[CHANCES.argmax(1)]


def answers(positive: str | None = None) -> Answers:
    probabilities = [dict(zip(LABELS, row, strict=True)) for row in CHANCES]
    return label_answers(list(REFERENCES), list(GIVEN), probabilities, LABELS, positive)


def value(name: str, given: Answers) -> float:
    metric = find_metric(name)
    if metric.shape == "mean":
        return float(np.nanmean(contributions(metric, given)))
    n = len(given.references)
    return float(corpus(metric, given, np.arange(n))(np.ones((1, n)))[0])


def one_versus_rest(score: object) -> float:
    return float(np.mean([score(label == REFERENCES, CHANCES[:, i]) for i, label in enumerate(LABELS)]))  # type: ignore[operator]


def test_every_metric_of_labels_is_scikit_learns() -> None:
    expected = {
        "accuracy": oracle.accuracy_score(REFERENCES, GIVEN),
        "balanced_accuracy": oracle.balanced_accuracy_score(REFERENCES, GIVEN),
        "f1_macro": oracle.f1_score(REFERENCES, GIVEN, average="macro"),
        "mcc": oracle.matthews_corrcoef(REFERENCES, GIVEN),
        "recall": oracle.recall_score(REFERENCES == "b", GIVEN == "b"),
        "specificity": oracle.recall_score(REFERENCES != "b", GIVEN != "b"),
        "precision": oracle.precision_score(REFERENCES == "b", GIVEN == "b"),
        "f1": oracle.f1_score(REFERENCES == "b", GIVEN == "b"),
        "auroc": oracle.roc_auc_score(REFERENCES == "b", CHANCES[:, 1]),
        "auprc": oracle.average_precision_score(REFERENCES == "b", CHANCES[:, 1]),
        "log_loss": oracle.log_loss(REFERENCES, CHANCES, labels=LABELS),
        "brier": oracle.brier_score_loss(REFERENCES, CHANCES, labels=LABELS, scale_by_half=True),
        "cohen_kappa": oracle.cohen_kappa_score(REFERENCES, GIVEN),
        "ece": calibration_error(CHANCES.max(1).round(12), GIVEN == REFERENCES),
        "top_5_accuracy": 1.0,  # of three labels
    } | {f"recall_at_precision_{percent}": best_recall(percent / 100) for percent in (90, 95, 99)}
    assert set(expected) == set(metrics_of("classification", "b"))
    assert {name: value(name, answers("b")) for name in expected} == pytest.approx(expected, rel=1e-9)


def best_recall(least: float) -> float:
    precision, recall, _ = oracle.precision_recall_curve(REFERENCES == "b", CHANCES[:, 1])
    return float(recall[precision >= least].max())


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Written out: each example in the bin of the quantiles that it lies between."""
    edges = [-1.0, *np.quantile(sure, [k / 15 for k in range(1, 15)]), 2.0]
    gaps = [
        abs(right[inside].mean() - sure[inside].mean()) * inside.mean()
        for low, high in itertools.pairwise(edges)
        if (inside := (sure >= low) & (sure < high)).any()
    ]
    return float(sum(gaps))


def test_calibration_is_that_of_probabilities_which_come_true() -> None:
    probabilities = RANDOM.uniform(0.5, 1, 20_000)
    reference = np.where(RANDOM.random(20_000) < probabilities, "a", "b")
    honest = [{"a": each, "b": 1 - each} for each in probabilities]
    boastful = [{"a": (1 + each) / 2, "b": (1 - each) / 2} for each in probabilities]
    made = [label_answers(list(reference), ["a"] * 20_000, each, ("a", "b")) for each in (honest, boastful)]
    assert value("ece", made[0]) < 0.015
    assert value("ece", made[1]) == pytest.approx(0.125, abs=0.01)


def test_the_five_most_probable_labels_are_scikit_learns() -> None:
    labels = [f"l{i}" for i in range(9)]
    probabilities, reference = RANDOM.dirichlet(np.ones(9), 60), RANDOM.integers(0, 9, 60)
    rows = [dict(zip(labels, row, strict=True)) for row in probabilities]
    made = label_answers([labels[i] for i in reference], [labels[i] for i in probabilities.argmax(1)], rows, labels)
    assert value("top_5_accuracy", made) == oracle.top_k_accuracy_score(reference, probabilities, k=5, labels=range(9))


def test_labels_that_are_equally_probable_share_the_places_that_are_left_and_a_certain_answer_has_one() -> None:
    labels = [f"l{i}" for i in range(10)]
    equal = label_answers(labels, ["l0"] * 10, [dict.fromkeys(labels, 0.1)] * 10, labels)
    assert value("top_5_accuracy", equal) == 0.5
    certain = label_answers(labels, ["l0"] * 10, [None] * 10, labels)
    assert value("top_5_accuracy", certain) == 0.1


def test_metrics_of_ranks_average_the_labels_where_none_is_positive() -> None:
    assert value("auroc", answers()) == pytest.approx(
        oracle.roc_auc_score(REFERENCES, CHANCES, multi_class="ovr", average="macro", labels=LABELS)
    )
    assert value("auprc", answers()) == pytest.approx(one_versus_rest(oracle.average_precision_score))


def test_every_metric_of_numbers_is_scikit_learns() -> None:
    reference = RANDOM.normal(1000, 3, N)
    said = reference + RANDOM.normal(0.5, 1, N)
    expected = {
        "mae": oracle.mean_absolute_error(reference, said),
        "rmse": oracle.root_mean_squared_error(reference, said),
        "r2": oracle.r2_score(reference, said),
        "mape": oracle.mean_absolute_percentage_error(reference, said),
        "median_ae": oracle.median_absolute_error(reference, said),
        "pearson": stats.pearsonr(reference, said).statistic,
        "spearman": stats.spearmanr(reference, said).statistic,
    }
    numbers = number_answers(list(reference), list(said))
    assert set(expected) == set(metrics_of("regression"))
    assert {name: value(name, numbers) for name in expected} == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_correlations_and_the_median_with_equal_numbers_are_scipys(pairs: list[tuple[int, int]]) -> None:
    reference, said = (np.array(column, float) for column in zip(*pairs, strict=True))
    made = number_answers(list(reference), list(said))
    assert value("median_ae", made) == pytest.approx(oracle.median_absolute_error(reference, said))
    for name, score in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        if np.ptp(reference) and np.ptp(said):
            assert value(name, made) == pytest.approx(score(reference, said).statistic, abs=1e-9)
        else:
            assert np.isnan(value(name, made)) == (np.ptp(reference) == 0)
            assert np.ptp(reference) == 0 or value(name, made) == 0


@pytest.mark.parametrize("name", ["rmse", "r2", "pearson", "spearman", "median_ae"])
def test_weights_of_clusters_mean_repeated_numbers(name: str) -> None:
    reference = RANDOM.normal(size=60).round(1)
    said = reference + RANDOM.normal(size=60).round(1)
    clusters = np.arange(60) // 4
    weights = RANDOM.integers(0, 3, 15).astype(float)
    twice = np.repeat(np.arange(60), weights[clusters].astype(int))
    weighted = corpus(find_metric(name), number_answers(list(reference), list(said)), clusters)(weights[None, :])[0]
    assert weighted == pytest.approx(value(name, number_answers(list(reference[twice]), list(said[twice]))), rel=1e-9)


def test_a_reference_of_zero_has_no_relative_error() -> None:
    got = contributions(find_metric("mape"), number_answers([0.0, 2.0], [1.0, 1.0]))
    assert math.isnan(got[0])
    assert got[1] == 0.5


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].positive or METRICS[name].probabilities])
def test_all_errors_are_the_worst_value_or_none(name: str) -> None:
    """Every model can fail on everything; then there is a value, and it is bad."""
    lost = label_answers(list(REFERENCES), [None] * N, [None] * N, LABELS, "b")
    metric = find_metric(name)
    worst = metric.low if metric.sign > 0 else metric.high
    if name == "auprc":  # every positive comes last, after all the others
        worst = float((REFERENCES == "b").mean())
    assert value(name, lost) == pytest.approx(worst) if worst is not None else value(name, lost) > 30


@pytest.mark.parametrize(
    "name", ["balanced_accuracy", "f1", "auroc", "auprc", "mcc", "cohen_kappa", "recall_at_precision_90"]
)
def test_weights_of_clusters_mean_repeated_examples(name: str) -> None:
    """A cluster that is drawn twice counts as if its examples were there twice."""
    clusters = np.arange(N) // 4
    weights = RANDOM.integers(0, 3, clusters.max() + 1).astype(float)
    twice = np.repeat(np.arange(N), weights[clusters].astype(int))
    probabilities = [dict(zip(LABELS, row, strict=True)) for row in CHANCES[twice]]
    repeated = label_answers(list(REFERENCES[twice]), list(GIVEN[twice]), probabilities, LABELS, "b")
    weighted = corpus(find_metric(name), answers("b"), clusters)(weights[None, :])[0]
    assert weighted == pytest.approx(value(name, repeated))


@pytest.mark.parametrize("name", [*metrics_of("classification", "b"), *metrics_of("regression")])
def test_an_error_is_never_better_than_an_answer(name: str) -> None:
    metric = find_metric(name)
    if "regression" in metric.families:
        reference = list(RANDOM.normal(size=40))
        good = number_answers(reference, reference)
        bad = number_answers(reference, [*[None] * 21, *reference[21:]])  # more than half: a median sees no fewer
    else:
        reference = list(REFERENCES)
        certain = [{label: 1.0} for label in reference]
        good = label_answers(reference, reference, certain, LABELS, "b")
        lost = [None if label == "b" else label for label in reference]
        bad = label_answers(reference, lost, [None if a is None else {a: 1.0} for a in lost], LABELS, "b")
        if metric.name == "specificity":
            lost = [None if label != "b" else label for label in reference]
            bad = label_answers(reference, lost, [None if a is None else {a: 1.0} for a in lost], LABELS, "b")
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


def rows() -> dict[str, list[str]]:
    """The cells of the page's table by the metric's name."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {name.strip("`"): rest for name, *rest in cells}


def test_the_page_has_a_row_for_every_metric_that_says_what_the_table_of_metrics_says() -> None:
    shown = rows()
    assert list(shown) == list(METRICS)
    for name, metric in METRICS.items():
        families, what, span, needs, shape, held_to = shown[name]
        ends = ("any" if end is None else f"{end:g}" for end in (metric.low, metric.high))
        assert (families, what, shape) == (", ".join(metric.families), metric.what, metric.shape)
        assert span == f"{metric.better}, {' to '.join(ends)}"
        assert ("positive label" in needs, "probabilities" in needs) == (metric.positive, metric.probabilities)
        assert held_to


def test_every_metric_is_computed_and_every_one_that_is_computed_is_known() -> None:
    tables = metrics._MEANS.keys() | metrics._STATISTICS.keys() | metrics._CORPORA.keys()
    assert tables == set(METRICS)
    assert {name for name in METRICS if METRICS[name].shape == "mean"} == set(metrics._MEANS)


def test_a_metric_whose_library_is_absent_is_named_and_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sacrebleu" else object())
    assert [name for name in METRICS if libraries.lacks_library(METRICS[name])] == ["bleu", "chrf"]
    libraries.check_libraries([METRICS["accuracy"], METRICS["rouge_l"]])
    with pytest.raises(SpeciateError, match="sacrebleu is not installed") as refusal:
        libraries.check_libraries([METRICS["accuracy"], METRICS["bleu"]])
    assert refusal.value.code is Code.MISSING_EXTRA
