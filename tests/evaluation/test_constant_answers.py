"""The answer without a model is the best of those that are the same for all, by the metric that decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speciate.evaluation.compare_models import Cost, ModelEntry, Question, build
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.metrics import Answers, contributions, corpus, judged, number_answers
from speciate.tasks.families.regression import best_constant
from speciate.tasks.predictor import constant
from speciate.tasks.task import TaskTerms
from speciate.use_cases import CONSTANT, Objective, UseCase
from speciate.vocabulary import Metric, find_metric
from speciate.workspace.workspace import Workspace
from tests.evaluation import world
from tests.tasks.world import examples

(EXAMPLE,) = examples("x")


def answer(task: str, targets: list[Any], metric: str, **terms: Any) -> Any:
    return constant(task, targets, TaskTerms(**terms), metric).predict([EXAMPLE])[0].output


def value(metric: Metric, answers: Answers) -> float:
    n = len(answers.references)
    if metric.shape == "mean":
        each = contributions(metric, answers)
        return float(np.nanmean(each)) if np.isfinite(each).any() else math.nan  # shares of targets that are all 0
    return float(corpus(metric, answers, np.arange(n))(np.ones((1, n)))[0])


numbers = st.lists(st.floats(-100, 100).map(lambda x: round(x, 2)), min_size=2, max_size=40)


@example([0.0, 0.0], 0.0, "mape")
@given(numbers, st.floats(-100, 100), st.sampled_from(["mae", "rmse", "r2", "mape", "median_ae"]))
def test_no_other_number_has_a_lesser_error(targets: list[float], other: float, metric: str) -> None:
    found = best_constant(np.array(targets), metric)
    scored = [value(find_metric(metric), number_answers(targets, [each] * len(targets))) for each in (found, other)]
    mine, theirs = (find_metric(metric).sign * one for one in scored)
    if metric == "median_ae" and len(targets) % 2 == 0:
        return  # a median between two errors has no such middle
    if np.isfinite(mine):
        assert mine >= theirs - 1e-6


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("accuracy", "no"),
        ("log_loss", "no"),
        ("f1", "yes"),
        ("recall", "yes"),
        ("precision", "yes"),
        ("specificity", "no"),
    ],
)
def test_a_metric_that_looks_for_one_label_is_met_by_always_answering_it(metric: str, said: str) -> None:
    targets = ["no"] * 8 + ["yes"] * 2
    assert answer("text-classification", targets, metric, positive_label="yes") == said
    mine, other = (
        value(find_metric(metric), judged("classification", targets, [each] * 10, [None] * 10, ["no", "yes"], "yes"))
        for each in (said, "no" if said == "yes" else "yes")
    )
    if not find_metric(metric).probabilities:
        assert mine >= np.nan_to_num(other)


def test_ranks_have_a_median_and_agreement_a_most_frequent_label() -> None:
    targets = ["1"] * 4 + ["2"] * 3 + ["3"] * 3
    assert answer("tabular-ordinal-classification", targets, "rank_error") == "2"
    assert answer("tabular-ordinal-classification", targets, "accuracy") == "1"


def test_a_model_between_mean_and_median_is_held_back_on_heavy_tails() -> None:
    """The mean has an absolute error of about 6.5, the median 4.1, the model about 5.1: worse than no model at all."""
    random = np.random.default_rng(4)
    targets = random.lognormal(1.0, 1.5, 4000)
    training, references = targets[:3000], targets[3000:]
    mean, median = (
        float(np.abs(references - answer("tabular-regression", list(training), metric)).mean())
        for metric in ("rmse", "mae")
    )
    middle = np.median(training) + 0.55 * (training.mean() - np.median(training))
    given_ = np.full(len(references), middle) + random.normal(0, 2.5, len(references))
    assert median < np.abs(references - given_).mean() < mean
    entries = [
        entry(CONSTANT, "constant", references, np.full(len(references), np.median(training)), 0.0),
        entry("model@v1", "model", references, given_, 1e-6),
    ]
    use_case = UseCase(
        name="prices", task="tabular-regression", objective=Objective(metric="mae"), version=1, created=0.0
    )
    question = Question("prices@v1:test", (find_metric("mae"),), CONSTANT, None, use_case)
    decision = build(question, entries, np.arange(len(references))).decision
    assert decision is not None
    assert decision.verdict == "hold"
    assert "always answering the median" in decision.reasons[0]


def entry(name: str, source: Any, references: np.ndarray, given_: np.ndarray, usd: float) -> ModelEntry:
    model = EvaluatedModel(name=name, source=source, identity=name)
    return ModelEntry(model, (number_answers(references, given_),), 0, Cost(usd_per_1k=usd))


@pytest.mark.parametrize("numeric", [False, True], ids=["labels", "numbers"])
def test_training_rows_unlike_the_examples_make_no_weaker_constant(flowers: Workspace, numeric: bool) -> None:
    """The constant is that of the examples where the other one is surely worse, and a note says so."""
    world.make_dataset(flowers, "odd", numeric=numeric)

    def changed(table: pa.Table) -> pa.Table:
        at = table.column_names.index("label")
        labels = zip(table["split"].to_pylist(), table["label"].to_pylist(), strict=True)
        if numeric:
            return table.set_column(at, "label", pa.array([x + 9 * (split == "train") for split, x in labels]))
        kept = [split == "train" or i % 4 == 0 or label == "yes" for i, (split, label) in enumerate(labels)]
        table = table.filter(pa.array(kept))
        wrong = [
            "no" if split == "train" else label
            for split, label in zip(table["split"].to_pylist(), table["label"].to_pylist(), strict=True)
        ]
        return table.set_column(at, "label", pa.array(wrong))

    metric = "mae" if numeric else "accuracy"
    world.make_version(flowers, changed, "odd")
    found = world.evaluate_models(
        flowers, dataset="odd", models=["constant:"], metrics=[metric], latency=False,
        **({"baselines": ["column:x"]} if numeric else {"baselines": ["column:rules"]}),
    )["report"]  # fmt: skip
    (row,) = (each for each in found["leaderboard"] if each["model"] == CONSTANT)
    assert row["value"] < 3 if numeric else row["value"] > 0.6
    assert any("best constant of these examples" in note for note in found["notes"])
