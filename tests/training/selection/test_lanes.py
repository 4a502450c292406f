"""Work ahead of its turn: with two threads a training ends as with one, and as soon."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import LinAlgWarning

from speciate.environment import OWN_BLAS, clean_environment
from speciate.jobs.run import Run, Stopped
from speciate.training import train, train_run
from speciate.training.recipes import classical
from speciate.training.selection import model_selection
from speciate.training.selection.lanes import Lanes
from speciate.training.selection.learners import Learner
from speciate.training.train_spec import TrainSpec
from speciate.training.training_context import BestSoFar, TrainingContext
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, run_folder, thirds

SECONDS = 60
"""After which a test that waits has failed."""


@pytest.fixture(autouse=True)
def lanes_on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speciate.training.selection.lanes.OWN_BLAS", True)


def test_with_one_thread_nothing_is_done_before_its_turn() -> None:
    done = list[int]()
    turns = [Lanes(1).turn(partial(done.append, number)) for number in range(3)]
    for turn in turns:
        turn.begin()
    assert done == []
    for number in (1, 0):
        turns[number].result()
    assert done == [1, 0]


def test_two_threads_work_at_the_same_time_and_a_third_piece_can_be_taken_back() -> None:
    both, go = threading.Barrier(3), threading.Event()

    def busy() -> str:
        both.wait(SECONDS)
        go.wait(SECONDS)
        return threading.current_thread().name

    with Lanes(2) as lanes:
        first, second, third = lanes.turn(busy), lanes.turn(busy), lanes.turn(busy)
        for turn in (first, second, third):
            turn.begin()
        both.wait(SECONDS)
        assert (first.drop(), second.drop(), third.drop()) == (False, False, True)
        go.set()
        assert len({first.result(), second.result(), threading.current_thread().name}) == 3


def test_what_work_raises_is_raised_at_its_turn_and_what_was_dropped_is_not_done() -> None:
    both, go, done = threading.Barrier(3), threading.Event(), list[str]()

    def busy() -> None:
        both.wait(SECONDS)
        go.wait(SECONDS)
        raise ValueError("busy")

    lanes = Lanes(2)
    with lanes:
        turns = [lanes.turn(busy), lanes.turn(busy), *(lanes.turn(partial(done.append, name)) for name in ("a", "b"))]
        for turn in turns:
            turn.begin()
        both.wait(SECONDS)
        assert turns[2].drop()
    go.set()  # at the end of the block the last one was dropped
    for turn in turns[:2]:
        with pytest.raises(ValueError, match="busy"):
            turn.result()
    assert lanes._pool is not None
    lanes._pool.shutdown()
    assert done == []


def test_fits_that_share_random_numbers_take_turns() -> None:
    chance = np.random.default_rng(0)
    counts = sparse.random(300, 800, density=0.05, format="csr", random_state=0)
    targets = (chance.random(300) > 0.5).astype(np.int64)

    def weights() -> list[Any]:
        return [classical._linear_svm(counts, targets, 0).weight for _ in range(20)]

    alone = classical._linear_svm(counts, targets, 0).weight
    with Lanes(2) as lanes:
        turns = [lanes.turn(weights) for _ in range(2)]
        for turn in turns:
            turn.begin()
        for turn in turns:
            for found in turn.result():
                np.testing.assert_array_equal(found, alone)


def test_a_line_on_ill_conditioned_columns_is_found_where_another_lane_left_its_filter_of_warnings() -> None:
    """Two fits by Newton steps at once leave it, where a step takes longer than a thread's turn."""
    few = np.random.default_rng(0).normal(size=(400, 6))
    inputs, targets = np.concatenate([few, few[:, :2]], axis=1) * 1e9, (few[:, 0] > 0).astype(np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LinAlgWarning)
        found = classical.logistic(1.0)(inputs, targets, 0).scores(inputs)
    assert np.mean((found[:, 0] > 0) == targets) > 0.95


# Whole trainings


