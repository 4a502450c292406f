"""Published policies of robots, trained further by their publisher's loss: plans of several actions, learned from the
steps of whole episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.robotics.episode import EPISODE
from speciate.models.policies.acting import Policy, Seen
from speciate.models.policies.policy_folder import PolicyConfig
from speciate.models.published.network import PublishedNetwork
from speciate.tasks.families.control import ACTIONS, Control, Targets
from speciate.tasks.task import Prediction, TaskExample

if TYPE_CHECKING:
    import torch

BEYOND = "beyond"
"""Entry of a training target: which of its actions lie outside the episode."""
Batch = Mapping[str, "torch.Tensor"]


class PublishedPolicy(Control):
    whole_batch: ClassVar[Literal[True]] = True
    """Noise, the drawn style and crops are drawn for a batch."""

    def encode_targets(self, targets: Sequence[Any]) -> Targets:
        """(T, A) of an episode; (planned, A + 1) of a plan, whose last column tells which lie outside the episode."""
        made = []
        for target in targets:
            actions = np.array(target[ACTIONS], np.float64)
            beyond = target.get(BEYOND)
            made.append(actions if beyond is None else np.column_stack([actions, beyond]))
        return made

    def forward_loss(self, network: PublishedNetwork, batch: Batch, targets: Sequence[Any]) -> tuple[torch.Tensor, int]:
        """Mean over the plans: one of each training example, and of a held-out episode those that it would make."""
        policy: Policy = network.model.processor
        windows, plans = list[Seen](), list[npt.NDArray[np.float64]]()
        for seen, target in zip(_rows(network, batch), targets, strict=True):
            if target.shape[1] > policy.config.actions:
                windows.append(policy.window(seen, len(next(iter(seen.values()))) - 1))
                plans.append(target)
                continue
            for row in policy.looks(seen):
                windows.append(policy.window(seen, row))
                plans.append(plan_from(target, row, policy.config))
        made = np.stack(plans)
        return policy.loss(windows, made[:, :, :-1].astype(np.float32), made[:, :, -1] > 0), len(plans)

    def forward_scores(self, network: PublishedNetwork, batch: Batch) -> Sequence[npt.NDArray[Any]]:
        """(T, A) each, in the robot's units."""
        policy: Policy = network.model.processor
        return policy.act(_rows(network, batch), keep=False)

    def predictions(self, scores: Sequence[npt.NDArray[Any]]) -> list[Prediction]:
        return [Prediction({ACTIONS: np.asarray(each, np.float64).round(6).tolist()}, None, None) for each in scores]


def plans_of(examples: Sequence[Example], targets: Sequence[Any], config: PolicyConfig) -> list[TaskExample]:
    """A training example for each step of each episode: what the policy sees there, and the actions of its plan. As
    LeRobot does, a diffusion policy does not learn from the last steps, after which most of a plan is made up."""
    found = list[TaskExample]()
    for example, target in zip(examples, targets, strict=True):
        actions = np.array(target[ACTIONS], np.float64)
        if actions.shape[1] != config.actions:
            raise SpeciateError(
                Code.INVALID,
                f"An action has {actions.shape[1]} numbers in these episodes, and {config.actions} in the policy: it "
                "is another robot's.",
                "Use episodes of the robot that the policy was made for, or another policy.",
            )
        left_out = getattr(config, "drop_n_last_frames", 0)
        for step in range(max(1, len(actions) - left_out)):
            plan = plan_from(actions, step, config)
            media = EPISODE.window(example.media, max(0, step - config.n_obs_steps + 1), step + 1)
            made = {ACTIONS: plan[:, :-1], BEYOND: plan[:, -1]}  # as lists they would be five times as large
            found.append(TaskExample(example._replace(id=f"{example.id}#{step}", media=media), made))
    return found


def plan_from(actions: npt.NDArray[np.float64], step: int, config: PolicyConfig) -> npt.NDArray[np.float64]:
    """(planned, A + 1): the actions around a step of an episode (T, A), the first and last again beyond its ends."""
    places = step + config.horizon_start + np.arange(config.planned)
    beyond = (places < 0) | (places >= len(actions))
    return np.column_stack([actions[np.clip(places, 0, len(actions) - 1)], beyond])


def _rows(network: PublishedNetwork, batch: Batch) -> list[Seen]:
    """The episodes of a batch, without padding."""
    found: dict[int, Seen] = {}
    for rows, part in network.alike(batch):
        arrays = {name: each.cpu().numpy() for name, each in part.items()}
        found.update((row, {name: each[place] for name, each in arrays.items()}) for place, row in enumerate(rows))
    return [found[row] for row in range(len(found))]
