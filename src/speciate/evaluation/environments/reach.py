"""`reach`: a point with mass in the plane goes to a mark, around a disc that stands in the way, and stops there.

Numpy alone, no randomness but in `reset`: the same seed and the same actions give the same episode. The interface is
gymnasium's (https://gymnasium.farama.org/api/env/), so that whatever runs this also runs theirs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speciate.evaluation.environments import Info
from speciate.modalities.contract import Pixels, Vector

NAME = "reach"
STATE = ("x", "y", "vx", "vy", "mark_x", "mark_y", "disc_x", "disc_y")
ACTION = ("push_x", "push_y")
STEPS_A_SECOND, MOST_STEPS = 10, 100
_STEP = 1 / STEPS_A_SECOND
_DISC, _NEAR, _SLOW = 0.2, 0.12, 0.5
_PUSH, _DRAG = 2.0, 0.4
_SIDE, _HALF = 64, 1.25  # pixels; what they show, from the middle


class Reach:
    """Observation (8,): STATE. Action (2,): the push, -1 to 1 each."""

    _turn = 0.35
    """Radians by which the mark lies at most beside the straight way through the middle."""

    def __init__(self) -> None:
        self._place = self._speed = self._mark = self._disc = np.zeros(2)
        self._taken = 0

    def reset(self, *, seed: int) -> tuple[Vector, Info]:
        chance = np.random.default_rng(seed)
        angle, turn = chance.uniform(0, 2 * np.pi), chance.uniform(-self._turn, self._turn)
        along = np.array([np.cos(angle), np.sin(angle)])
        self._place = along * chance.uniform(0.85, 1.05)
        self._mark = -np.array([np.cos(angle + turn), np.sin(angle + turn)]) * chance.uniform(0.8, 1.0)
        self._disc = chance.uniform(-0.12, 0.12, 2)
        self._speed, self._taken = np.zeros(2), 0
        return self._seen(), {}

    def step(self, action: npt.ArrayLike) -> tuple[Vector, float, bool, bool, Info]:
        """Ends with success where the point stands on the mark, without where it hits the disc or leaves the plane."""
        push = np.clip(np.nan_to_num(np.asarray(action, np.float64)), -1, 1)
        self._speed = self._speed + _STEP * (_PUSH * push - _DRAG * self._speed)
        self._place = self._place + _STEP * self._speed
        self._taken += 1
        apart = float(np.linalg.norm(self._mark - self._place))
        hit = float(np.linalg.norm(self._disc - self._place)) < _DISC or float(np.abs(self._place).max()) > _HALF
        success = not hit and apart < _NEAR and float(np.linalg.norm(self._speed)) < _SLOW
        return self._seen(), -apart, hit or success, self._taken >= MOST_STEPS, {"is_success": success}

    def render(self) -> Pixels:
        """(64, 64, 3): the disc, the mark and the point from above."""
        image = np.full((_SIDE, _SIDE, 3), 245, np.uint8)
        y, x = (np.mgrid[:_SIDE, :_SIDE] + 0.5) / _SIDE * 2 * _HALF - _HALF
        for middle, radius, colour in (
            (self._disc, _DISC, (70, 80, 100)), (self._mark, _NEAR, (40, 160, 80)), (self._place, 0.07, (220, 90, 40)),
        ):  # fmt: skip
            image[(x - middle[0]) ** 2 + (y - middle[1]) ** 2 <= radius**2] = colour
        return image

    def close(self) -> None:
        """Nothing is held."""

    def _seen(self) -> Vector:
        return self.whole()

    def whole(self) -> Vector:
        """(8,) STATE, whatever a model is shown of it."""
        return np.concatenate([self._place, self._speed, self._mark, self._disc]).astype(np.float32)


def expert(seen: npt.ArrayLike) -> Vector:
    """(8,) -> (2,): towards the mark, around the disc on the side that is nearer, slower and slower at the end."""
    place, speed, mark, disc = np.asarray(seen, np.float64).reshape(4, 2)
    wanted = mark - place
    apart = float(np.linalg.norm(wanted))
    wanted *= min(0.9, 1.2 * apart) / max(apart, 1e-9)
    away = place - disc
    distance = float(np.linalg.norm(away))
    outward = away / max(distance, 1e-9)
    inward = -float(wanted @ outward)
    if inward > 0 and distance < _DISC + 0.45:
        around = np.array([-outward[1], outward[0]])
        side = 1.0 if float(wanted @ around) >= 0 else -1.0
        near = np.clip((_DISC + 0.45 - distance) / 0.35, 0, 1)
        wanted = wanted + near * inward * (outward * 1.1 + side * around)
    push = 3.0 * (wanted - speed) + _DRAG * speed
    return np.clip(push / _PUSH, -1, 1).astype(np.float32)


class ReachBySight(Reach):
    """`Reach` with a camera. Only the point's own place and speed are measured, (4,). The camera alone sees where the
    mark is, which may lie anywhere on the other side, and where the disc is."""

    _turn = 1.5

    def _seen(self) -> Vector:
        return self.whole()[:4]
