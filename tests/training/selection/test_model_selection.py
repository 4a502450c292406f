from __future__ import annotations

import importlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]  # has no types

from speciate.datasets.loading.loader import Example
from speciate.environment import compute_threads
from speciate.models.estimators import Linear
from speciate.tasks.representations import Scaling, Steps
from speciate.tasks.task_heads import TASK_HEADS
from speciate.training.held_out import measure
from speciate.training.selection import ensembling, learners
from speciate.training.selection.learners import Learner, LearnerGroup
from speciate.training.selection.out_of_fold import ON_ALL_FOLDS
from speciate.workspace.workspace import Workspace
from tests.training.world import define, make_dataset, train_now

TRAIN, HELD = 600, 60


@pytest.fixture
def points(workspace: Workspace) -> Workspace:
    """Two clouds that a line tells apart in about 95 of 100."""
    random, n = np.random.default_rng(1), TRAIN + HELD + 20
    positive = random.random(n) < 0.5
    x = random.normal(0, 1, n) + np.where(positive, 1.65, -1.65)
    make_dataset(
        workspace, "points", "tabular", {"x": x.tolist(), "noise": random.normal(size=n).tolist()},
        labels=["yes" if each else "no" for each in positive],
        splits=["train"] * TRAIN + ["validation"] * HELD + ["test"] * 20, inputs=["x", "noise"],
    )  # fmt: skip
    return workspace


def trained(workspace: Workspace, target: float) -> dict[str, Any]:
    define(workspace, "clouds", "tabular-classification", target)
    made = train_now(
        workspace, job=f"job-{target}", name="line", dataset="points", method="classical", use_case="clouds",
        hyperparameters={"candidates": ["logistic"]},
    )  # fmt: skip
    validation: dict[str, Any] = made["report"]["validation"]
    return validation


def test_a_winner_that_meets_the_target_on_few_examples_is_judged_on_all_of_them(points: Workspace) -> None:
    found = trained(points, 0.9)
    assert (found["how"], found["n"]) == (ON_ALL_FOLDS, TRAIN + HELD)
    assert found["interval"][0] >= 0.9  # which 60 examples could not have shown


def test_a_winner_that_misses_the_target_or_surely_meets_it_is_not(points: Workspace) -> None:
    assert trained(points, 0.999)["how"] == "validation"
    assert trained(points, 0.6)["how"] == "validation"


def test_a_label_of_two_examples_is_in_each_part_of_a_learning_curve(workspace: Workspace) -> None:
    """A part without it taught learners that have no score for it: the whole training ended in a ValueError."""
    random, n = np.random.default_rng(1), TRAIN + HELD + 20
    labels = [f"label {each}" for each in random.integers(0, 3, n)]
    labels[7] = labels[8] = "label 3"
    make_dataset(
        workspace, "points", "tabular", {"x": random.normal(size=n).tolist(), "y": random.normal(size=n).tolist()},
        labels=labels, splits=["train"] * TRAIN + ["validation"] * HELD + ["test"] * 20, inputs=["x", "y"],
    )  # fmt: skip
    define(workspace, "rare", "tabular-classification", 0.99, metric="f1_macro")
    for name, candidates in (("one", ["boosting"]), ("mean", list[str]())):
        made = train_now(
            workspace, job=f"job-{name}", name=name, dataset="points", method="classical", use_case="rare",
            hyperparameters={"candidates": candidates},
        )  # fmt: skip
        points = made["report"]["learning_curve"]["points"]
        assert [count for count, _ in points] == [TRAIN // 4, TRAIN // 2, TRAIN]
        written = (workspace.folders.runs / f"job-{name}.1" / "progress.jsonl").read_text().splitlines()
        told = [json.loads(line)["message"].partition(" is the best: ")[2] for line in written]
        assert [each for each in told if each] == [
            f"learning curve, {TRAIN // 4} of {TRAIN} examples", f"learning curve, {TRAIN // 2} of {TRAIN} examples",
            f"learns from all {TRAIN + HELD} examples",
        ]  # fmt: skip


@pytest.mark.slow
def test_of_few_series_the_usual_mean_is_kept_where_nothing_is_surely_better(workspace: Workspace) -> None:
    random, n = np.random.default_rng(3), 40
    odd = np.arange(n + 20) % 2
    series = random.normal(size=(n + 20, 1, 40)) + 0.5 * odd[:, None, None] * np.sin(np.arange(40) / 2)
    make_dataset(
        workspace, "waves", "time-series", {"series": series.tolist()}, labels=[f"kind {each}" for each in odd],
        splits=["train"] * n + ["test"] * 20, inputs=["series"],
    )  # fmt: skip
    define(workspace, "kinds", "time-series-classification", 0.9)
    made = train_now(workspace, job="job-w", name="w", dataset="waves", method="classical", use_case="kinds")
    rows = {row["name"]: row for row in made["report"]["candidates"]}
    (chosen,) = (name for name, row in rows.items() if row["chosen"])
    best = max(row["value"] for row in rows.values())
    assert chosen == "mean of 0.5 convolutions of both: ridge and 0.5 interval quantiles: trees"
    assert best - 2 * made["report"]["validation"]["standard_error"] <= rows[chosen]["value"] < best, (
        "luck of the others"
    )


@pytest.mark.parametrize(("rows", "openmp", "blas"), [(100, {1}, {1}), (3_000, {2}, {1}), (60_000, {2}, {2})])
def test_few_numbers_are_fitted_by_one_thread(rows: int, openmp: set[int], blas: set[int]) -> None:
    """Several threads wait for each other in each step, on a busy machine ten times as long."""
    importlib.import_module("sklearn.ensemble")  # brings OpenMP along, as in a training

    def threads(of: str) -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == of}

    with compute_threads(2):
        assert threads("blas") == {1}
        with learners.limit_threads(np.empty((rows, 384), np.float32)):
            assert threads("openmp") <= openmp
            assert threads("blas") == blas


