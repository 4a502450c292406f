"""A few real steps on the longest batch, before a training begins: what a step costs, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from speciate.training.costs import Spent, Tally, now
from speciate.training.network import feed, halving
from speciate.training.network.checkpoint import State
from speciate.training.network.items import Items
from speciate.training.network.loop import Held, Scores, Step, Targets, Training
from speciate.training.network.memory import forget_peak, peak_mb
from speciate.training.network.parameters import Precision

_FEW = 4
_TURNS, _TIMED = 2, 2
COMPARED_STEPS = 2 * _TURNS * (1 + _TIMED)
"""Of both precisions together: the first step of a turn warms up."""
_LATER_COPIES = 3
"""Of what is trained, beside the weights: two moments of the optimizer, and the best weights so far."""


class Tallied(Training):
    """A training that adds what it costs to a tally, and that can be tried out."""

    def __init__(self, tally: Tally, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._tally = tally

    def advance(self) -> Step:
        with self._tally.stage("training"):
            step = super().advance()
        self._tally.steps += 1
        return step

    def state(self) -> State:
        """To be saved: what it cost until here is kept with it."""
        self._tally.keep()
        return super().state()

    def judge(self, items: Items, targets: Targets, *between: Any) -> tuple[float, Scores]:
        with self._tally.stage("judging"):
            return super().judge(items, targets, *between)

    def rehearse(self, count: int) -> Rehearsal:
        """Forward and backward with so many of the longest examples, and no step."""
        places = self._batch()[:count]
        self._tally.see_peak()
        forget_peak()
        before = now()
        with self.chance:
            self._module.train()
            loss, _ = self._loss(self._items, self._targets, places)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            self._module.zero_grad(set_to_none=True)
        return Rehearsal(len(places), now().minus(before), peak_mb())

    def compare(self) -> Compared:
        """The same steps in float32 and in bfloat16, turn by turn.

        On a CPU the processor's seconds count, since others may use it meanwhile.
        """
        start, took, losses = _copied(self.state()), dict[Precision, float](), dict[Precision, list[float]]()
        precisions: tuple[Precision, ...] = ("float32", "bfloat16")
        for self.precision in precisions * _TURNS:
            self.restore(start)
            with self.chance:
                first, before = self.advance(), now()
                losses[self.precision] = [first.loss, *(self.advance().loss for _ in range(_TIMED))]
            spent = now().minus(before)
            seconds = spent.cpu if self._device.type == "cpu" else spent.seconds
            took[self.precision] = min(seconds, took.get(self.precision, seconds))
        return Compared(took["float32"], took["bfloat16"], losses["float32"], losses["bfloat16"])

    @property
    def trained_mb(self) -> float:
        return sum(each.numel() * each.element_size() for each in self._trained.values()) / 2**20


class Compared(NamedTuple):
    """Seconds and losses of the same steps: in float32, and `other` in bfloat16."""

    seconds: float
    other_seconds: float
    losses: Sequence[float]
    other_losses: Sequence[float]


class Rehearsal(NamedTuple):
    examples: int
    spent: Spent
    peak_mb: float


def _copied(state: State) -> State:
    """Which the training does not change."""
    groups = {
        group: {name: each.detach().clone() for name, each in tensors.items()}
        for group, tensors in state.tensors.items()
    }
    return State(state.facts, dict(groups))


class Need(NamedTuple):
    """Memory by the size of a micro-batch, in MiB, as a line through two rehearsals."""

    one: float
    each: float

    def at(self, micro_batch: int) -> float:
        return self.one + self.each * (micro_batch - 1)

    def fitting(self, room: float, most: int) -> int | None:
        """The largest power of two, at most `most`, that fits; None where not even one example does."""
        sizes = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
        return max((size for size in sizes if self.at(size) <= room), default=None)


class Work(NamedTuple):
    """What lies ahead, at most: patience or a met target end it earlier."""

    steps: int
    judged: int
    """Times that an example is judged."""
    builds: int
    saves: int
    epochs: int
    """Of all trainings together."""


class Pace(NamedTuple):
    """What each costs."""

    step: Spent
    judged: Spent
    build: Spent
    save: Spent = Spent()

    def faster(self, times: float) -> Pace:
        return self._replace(step=self.step.times(1 / times))

    def of(self, work: Work) -> Spent:
        return (
            self.step.times(work.steps).plus(self.judged.times(work.judged)).plus(self.build.times(work.builds))
        ).plus(self.save.times(work.saves))  # fmt: skip


def work(
    candidates: int, epochs: int, batch_size: int, divisions: Sequence[tuple[int, int]], whole: int | None
) -> Work:
    """The search on the first division (learned from, judged by), each other one at the best rate, then `whole`.

    >>> work(3, 4, 10, [(100, 20)], None)
    Work(steps=70, judged=160, builds=6, saves=6, epochs=7)
    """
    searched, before, entered = 0, 0, 0
    for rung in halving.rungs(candidates, epochs):
        searched += rung.entrants * (rung.epochs - before)
        before, entered = rung.epochs, entered + rung.entrants
    (learned, judged), *others = divisions
    steps = searched * feed.step_count(learned, batch_size)
    seen = (searched + 1) * judged
    for more, held in others:
        steps += epochs * feed.step_count(more, batch_size)
        seen += (epochs + 1) * held
    builds, passes = entered + 2 * len(others), searched + epochs * len(others)
    if whole is not None:
        steps, builds, passes = steps + epochs * feed.step_count(whole, batch_size), builds + 1, passes + epochs
    return Work(steps, seen, builds, entered, passes)


def need(training: Tallied) -> tuple[Need, Spent]:
    """With what an example then costs, at most: more together cost less."""
    one = training.rehearse(1)
    few = training.rehearse(min(_FEW, training.micro_batch))
    each = max(0.0, few.peak_mb - one.peak_mb) / max(1, few.examples - one.examples)
    return Need(one.peak_mb + _LATER_COPIES * training.trained_mb, each), few.spent.times(1 / few.examples)


def pace(training: Tallied, judge: Held, build: Spent, steps: int) -> Pace:
    """Of `steps` steps after the first, which is on the longest batch and warms up."""
    with training.chance:
        training.advance()
        before = now()
        for _ in range(steps):
            training.advance()
        step = now().minus(before).times(1 / steps)
        before = now()
        training.evaluate(judge)
        judged = now().minus(before).times(1 / max(1, len(judge.items.lengths)))
    training.backbone.module.zero_grad(set_to_none=True)  # the judge keeps the backbone, which prepares its items
    return Pace(step, judged, build)
