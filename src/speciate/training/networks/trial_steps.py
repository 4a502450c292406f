"""A few real steps before a training: what a step costs, which precision is faster, and whether it fits.

What does not fit ends with an error that begins with `does_not_fit` and names what would fit. A budget that is shorter
than all epochs is no reason: fewer are planned, and the best network so far counts."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from speciate.environment import prefer_onednn
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.jobs.folder import write_whole
from speciate.jobs.run import Run
from speciate.training import provenance
from speciate.training.hyperparameters import AskedPrecision
from speciate.training.networks import batches, successive_halving
from speciate.training.networks.batches import Items
from speciate.training.networks.optimizer import Precision
from speciate.training.networks.stopping import Diverged
from speciate.training.networks.threads import choose_threads, count_flops
from speciate.training.networks.training_checkpoints import TrainingState
from speciate.training.networks.training_loop import HeldOutData, Scores, Step, Targets, Training
from speciate.training.planning.available_methods import available_candidates
from speciate.training.resource_usage import CostMeter, Usage, forget_peak, peak_mb, room_mb, usage_now
from speciate.training.training_context import TrainingContext

_FEW_TRIAL_EXAMPLES = 4
_PRECISION_TURNS, _TIMED_STEPS = 2, 2
COMPARED_STEPS = 2 * _PRECISION_TURNS * (1 + _TIMED_STEPS)
"""Steps of both precisions together: the first step of a turn warms up."""
_LATER_COPIES = 3
"""Copies of what is trained, beside the weights: two moments of the optimizer, and the best weights so far."""


class MeasuredTraining(Training):
    """A training that adds what it costs to a tally, and that can be tried out."""

    def __init__(self, meter: CostMeter, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._tally = meter

    def advance(self) -> Step:
        with self._tally.stage("training"):
            step = super().advance()
        self._tally.steps += 1
        return step

    def state(self) -> TrainingState:
        """State to be saved: what the training cost until here is kept with it."""
        self._tally.keep()
        return super().state()

    def judge(self, items: Items, targets: Targets, *between: Any) -> tuple[float, Scores]:
        with self._tally.stage("judging"):
            return super().judge(items, targets, *between)

    def rehearse(self, count: int) -> TrialPass:
        """Forward and backward with so many of the longest examples, and no step. With one, which is too few to be
        timed, the work of a step is counted."""
        places = self._batch()[:count]
        self._tally.see_peak()
        forget_peak()
        before = usage_now()
        with self.random_states, count_flops() if count == 1 else contextlib.nullcontext() as work:
            self._module.train()
            loss, _ = self._loss(self._items, self._targets, places)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            self._module.zero_grad(set_to_none=True)
        lengths = self._items.lengths
        usual = self.micro_batch * float(np.mean(lengths)) / max(1, int(lengths[places[0]]))
        return TrialPass(len(places), usage_now().minus(before), peak_mb(), usual * work.flops if work else math.nan)

    def compare(self) -> PrecisionComparison:
        """Take the same steps in float32 and in bfloat16, turn by turn.

        On a CPU the processor's seconds count, since others may use it meanwhile.
        """
        start, took, losses = _copy_state(self.state()), dict[Precision, float](), dict[Precision, list[float]]()
        precisions: tuple[Precision, ...] = ("float32", "bfloat16")
        for self.precision in precisions * _PRECISION_TURNS:
            self.restore(start)
            with self.random_states:
                first, before = self.advance(), usage_now()
                losses[self.precision] = [first.loss, *(self.advance().loss for _ in range(_TIMED_STEPS))]
            spent = usage_now().minus(before)
            seconds = spent.cpu if self._device.type == "cpu" else spent.seconds
            took[self.precision] = min(seconds, took.get(self.precision, seconds))
        return PrecisionComparison(took["float32"], took["bfloat16"], losses["float32"], losses["bfloat16"])

    @property
    def trained_mb(self) -> float:
        return sum(each.numel() * each.element_size() for each in self._trained.values()) / 2**20


class PrecisionComparison(NamedTuple):
    """Seconds and losses of the same steps: in float32, and `other` in bfloat16."""

    seconds: float
    other_seconds: float
    losses: Sequence[float]
    other_losses: Sequence[float]


class TrialPass(NamedTuple):
    examples: int
    spent: Usage
    peak_mb: float
    flops: float
    """Floating-point operations of a step on examples of the mean length; NaN where they were not counted."""


def _copy_state(state: TrainingState) -> TrainingState:
    """A copy of the state, which the training does not change."""
    groups = {
        group: {name: each.detach().clone() for name, each in tensors.items()}
        for group, tensors in state.tensors.items()
    }
    return TrainingState(state.facts, dict(groups))


class MemoryNeed(NamedTuple):
    """Memory by the size of a micro-batch, in MiB, as a line through two rehearsals."""

    one: float
    each: float

    def at(self, micro_batch: int) -> float:
        return self.one + self.each * (micro_batch - 1)

    def fitting(self, room: float, most: int) -> int | None:
        """The largest power of two, at most `most`, that fits; None where not even one example does."""
        sizes = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
        return max((size for size in sizes if self.at(size) <= room), default=None)


class PlannedWork(NamedTuple):
    """What lies ahead, at most: patience or a met target end it earlier."""

    steps: int
    judged: int
    """Times that an example is judged."""
    builds: int
    saves: int
    epochs: int
    """Epochs of all trainings together."""


class StepCost(NamedTuple):
    """What each costs."""

    step: Usage
    judged: Usage
    build: Usage
    save: Usage = Usage()

    def faster(self, times: float) -> StepCost:
        return self._replace(step=self.step.times(1 / times))

    def of(self, work: PlannedWork) -> Usage:
        return (
            self.step.times(work.steps).plus(self.judged.times(work.judged)).plus(self.build.times(work.builds))
        ).plus(self.save.times(work.saves))  # fmt: skip


def planned_work(
    candidates: int, epochs: int, batch_size: int, divisions: Sequence[tuple[int, int]], whole: int | None
) -> PlannedWork:
    """The search on the first division (learned from, judged by), each other one at the best rate, then `whole`.

    >>> planned_work(3, 4, 10, [(100, 20)], None)
    PlannedWork(steps=70, judged=160, builds=6, saves=6, epochs=7)
    """
    searched, before, entered = 0, 0, 0
    for rung in successive_halving.rungs(candidates, epochs):
        searched += rung.entrants * (rung.epochs - before)
        before, entered = rung.epochs, entered + rung.entrants
    (learned, judged), *others = divisions
    steps = searched * batches.step_count(learned, batch_size)
    seen = (searched + 1) * judged
    for more, held in others:
        steps += epochs * batches.step_count(more, batch_size)
        seen += (epochs + 1) * held
    builds, passes = entered + 2 * len(others), searched + epochs * len(others)
    if whole is not None:
        steps, builds, passes = steps + epochs * batches.step_count(whole, batch_size), builds + 1, passes + epochs
    return PlannedWork(steps, seen, builds, entered, passes)


class Need(NamedTuple):
    """What a step needs."""

    memory: MemoryNeed
    example: Usage
    """Cost of an example, at most: more together cost less."""
    threads: int


def rehearse(context: TrainingContext, training: MeasuredTraining) -> Need:
    """What a step needs, before one is taken. From here on torch takes as many threads as the step should have."""
    one = training.rehearse(1)
    threads = _settled_threads(context, one.flops)
    take_threads(context, threads)
    few = training.rehearse(min(_FEW_TRIAL_EXAMPLES, training.micro_batch))
    each = max(0.0, few.peak_mb - one.peak_mb) / max(1, few.examples - one.examples)
    memory = MemoryNeed(one.peak_mb + _LATER_COPIES * training.trained_mb, each)
    return Need(memory, few.spent.times(1 / few.examples), threads)


def _settled_threads(context: TrainingContext, flops: float) -> int:
    """As many as were asked for; processes that wait for each other, or for a GPU, keep theirs."""
    payload = context.payload
    asked = payload.spec.resources.cpu is not None or payload.device != "cpu" or context.team.size > 1
    return payload.threads if asked else choose_threads(flops, payload.threads)


def take_threads(context: TrainingContext, threads: int) -> None:
    """For all that is built, trained and judged from here on, and recorded with the model."""
    import torch

    context.payload = context.payload.model_copy(update={"threads": threads})
    torch.set_num_threads(threads)
    if threads > 1:  # its products are large
        prefer_onednn()


_JUDGED_EXAMPLES = 64
"""The longest; that tells what judging costs."""


class _Judged(Exception):
    """Enough examples were."""


def step_cost(
    training: MeasuredTraining,
    judge: HeldOutData,
    build: Usage,
    steps: int,
    over_budget: Callable[[], bool] = lambda: False,
) -> StepCost:
    """Cost of a step, of judging an example and of building. A step's is the mean of `steps` after the first, which is
    on the longest batch and warms up; of fewer where the budget ends."""
    with training.random_states:
        before = usage_now()
        training.advance()
        step = usage_now().minus(before)
        done, before = 0, usage_now()
        while done < steps and not over_budget():
            training.advance()
            done += 1
        step = usage_now().minus(before).times(1 / done) if done else step
        judged = _judging_cost(training, judge)
    training.backbone.module.zero_grad(set_to_none=True)  # the judge keeps the backbone, which prepares its items
    return StepCost(step, judged, build)


def _judging_cost(training: MeasuredTraining, judge: HeldOutData) -> Usage:
    """Cost of judging one example."""
    batches_begun, before = 0, usage_now()
    enough = math.ceil(_JUDGED_EXAMPLES / training.micro_batch)

    def between() -> None:
        nonlocal batches_begun
        if batches_begun == enough:
            raise _Judged
        batches_begun += 1

    with contextlib.suppress(_Judged):
        training.judge(judge.items, judge.targets, between)
    judged = min(len(judge.items.lengths), batches_begun * training.micro_batch)
    return usage_now().minus(before).times(1 / max(1, judged))


_FASTER_TIMES = 1.2
"""Times as fast as in float32 that a step must be."""
_LOSS_SHARE, _LOSS = 0.02, 0.005
"""By how much the losses of the same steps may differ: as a share of the loss, or as they are."""
_TRIAL_SHARE = 50
"""Trying costs at most so small a part of the time that lies ahead: a gain of a sixth must pay for many that fail."""
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_CHOICE_FILE = "precision.json"


class PrecisionChoice(NamedTuple):
    used: Precision
    why: str
    ratio: float | None = None
    """Seconds of a step in float32 / in bfloat16; None where it was not measured."""
    loss_difference: float | None = None
    """The largest of the same steps, as a share of the loss."""

    @property
    def gain(self) -> float:
        """Times as fast as what was measured in float32."""
        return self.ratio if self.used == "bfloat16" and self.ratio else 1.0


def choose_precision(
    asked: AskedPrecision, training: MeasuredTraining, device: str, pace: StepCost, seconds: float
) -> PrecisionChoice:
    """bfloat16 where it is measured to be faster here and as good, else float32.

    `auto` is settled once, before the training, and is a part of it from then on: checkpoints, later attempts and
    repetitions have the same precision. Evaluation and serving are always in float32. `pace`: in float32 where `auto`
    is the request; at most `seconds` lie ahead. The training is spent afterwards.
    """
    if asked != "auto":
        return PrecisionChoice(asked, "as asked")
    if not has_native_bfloat16(device):
        return PrecisionChoice("float32", "this device has no bfloat16 of its own")
    if COMPARED_STEPS * pace.step.seconds * _TRIAL_SHARE > seconds:
        return PrecisionChoice("float32", "too little lies ahead to try bfloat16")
    try:
        return decide_precision(training.compare())
    except (RuntimeError, Diverged) as error:  # an operation that it lacks, want of memory, a loss that is no number
        if not isinstance(error, Diverged) and training.team.size > 1:
            raise  # the others still wait in that step
        return PrecisionChoice("float32", "bfloat16 failed")


def unmeasured_choice(asked: AskedPrecision) -> PrecisionChoice:
    """The precision where so little lies ahead that no real step is taken before."""
    return (
        PrecisionChoice("float32", "too little lies ahead to try bfloat16")
        if asked == "auto"
        else PrecisionChoice(asked, "as asked")
    )


def decide_precision(found: PrecisionComparison) -> PrecisionChoice:
    difference = max(
        abs(one - other) / max(abs(one), 1e-9) for one, other in zip(found.losses, found.other_losses, strict=True)
    )
    agree = all(
        math.isclose(one, other, rel_tol=_LOSS_SHARE, abs_tol=_LOSS)
        for one, other in zip(found.losses, found.other_losses, strict=True)
    )
    ratio = found.seconds / found.other_seconds
    measured = round(ratio, 3), float(f"{difference:.2g}")
    said = f"a step in bfloat16 is {ratio:.2f} times as fast"
    if ratio < _FASTER_TIMES:
        return PrecisionChoice("float32", f"{said}, less than {_FASTER_TIMES:g}", *measured)
    if not agree:
        return PrecisionChoice("float32", f"{said}, but its loss is another by {difference:.1%}", *measured)
    return PrecisionChoice("bfloat16", said, *measured)


def has_native_bfloat16(device: str) -> bool:
    """Whether the device computes with bfloat16, and does not emulate it."""
    if device != "cuda":
        return bool(_BFLOAT16_FLAGS & provenance.processor_flags())
    import torch

    supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return supported


def kept_choice(run: Run) -> PrecisionChoice | None:
    """What this attempt or one before it settled."""
    for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)):
        if (path := folder / _CHOICE_FILE).exists():
            return PrecisionChoice(**json.loads(path.read_text()))
    return None


def keep_choice(run: Run, settled: PrecisionChoice) -> None:
    write_whole(run.checkpoints / _CHOICE_FILE, json.dumps(settled._asdict()))


class FittedWork(NamedTuple):
    """How much of what was asked for fits into the budget."""

    rates: int
    epochs: int
    steps: int | None = None
    """Steps of one training that has no time for a whole epoch; else None."""


_FEW_EPOCHS = 8
"""Epochs that a learning rate gets before another one is tried."""
_FITTED_FILE = "fitted.json"


def fit_to_budget(
    work: Callable[[int, int], PlannedWork], pace: StepCost, rates: int, epochs: int, seconds: float
) -> FittedWork:
    """How many rates and epochs, up to those given, `seconds` allow at this pace: a schedule that ends inside the
    budget learns more than a longer one that is cut off. `work(rates, epochs)` grows with both."""
    for count in range(rates, 0, -1):
        low, high = 0, epochs
        while low < high:
            middle = (low + high + 1) // 2
            fits = pace.of(work(count, middle)).seconds <= seconds
            low, high = (middle, high) if fits else (low, middle - 1)
        if low >= min(epochs, _FEW_EPOCHS) or count == 1:
            return FittedWork(count, max(1, low))
    raise AssertionError("one rate is always decided")


def kept_fit(run: Run) -> FittedWork | None:
    """What this attempt or one before it settled."""
    for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)):
        if (path := folder / _FITTED_FILE).exists():
            return FittedWork(*json.loads(path.read_text()))
    return None


def keep_fit(run: Run, fitted: FittedWork) -> None:
    write_whole(run.checkpoints / _FITTED_FILE, json.dumps(fitted))


DOES_NOT_FIT = "does_not_fit"
_WORTH_SECONDS = 30.0
"""Seconds of work ahead below which real steps are not worth their time."""
_TRIAL_STEPS = 2
_OVERESTIMATE = 8
"""Times that a few of the longest examples may cost more, each, than the mean one in a whole batch."""


def check_fit(
    context: TrainingContext,
    asked: AskedPrecision,
    training: MeasuredTraining,
    judge: HeldOutData,
    build: Usage,
    work: Callable[[int, int], PlannedWork],
    rates: int,
) -> tuple[PrecisionChoice, FittedWork]:
    """Whether a training fits into its budget and its memory, by a few real steps before it trains; its precision, and
    how many learning rates and epochs fit.

    `work(rates, epochs)`: what lies ahead then. The training is spent afterwards. Raises REFUSED, with an error that
    begins with `does_not_fit` and names what would fit. A budget that is shorter than all epochs is no reason, nor one
    that is shorter than the first: fewer are planned, or so many steps as leave time to judge. What surely does not fit
    is refused before real steps take its time.
    """
    need = rehearse(context, training)
    _check_memory(context, need.memory, training)
    epochs = training.parameters.num_train_epochs
    ahead, least = work(rates, epochs), _fewest(judge, 1)
    each = need.example.seconds * training.parameters.batch_size
    if each * ahead.steps < min(_WORTH_SECONDS, context.seconds_left):
        return unmeasured_choice(asked), FittedWork(rates, epochs)
    if each * least.steps > _OVERESTIMATE * context.seconds_left:
        seconds = each / _OVERESTIMATE
        raise _no_time(context, seconds, seconds * ahead.steps)
    context.progress(0, ahead.steps, "steps", "measuring a few steps")
    pace = step_cost(training, judge, build, _TRIAL_STEPS, lambda: context.over_budget)
    seconds = min(pace.of(ahead).seconds, context.seconds_left)
    settled = choose_precision(asked, training, context.payload.device, pace, seconds)
    return settled, _fitted(context, pace.faster(settled.gain), work, rates, epochs, judge)


def _fewest(judge: HeldOutData, steps: int) -> PlannedWork:
    """So many steps and one look at the held-out examples: the least that ends in a model."""
    return PlannedWork(steps=steps, judged=len(judge.items.lengths), builds=1, saves=0, epochs=1)


def _check_memory(context: TrainingContext, memory: MemoryNeed, training: MeasuredTraining) -> None:
    micro_batch = training.micro_batch
    room = min(room_mb(), context.payload.memory_mb or math.inf) / context.team.size
    if (needed := memory.at(micro_batch)) <= room:
        return
    smaller = memory.fitting(room, micro_batch)
    name = "batch_size" if training.whole_batch else "per_device_train_batch_size"
    raise SpeciateError(
        Code.REFUSED,
        f"{DOES_NOT_FIT}: {micro_batch} of the longest examples at once need about {needed:.0f} MB; "
        f"{room:.0f} MB are there.",
        f"Not even one example at a time fits. {_cheaper_candidate(context)}" if smaller is None else "",
        next=[CallAgain("train_model", {"hyperparameters": {name: smaller}}, f": about {memory.at(smaller):.0f} MB")]
        if smaller is not None
        else [],
    )


def _fitted(
    context: TrainingContext,
    pace: StepCost,
    work: Callable[[int, int], PlannedWork],
    rates: int,
    epochs: int,
    judge: HeldOutData,
) -> FittedWork:
    left, whole, shortest = context.seconds_left, pace.of(work(rates, epochs)).seconds, pace.of(work(1, 1)).seconds
    if whole <= left:
        return FittedWork(rates, epochs)
    if shortest > left:
        steps = steps_in_time(pace, _fewest(judge, 0), left)
        if steps < 1:
            raise _no_time(context, pace.of(_fewest(judge, 1)).seconds, whole)
        context.notes.append(
            f"A single epoch takes about {shortest:.0f} s, and the budget left {max(left, 0):.0f} s: {steps} steps at "
            "one learning rate were planned."
        )
        return FittedWork(1, 1, steps)
    fitted = fit_to_budget(work, pace, rates, epochs, left)
    context.notes.append(
        f"All of {epochs} epochs at {rates} learning rates would take about {whole:.0f} s at most; the budget leaves "
        f"{left:.0f} s: {fitted.epochs} epochs at {fitted.rates} of them were planned."
    )
    return fitted


_SPARE_SHARE = 0.2
"""Share of the time for steps that is kept back, as a pace of two steps is a guess."""


def steps_in_time(pace: StepCost, around: PlannedWork, seconds: float) -> int:
    """Steps that `seconds` leave time for beside `around`, which has none."""
    room = (seconds - pace.of(around).seconds) * (1 - _SPARE_SHARE)
    return max(0, math.floor(room / pace.step.seconds)) if pace.step.seconds > 0 else 0


def _no_time(context: TrainingContext, shortest: float, whole: float) -> SpeciateError:
    minutes = math.ceil(1.2 * shortest / 6) / 10
    return SpeciateError(
        Code.REFUSED,
        f"{DOES_NOT_FIT}: a single step and a look at the held-out examples take about {shortest:.0f} s, and all that "
        f"was planned {whole:.0f} s; {max(context.seconds_left, 0):.0f} s of the budget are left.",
        f"Fewer examples need less. {_cheaper_candidate(context)}",
        next=[CallAgain("train_model", {"budget_minutes": minutes}, "or more")],
    )


def _cheaper_candidate(context: TrainingContext) -> str:
    own, manifest = context.payload.spec, context.payload.manifest
    candidates = available_candidates(manifest.modality, context.task_head.family)
    before = next(
        (at for at, one in enumerate(candidates) if (one.method, one.base_model) == (own.method, own.base_model)), 0
    )
    cheaper = [each for each in candidates[:before] if each.method != own.method]
    if not cheaper:
        return "list_options(kind='method') names smaller base models."
    named = f"method={cheaper[-1].method!r}"
    base = f", base_model={cheaper[-1].base_model!r}" if cheaper[-1].base_model else ""
    return f"Cheaper: {named}{base}."
