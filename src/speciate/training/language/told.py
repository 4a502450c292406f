"""How a language model's training goes: a progress line for whoever waits, `metrics.jsonl`, and curves at the end.

Everything that the trainer logs is in the lines, by its own names (`mean_token_accuracy`, `rewards/margins`, `kl`): the
mean since the line before.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speciate.training.network import curves
from speciate.training.network.loop import Evaluation, Step
from speciate.training.network.metrics import Metrics
from speciate.training.study import Study

if TYPE_CHECKING:
    from collections.abc import Mapping

_OURS = {"loss", "grad_norm", "learning_rate", "epoch"}
_NOT_TOLD = ("eval_", "train_", "total_flos")


class Told:
    def __init__(self, metrics: Path, picture: Path, before: bytes) -> None:
        self._metrics, self._path, self._picture = Metrics(metrics, before), metrics, picture
        self._logged: dict[str, float] = {}
        self._more: dict[str, list[float]] = defaultdict(list)
        self._held: tuple[float, float] | None = None
        self._last: Step | None = None
        self._at = time.monotonic()

    def listen(self, trainer: Any) -> None:
        """Hear what a trainer logs, after all its own classes have added to it."""
        from transformers import PrinterCallback, TrainerCallback

        trainer.remove_callback(PrinterCallback)
        told = self

        class Listener(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
                told.heard(logs or {})

        trainer.add_callback(Listener())

    def heard(self, logs: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if "loss" in numbers:
            self._logged = numbers
        for name, value in numbers.items():
            if name not in _OURS and not name.startswith(_NOT_TOLD) and math.isfinite(value):
                self._more[name].append(value)

    def judged(self, loss: float, value: float | None = None, more: Mapping[str, float] | None = None) -> None:
        """On held-out examples. `value`: the metric where there is one beside the loss; `more`: further figures."""
        self._held = loss, loss if value is None else value
        self.heard(more or {})

    def step(self, state: Any, study: Study) -> None:
        """Another one is done; a line is written where one is due."""
        said, at = self._logged, time.monotonic()
        self._last = Step(
            state.global_step, said.get("loss", math.nan), said.get("learning_rate", 0.0), said.get("grad_norm", 0.0),
            int(state.train_batch_size or 1),
        )  # fmt: skip
        self._metrics.see(self._last, at - self._at)
        self._at = at
        if self._metrics.due or self._held is not None:
            line = self._write(state)
            told = next((line[name] for name in ("held_loss", "held_value") if line.get(name) is not None), None)
            held = f", {told:.4g} on held-out examples" if told is not None else ""
            study.progress(
                state.global_step, state.max_steps, "steps", f"epoch {line['epoch']:.1f}, loss {line['loss']:.4g}{held}"
            )

    def flush(self, state: Any) -> None:
        if self._metrics.pending:
            self._write(state)

    def draw(self) -> None:
        if self._metrics.lines:
            curves.draw(self._path, self._picture)

    def _write(self, state: Any) -> dict[str, Any]:
        assert self._last is not None, "a step was seen"
        more = {name: sum(values) / len(values) for name, values in self._more.items() if values}
        held = None if self._held is None else Evaluation(self._last.number, *self._held, [], False)
        line = self._metrics.write(self._last, float(state.epoch or 0), held, more)
        self._more.clear()
        self._held = None
        return line
