"""A small network takes one thread: by the work of a step, and kept, so that a later attempt ends in the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speciate.models import registry
from speciate.training.networks import threads, trial_steps
from speciate.workspace.workspace import Workspace
from tests.training.networks.test_train_network import QUICK, flowers
from tests.training.networks.test_trial_steps import tallied
from tests.training.networks.world import WIDTH, new_run
from tests.training.world import train_now

SPEC = {"dataset": "flowers", "method": "full", "base_model": "new:tab-resnet", "hyperparameters": QUICK}


def test_products_are_counted_forward_and_backward() -> None:
    layer, given = torch.nn.Linear(30, 20), torch.ones(7, 30, requires_grad=True)
    with threads.count_flops() as forward:
        answer = layer(given).sum()
    assert forward.flops == 2 * 7 * 30 * 20
    with threads.count_flops() as backward:
        answer.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
    assert backward.flops == 2 * forward.flops  # of what it was given, and of its weights


def test_a_step_is_counted_at_the_mean_length_and_its_count_changes_no_weight() -> None:
    tried = tallied()
    before, lengths = tried.digest(), tried._items.lengths
    found = tried.rehearse(1)
    word = 3 * 3 * 2 * WIDTH * WIDTH - 2 * WIDTH * WIDTH  # three layers, forward and back; frozen weights learn nothing
    head = 3 * 2 * WIDTH * 2
    usual = tried.micro_batch * lengths.mean() / lengths.max()
    assert found.flops == pytest.approx(usual * (word * lengths.max() + head))
    assert tried.digest() == before


def test_a_later_attempt_takes_as_many_as_the_first(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path, 2)
    assert threads.kept_threads(second) is None
    threads.keep_threads(first, 1)
    assert threads.kept_threads(first) == threads.kept_threads(second) == 1


@pytest.mark.parametrize(
    ("least", "cpu", "taken"), [(1e15, None, 1), (1.0, None, 2), (1e15, 2.0, 2)], ids=["small", "large", "as asked"]
)
def test_a_training_takes_and_records_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, least: float, cpu: float | None, taken: int
) -> None:
    flowers(workspace)
    monkeypatch.setattr("speciate.training.train.cores", lambda: 2)
    monkeypatch.setattr(threads, "TWO_THREADS_FLOPS", least)
    stepped, advance = set[int](), trial_steps.MeasuredTraining.advance

    def seen(self: trial_steps.MeasuredTraining) -> object:
        stepped.add(torch.get_num_threads())
        return advance(self)

    monkeypatch.setattr(trial_steps.MeasuredTraining, "advance", seen)
    report = train_now(workspace, name="net", resources={"cpu": cpu}, **SPEC)["report"]
    assert stepped == {taken}
    assert report["cost"]["threads"] == taken
    card = registry.resolve(workspace.database, workspace.folders, "net").card
    assert card.recipe["environment"]["threads"] == taken
