"""A task_head around another one: a batch in parts is the batch, and weights count as they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.models.backbones.contract import States
from speciate.tasks.families.classification import Classification
from speciate.training.networks.weighted_targets import (
    SoftTargetLoss,
    TrainingTarget,
    held_out_targets,
    with_projection,
)

torch = pytest.importorskip("torch")
TASK_HEAD = Classification(labels=("a", "b", "c"))


def batch(count: int = 12) -> tuple[Any, States, list[TrainingTarget]]:
    chance = torch.Generator().manual_seed(0)
    pooled = torch.randn(count, 4, generator=chance)
    torch.manual_seed(1)
    head = TASK_HEAD.head(4)
    wanted = np.random.default_rng(0).normal(0, 1, (count, 3)).astype(np.float32)
    wanted[1, 2] = np.nan
    kinds = (
        lambda at: TrainingTarget(np.int64(at % 3)),
        lambda at: TrainingTarget(np.int64(at % 3), 0.3, wanted[at], 0.7),
        lambda at: TrainingTarget(None, 0.0, wanted[at], 1.0),
        lambda at: TrainingTarget(np.int64(-1), 0.3, wanted[at], 0.7),
    )
    return (
        head,
        States(pooled[:, None], torch.ones(count, 1, dtype=torch.bool), pooled),
        [kinds[at % 4](at) for at in range(count)],
    )


def chosen(states: States, part: slice) -> States:
    return States(states.sequence[part], states.mask[part], states.pooled[part])


@pytest.mark.parametrize("match", ["probabilities", "scores"])
def test_a_batch_in_parts_is_the_batch(match: Any) -> None:
    head, states, lessons = batch()
    task_head = SoftTargetLoss(TASK_HEAD, match, 2.0, penalty=lambda own: own.weight.square().sum())
    whole = task_head.loss(head, states, lessons)
    parts = [slice(0, 5), slice(5, 6), slice(6, 12)]
    counts = [task_head.counted(chosen(states, part), lessons[part]) for part in parts]
    summed = sum(
        task_head.loss(head, chosen(states, part), lessons[part]) * count / len(lessons)
        for part, count in zip(parts, counts, strict=True)
    )
    torch.testing.assert_close(whole, summed)


def test_a_truth_alone_is_the_readouts_own_loss() -> None:
    head, states, _ = batch()
    targets = np.arange(12) % 3
    task_head = SoftTargetLoss(TASK_HEAD)
    own = task_head.loss(head, states, held_out_targets(task_head, targets))
    torch.testing.assert_close(own, TASK_HEAD.loss(head, states, targets))
    assert held_out_targets(TASK_HEAD, targets) is targets


def test_a_line_to_the_teachers_states_is_learned_and_left_behind() -> None:
    head, states, _ = batch()
    both = with_projection(head, 4, 6)
    task_head = SoftTargetLoss(TASK_HEAD, features=2.0)
    seen = np.ones((12, 6), np.float32)
    lessons = [TrainingTarget(None, 0.0, None, 0.0, row) for row in seen]
    loss = task_head.loss(both, states, lessons)
    wanted = 2 * (both.line(states.pooled) - torch.from_numpy(seen)).square().mean()  # type: ignore[operator]
    torch.testing.assert_close(loss, wanted)
    assert task_head.served(both) is head
