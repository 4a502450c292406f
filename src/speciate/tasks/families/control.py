"""The action at each step of an episode, from what is measured and seen at that step: behaviour cloning.

A model never sees the actions to predict, nor later steps, so it can act step by step (evaluation/environments/
rollouts.py). Actions are learned in units of their spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.modalities.robotics.episode import EPISODE, Episode
from speciate.models.estimators import UnitRows
from speciate.tasks.representations import Scaling
from speciate.tasks.task import (
    Arrays,
    Prediction,
    RepresentationSettings,
    TaskExample,
    TaskTerms,
    UnsuitableRepresentation,
)

if TYPE_CHECKING:
    import torch

    from speciate.models.backbones.contract import States


Targets = Sequence[npt.NDArray[np.float64]]
ACTIONS, ENVIRONMENT, SEED = "actions", "environment", "seed"
START = "window_start"
METRIC, ROLLOUT = "success_rate", "rollout"
SUCCESS: Final = "success"
"""The metric that lets models act, and what of an answer tells how that ended (evaluation/environments/rollouts.py)."""
_PIECE_STEPS = 2
"""Steps: those that follow each other are alike, and a network's batch shall have many places in it."""


class Control(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["control"] = "control"
    centre: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def evaluation_example(cls, example: Example, cell: Any, terms: TaskTerms) -> TaskExample | None:
        """Target: `{actions: (T, A)}` and, of an episode that begins at a simulator's seed, `environment` and `seed`.
        None if no action was recorded."""
        media: Episode = example.media
        if not media["action"].size:
            return None
        target: dict[str, object] = {ACTIONS: media["action"].astype(np.float64).tolist()}
        environment, seed = example.columns.get(ENVIRONMENT), example.columns.get(SEED)
        if isinstance(environment, str) and isinstance(seed, int | float) and not example.columns.get(START):
            target |= {ENVIRONMENT: environment, SEED: int(seed)}
        return TaskExample(example._replace(media=without_actions(media)), target)

    @classmethod
    def training_examples(cls, example: Example, cell: Any, terms: TaskTerms) -> list[TaskExample]:
        """The episode in pieces of two steps."""
        steps = len(example.media["times"])
        starts = range(0, steps, _PIECE_STEPS)
        pieces = (
            example._replace(
                id=f"{example.id}#{start}", media=EPISODE.window(example.media, start, start + _PIECE_STEPS)
            )
            for start in starts
        )
        return [made for piece in pieces if (made := cls.evaluation_example(piece, cell, terms)) is not None]

    @classmethod
    def fit(cls, targets: Sequence[Any], settings: Mapping[str, Any]) -> Self:
        widths = sorted({np.shape(target[ACTIONS])[1] for target in targets})
        if len(widths) > 1:
            raise SpeciateError(
                Code.INVALID,
                f"An action has from {widths[0]} to {widths[-1]} numbers in training episodes: not those of one robot.",
                "Keep those of one: curate_dataset(steps=[{'op': 'filter', 'where': 'action_width = ...'}]).",
            )
        actions = np.concatenate([np.array(target[ACTIONS], np.float64) for target in targets])
        spread = actions.std(axis=0)
        return cls(
            centre=tuple(actions.mean(axis=0).tolist()), spread=tuple(np.where(spread > 1e-9, spread, 1.0).tolist())
        )

    @classmethod
    def baseline(cls, targets: Sequence[Any], terms: TaskTerms, metric: str = "") -> Callable[[Example], Prediction]:
        """A baseline with the same action, whatever is seen: the mean, for absolute errors the median."""
        middle = np.median if metric == "action_mae" else np.mean
        actions = np.concatenate([np.array(target[ACTIONS], np.float64) for target in targets])
        centre = [round(float(value), 6) for value in middle(actions, axis=0)]
        return lambda example: Prediction({ACTIONS: [centre] * len(example.media["times"])}, None, None)

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    def encode_targets(self, targets: Sequence[Any]) -> Targets:
        """(T, A) for each example."""
        return [(np.array(target[ACTIONS], np.float64) - self.centre) / self.spread for target in targets]

    def calibrated(self, scores: Any, targets: Any) -> Self:
        return self

    def predictions(self, scores: Sequence[npt.NDArray[Any]]) -> list[Prediction]:
        """`scores`: (T, A) for each example. Output: `{actions: [T][A]}`."""
        made = (np.asarray(each, np.float64) * self.spread + self.centre for each in scores)
        return [Prediction({ACTIONS: actions.round(6).tolist()}, None, None) for actions in made]

    def head(self, width: int) -> torch.nn.Module:
        from torch import nn

        return nn.Linear(width, len(self.centre))

    def loss(self, head: torch.nn.Module, states: States, targets: Any) -> torch.Tensor:
        """Absolute error, as actions are judged by it; the mean over the steps."""
        import torch

        wanted = torch.zeros(*states.mask.shape, len(self.centre), device=states.sequence.device)
        for row, each in enumerate(targets):
            wanted[row, : len(each)] = torch.as_tensor(each, dtype=torch.float32)
        errors = (head(states.sequence) - wanted).abs().mean(-1) * states.mask
        mean: torch.Tensor = errors.sum() / states.mask.sum().clamp(min=1)
        return mean

    def counted(self, states: States, targets: Any) -> int:
        return int(states.mask.sum())

    def scores(self, head: torch.nn.Module, states: States) -> Sequence[npt.NDArray[Any]]:
        rows = head(states.sequence).double().cpu().numpy()
        return [row[there] for row, there in zip(rows, states.mask.cpu().numpy(), strict=True)]


def without_actions(media: Episode) -> Episode:
    """The episode without its actions."""
    about = media["about"]
    return {**media, "action": np.zeros((len(media["times"]), 0), np.float32), "about": {**about, "action": []}}


MOST_MULTIPLIED = 48
"""Numbers of a state whose products are taken: of more they would be thousands."""


class StepStates:
    """Each step of an episode as its scaled measurements, optionally with their squares and products."""

    def __init__(self, scaling: Scaling, products: bool) -> None:
        self._scaling, self._products = scaling, products

    @classmethod
    def fit(cls, examples: Sequence[Example], *, products: bool = False) -> StepStates:
        widths = {example.media["state"].shape[1] for example in examples}
        if widths == {0}:
            raise UnsuitableRepresentation("the episodes have no state beside their cameras")
        if len(widths) > 1:
            raise SpeciateError(
                Code.INVALID,
                f"The training episodes measure from {min(widths)} to {max(widths)} numbers: not those of one robot.",
                "Keep those of one: curate_dataset(steps=[{'op': 'filter', 'where': 'state_width = ...'}]).",
            )
        if products and max(widths) > MOST_MULTIPLIED:
            raise UnsuitableRepresentation(f"products of more than {MOST_MULTIPLIED} numbers are thousands")
        return cls(Scaling.of(np.concatenate([example.media["state"] for example in examples])), products)

    def encode(self, examples: Sequence[Example]) -> UnitRows:
        width = len(self._scaling.centre)
        for example in examples:
            if example.media["state"].shape[1] != width:
                raise SpeciateError(
                    Code.INVALID,
                    f"This episode measures {example.media['state'].shape[1]} numbers; the model has learned from "
                    f"{width}.",
                    "Bring episodes of the robot that it was trained on.",
                )
        rows = self._scaling.apply(np.concatenate([example.media["state"] for example in examples]))
        counts = np.array([len(example.media["times"]) for example in examples], np.int64)
        return UnitRows(with_products(rows) if self._products else rows, counts)

    def settings(self) -> RepresentationSettings:
        return {"kind": "step states", "products": self._products}

    def arrays(self) -> Arrays:
        return self._scaling.arrays()

    @classmethod
    def rebuild(cls, settings: RepresentationSettings, arrays: Arrays) -> StepStates:
        return cls(Scaling(**arrays), settings["products"])


def with_products(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, D) -> (N, D + D (D + 1) / 2)"""
    low, high = np.triu_indices(rows.shape[1])
    return np.concatenate([rows, rows[:, low] * rows[:, high]], axis=1)
