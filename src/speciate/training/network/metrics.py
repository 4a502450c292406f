"""`metrics.jsonl`: how a training went, a line about every half second and one for each evaluation.

{step, epoch, loss, learning_rate, grad_norm, examples_per_second, rss_mb, held_loss, held_value}: loss is the mean
since the line before; the last two are there where held-out examples were judged. What a checkpoint has of the file is
put back when a run goes on from it, so that the file has each step once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speciate.training.network.loop import Evaluation, Step
from speciate.training.network.memory import resident_mb

_SECONDS = 0.5
_STEPS, _MANY = 10, 100
"""The first hundred lines come every ten steps at the latest: short trainings have curves, too."""


class Metrics:
    def __init__(self, path: Path, before: bytes = b"") -> None:
        """`before`: the file's lines up to where the training goes on."""
        self.path = path
        path.write_bytes(before)
        self.lines = before.count(b"\n")
        self._begin()

    def see(self, step: Step, seconds: float) -> None:
        self._steps += 1
        self._loss += step.loss
        self._examples += step.examples
        self._seconds += seconds

    @property
    def due(self) -> bool:
        return self._seconds >= _SECONDS or (self._steps >= _STEPS and self.lines < _MANY)

    @property
    def pending(self) -> bool:
        """Steps that no line tells of."""
        return self._steps > 0

    def write(
        self, step: Step, epoch: float, evaluation: Evaluation | None = None, more: Mapping[str, float] | None = None
    ) -> dict[str, Any]:
        """The line that was written. `step`: the newest; `more`: what a method has beside these."""
        line = {
            "step": step.number,
            "epoch": round(epoch, 4),
            "loss": self._loss / self._steps if self._steps else step.loss,
            "learning_rate": step.learning_rate,
            "grad_norm": step.grad_norm,
            "examples_per_second": round(self._examples / self._seconds, 1) if self._steps else None,
            "rss_mb": round(resident_mb(), 1),
        }
        line |= {name: _finite(value) for name, value in (more or {}).items() if name not in line}
        if evaluation:
            line |= {"held_loss": _finite(evaluation.loss), "held_value": _finite(evaluation.value)}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines += 1
        self._begin()
        return line

    def _begin(self) -> None:
        self._steps = self._examples = 0
        self._loss = self._seconds = 0.0


def _finite(value: float) -> float | None:
    """JSON has no other numbers."""
    return value if math.isfinite(value) else None


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
