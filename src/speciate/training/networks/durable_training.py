"""A training as part of a run: it resumes from its last checkpoint, saves, stops on request and reports progress.

folder.path/metrics.jsonl   losses and metrics       outputs/curves.png   the same as a chart
checkpoints/training/       where the next attempt resumes"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from speciate.errors import Code, SpeciateError
from speciate.jobs.run import OutOfMemory, Run, Stopped
from speciate.training.networks import training_log
from speciate.training.networks.stopping import StopRequest
from speciate.training.networks.training_checkpoints import Checkpoints
from speciate.training.networks.training_log import MetricsLog
from speciate.training.networks.training_loop import Evaluation, HeldOutData, Training, check_divisible
from speciate.training.resource_usage import retried_smaller

SAVE_SECONDS = 60.0
_WORTH_SECONDS = 5.0
"""A training that ends so long after its last checkpoint gets one more."""
_ENOUGH_IN_A_ROW = 2
"""One epoch may be lucky: the best of many is looked at. Letters by convolutions had 0.97 after 7 epochs and 0.90 on
other rows."""
_SAVE_SHARE = 20
"""A checkpoint waits at least so many times as long as the last one took: saving costs at most a twentieth."""

Why = Literal["finished", "paused", "patience", "enough", "budget"]


class Ending(NamedTuple):
    """`value`: the best one on held-out examples, of `step`; None without any. `why` is paused at `until`."""

    why: Why
    value: float | None
    step: int


class TrainingPlace(NamedTuple):
    """Where a training keeps its things."""

    metrics: Path
    checkpoints: Checkpoints
    curves: Path


def training_place(run: Run, name: str = "") -> TrainingPlace:
    """`name`: of one training of several in this run."""
    folder = name or "training"
    earlier = [attempt.checkpoints / folder for attempt in run.resume_from]
    tail = f"-{name}" if name else ""
    return TrainingPlace(
        run.folder.path / f"metrics{tail}.jsonl",
        Checkpoints(run.checkpoints / folder, earlier),
        run.outputs / f"curves{tail}.png",
    )


def train_durably(
    run: Run,
    training: Training,
    held: HeldOutData | None = None,
    *,
    where: TrainingPlace | None = None,
    until: int | None = None,
    over_budget: Callable[[], bool] = lambda: False,
    enough: Callable[[Evaluation], bool] = lambda evaluation: False,
    better: Callable[[Evaluation], None] = lambda evaluation: None,
    report: Callable[[int, str], None] | None = None,
    save_seconds: float = SAVE_SECONDS,
) -> Ending:
    """Train to the end, or `until` so many steps are done; unless paused, the best weights are in place then.

    Held-out examples are judged after each epoch, and where the budget ends. Two evaluations in a row that are
    `enough(evaluation)` end the training, and so do `parameters.early_stopping_patience` epochs without gain;
    `better(evaluation)` is called while the weights are those of the best one so far. Raises Stopped after a
    checkpoint, OutOfMemory (the engine tries again with half the micro-batch), INVALID where that cannot help or the
    training diverges.
    """
    return _Session(
        run, training, held, where or training_place(run), over_budget, enough, better, report, save_seconds
    ).go(until)


class _Session:
    def __init__(
        self,
        run: Run,
        training: Training,
        held: HeldOutData | None,
        where: TrainingPlace,
        over_budget: Callable[[], bool],
        enough: Callable[[Evaluation], bool],
        better: Callable[[Evaluation], None],
        report: Callable[[int, str], None] | None,
        save_seconds: float,
    ) -> None:
        self._training, self._held, self._place = training, held, where
        self._over_budget, self._enough, self._save_seconds = over_budget, enough, save_seconds
        self._better = better
        self._report = report or (lambda step, message: run.progress(step, training.total, "steps", message))
        self._stop = StopRequest(run)
        self._ended: Why | None = None
        before = b""
        if saved := where.checkpoints.newest():
            ended = saved.state.facts.pop("ended", None)
            training.restore(saved.state)
            self._ended, before = ended, saved.files.get("metrics.jsonl", b"")
        self._metrics = MetricsLog(where.metrics, before)
        self._saved_at, self._pause = time.monotonic(), save_seconds

    def go(self, until: int | None) -> Ending:
        training = self._training
        with self._stop, _memory(training), training.random_states:
            why = self._ended or self._train(until)
        if why != "paused":
            training.adopt_best()
        if self._metrics.lines:
            training_log.draw_curves(self._place.metrics, self._place.curves)
        return Ending(why, training.best.value if training.best else None, self._best_step)

    @property
    def _best_step(self) -> int:
        return self._training.best.step if self._training.best else self._training.step

    def _train(self, until: int | None) -> Why:
        training = self._training
        target = min(until or training.total, training.total)
        while True:
            if self._stop.made:
                self._leave()
            if self._epoch_ended and (why := self._judge()):
                return self._end(why, save=True)
            if training.step >= target:
                return self._end("paused" if target < training.total else "finished", save=until is not None)
            if self._over_budget():
                return self._end(self._judge() or "budget", save=False)
            self._save_if_due()
            started = time.monotonic()
            step = training.advance()
            self._metrics.see(step, time.monotonic() - started)
            if self._metrics.due and not self._epoch_ended:
                self._tell()

    @property
    def _epoch_ended(self) -> bool:
        """Or the training has, which may be before its first epoch does; and its held-out examples are not judged."""
        training = self._training
        ended = not training.step % training.epoch_steps or training.step == training.total
        return bool(self._held) and training.evaluated < training.step and ended

    def _judge(self) -> Why | None:
        """Evaluate, unless these weights were; why the training ends with it, if it does."""
        training = self._training
        if self._held is None or training.evaluated == training.step:
            return None
        try:
            evaluation = training.evaluate(self._held, self._stop.check)
        except Stopped:
            self._leave()
        self._tell(evaluation)
        if evaluation.better:
            self._better(evaluation)
        if self._held.show is not None:
            self._held.show(training)
        training.enough = training.enough + 1 if self._enough(evaluation) else 0
        if training.enough == _ENOUGH_IN_A_ROW:
            return "enough"
        patience = training.parameters.early_stopping_patience
        return "patience" if patience and training.without_gain >= patience else None

    def _tell(self, evaluation: Evaluation | None = None) -> None:
        training = self._training
        if training.last is None:
            return
        line = self._metrics.write(training.last, training.step / training.epoch_steps, evaluation)
        held = f", {evaluation.value:.4g} on held-out examples" if evaluation else ""
        self._report(training.step, f"epoch {line['epoch']:.1f}, loss {line['loss']:.4g}{held}")

    def _end(self, why: Why, *, save: bool) -> Why:
        """Saved where another part of the run may be stopped after it, and this one would take long to repeat."""
        if self._metrics.pending:
            self._tell()
        if save or time.monotonic() - self._saved_at >= _WORTH_SECONDS:
            self._save(None if why in ("paused", "budget") else why)
        return why

    def _leave(self) -> NoReturn:
        if not self._training.suspicious:
            self._save()
        raise Stopped

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved_at >= self._pause and not self._training.suspicious:
            self._save()

    def _save(self, ended: Why | None = None) -> None:
        started = time.monotonic()
        state = self._training.state()
        state.facts["ended"] = ended
        self._place.checkpoints.save(state, {"metrics.jsonl": self._place.metrics.read_bytes()})
        self._saved_at = time.monotonic()
        self._pause = max(self._save_seconds, _SAVE_SHARE * (self._saved_at - started))


@contextlib.contextmanager
def _memory(training: Training) -> Iterator[None]:
    """Where one example at a time is too much, or a batch cannot be divided, trying again does not help."""
    try:
        with retried_smaller():
            yield
    except OutOfMemory as error:
        if training.whole_batch and training.parameters.batch_size > 1:
            raise check_divisible(training) from error
        if training.micro_batch > 1:
            raise
        raise SpeciateError(
            Code.INVALID,
            "The training ran out of memory with one example at a time.",
            "Choose a smaller base model, or shorter or smaller examples; list_options(kind='method') names them.",
        ) from error