def _texts(workspace: Workspace) -> None:
    chance, words = np.random.default_rng(1), [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnrst"]
    texts = [" ".join(chance.choice(words, 12)) for _ in range(300)]
    labels = ["many" if each.count("a") + chance.integers(-1, 2) > 2 else "few" for each in texts]
    make_dataset(workspace, "drawn", "text", {"text": texts}, labels=labels, splits=thirds(300), inputs=["text"])


def _table(workspace: Workspace) -> None:
    """On which trees are better than lines, with three labels, numbers that are missing, and categories."""
    chance, count = np.random.default_rng(2), 900
    x, y = chance.normal(size=(2, count))
    kinds = [f"kind {each}" for each in chance.integers(0, 12, count)]
    labels = [f"{(a * b > 0) + (a > 1)}" for a, b in zip(x, y, strict=True)]
    columns = {
        "x": [None if number % 9 == 0 else float(each) for number, each in enumerate(x)], "y": y.tolist(),
        "kind": kinds,
    }  # fmt: skip
    make_dataset(workspace, "drawn", "tabular", columns, labels=labels, splits=thirds(count), inputs=list(columns))


def _folds(workspace: Workspace) -> None:
    """A table of numbers to predict, without a validation split."""
    x, y = np.random.default_rng(3).normal(size=(2, 300))
    make_dataset(
        workspace, "drawn", "tabular", {"x": x.tolist(), "y": y.tolist()}, labels=(x * y + np.sin(3 * x)).tolist(),
        splits=["train"] * 250 + ["test"] * 50, inputs=["x", "y"],
    )  # fmt: skip


def _trained(workspace: Workspace, job: str, threads: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What the report says but for seconds, and the model's files."""
    payload = train.plan(TrainSpec(name="model", dataset="drawn", method="classical"), workspace).payload_json()
    folder = run_folder(workspace, job, payload | {"threads": threads})
    report: dict[str, Any] = dict(train_run.run(Run(folder))["report"])
    candidates = [{name: value for name, value in row.items() if name != "seconds"} for row in report["candidates"]]
    told = [json.loads(line)["message"] for line in (folder.path / "progress.jsonl").read_text().splitlines()]
    said = {name: report[name] for name in ("validation", "notes", "members") if name in report}
    files = {path.name: path.read_bytes() for path in (folder.outputs / "model").iterdir()}
    return {**said, "candidates": candidates, "progress": told}, files


@pytest.mark.parametrize("make", [_texts, _table, pytest.param(_folds, marks=pytest.mark.slow)])
def test_two_threads_end_in_the_same_model_as_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    make(workspace)
    learned, usual = list[str](), model_selection._learn_parts

    def noted(*arguments: Any) -> Any:
        learned.append(threading.current_thread().name.partition("_")[0])
        return usual(*arguments)

    monkeypatch.setattr(model_selection, "_learn_parts", noted)
    one = _trained(workspace, "job-one", 1)
    assert set(learned) == {threading.main_thread().name}
    two = _trained(workspace, "job-two", 2)
    assert "lane" in learned
    assert two == one


@pytest.fixture
def waiting(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Of two learners the second one waits in its lane. The event says that it has begun."""
    _table(workspace)
    began, go = threading.Event(), threading.Event()

    def slow(inputs: Any, targets: Any, seed: int) -> Any:
        began.set()
        assert go.wait(SECONDS)
        return classical.nearest_means(inputs, targets, seed)

    learners = (Learner("means", classical.nearest_means), Learner("slow", slow))
    monkeypatch.setattr(classical, "_DENSE_CLASSIFIERS", learners)
    monkeypatch.setattr(classical, "_TABLE_FORESTS", {})
    yield began
    go.set()


def test_a_stop_waits_for_no_lane_and_loses_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, waiting: threading.Event
) -> None:
    offered, usual = list[float](), BestSoFar.offer

    def offer(self: BestSoFar, make: Any, **more: bool) -> None:
        usual(self, make, **more)
        offered.append(1)

    def checkpoint(self: TrainingContext) -> None:
        if offered:
            assert waiting.wait(SECONDS)
            raise Stopped

    monkeypatch.setattr(BestSoFar, "offer", offer)
    monkeypatch.setattr(TrainingContext, "checkpoint", checkpoint)
    payload = train.plan(TrainSpec(name="model", dataset="drawn", method="classical"), workspace).payload_json()
    folder = run_folder(workspace, "job-stopped", payload | {"threads": 2})
    run = Run(folder)
    run.limit_seconds = 600.0
    with pytest.raises(Stopped):
        train_run.run(run)
    best = folder.best_so_far()
    assert best is not None
    rows = train.collect(best).report["candidates"]
    assert [row["name"] for row in rows if row["chosen"]] == ["columns: means"]


def test_a_candidate_in_a_lane_whose_turn_comes_after_the_budget_is_not_waited_for(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, waiting: threading.Event
) -> None:
    ended, looked = list[bool](), list[bool]()

    def checkpoint(self: TrainingContext) -> None:
        if looked:  # the first one was judged
            assert waiting.wait(SECONDS)
            ended.append(True)
        looked.append(True)

    monkeypatch.setattr(TrainingContext, "checkpoint", checkpoint)
    monkeypatch.setattr(TrainingContext, "seconds_left", property(lambda self: -1.0 if ended else 100.0))
    report, _ = _trained(workspace, "job-late", 2)
    assert [(row["name"], row.get("reason")) for row in report["candidates"][:2]] == [
        ("columns: means", None), ("columns: slow", "the budget had ended"),
    ]  # fmt: skip


_IMPORTS = """
import sys
import numpy as np
from speciate.training.selection.lanes import Lanes
from speciate.training.recipes import boosting
with Lanes(2) as lanes:
    inputs = np.random.default_rng(0).normal(size=(400, 3))
    boosting.boosted_classifier(inputs, (inputs[:, 0] > 0).astype(int), 0, lanes=lanes)
import sklearn.svm, sklearn.linear_model, sklearn.neighbors
assert "lightgbm" in sys.modules
print("pandas" in sys.modules)
"""


def test_no_lane_imports_pandas_which_scikit_learn_in_another_would_meet_half_imported() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("lightgbm")
    ran = subprocess.run(
        [sys.executable, "-c", _IMPORTS], env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert ran.stdout == f"{not OWN_BLAS}\n", ran.stderr