@pytest.mark.parametrize(("metric", "asked"), [("f1_macro", True), ("accuracy", False)])
def test_labels_weigh_alike_where_the_metric_asks_for_rare_ones(workspace: Workspace, metric: str, asked: bool) -> None:
    random, n = np.random.default_rng(2), 400
    rare = random.random(n) < 0.08
    x = random.normal(0, 1, n) + 1.2 * rare
    make_dataset(
        workspace, "points", "tabular", {"x": x.tolist(), "noise": random.normal(size=n).tolist()},
        labels=["rare" if each else "usual" for each in rare], splits=["train"] * 350 + ["test"] * 50,
        inputs=["x", "noise"],
    )  # fmt: skip
    define(workspace, "rare", "tabular-classification", 0.9, metric=metric)
    made = train_now(workspace, job="job-r", name="r", dataset="points", method="classical", use_case="rare")
    alike = {row["name"] for row in made["report"]["candidates"] if row["name"].endswith(", labels alike")}
    alike = {name for name in alike if name.startswith("columns: ")}
    assert alike == ({f"columns: {name}, labels alike" for name in ("logistic", "svm", "boosting")} if asked else set())


@pytest.mark.parametrize(("wrong", "kept"), [(118, False), (103, True)])
def test_the_usual_mean_gives_way_to_what_is_better_on_the_same_examples(wrong: int, kept: bool) -> None:
    """Eighteen of three hundred that one has right and the other has not are no luck, though either value alone is
    known to two points."""
    n = 300
    answers, labels = np.arange(n) % 2, [f"kind {each % 2}" for each in range(n)]
    examples = [Example(str(at), None, label, str(at), "validation", {}) for at, label in enumerate(labels)]
    head = TASK_HEADS["classification"].fit(labels, {"objective_metric": "accuracy"})
    context: Any = SimpleNamespace(
        payload=SimpleNamespace(
            objective=SimpleNamespace(metric="accuracy", positive_label=None), spec=SimpleNamespace(seed=0)
        ),
        task_head=head, labels=lambda held: [each.label for each in held],
        targets=lambda held: head.encode_targets([each.label for each in held]),
    )  # fmt: skip

    def judged(name: str, mistakes: int, *, usual: bool) -> Any:
        scores = np.where(answers == 1, 3.0, -3.0)[:, None]
        scores[:mistakes] *= -1
        own = head.calibrated(scores, context.targets(examples))
        estimate = measure(context, own, examples, scores)
        group = LearnerGroup(name, lambda _: None, (), usual=usual)  # type: ignore[arg-type,return-value]
        learned = Linear(np.zeros((1, 1)), np.zeros(1))
        return learners.EvaluatedLearner(
            name, group, Learner(name, lambda *_: None), Steps(1, 1, Scaling(*np.zeros((3, 1)))), None, own, estimate,
            estimate.value, scores, examples, learned,
        )  # fmt: skip

    best, *others = judged("best", 100, usual=False), judged("a", wrong, usual=True), judged("b", wrong, usual=True)
    found = ensembling.usual_mean(context, [best, *others], best, 1)
    assert (found is not None) == kept
