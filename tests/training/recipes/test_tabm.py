"""TabM: what torch learns answers the same as arrays, learns what lines cannot, and is a member of `classical`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speciate.errors import Code, SpeciateError
from speciate.models import blend, estimators
from speciate.models.blend import Blend, Member
from speciate.models.perceptrons import Perceptrons, side_by_side, with_ranks
from speciate.tasks import predictor
from speciate.training import train
from speciate.training.cascade import candidates
from speciate.training.planning.estimates import _parse_run, request_of
from speciate.training.recipes import tabm
from speciate.training.selection import decision_shift
from speciate.training.selection.learners import StoppedByHeld
from speciate.training.train_spec import TrainSpec
from speciate.workspace.workspace import Workspace
from tests.tasks.world import examples
from tests.training.world import define, make_dataset, model_path, thirds, train_now

torch = pytest.importorskip("torch")
Matrix = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabm, "_EPOCHS", 25)


def _checkerboard(count: int, seed: int = 0) -> tuple[Matrix, npt.NDArray[np.int64]]:
    """Two labels that no line parts, beside columns that say nothing."""
    inputs = np.random.default_rng(seed).uniform(-1, 1, (count, 4))
    return inputs, (inputs[:, 0] * inputs[:, 1] > 0).astype(np.int64)


@pytest.fixture(scope="module")
def learned() -> Perceptrons:
    inputs, targets = _checkerboard(400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabm, "_EPOCHS", 25)
        return tabm.tabm_classifier(inputs, targets, 0)


def test_it_learns_what_no_line_can(learned: Perceptrons) -> None:
    inputs, targets = _checkerboard(300, seed=1)
    scores = learned.scores(inputs)
    assert scores.shape == (300, 1)
    assert ((scores[:, 0] > 0) == targets).mean() > 0.9


def test_arrays_answer_what_torch_does(learned: Perceptrons) -> None:
    inputs, _ = _checkerboard(50, seed=2)
    shares = []
    for network in range(len(learned.first)):
        weights = {
            name: torch.from_numpy(array[network])
            for name, array in learned._asdict().items()
            if name not in ("ranked", "knots", "shift", "classes")
        }
        read = torch.from_numpy(with_ranks(inputs, learned.ranked, learned.knots[network]))
        shares.append(tabm._forward(weights, read, None).softmax(-1).mean(1).numpy())
    second = np.mean(shares, axis=0)[:, 1]
    np.testing.assert_allclose(1 / (1 + np.exp(-learned.scores(inputs)[:, 0])), second, atol=1e-5)


def test_the_same_seed_gives_the_same_bits(learned: Perceptrons) -> None:
    again = tabm.tabm_classifier(*_checkerboard(400), 0)
    assert all(np.array_equal(one, other) for one, other in zip(learned, again, strict=True))
    other = tabm.tabm_classifier(*_checkerboard(400), 1)
    assert not np.array_equal(learned.first, other.first)


def test_it_is_kept_alone_and_in_a_mean(learned: Perceptrons, tmp_path: Path) -> None:
    inputs, _ = _checkerboard(20, seed=3)
    estimators.save(learned, tmp_path / "alone.safetensors")
    assert np.array_equal(estimators.load(tmp_path / "alone.safetensors").scores(inputs), learned.scores(inputs))
    mean = Blend((Member(learned, 0, 0.5), Member(learned, 0, 0.5, 2.0)), "classes")
    blend.save(mean, tmp_path / "mean.safetensors")
    assert np.array_equal(blend.load(tmp_path / "mean.safetensors").scores([inputs]), mean.scores([inputs]))


def test_networks_side_by_side_answer_with_their_mean(learned: Perceptrons) -> None:
    inputs, targets = _checkerboard(400)
    other = tabm.tabm_classifier(
        inputs[:200], targets[:200], 5, held=(inputs[200:], targets[200:], np.arange(200) % 5)
    ).estimator
    both = side_by_side([other, other])
    np.testing.assert_allclose(both.scores(inputs), other.scores(inputs), atol=1e-9)
    assert both.parameters == 2 * other.parameters


def test_networks_of_folds_that_rank_other_columns_answer_with_their_mean(tmp_path: Path) -> None:
    inputs, targets = _checkerboard(400)
    few = np.column_stack([inputs[:, :2].round(1), inputs[:, 2:], np.arange(400) % 9])
    few[0, -1] = 9  # the tenth value, which one of the folds has not
    folds = [few[:200], few[200:]]
    networks = [tabm.tabm_classifier(fold, targets[at : at + 200], 5) for at, fold in zip((0, 200), folds, strict=True)]
    assert len(networks[0].ranked) == len(networks[1].ranked) + 1
    together = side_by_side(networks)
    estimators.save(together, tmp_path / "both.safetensors")
    shares = [1 / (1 + np.exp(-each.scores(few))) for each in networks]
    counts = [len(each.first) for each in networks]
    wanted = np.average(shares, axis=0, weights=counts)
    for each in (together, side_by_side(networks[::-1]), estimators.load(tmp_path / "both.safetensors")):
        np.testing.assert_allclose(1 / (1 + np.exp(-each.scores(few))), wanted, atol=1e-6)


def test_its_scores_may_be_moved_for_a_metric(learned: Perceptrons) -> None:
    inputs, _ = _checkerboard(20, seed=3)
    assert decision_shift.can_shift(learned)
    moved = decision_shift.shifted(learned, np.array([0.5]))
    np.testing.assert_allclose(moved.scores(inputs), learned.scores(inputs) + 0.5)


@pytest.mark.slow
def test_a_number_is_learned_in_its_own_unit() -> None:
    inputs, _ = _checkerboard(400)
    wanted = 1000 + 50 * np.abs(inputs[:, 0])
    for absolute in (True, False):
        made = tabm.tabm_regression(absolute)(inputs, wanted, 0)
        held, _ = _checkerboard(200, seed=1)
        error = np.abs(made.scores(held)[:, 0] - 1000 - 50 * np.abs(held[:, 0])).mean()
        assert error < 6, "the spread is 14"


def test_what_weighs_nothing_is_not_learned() -> None:
    inputs, targets = _checkerboard(400)
    wrong = targets.copy()
    wrong[:200] = 1 - wrong[:200]
    weights = np.repeat([0.0, 1.0], 200)
    made = tabm.tabm_classifier(inputs, wrong, 0, weights)
    held, true = _checkerboard(300, seed=1)
    assert ((made.scores(held)[:, 0] > 0) == true).mean() > 0.8


def test_it_learns_on_one_thread_and_leaves_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, first = set[int](), tabm._first_weights
    monkeypatch.setattr(tabm, "_first_weights", lambda *given: (seen.add(torch.get_num_threads()), first(*given))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tabm.tabm_classifier(*_checkerboard(100), 0)
        assert (seen, torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)


def test_held_out_labels_that_training_has_not_seen_say_nothing() -> None:
    inputs, targets = _checkerboard(100)
    for held in (np.full(5, -1), np.array([-1, 0, 1, 1, -1])):
        made = tabm.tabm_classifier(inputs, targets, 0, held=(inputs[:5], held, np.arange(5)))
        assert isinstance(made, StoppedByHeld)
        assert np.isfinite(made.estimator.scores(inputs)).all()
        assert np.isfinite(made.scores).all()


def test_the_rows_that_stop_it_do_not_flatter_it() -> None:
    """Labels that say nothing: the pass that is best by these rows seems to know something of them."""
    by_all, by_others = [], []
    for seed in range(8):
        chance = np.random.default_rng(seed)
        inputs, targets = chance.normal(size=(140, 6)), chance.integers(0, 2, 140)
        held = inputs[100:], targets[100:], np.arange(40) // 8
        made = tabm.tabm_classifier(inputs[:100], targets[:100], seed, held=held)
        assert isinstance(made, StoppedByHeld)
        for scores, found in ((made.estimator.scores(held[0]), by_all), (made.scores, by_others)):
            found.append(float(np.logaddexp(0, -scores[:, 0] * (2 * held[1] - 1)).mean()))
    assert np.mean(by_all) < np.mean(by_others)
    assert np.mean(by_others) > np.log(2)


def test_the_scores_of_a_number_are_in_its_unit() -> None:
    inputs, _ = _checkerboard(400)
    wanted = 1000 + 50 * np.abs(inputs[:, 0])
    held = inputs[300:], wanted[300:], np.arange(100) % 5
    made = tabm.tabm_regression(True)(inputs[:300], wanted[:300], 0, held=held)
    assert isinstance(made, StoppedByHeld)
    assert np.abs(made.scores - made.estimator.scores(held[0])).max() < 30
    assert np.abs(made.scores[:, 0] - held[1]).mean() < 10


@pytest.mark.parametrize(("rows", "columns", "says"), [(20, 4, "fewer than"), (5000, 4000, "columns are more than")])
def test_tables_that_are_too_small_or_wide_are_named(rows: int, columns: int, says: str) -> None:
    assert says in str(tabm.too_large(rows, columns, 2))


# In a training


def _board(workspace: Workspace, count: int, validation: bool) -> tuple[Matrix, list[str]]:
    inputs, targets = _checkerboard(count)
    labels = ["yes" if target else "no" for target in targets]
    splits = thirds(count) if validation else ["test" if at % 4 == 0 else "train" for at in range(count)]
    columns = {name: column.tolist() for name, column in zip("abcd", inputs.T, strict=True)}
    make_dataset(workspace, "data", "tabular", columns, labels=labels, splits=splits, inputs=list("abcd"))
    return inputs, labels


@pytest.mark.parametrize("validation", [True, False])
def test_classical_may_learn_it_beside_the_others(workspace: Workspace, validation: bool) -> None:
    inputs, labels = _board(workspace, 480, validation)
    how = {"candidates": ["logistic", "neighbours"], "tabm": True}
    spec: Any = {
        "name": "model", "dataset": "data", "method": "classical", "task": "tabular-classification",
        "hyperparameters": how,
    }  # fmt: skip
    asked = request_of(train.plan(TrainSpec(**spec), workspace).payload)
    result = train_now(workspace, **spec)
    assert _parse_run("job", result["report"]).request.like(asked), "so its seconds are none of classical's"
    assert not _parse_run("job", result["report"]).request.like(asked._replace(hyperparameters={"tabm": False}))
    rows = {row["name"]: row for row in result["report"]["candidates"]}
    assert rows["scaled columns: tabm"]["value"] > rows["columns: logistic"]["value"] + 0.2
    made = predictor.load(model_path(workspace, "model@v1"))
    kept: Any = made.estimator  # type: ignore[attr-defined]  # of what classical trains
    assert isinstance(kept, Perceptrons)
    assert len(kept.first) == (tabm.NETWORKS if validation else 5), "of every fold, or once more from all examples"
    asked = made.predict(examples(*(dict(zip("abcd", row.tolist(), strict=True)) for row in inputs[:40])))
    assert np.mean([one.output == label for one, label in zip(asked, labels[:40], strict=True)]) > 0.9


def test_where_there_is_no_time_for_it_that_is_said(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _board(workspace, 480, validation=True)
    monkeypatch.setattr(tabm, "seconds", lambda rows, columns: 1e6)
    result = train_now(
        workspace, name="model", dataset="data", method="classical", task="tabular-classification", budget_minutes=1,
        hyperparameters={"candidates": ["logistic"], "tabm": True},
    )  # fmt: skip
    (row,) = (row for row in result["report"]["candidates"] if row["name"] == "scaled columns: tabm")
    assert row["value"] is None
    assert "it needs about" in row["reason"]


def test_a_text_has_no_columns_for_it(workspace: Workspace) -> None:
    make_dataset(
        workspace, "data", "text", {"text": ["one two", "three four"] * 15}, labels=["x", "y"] * 15, splits=thirds(30),
        inputs=["text"],
    )  # fmt: skip
    with pytest.raises(SpeciateError) as caught:
        train_now(
            workspace, name="model", dataset="data", method="classical", task="text-classification",
            hyperparameters={"tabm": True},
        )  # fmt: skip
    assert caught.value.code == Code.INVALID
    assert "tabm" in caught.value.message


def test_a_search_tries_it_after_what_takes_seconds(workspace: Workspace) -> None:
    _board(workspace, 60, validation=True)
    define(workspace, "sort", "tabular-classification")
    found = candidates.choose_candidates(workspace, "sort", "data")
    assert [candidates.step_name(each) for each in found[:2]] == ["train/classical", "train/classical-tabm"]
