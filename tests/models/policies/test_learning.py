"""Policies learn by their publisher's loss, in the loop that every network is stepped by."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchvision")

import torch

from speciate.datasets.loading.loader import Example
from speciate.models.published.architectures import check_head
from speciate.models.published.network import PublishedNetwork, load_network
from speciate.tasks.families.control import Control
from speciate.tasks.published_heads import published_task_head
from speciate.tasks.published_policy import BEYOND, PublishedPolicy, plan_from, plans_of
from speciate.tasks.task import TaskExample
from speciate.training.hyperparameters import LoraParameters
from speciate.training.networks.batches import PreparedItems
from speciate.training.networks.optimizer import LoopParameters
from speciate.training.networks.training_checkpoints import TrainingState
from speciate.training.networks.training_loop import Training
from speciate.training.recipes.lora_full import lora_method
from tests.models.policies.doubles import POLICIES, episode, measured, write
from tests.models.policies.test_policies import numbers


def episodes(name: str) -> tuple[list[Example], list[dict[str, Any]]]:
    """Actions follow from the state, so that they can be learned."""
    shown = [measured(episode(6 + seed, seed), numbers(name)) for seed in range(3)]
    targets = [{"actions": np.clip(each["state"][:, :2] * 0.8, -1, 1).tolist()} for each in shown]
    return [Example(str(place), each, None, str(place), "train", {}) for place, each in enumerate(shown)], targets


def begin(name: str, folder: Path, *, adapt: Any = None) -> tuple[Training, PublishedNetwork, list[TaskExample]]:
    head = check_head(folder, name)
    torch.manual_seed(3)
    network = load_network(folder, head, name, None)
    network.module.requires_grad_(True)
    if adapt is not None:
        adapt(network)
    examples, targets = episodes(name)
    task_head: Any = published_task_head(head, Control.fit(targets, {}))
    plans = plans_of(examples, targets, network.model.config)
    items = PreparedItems([each.example.media for each in plans], network.prepare, network.length)
    given = {"learning_rate": 3e-3, "num_train_epochs": 10, "batch_size": 8, "lr_scheduler_type": "constant"}
    parameters = LoopParameters.model_validate(given | {"warmup_ratio": 0.0})
    torch.manual_seed(3)
    encoded = task_head.encode_targets([each.target for each in plans])
    return Training(network, torch.nn.Identity(), task_head, items, encoded, parameters, 3), network, plans  # type: ignore[arg-type]


def test_a_plan_is_padded_beyond_the_episode_and_says_so() -> None:
    found = begin_config("diffusion")
    actions = np.arange(10, dtype=float).reshape(5, 2)
    plan = plan_from(actions, 0, found)
    assert plan[:, -1].tolist() == [1, 0, 0, 0, 0, 0, 1, 1]  # it begins one step before what it sees last
    assert plan[0, :-1].tolist() == actions[0].tolist()
    assert plan[-1, :-1].tolist() == actions[-1].tolist()
    examples, targets = episodes("diffusion")
    made = plans_of(examples, targets, found)
    assert len(made) == (6 - 3) + (7 - 3) + (8 - 3)  # LeRobot leaves the last steps out, too
    assert {len(each.target[BEYOND]) for each in made} == {8}
    assert sum(values.nbytes for each in made for values in each.target.values()) == len(made) * 8 * 3 * 8  # no lists


def begin_config(name: str) -> Any:
    from speciate.models.policies.policy_folder import read_policy

    return read_policy(POLICIES[name])


BY_NAME = [pytest.param(name, marks=[pytest.mark.slow] if POLICIES[name].get("crop_shape") or name == "act" else [])
           for name in POLICIES]  # fmt: skip
"""Those with a camera take a minute."""


@pytest.mark.parametrize("name", BY_NAME)
def test_its_loss_falls_and_a_training_that_resumes_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES[name], drawn=True)
    for adapt in (None, lora_method(LoraParameters(lora_dropout=0.1)).adapt):
        new = partial(begin, name, folder, adapt=adapt)
        whole, network, plans = new()
        held = PreparedItems([each.media for each in episodes(name)[0]], network.prepare, network.length)
        wanted = whole.task_head.encode_targets(episodes(name)[1])  # type: ignore[attr-defined]
        whole.run_until(whole.total)
        fresh = new()[0]
        torch.manual_seed(0)
        before, _ = fresh.judge(held, wanted)
        torch.manual_seed(0)
        after, scores = whole.judge(held, wanted)
        assert after < before
        assert [each.shape for each in scores] == [(6, 2), (7, 2), (8, 2)]
        first = new()[0]
        first.run_until(3)
        state = first.state()
        kept = TrainingState(
            state.facts,
            {group: {n: t.detach().clone() for n, t in each.items()} for group, each in state.tensors.items()},
        )
        other = new()[0]
        other.restore(kept)
        other.run_until(other.total)
        assert other.digest() == whole.digest()
        assert isinstance(whole.task_head, PublishedPolicy)
        assert len(plans) > 10
