"""Successive halving (Jamieson & Talwalkar 2016): all candidates train a little, the better half trains further, and so
on.

One candidate is in memory at a time, and resumes from its checkpoint in the next rung. What each reached is written
down, so that a search which was stopped decides as it would have without the stop.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from speciate.jobs.folder import write_whole
from speciate.jobs.run import Run
from speciate.training.networks import durable_training
from speciate.training.networks.stopping import Diverged
from speciate.training.networks.training_checkpoints import Checkpoints
from speciate.training.networks.training_loop import Evaluation, HeldOutData, Training

_STANDINGS = "halving.json"


class Rung(NamedTuple):
    epochs: int
    """Epochs of each candidate, those of earlier rungs included."""
    entrants: int


class RateStanding(NamedTuple):
    """What a candidate reached so far. `value`: its best; None without any. `why` it ended, `diverged` among others."""

    candidate: int
    epochs: int
    value: float | None
    why: str
    seconds: float
    """Seconds in all rungs."""


class SearchResult(NamedTuple):
    candidate: int
    training: Training
    """The winner's training, with its best weights in place."""
    standings: list[RateStanding]
    """The last one of each candidate that was tried, in their order."""


def rungs(candidates: int, epochs: int) -> list[Rung]:
    """Each rung has twice the epochs and half the candidates of the one before; the last has one and all `epochs`.

    >>> [tuple(rung) for rung in rungs(5, 8)]
    [(1, 5), (2, 3), (4, 2), (8, 1)]
    """
    entrants = [candidates]
    while entrants[-1] > 1:
        entrants.append(-(-entrants[-1] // 2))
    last = len(entrants) - 1
    return [Rung(math.ceil(epochs / 2 ** (last - place)), count) for place, count in enumerate(entrants)]


def search(
    run: Run,
    candidates: int,
    build: Callable[[int], Training],
    held: HeldOutData,
    *,
    over_budget: Callable[[], bool] = lambda: False,
    enough: Callable[[Evaluation], bool] = lambda evaluation: False,
    better: Callable[[int, Training, Evaluation], None] = lambda candidate, training, evaluation: None,
    steps_after: int = 0,
    save_seconds: float = durable_training.SAVE_SECONDS,
) -> SearchResult:
    """The best of `candidates` trainings on `held`; of equal ones the first.

    `build(candidate)` makes each anew and must make the same each time; all have the same number of epochs and of
    steps. Ends early where two evaluations in a row are `enough`, or with the budget. Raises Diverged where all of them
    do, and what `durable.train` raises. `better(candidate, training, evaluation)`: whenever one is the best so far of
    its candidate. `steps_after`: what the run does when the search is over, for its progress.
    """
    return _Search(run, candidates, build, held, over_budget, enough, better, steps_after, save_seconds).go()


class _Search:
    def __init__(
        self,
        run: Run,
        candidates: int,
        build: Callable[[int], Training],
        held: HeldOutData,
        over_budget: Callable[[], bool],
        enough: Callable[[Evaluation], bool],
        better: Callable[[int, Training, Evaluation], None],
        steps_after: int,
        save_seconds: float,
    ) -> None:
        self._run, self._candidates, self._build, self._held = run, candidates, build, held
        self._over_budget, self._enough, self._save_seconds = over_budget, enough, save_seconds
        self._better = better
        self._sign = held.sign if held.measure else -1
        self._known = _read(run)
        self._latest: dict[int, RateStanding] = {}
        self._hand: tuple[int, Training] | None = None
        """The candidate that is in memory."""
        self._steps, self._all_steps = 0, steps_after
        self._climbed = 0
        """Steps of each candidate before this rung."""
        self._failure: Diverged | None = None

    def go(self) -> SearchResult:
        plan = rungs(self._candidates, self._take(0).parameters.num_train_epochs)
        self._plan_steps(plan)
        going = list(range(self._candidates))
        for number, rung in enumerate(plan):
            going = self._best(going, rung.entrants)
            self._discard_others(going)
            for candidate in going:
                standing = self._climb(number, rung, candidate, last=number == len(plan) - 1)
                self._latest[candidate] = standing
                if standing.why == "enough":
                    return self._found(candidate)
                if standing.why == "budget":
                    return self._found(self._best(going, 1)[0])
                self._steps += rung.epochs * self._epoch_steps - self._climbed
            if self._failure and all(self._latest[each].value is None for each in going):
                raise self._failure
            self._climbed = rung.epochs * self._epoch_steps
        return self._found(going[0])

    def _climb(self, number: int, rung: Rung, candidate: int, *, last: bool) -> RateStanding:
        """Train the candidate up to the rung, unless that is known. The last one is always trained, to be in memory."""
        key, before = f"{number} {candidate}", self._latest.get(candidate)
        if key in self._known and not last:
            return self._known[key]
        if before and before.why != "paused" and not last:
            return before
        training, started = self._take(candidate), time.monotonic()
        try:
            ending = durable_training.train_durably(
                self._run, training, self._held, where=self._place(candidate),
                until=rung.epochs * training.epoch_steps, over_budget=self._over_budget, enough=self._enough,
                better=partial(self._better, candidate, training),
                report=lambda step, message: self._report(candidate, step - self._climbed, message),
                save_seconds=self._save_seconds,
            )  # fmt: skip
            why, value = str(ending.why), ending.value
        except Diverged as error:
            self._failure, why, value = error, "diverged", training.best.value if training.best else None
            if training.best and not last:  # the last one stays in memory
                self._best_of(candidate).save(training.state(), {})
            self._hand = (candidate, training) if last else None  # a diverged training is not resumed
        seconds = time.monotonic() - started + (before.seconds if before else 0.0)
        standing = RateStanding(candidate, rung.epochs, value, why, seconds)
        if why not in ("enough", "budget"):
            self._known[key] = standing
            write_whole(self._run.checkpoints / _STANDINGS, json.dumps(self._known))
        return standing

    def _best(self, of: list[int], count: int) -> list[int]:
        """The `count` best of these candidates, in ascending order of their numbers."""

        def rank(candidate: int) -> tuple[float, int]:
            standing = self._latest.get(candidate)
            value = standing.value if standing else None
            return (math.inf if value is None else -self._sign * value, candidate)

        return sorted(sorted(of, key=rank)[:count])

    def _found(self, winner: int) -> SearchResult:
        """With the winner's weights, and its curves under the names that a single training has."""
        training, place, single = self._take(winner), self._place(winner), durable_training.training_place(self._run)
        diverged = self._latest[winner].why == "diverged"
        if training.best is None and (saved := (self._best_of(winner) if diverged else place.checkpoints).newest()):
            saved.state.facts.pop("ended", None)
            training.restore(saved.state)
        training.adopt_best()
        for mine, known in ((place.metrics, single.metrics), (place.curves, single.curves)):
            if mine.exists():
                shutil.copyfile(mine, known)
        return SearchResult(winner, training, [self._latest[each] for each in sorted(self._latest)])

    def _take(self, candidate: int) -> Training:
        """The one in memory, or a new one in its place."""
        if not self._hand or self._hand[0] != candidate:
            self._hand = None  # freed before the next is made
            self._hand = candidate, self._build(candidate)
        return self._hand[1]

    def _discard_others(self, going: list[int]) -> None:
        for candidate in range(self._candidates):
            if candidate not in going:
                self._place(candidate).checkpoints.discard()
                self._best_of(candidate).discard()

    def _place(self, candidate: int) -> durable_training.TrainingPlace:
        return durable_training.training_place(self._run, f"candidate-{candidate}")

    def _best_of(self, candidate: int) -> Checkpoints:
        """Checkpoints of a training that diverged: apart, so that nothing resumes from there."""
        return durable_training.training_place(self._run, f"candidate-{candidate}-diverged").checkpoints

    def _plan_steps(self, plan: list[Rung]) -> None:
        self._epoch_steps = self._take(0).epoch_steps
        before = 0
        for rung in plan:
            self._all_steps += rung.entrants * (rung.epochs - before) * self._epoch_steps
            before = rung.epochs

    def _report(self, candidate: int, steps: int, message: str) -> None:
        said = f"candidate {candidate + 1} of {self._candidates}: {message}"
        self._run.progress(self._steps + steps, self._all_steps, "steps", said)


def _read(run: Run) -> dict[str, RateStanding]:
    """By "RUNG CANDIDATE": what this attempt, or the newest one before it that knew anything, wrote down."""
    for folder in (run.checkpoints, *(attempt.checkpoints for attempt in run.resume_from)):
        if (path := folder / _STANDINGS).exists():
            return {key: RateStanding(*standing) for key, standing in json.loads(path.read_text()).items()}
    return {}
