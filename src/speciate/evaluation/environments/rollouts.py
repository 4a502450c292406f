"""Models that act: from the seed of an episode in its environment, one step after another, and what comes of it.

All episodes of an environment go on side by side, so that a model is asked once for a step of all of them. It is shown
what is measured and seen at that step alone, as an episode of one step. A policy that plans several steps is shown
those before, too, from the one that its `first_shown` names. `times` are those of the whole episode.

The outcome becomes part of the answer, which is recorded like any other: `{"actions": ..., "rollout": {"success": 0 or
1, "steps": N, "return": R}}`. So an evaluation that was killed, or is repeated, does not act again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from speciate.datasets.loading.loader import Example
from speciate.evaluation import environments
from speciate.evaluation.environments.simulators import Step, open_simulators
from speciate.evaluation.predictors.answering import AskModel
from speciate.modalities.robotics.episode import Camera, Episode
from speciate.sandbox import SandboxPolicy
from speciate.settings import in_force
from speciate.tasks.families.control import ACTIONS, ENVIRONMENT, METRIC, ROLLOUT, SEED, START, SUCCESS
from speciate.tasks.task import Prediction

_MOST_STEPS = 10_000
_SIDE_BY_SIDE = 64
_COMPUTES = 2
"""Raised when our own code, an environment of ours among it, comes to act otherwise."""


Outcome = TypedDict("Outcome", {"success": int, "steps": int, "return": float})
"""What came of an episode; `success` is 0 or 1."""


FirstShown = Callable[[int], int]
"""The step at which a model acts -> the first step that it is shown."""


class Start(NamedTuple):
    environment: str
    seed: int


class RolloutModel:
    """Asks a model, and lets it act where an example says from where."""

    def __init__(
        self, ask: AskModel, folder: Path, policy: SandboxPolicy, first_shown: FirstShown | None = None
    ) -> None:
        self._ask, self._folder, self._policy = ask, folder, policy
        self._first_shown = first_shown or (lambda step: step)

    def __call__(self, examples: Sequence[Example]) -> list[Prediction]:
        answers = list(self._ask(examples))
        places = defaultdict[str, list[int]](list)
        for place, example in enumerate(examples):
            if (start := start_of(example)) is not None:
                places[start.environment].append(place)
        for name, all_of_it in places.items():
            for first in range(0, len(all_of_it), _SIDE_BY_SIDE):
                chosen = all_of_it[first : first + _SIDE_BY_SIDE]
                outcomes = self._act(name, [examples[place] for place in chosen])
                for place, outcome in zip(chosen, outcomes, strict=True):
                    answers[place] = _add_outcome(answers[place], outcome)
        return answers

    def _act(self, name: str, examples: Sequence[Example]) -> list[Outcome]:
        look = any(example.media["cameras"] for example in examples)
        with open_simulators(name, self._folder, self._policy, look=look) as simulators:
            now: list[Step | None] = list(simulators.begin([int(example.columns[SEED]) for example in examples]))
            outcomes: list[Outcome] = [{SUCCESS: 0, "steps": 0, "return": 0.0} for _ in examples]
            past: list[list[Step]] = [[] for _ in examples]
            for number in range(_MOST_STEPS):
                going = [place for place, step in enumerate(now) if step is not None]
                if not going:
                    break
                first = self._first_shown(number)
                shown = []
                for place in going:
                    past[place] = [*past[place], *filter(None, [now[place]])][first - number - 1 :]
                    media = _observation(examples[place].media, past[place], first)
                    shown.append(examples[place]._replace(media=media))
                chosen = dict(zip(going, self._ask(shown), strict=True))
                actions = [
                    None if step is None else np.asarray(chosen[place].output[ACTIONS], np.float32)[-1]
                    for place, step in enumerate(now)
                ]
                now = [self._counted(step, outcome) for step, outcome in
                       zip(simulators.step(actions), outcomes, strict=True)]  # fmt: skip
        return [outcome | {"return": round(outcome["return"], 6)} for outcome in outcomes]

    def _counted(self, step: Step | None, outcome: Outcome) -> Step | None:
        """The step that an action led to, counted; None where nothing follows it."""
        if step is None:
            return None
        outcome["steps"] += 1
        outcome["return"] += step.reward
        outcome[SUCCESS] = int(step.success)
        return None if step.ended else step


def start_of(example: Example) -> Start | None:
    """Where a model may act in the place of the recording; None of one that was no simulator's, or begins later."""
    environment, seed = example.columns.get(ENVIRONMENT), example.columns.get(SEED)
    if not isinstance(environment, str) or not isinstance(seed, int | float) or example.columns.get(START):
        return None
    return Start(environment, int(seed))


def with_rollouts(
    ask: AskModel,
    examples: Sequence[Example],
    metrics: Sequence[str],
    root: Path,
    folder: Path,
    first_shown: FirstShown | None = None,
) -> AskModel:
    """The model, which also acts if a metric asks for it. `root`: of the workspace, whose settings say how to sandbox;
    `folder`: of the run. `first_shown`: of a policy that plans; else a model is shown one step. NOT_FOUND or
    MISSING_EXTRA, naming the environment, where there is none such."""
    if METRIC not in metrics:
        return ask
    for name in sorted({start.environment for example in examples if (start := start_of(example))}):
        environments.check_environment(name)
    return RolloutModel(ask, folder, in_force(root).cage, first_shown)


def rollout_identity(identity: str, metrics: Sequence[str]) -> str:
    """What answers are recorded by: those of a model that acted are others than those of one that did not."""
    return f"{identity} acting {_COMPUTES}" if METRIC in metrics else identity


def _add_outcome(answer: Prediction, outcome: Outcome) -> Prediction:
    output = answer.output if isinstance(answer.output, dict) else {ACTIONS: answer.output}
    return answer._replace(output={**output, ROLLOUT: outcome})


def _observation(recorded: Episode, steps: Sequence[Step], first: int) -> Episode:
    """What a model sees when it has to act: steps of an episode, of which the first has this number."""
    cameras: dict[str, Camera] = {}
    frames = [step.frame for step in steps if step.frame is not None]
    if len(frames) == len(steps):
        seen: Camera = {"frames": np.stack(frames), "steps": np.arange(len(steps), dtype=np.int32)}
        cameras = dict.fromkeys(recorded["cameras"], seen)
    return {
        "times": ((first + np.arange(len(steps))) / recorded["about"]["fps"]).astype(np.float32),
        "state": np.stack([step.seen for step in steps]),
        "action": np.zeros((len(steps), 0), np.float32),
        "cameras": cameras,
        "about": {**recorded["about"], "action": []},
    }
