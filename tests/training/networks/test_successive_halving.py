"""Successive halving: the best goes on, whatever stops it in between, and it ends when it may."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speciate.jobs.run import Run, Stopped
from speciate.training.networks import durable_training, successive_halving
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.stopping import Diverged
from speciate.training.networks.successive_halving import SearchResult
from speciate.training.networks.training_log import read_metrics
from speciate.training.networks.training_loop import Training
from tests.training.networks.world import TwoLabels, held, new_run, training

RATES = [1e-6, 0.02, 1e-5, 1e-4, 1e-3]
EPOCHS = 8


def build(candidate: int) -> Training:
    return training(LoopParameters(num_train_epochs=EPOCHS, batch_size=8, learning_rate=RATES[candidate]))


def search(
    run: Run, candidates: int = len(RATES), build: Callable[[int], Training] = build, **options: Any
) -> SearchResult:
    judged = held()
    return successive_halving.search(run, candidates, build, judged._replace(measure=None), **options)


@given(st.integers(1, 40), st.integers(1, 200))
def test_rungs_halve_the_candidates_and_double_the_epochs(candidates: int, epochs: int) -> None:
    made = successive_halving.rungs(candidates, epochs)
    assert made[0].entrants == candidates
    assert made[-1] == (epochs, 1)
    for one, other in itertools.pairwise(made):
        assert one.entrants > other.entrants >= one.entrants / 2
        assert one.epochs <= other.epochs <= 2 * one.epochs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    return search(new_run(tmp_path_factory.mktemp("whole"))).training.digest()


@pytest.mark.slow
def test_it_finds_the_best_and_spends_little_on_the_others(tmp_path: Path, uninterrupted: str) -> None:
    run = new_run(tmp_path)
    found = search(run)
    assert found.candidate == 1
    assert [(standing.candidate, standing.epochs) for standing in found.standings] == [
        (0, 1), (1, 8), (2, 1), (3, 2), (4, 4),
    ]  # fmt: skip
    assert found.training.step == found.training.total
    assert found.training.digest() == uninterrupted
    alone = build(1)
    durable_training.train_durably(new_run(tmp_path / "alone"), alone, held()._replace(measure=None))
    assert alone.digest() == uninterrupted
    assert (run.outputs / "curves.png").stat().st_size > 1000
    assert read_metrics(run.folder.path / "metrics.jsonl")[-1]["step"] == found.training.total
    progress = [json.loads(line) for line in (run.folder.path / "progress.jsonl").read_text().splitlines()]
    assert all(one["done"] <= other["done"] for one, other in itertools.pairwise(progress))
    assert progress[-1]["done"] == progress[-1]["total"]


@pytest.mark.parametrize("after", [40, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, 7, 75, 110))])
def test_a_stopped_search_ends_as_if_it_had_not_been(tmp_path: Path, after: int, uninterrupted: str) -> None:
    taken = 0
    first = new_run(tmp_path)

    class Stopping(TwoLabels):
        def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
            nonlocal taken
            taken += 1
            if taken > after:
                (first.folder.path / "cancel").touch()
            return super().loss(head, states, targets)

    def stopped(candidate: int) -> Training:
        return training(build(candidate).parameters, task_head=Stopping())

    with pytest.raises(Stopped):
        search(first, build=stopped)
    for _ in range(2):  # ended, and then asked for once more, as after a kill before its result was written
        found = search(new_run(tmp_path, 2))
        assert (found.candidate, found.training.digest()) == (1, uninterrupted)


def test_enough_ends_the_search(tmp_path: Path) -> None:
    found = search(new_run(tmp_path), enough=lambda evaluation: evaluation.value < 0.6)
    assert found.candidate == 1
    assert found.standings[1].why == "enough"
    assert found.training.best is not None
    assert found.training.best.value < 0.6
    assert found.training.step < found.training.total
    again = search(new_run(tmp_path, 2), enough=lambda evaluation: False)
    assert again.training.digest() == found.training.digest()


def test_the_budget_ends_it_with_the_best_so_far(tmp_path: Path) -> None:
    left = iter(range(20))  # steps: candidate 0, 1 and 2 have an epoch of six, and candidate 3 has begun
    found = search(new_run(tmp_path), over_budget=lambda: next(left, None) is None)
    assert found.candidate == 1
    assert found.training.digest() != build(1).digest()
    expected = build(1)
    expected.run_until(6)
    assert found.training.digest() == expected.digest()


def diverging(which: set[int]) -> Callable[[int], Training]:
    class Breaks(TwoLabels):
        def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
            return super().loss(head, states, targets) * float("nan")

    def made(candidate: int) -> Training:
        return training(build(candidate).parameters, task_head=Breaks() if candidate in which else None)

    return made


@pytest.mark.slow
def test_what_diverges_loses(tmp_path: Path) -> None:
    found = search(new_run(tmp_path), build=diverging({1, 3}))
    assert found.candidate == 4
    assert {standing.candidate for standing in found.standings if standing.why == "diverged"} == {1, 3}


@pytest.mark.parametrize("stopped", [False, True])
def test_what_diverged_after_its_best_can_win(tmp_path: Path, *, stopped: bool) -> None:
    epoch = build(1).epoch_steps

    class Breaks(TwoLabels):
        calls = 0

        def loss(self, head: Any, states: Any, targets: Any) -> torch.Tensor:
            if head.training:
                self.calls += 1
            return super().loss(head, states, targets) * (float("nan") if self.calls > 2 * epoch else 1)

    def made(candidate: int) -> Training:
        good = training(build(1).parameters, task_head=Breaks())
        return good if candidate == 0 else build(0)

    first, left = new_run(tmp_path), iter(range(2 * epoch + 3))

    def over() -> bool:
        if next(left, None) is not None:
            return False
        if stopped and not (first.folder.path / "cancel").exists():
            (first.folder.path / "cancel").touch()
            return False
        return True

    run = first
    if stopped:
        with pytest.raises(Stopped):
            search(first, 2, made, over_budget=over)
        run = new_run(tmp_path, 2)
    found = search(run, 2, made, over_budget=over)
    expected = build(1)
    expected.run_until(2 * epoch)
    assert (found.candidate, found.standings[0].why) == (0, "diverged")
    assert found.training.digest() == expected.digest()


def test_where_all_diverge_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="step 1"):
        search(new_run(tmp_path), build=diverging(set(range(5))))


def test_a_single_candidate_is_a_plain_training(tmp_path: Path) -> None:
    found = search(new_run(tmp_path), candidates=1)
    assert (found.candidate, found.training.step, len(found.standings)) == (0, found.training.total, 1)
