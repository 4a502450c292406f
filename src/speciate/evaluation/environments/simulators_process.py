"""The sandboxed half of `simulators.py`: environments of gymnasium, many at a time.

A Beginning is answered with what is `seen` at first, Actions with all of an answer.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict, final

from speciate.sandbox.serve import serve


@final
class Beginning(TypedDict):
    make: str
    """Name of the environment, made once for each seed."""
    seeds: list[int]


@final
class Actions(TypedDict):
    """The next action of each episode, (A,); None for one that has ended."""

    actions: list[list[float] | None]


class Answer(TypedDict):
    """What each episode answers to its action; None for one that had ended."""

    seen: list[list[float] | None]
    rewards: NotRequired[list[float | None]]
    ended: NotRequired[list[bool | None]]
    success: NotRequired[list[bool | None]]


class _Step(TypedDict):
    seen: list[float]
    rewards: float
    ended: bool
    success: bool


class Simulators:
    def __init__(self) -> None:
        self._made: list[Any] = []
        self._returns: list[float] = []

    def open(self, loading: None) -> None:
        """Nothing to load."""

    def answer(self, question: Beginning | Actions) -> Answer:
        if "make" in question:
            return {"seen": [self._begin(question["make"], seed) for seed in question["seeds"]]}
        steps = [self._step(place, action) for place, action in enumerate(question["actions"])]
        return {
            "seen": [step and step["seen"] for step in steps],
            "rewards": [step and step["rewards"] for step in steps],
            "ended": [step and step["ended"] for step in steps],
            "success": [step and step["success"] for step in steps],
        }

    def _begin(self, name: str, seed: int) -> list[float]:
        import gymnasium
        import numpy as np

        environment = gymnasium.make(name)
        if len(environment.observation_space.shape or ()) != 1:
            raise ValueError(f"{name} is not observed as a row of numbers: {environment.observation_space}")
        seen, _ = environment.reset(seed=seed)
        self._made.append(environment)
        self._returns.append(0.0)
        return [float(number) for number in np.asarray(seen).ravel()]

    def _step(self, place: int, action: list[float] | None) -> _Step | None:
        """Success is what the environment says (`is_success` or `success`); of one that says nothing, at the end, a
        return of at least its `reward_threshold`."""
        if action is None:
            return None
        import numpy as np

        environment = self._made[place]
        seen, reward, terminated, truncated, info = environment.step(_fit_action(environment.action_space, action))
        self._returns[place] += float(reward)
        ended = bool(terminated or truncated)
        said = info.get("is_success", info.get("success"))
        threshold = environment.spec.reward_threshold if environment.spec else None
        if said is None:
            said = ended and threshold is not None and self._returns[place] >= threshold
        if ended:
            environment.close()
        return {
            "seen": [float(number) for number in np.asarray(seen).ravel()], "rewards": float(reward), "ended": ended,
            "success": bool(said),
        }  # fmt: skip


def _fit_action(space: Any, action: list[float]) -> Any:
    """Within the bounds; of so many choices the nearest number, or where there is a number for each the largest."""
    import numpy as np

    values = np.nan_to_num(np.asarray(action, np.float64))
    if hasattr(space, "n"):
        choice = values.argmax() if len(values) == space.n and space.n > 1 else round(float(values[0]))
        return int(np.clip(choice, 0, space.n - 1)) + int(space.start)
    return np.clip(values.reshape(space.shape), space.low, space.high).astype(space.dtype)


if __name__ == "__main__":
    serve(Simulators(), quiet=True)  # what environments print is nobody's business
