"""A trl trainer as part of a run: it resumes from its last checkpoint, saves, stops on request, logs, halves batches.

`make_durable(SFTTrainer)` is that class with its ways to save and load replaced (trainer_checkpoint.py). The order of
examples is a function of seed and epoch, chance one of seed, step and micro-batch, so that neither is a state to keep;
a run that was killed ends in the same bits as one that was left alone. A subclass with more state of its own gives it
by `more_state`, takes it back by `restore_more`, and says by `may_save` when it has none to lose."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from pydantic import BaseModel

from speciate.errors import Code, SpeciateError
from speciate.jobs.run import OutOfMemory, Stopped
from speciate.training.language import trainer_checkpoint
from speciate.training.language.trainer_checkpoint import Best, Learning, Progress
from speciate.training.networks import training_log
from speciate.training.networks.data_parallel import seed_of
from speciate.training.networks.durable_training import TrainingPlace, training_place
from speciate.training.networks.random_state import RandomStates
from speciate.training.networks.stopping import Diverged, LossWatch, StopRequest
from speciate.training.networks.training_checkpoints import CheckpointFacts, Tensors, TrainingState
from speciate.training.networks.training_log import MetricsLog
from speciate.training.networks.training_loop import Evaluation, Step
from speciate.training.resource_usage import retried_smaller, usage_now
from speciate.training.training_context import TrainingContext

if TYPE_CHECKING:
    import torch


Why = Literal["finished", "patience", "budget", "limit"]
"""Why a training ended. `limit`: one that a trainer has of its own."""
_METRICS = "metrics.jsonl"
SAVE_SECONDS, SAVE_SHARE = 60.0, 20
"""A checkpoint each minute, or after twenty times what the last one took where that is longer."""
_OF_THE_RUN = ("_runtime", "_per_second", "_num_tokens", "_loss")
"""How the names of figures end that say nothing of the model, count what this attempt has seen, or are reported
apart."""
_WORTH_SECONDS = 5.0
"""A training that ends so long after its last checkpoint gets one more."""


class TrainerSession(NamedTuple):
    """What a durable trainer needs beside what its class takes."""

    context: TrainingContext
    identity: Mapping[str, Any]
    """What must be the same for a checkpoint to fit, as JSON: hyperparameters, seed, base model, data."""
    options: type[BaseModel]
    """The class of the hyperparameters."""
    patience: int | None = None
    """Evaluations without a lower loss on held-out examples before it ends."""
    keep_best: bool = True
    name: str = ""
    """Name of one training of several in this run."""
    watch_loss: bool = True
    """Whether a loss that rises for good means that the training has diverged; that of policies may not."""


class TrainerEnding(NamedTuple):
    """`held_loss`: the best one, of `step`; None without held-out examples."""

    why: Why
    held_loss: float | None
    step: int
    steps: int
    held: Mapping[str, float] = {}
    """What else the trainer says of held-out examples at that step, by its own names."""


def make_durable(trainer: type[Any]) -> type[Any]:
    """The class with a method `go`; `begin(session)` comes first."""
    return type(f"Durable{trainer.__name__}", (DurableTrainer, trainer), {})


class DurableTrainer:
    """Before the trainer in the order of resolution: what is not here is the trainer's own."""

    # The trainer's
    args: Any
    model: Any
    state: Any
    control: Any
    optimizer: Any
    lr_scheduler: Any
    train: Callable[..., Any]
    callback_handler: Any
    _step: int

    # To be overridden

    def may_save(self) -> bool:
        """Whether the state between these two steps is all in what is kept: trainers that learn several steps from one
        generation keep that in memory meanwhile. Whoever asks to stop waits until it may."""
        return self._generation_steps is None or self._step % self._generation_steps == 0

    def more_state(self) -> tuple[CheckpointFacts, dict[str, Tensors]]:
        """JSON, and groups of tensors whose names are not `weights`, `optimizer` or `best`."""
        return {}, {}

    def restore_more(self, facts: CheckpointFacts, tensors: Mapping[str, Tensors]) -> None: ...

    # A run

    def begin(self, session: TrainerSession) -> None:
        self._session, run = session, session.context.run
        self._place: TrainingPlace = training_place(run, session.name)
        self._stop, self._watch = StopRequest(run), LossWatch()
        self._best: Best | None = None
        self._without_gain = 0
        self._why: Why = "finished"
        self._seen_step = -1
        self._loss, self._micro, self._micro_step = 0.0, 0, -1
        self._saved = self._place.checkpoints.newest()
        before = self._saved.files.get(_METRICS, b"") if self._saved else b""
        self._log = TrainerLog(self._place.metrics, self._place.curves, before)
        self._log.listen(self)

    def go(self) -> TrainerEnding:
        """Train to the end, or from the last checkpoint on; the weights that are kept are in place then.

        Raises Stopped after a checkpoint, OutOfMemory (the engine tries again with half the micro-batch), INVALID where
        that cannot help, where the training diverges, or where a checkpoint is another training's.
        """
        self._chance = RandomStates(self.args.seed, self.args.device)
        self._saved_at, self._pause = time.monotonic(), SAVE_SECONDS
        with self._stop, halve_when_out_of_memory(self.args.per_device_train_batch_size), self._chance:
            ended = self._saved.state.facts["ended"] if self._saved else None
            if self._saved is not None and ended:
                trainer_checkpoint.check_identity(self._saved.state, self._identity, self._session.options)
                trainer_checkpoint.restore_weights(self._saved.state, self.model)
                self._why, steps = ended, self._restore_progress(self._saved.state)
            else:
                self._began = usage_now()
                self.train(resume_from_checkpoint=self._resumed())
                self._log.flush(self.state)
                steps = int(self.state.global_step)
                if time.monotonic() - self._saved_at >= _WORTH_SECONDS:
                    self._save(ended=self._why)  # what comes after it may be stopped
        if self._best is not None and self._session.keep_best:
            trainer_checkpoint.copy_weights(self._best.weights, self.model)
        self._log.draw()
        best = self._best
        if best is None:
            return TrainerEnding(self._why, None, steps, steps)
        return TrainerEnding(self._why, best.loss, best.step, steps, best.held)

    def _resumed(self) -> str | None:
        """The folder of which the trainer reads itself how far it was; None from the beginning."""
        if self._saved is None:
            return None
        trainer_checkpoint.check_identity(self._saved.state, self._identity, self._session.options)
        folder, micro = f"resumed{self._session.name}", self.args.per_device_train_batch_size
        return trainer_checkpoint.write_resume_folder(
            self._session.context.run.checkpoints / folder, self._saved.files, micro
        )

    # What the trainer calls

    def _get_train_sampler(self, *given: Any, **named: Any) -> Any:
        self._sampler = super()._get_train_sampler(*given, **named)  # type: ignore[misc]
        return self._sampler

    def _run_epoch(self, *given: Any, **named: Any) -> Any:
        """A sampler with a generator of its own would resume where the last epoch ended."""
        generator = getattr(self._sampler, "generator", None)
        if generator is not None:
            generator.manual_seed(seed_of(self.args.seed, named["epoch"]))
        return super()._run_epoch(*given, **named)  # type: ignore[misc]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if self._micro_step != self.state.global_step:
            self._micro_step, self._micro, self._loss = self.state.global_step, 0, 0.0
        self._chance.begin(seed_of(self.args.seed, self._micro_step, self._micro))
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        self._micro += 1
        self._loss += float(loss)
        return loss

    def evaluate(self, *given: Any, **named: Any) -> dict[str, float]:
        self._chance.begin(seed_of(self.args.seed, self.state.global_step, -1 % 2**32))
        with self._session.context.meter.stage("judging"):
            metrics: dict[str, float] = super().evaluate(*given, **named)  # type: ignore[misc]
        self._judged(metrics)
        return metrics

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *given: Any, **named: Any) -> None:
        """After each step, and once more after an epoch, when there is nothing left to do."""
        if self._seen_step == self.state.global_step:
            return
        self._seen_step = self.state.global_step
        self._spent()
        self._check_loss()
        self.control.should_log, self.control.should_save = True, False
        self.control.should_evaluate = self._epoch_ended and self._has_held
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *given, **named)  # type: ignore[misc]
        self.state.log_history.clear()  # each line is in metrics.jsonl
        self._log.step(self.state, self._session.context)
        self._after_step()
        self._began = usage_now()

    def _save_checkpoint(self, *given: Any, **named: Any) -> None:
        """Never as the trainer would."""

    def _load_from_checkpoint(self, *given: Any, **named: Any) -> None:
        assert self._saved is not None
        trainer_checkpoint.restore_weights(self._saved.state, self.model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._saved is None:
            return
        trainer_checkpoint.restore_optimizer(self._saved.state, self._learning)
        step = self._restore_progress(self._saved.state)
        if self._generation_steps is not None:
            self._step = step * self.args.gradient_accumulation_steps
        self._saved = None  # it holds much memory

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Chance is a function of the step."""

    # Between two steps

    @property
    def _generation_steps(self) -> int | None:
        """Micro-batches that are learned from one generation; None of trainers that generate nothing."""
        each = getattr(self.args, "steps_per_generation", None)
        return None if each is None or not hasattr(self, "_step") else int(each * getattr(self, "num_iterations", 1))

    @property
    def _has_held(self) -> bool:
        return getattr(self, "eval_dataset", None) is not None

    @property
    def _epoch_ended(self) -> bool:
        return bool(self.state.global_step % self._epoch_steps == 0 or self.state.global_step >= self.state.max_steps)

    @property
    def _epoch_steps(self) -> int:
        if not hasattr(self, "_known_epoch_steps"):
            batches = len(self.callback_handler.train_dataloader)
            self._known_epoch_steps: int = max(1, math.ceil(batches / self.args.gradient_accumulation_steps))
        return self._known_epoch_steps

    def _spent(self) -> None:
        meter = self._session.context.meter
        meter.stages["training"] = meter.stages["training"].plus(usage_now().minus(self._began))
        meter.steps += 1
        meter.planned_steps = self.state.max_steps

    def _check_loss(self) -> None:
        what = "the loss is no number" if not math.isfinite(self._loss) else None
        if what is None and self._session.watch_loss:
            what = self._watch.see(self._loss)
        if what:
            raise Diverged(self.state.global_step, self.args.learning_rate, what)

    def _judged(self, metrics: Mapping[str, float]) -> None:
        loss = metrics.get("eval_loss", math.nan)
        self._log.judged(loss)
        if not math.isfinite(loss):
            return
        if self._best is None or loss < self._best.loss:
            weights = trainer_checkpoint.copy_to_cpu(trainer_checkpoint.trained_weights(self.model))
            held = {
                name.removeprefix("eval_"): float(value)
                for name, value in metrics.items()
                if name.startswith("eval_") and not name.endswith(_OF_THE_RUN) and math.isfinite(value)
            }
            self._best, self._without_gain = Best(self.state.global_step, loss, weights, held), 0
        else:
            self._without_gain += 1

    def _after_step(self) -> None:
        patience, context = self._session.patience, self._session.context
        if patience and self._without_gain >= patience:
            self._why, self.control.should_training_stop = "patience", True
        elif self.state.global_step < self.state.max_steps and context.over_budget:
            self._why, self.control.should_training_stop = "budget", True
        elif self._stop.made and (self.may_save() or self._watch.suspicious):
            self._leave()
        elif time.monotonic() - self._saved_at >= self._pause and self._sound:
            self._save()
        context.meter.keep_if_due()

    @property
    def _sound(self) -> bool:
        return self.may_save() and not self._watch.suspicious

    def _leave(self) -> NoReturn:
        if self._sound:
            self._save()
        raise Stopped

    # State

    @property
    def _learning(self) -> Learning:
        return Learning(self.model, self.optimizer, self.lr_scheduler)

    @property
    def _identity(self) -> CheckpointFacts:
        return trainer_checkpoint.checkpoint_identity(type(self), self._session.identity)

    def _save(self, ended: str | None = None) -> None:
        started, more, groups = time.monotonic(), *self.more_state()
        progress = Progress(self.state.global_step, ended, self._best, self._without_gain, self._watch.state())
        state = trainer_checkpoint.checkpoint_state(self._identity, progress, self._learning, more, groups)
        self._log.flush(self.state)
        files = trainer_checkpoint.trainer_state(self.state) | {_METRICS: self._place.metrics.read_bytes()}
        self._session.context.meter.keep()
        self._place.checkpoints.save(state, files)
        self._saved_at = time.monotonic()
        self._pause = max(SAVE_SECONDS, SAVE_SHARE * (self._saved_at - started))

    def _restore_progress(self, state: TrainingState) -> int:
        """The step that was the last one."""
        progress = trainer_checkpoint.read_progress(state, self.model)
        self._best, self._without_gain = progress.best, progress.without_gain
        self._watch.restore(progress.watch)
        self.restore_more(state.facts["more"], state.tensors)
        return progress.step


_OWN_COLUMNS = {"loss", "grad_norm", "learning_rate", "epoch"}
_LEFT_OUT = ("eval_", "train_", "total_flos")


class TrainerLog:
    """Progress of a language model's training: a message for whoever waits, `metrics.jsonl`, and curves at the end.

    A line has everything that the trainer logs, by its own names (`mean_token_accuracy`, `rewards/margins`, `kl`): the
    mean since the line before.
    """

    def __init__(self, metrics: Path, chart: Path, before: bytes) -> None:
        self._metrics, self._path, self._chart = MetricsLog(metrics, before), metrics, chart
        self._logged: dict[str, float] = {}
        self._more: dict[str, list[float]] = defaultdict(list)
        self._held: tuple[float, float] | None = None
        self._last: Step | None = None
        self._at = time.monotonic()

    def listen(self, trainer: Any) -> None:
        """Hear what a trainer logs, after all its own classes have added to it."""
        from transformers import PrinterCallback, TrainerCallback

        trainer.remove_callback(PrinterCallback)
        log = self

        class Listener(TrainerCallback):
            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
                log.heard(logs or {})

        trainer.add_callback(Listener())

    def heard(self, logs: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        if "loss" in numbers:
            self._logged = numbers
        for name, value in numbers.items():
            if name not in _OWN_COLUMNS and not name.startswith(_LEFT_OUT) and math.isfinite(value):
                self._more[name].append(value)

    def judged(self, loss: float, value: float | None = None, more: Mapping[str, float] | None = None) -> None:
        """On held-out examples. `value`: the metric where there is one beside the loss; `more`: further figures."""
        self._held = loss, loss if value is None else value
        self.heard(more or {})

    def step(self, state: Any, context: TrainingContext) -> None:
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
            context.progress(
                state.global_step, state.max_steps, "steps", f"epoch {line['epoch']:.1f}, loss {line['loss']:.4g}{held}"
            )

    def flush(self, state: Any) -> None:
        if self._metrics.pending:
            self._write(state)

    def draw(self) -> None:
        if self._metrics.lines:
            training_log.draw_curves(self._path, self._chart)

    def _write(self, state: Any) -> training_log.MetricsLine:
        assert self._last is not None, "a step was seen"
        more = {name: sum(values) / len(values) for name, values in self._more.items() if values}
        held = None if self._held is None else Evaluation(self._last.number, *self._held, [], False)
        line = self._metrics.write(self._last, float(state.epoch or 0), held, more)
        self._more.clear()
        self._held = None
        return line


def micro_batch(batch_size: int, asked: int | None, retries: int) -> int:
    """Examples in memory at once: what was asked, halved as often as memory ran out, as far as it divides a batch.

    >>> micro_batch(16, None, 0), micro_batch(16, None, 2), micro_batch(12, 5, 0), micro_batch(16, None, 9)
    (16, 4, 4, 1)
    """
    most = max(1, min(asked or batch_size, batch_size) >> retries)
    return next(size for size in range(most, 0, -1) if batch_size % size == 0)


@contextlib.contextmanager
def halve_when_out_of_memory(micro: int) -> Iterator[None]:
    """Raises OutOfMemory, upon which the engine tries again with a smaller micro-batch; INVALID where one example at a
    time is too much, so that trying again does not help."""
    try:
        with retried_smaller():
            yield
    except OutOfMemory as error:
        if micro > 1:
            raise
        raise SpeciateError(
            Code.INVALID,
            "The training ran out of memory with one example at a time.",
            "Call train_model again with a smaller hyperparameters={'max_length': ...}, with "
            "{'gradient_checkpointing': true}, or with a smaller base model.",
        ) from error
