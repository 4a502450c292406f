"""More weight for rows that production was asked: learners, the choice among weights, a whole training."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from speciate.datasets import versions
from speciate.datasets.loading.loader import Example, load_examples
from speciate.errors import SpeciateError
from speciate.models.estimators import Linear
from speciate.tasks import predictor
from speciate.tasks.families.classification import Classification
from speciate.tasks.families.regression import Regression
from speciate.training.recipes import boosting
from speciate.training.recipes.classical import learners_for, logistic
from speciate.training.recipes.probe import on_spread_vectors
from speciate.training.selection.arrived_rows import Weighed, choose, has_arrived, report, weights
from speciate.training.selection.learners import Learner, learn_from
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, model_path, train_now

ACCURACY, MAE = find_metric("accuracy"), find_metric("mae")


def _example(arrived: object) -> Example:
    return Example("a", {}, "x", "a", "train", {"arrived": arrived})


def test_weights_keep_their_ratio_and_a_mean_of_one() -> None:
    found = weights([_example("episode-1"), _example(None), _example("")], 4.0)
    assert found.mean() == pytest.approx(1)
    assert (found / found[1]).tolist() == pytest.approx([4, 1, 1])
    assert not has_arrived(_example(None)._replace(columns={}))


NOISE = np.random.default_rng(3).normal(size=40)


@pytest.mark.parametrize(
    ("tried", "metric", "chosen"),
    [
        ([(1, 1.0 + 0 * NOISE, 0.5, 0.9), (4, 1.0 + 0.3 * NOISE, 0.45, 0.89)], ACCURACY, 4),  # nothing says it is worse
        ([(1, 1.0 + 0 * NOISE, 0.5, 0.9), (4, 1.2 + 0.3 * NOISE, 0.45, 0.89)], ACCURACY, 1),  # by three standard errors
        ([(1, 1.0 + NOISE, 0.5, 0.9), (4, 0.8 + NOISE, 0.6, 0.87)], ACCURACY, 1),  # loses more than the margin
        ([(4, 1.0 + NOISE, 0.5, 0.9), (1, 1.0 + NOISE, 0.5, 0.9), (9, NOISE, 0.6, 0.7)], ACCURACY, 4),
        ([(2, 1.2 + NOISE, 0.5, 0.9), (8, 1.0 + NOISE, 0.6, 0.8)], ACCURACY, 2),  # 1 was not asked for
        ([(1, 5.0 + NOISE, -10.0, -4.0), (4, 4.0 + NOISE, -8.0, -4.1)], MAE, 4),
        ([(1, 5.0 + NOISE, -10.0, -4.0), (4, 4.0 + NOISE, -8.0, -4.3)], MAE, 1),
        (
            [(1, 1.0 + NOISE[:9], math.nan, 0.9), (4, 0.5 + NOISE[:9], math.nan, 0.9)],
            ACCURACY,
            1,
        ),  # too few that arrived
        ([(1, 1.2 + NOISE, 0.5, math.nan), (4, 1.0 + NOISE, 0.6, math.nan)], ACCURACY, 1),  # too few others
    ],
)
def test_the_heaviest_weight_that_nothing_speaks_against_is_taken(
    tried: list[tuple[float, Any, float, float]], metric: Any, chosen: int
) -> None:
    assert choose([Weighed(*each) for each in tried], metric) == chosen


def test_what_is_not_known_is_null_in_the_report() -> None:
    found = report(3, [Weighed(1, NOISE[:3], math.nan, -4.0)], 1, -1)
    assert found == {"rows": 3, "chosen": 1, "tried": [{"weight": 1, "arrived": None, "before": 4.0}]}


def _two_sources(count: int = 240) -> tuple[Any, Any, Any]:
    """(N, 2), labels, and which rows are of the second source, in which the first column means the opposite."""
    rng = np.random.default_rng(0)
    second = np.arange(count) % 6 == 0
    inputs = rng.normal(size=(count, 2))
    meant = np.where(second, -1.0, 1.0) * inputs[:, 0] + 0.3 * inputs[:, 1]
    return inputs, meant, second


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("lightgbm", [False, True])
def test_every_learner_that_says_so_takes_weights(
    monkeypatch: pytest.MonkeyPatch, sparse: bool, lightgbm: bool
) -> None:
    """Heavy rows of the second source pull each of them: their errors fall, those of the first grow."""
    if lightgbm:
        pytest.importorskip("lightgbm")
    monkeypatch.setattr(boosting, "_has_lightgbm", lambda: lightgbm)
    from scipy.sparse import csr_array

    inputs, meant, second = _two_sources()
    rows: Any = csr_array(inputs) if sparse else inputs
    heavy = np.where(second, 30.0, 1.0)
    for head, targets, metric in (
        (Classification.fit(["a", "b"], {}), (meant > 0).astype(np.int64), "accuracy"),
        (Regression.fit(meant.tolist(), {}), meant, "mae"),
    ):
        learners = [each for each in learners_for(head, metric, sparse=sparse) if each.weighs]
        assert len(learners) >= 1
        for each in learners:
            plain, pulled = (each.learn(rows, targets, 0, *more).scores(rows)[:, 0] for more in ((), (heavy,)))
            wanted = np.where(targets > 0, 1, -1) if metric == "accuracy" else targets
            loss = [np.abs(found - wanted)[second].mean() if metric == "mae" else (found * wanted)[second].mean() * -1
                    for found in (plain, pulled)]  # fmt: skip
            assert loss[1] < loss[0], each.name
            alike = each.learn(rows, targets, 0, np.ones(len(meant))).scores(rows)[:, 0]
            assert np.abs(alike - plain).mean() < 0.35 * np.abs(plain).mean() + 1e-9, f"{each.name}: all alike"


def test_a_head_on_spread_vectors_passes_weights_on() -> None:
    inputs, meant, second = _two_sources()
    heavy = np.where(second, 30.0, 1.0)
    learn = on_spread_vectors(logistic(1.0))
    for scale in (1.0, 1e-3):
        plain, pulled = (learn(scale * inputs, (meant > 0).astype(np.int64), 0, *more) for more in ((), (heavy,)))
        assert np.sign(plain.weight[0, 0]) == 1
        assert np.sign(pulled.weight[0, 0]) == -1


@pytest.mark.parametrize(("weight", "taken"), [(1.0, {"rounds": 7}), (16.0, {})])
def test_what_was_found_without_weights_is_found_anew_with_them(weight: float, taken: dict[str, int]) -> None:
    asked, line = list[dict[str, int]](), Linear(np.zeros((1, 1)), np.zeros(1))

    def learn(inputs: Any, targets: Any, seed: int, weights: Any = None, **found: int) -> Linear:
        asked.append(found)
        return line

    one: Any = SimpleNamespace(
        name="trees", group=SimpleNamespace(name="columns"), weight=weight, members=(), shift=None, joined=None,
        learner=Learner("trees", learn, weighs=True, found=lambda _: {"rounds": 7}), estimator=line, task_head=None,
    )  # fmt: skip
    context: Any = SimpleNamespace(
        targets=lambda each: np.zeros(len(each)),
        payload=SimpleNamespace(spec=SimpleNamespace(seed=0), task="regression"),
    )
    represented: Any = SimpleNamespace(encode=lambda each: np.zeros((len(each), 1)))
    learn_from(context, one, [_example("episode-1"), _example(None)], {"columns": represented}, as_found=True)
    assert asked == [taken]


@pytest.fixture
def moved(workspace: Workspace) -> Workspace:
    """400 rows of one sensor and 60 of another, whose zero lies elsewhere."""
    rng = np.random.default_rng(1)
    old, new, fresh = 400, 60, 600
    x, y = rng.normal(size=(2, old + new + fresh))
    second = np.r_[np.zeros(old), np.ones(new), np.ones(fresh // 2), np.zeros(fresh // 2)].astype(bool)
    label = np.where(x + 0.1 * rng.normal(size=len(x)) > 0, "high", "low")
    arrived = ["episode-1" if old <= place < old + new else None for place in range(len(x))]
    learned = ["train" if place % 4 else "validation" for place in range(old)] + ["train"] * new
    made = make_dataset(
        workspace, "rows", "tabular",
        {"x": (x + 2.0 * second).tolist(), "y": (y + 3.0 * second).tolist(), "arrived": arrived},
        labels=label.tolist(), inputs=["x", "y"],
        splits=[*learned, *["test"] * (fresh // 2), *["holdout"] * (fresh // 2)],
    )  # fmt: skip
    assert made.splits["train"] == 360
    return workspace


def _right(workspace: Workspace, model: str, split: str) -> float:
    examples = load_examples(workspace.folders, versions.resolve(workspace.database, "rows"), (split,))
    answers = predictor.load(model_path(workspace, model)).predict(examples)
    return float(np.mean([answer.output == example.label for answer, example in zip(answers, examples, strict=True)]))


def test_a_training_weighs_what_arrived_and_tells(moved: Workspace) -> None:
    asked = {"dataset": "rows", "method": "classical", "task": "tabular-classification"}
    svm = {"candidates": ["svm"]}
    train_now(moved, "job-1", name="plain", hyperparameters=svm | {"arrived_weight": 1}, **asked)
    result = train_now(moved, "job-2", name="weighed", hyperparameters=svm, **asked)["report"]
    told = result["arrived_weight"]
    assert told["rows"] == 60
    assert told["chosen"] > 1
    assert [each["weight"] for each in told["tried"]] == [1.0, 2.0, 4.0]
    assert result["candidates"][-1]["name"].endswith(f"arrived rows x {told['chosen']:g}")
    assert [each["chosen"] for each in result["candidates"]].count(True) == 1
    assert _right(moved, "weighed@v1", "test") > _right(moved, "plain@v1", "test") + 0.02
    assert _right(moved, "weighed@v1", "holdout") > _right(moved, "plain@v1", "holdout") - 0.06
    again = train_now(moved, "job-3", name="again", like="weighed@v1")
    assert again["report"]["repetition"]["same_model"], "chosen anew, and alike"


def test_one_weight_is_taken_as_it_is(moved: Workspace) -> None:
    asked = {"dataset": "rows", "method": "classical", "task": "tabular-classification"}
    heavy = {"arrived_weight": 16, "candidates": ["svm"]}
    result = train_now(moved, "job-1", name="heavy", hyperparameters=heavy, **asked)["report"]
    assert "arrived_weight" not in result
    assert result["candidates"][-1]["name"].endswith("arrived rows x 16")
    with pytest.raises(SpeciateError, match="arrived_weight"):
        train_now(moved, "job-2", name="none", hyperparameters={"arrived_weight": [0]}, **asked)


def test_without_arrived_rows_nothing_changes(workspace: Workspace) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=120)
    make_dataset(
        workspace, "rows", "tabular", {"x": x.tolist()}, labels=["a" if each > 0 else "b" for each in x],
        splits=["validation" if place % 4 == 0 else "train" for place in range(120)], inputs=["x"],
    )  # fmt: skip
    asked = {"dataset": "rows", "method": "classical", "task": "tabular-classification"}
    found = [
        train_now(workspace, f"job-{place}", name=f"m{place}", hyperparameters={"arrived_weight": each}, **asked)
        for place, each in enumerate(([1.0, 4.0], [1.0]))
    ]
    assert "arrived_weight" not in found[0]["report"]
    assert found[0]["report"]["validation"] == found[1]["report"]["validation"]
