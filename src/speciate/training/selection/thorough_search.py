"""A search that goes on until its budget ends: many configurations of learners, and a mean of the best together.

Every configuration is judged out of fold on training and validation examples alike. Greedy selection with replacement
(Caruana et al. 2004) on resamples of the examples then weighs them by their loss. The value in the report is nested:
members, weights, temperature and decision shift are chosen anew without each fifth of the examples, and judged on that
fifth. What is kept is chosen on all of them, and learns from all of them.

Which family of learners comes next is the one that used the least of its share of the time, so a slower machine tries
fewer of all of them. The model follows from what was tried, whatever the order in which it ended."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models import estimators
from speciate.models.blend import Averaged, answers_of, as_scores
from speciate.models.perceptrons import Perceptrons
from speciate.tasks.joined_representations import Remembered
from speciate.tasks.task import Prediction, Representation, UnsuitableRepresentation, predict_examples
from speciate.training.held_out import measure, measure_answers
from speciate.training.selection.learners import (
    EvaluatedLearner,
    Learner,
    LearnerGroup,
    WeightedMember,
    find_shift_for_metric,
    learn_from,
    limit_threads,
    member_rows,
    signed_standing,
)
from speciate.training.selection.out_of_fold import ON_ALL_FOLDS
from speciate.training.selection.selected_model import CandidateResult, SelectedModel
from speciate.training.training_context import TrainingContext
from speciate.vocabulary import find_metric, is_absolute

Floats = npt.NDArray[np.float64]
_log = logging.getLogger(__name__)
FOLDS, _FEW_TO_REPEAT, _SECONDS_TO_REPEAT = 8, 500, 120.0
"""Folds at least. Of fewer examples, and with so much time, they are dealt twice: which fold a row falls into would
decide too much."""
_MOST_MEMBERS, _ROUNDS, _MEMBERS_SO_FAR = 10, 40, 3
"""Members of the mean at most, additions to it, and members of what is kept in case a limit passes."""
_BAGS, _MOST_CELLS, _LEAST_SHARE = 10, 5_000_000, 0.04
"""Resamples by which members are chosen; answers that they look at, at most; the weight below which none is kept."""
_PARTS = 5
"""Parts of the examples that the choice is judged on."""
_TRIAL_FOLDS, _WORSE = 2, 1.25
"""After so many folds a configuration is given up whose loss is so many times that of the best of its family."""
_MOST_BYTES = 256 << 20
"""What all answers together may hold."""
_SAVED_SECONDS, _MOST_SAVED_SHARE, _LEAST_TO_LEARN = 3.0, 0.4, 0.2
"""Kept of the budget for choosing and for learning from everything: so much and what members take; so much at most.
What its members may take at least to learn from everything, also where the budget has ended."""


class Configuration(NamedTuple):
    """Learners that differ by what one fit can vary, or one that can be joined of its folds."""

    learners: tuple[Learner, ...]
    answer: Callable[[Any, Any, Any, int], list[Floats]] | None = None
    """(inputs, targets, held-out inputs, seed) -> scores of each learner on these; None: each learns by itself."""


class LearnerFamily(NamedTuple):
    name: str
    configurations: Iterator[Configuration]
    """The usually good ones first."""
    share: float
    """Its part of the time, in proportion to the others."""


class Space(NamedTuple):
    """A representation with the families that learn from it."""

    group: LearnerGroup
    families: Callable[[int, int], Iterable[LearnerFamily]]
    """(rows, columns) -> those that suit so many."""


class _Fold(NamedTuple):
    inputs: Any
    targets: Any
    held_inputs: Any
    held_targets: Any


class _Answered(NamedTuple):
    """A learner with what it answered out of fold."""

    name: str
    family: str
    group: LearnerGroup
    learner: Learner
    scores: Floats  # (R, K)
    temperature: float
    likely: Floats  # (R,) probability of what is true, or the number
    loss: float
    seconds: float
    """A single fit takes so long."""
    joined: Any

    @property
    def refit_seconds(self) -> float:
        return 0.0 if self.joined is not None else self.seconds


class _Running:
    """A family in the search."""

    def __init__(self, family: LearnerFamily, group: LearnerGroup, whole: Representation, folds: list[_Fold]) -> None:
        self.family, self.group, self.whole, self.folds = family, group, whole, folds
        self.spent = 0.0
        self.tried = self.given_up = 0
        self.trial = math.inf
        """Least loss on the first folds."""
        self.best: _Answered | None = None
        self.ended = False

    @property
    def turn(self) -> float:
        return self.spent / self.family.share


def search_thoroughly(context: TrainingContext, spaces: Sequence[Space]) -> SelectedModel:
    """Raises INVALID where nothing can be tried. Without a budget every configuration is tried."""
    search = _Search(context)
    search.prepare(spaces)
    search.run()
    return search.finish()


class _Search:
    def __init__(self, context: TrainingContext) -> None:
        self.context = context
        self.seed = context.payload.spec.seed
        merged = [*context.train, *context.validation]
        known = context.task_head.family == "regression" or not (context.targets(merged) < 0).any()
        self.examples: list[Example] = merged if known else list(context.train)
        self.how = ON_ALL_FOLDS if known and context.validation else "out-of-fold"
        context.learned_validation = bool(known and context.validation)
        self.averaged: Averaged = "numbers" if context.task_head.family == "regression" else "classes"
        self.absolute = is_absolute(context.payload.objective.metric)
        self.budget = context.meter.budgeted + context.seconds_left  # of all attempts: each deals the same folds
        repeats = 2 if len(self.examples) < _FEW_TO_REPEAT and self.budget > _SECONDS_TO_REPEAT else 1
        pairs = [
            pair
            for repeat in range(repeats)
            for pair in context.folded(self.examples, max(FOLDS, context.payload.parameters.folds), repeat)
        ]
        if not pairs:
            raise SpeciateError(
                Code.INVALID,
                f"{context.payload.dataset} has too few groups per label for folds.",
                "Call train_model without hyperparameters.thorough.",
            )
        self.pairs, self.joined = pairs, len(pairs) // repeats
        self.held = [example for _, held in pairs for example in held]
        self.targets = np.concatenate([np.asarray(context.targets(held)) for _, held in pairs])
        names = [example.group or example.id for example in self.held]
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        self.groups = [numbers[name] for name in names]
        self.library: list[_Answered] = []
        self.families: list[_Running] = []
        self.failed: dict[str, str] = {}
        """Configurations that could not learn, with the kind of error; a library's words."""

    def prepare(self, spaces: Sequence[Space]) -> None:
        places = {example.id: place for place, example in enumerate(self.examples)}
        for space in spaces:
            self.context.checkpoint()
            self.context.progress(0, None, "configurations", f"{space.group.name}: preparing examples")
            with self.context.meter.stage("preparing"):
                try:
                    whole, folds = self._folds(space.group, places)
                except UnsuitableRepresentation as error:
                    _log.info("%s: not tried: %s", space.group.name, error)
                    continue
            rows, columns = folds[0].inputs.shape
            self.families += [_Running(each, space.group, whole, folds) for each in space.families(rows, columns)]

    def _folds(self, group: LearnerGroup, places: dict[str, int]) -> tuple[Representation, list[_Fold]]:
        context, whole = self.context, group.represent(self.examples)
        if group.shared:
            matrix, targets = whole.encode(self.examples), np.asarray(context.targets(self.examples))
            dealt = [[[places[each.id] for each in part] for part in pair] for pair in self.pairs]
            return whole, [_Fold(matrix[learn], targets[learn], matrix[held], targets[held]) for learn, held in dealt]
        folds = []
        for learn, held in self.pairs:
            own = group.represent(learn)
            folds.append(
                _Fold(own.encode(learn), context.targets(learn), own.encode(held), np.asarray(context.targets(held)))
            )
        return Remembered(whole, self.examples), folds

    def run(self) -> None:
        """Until the budget ends, or everything was tried."""
        while waiting := [each for each in self.families if not each.ended]:
            self.context.checkpoint()
            if self.library and self._time_is_up():
                return
            running = min(waiting, key=lambda each: each.turn)
            configuration = next(running.family.configurations, None)
            if configuration is None:
                running.ended = True
                continue
            message = f"{running.family.name}: {configuration.learners[0].name}"
            self.context.progress(sum(each.tried for each in self.families), None, "configurations", message)
            began = time.monotonic()
            with self.context.meter.stage("training"):
                try:
                    answered = self._answer(running, configuration)
                except SpeciateError:
                    raise
                except Exception as error:  # noqa: BLE001 - any library's; it must not cost what others found
                    _log.warning("%s: not tried", message, exc_info=True)
                    self.failed[f"{message}: {type(error).__name__}"] = str(error)
                    answered = []
            running.spent += time.monotonic() - began
            running.tried += 1
            running.given_up += not answered
            self._add(answered)
            for one in answered:
                if running.best is None or one.loss < running.best.loss:
                    running.best = one
            if answered:
                self.context.offer_best(partial(self._selected, _MEMBERS_SO_FAR))

    def _add(self, answered: Sequence[_Answered]) -> None:
        """Without the worst of all where they would hold too much."""
        self.library += answered
        most = max(_MEMBERS_SO_FAR, _MOST_BYTES // max(1, self.library[0].scores.nbytes)) if self.library else 0
        self.library = sorted(self.library, key=lambda each: each.loss)[:most]

    def _time_is_up(self) -> bool:
        left = self.context.seconds_left
        if math.isinf(left):
            return False
        usual = float(np.mean([each.refit_seconds for each in self.library])) if self.library else 0.0
        needed = _SAVED_SECONDS + 1.3 * _MOST_MEMBERS * usual
        return left < min(needed, _MOST_SAVED_SHARE * self.budget)

    def _answer(self, running: _Running, configuration: Configuration) -> list[_Answered]:
        """Empty where it was given up, or the time ended."""
        saved = self._saved_answers(running, configuration)
        if saved is not None:
            return saved
        scores: list[list[Floats]] = [[] for _ in configuration.learners]
        fitted: list[Any] = []
        began, trial = time.monotonic(), math.inf
        for number, fold in enumerate(running.folds):
            self.context.checkpoint()
            if number and self._is_too_slow(running, time.monotonic() - began, number):
                return []
            with limit_threads(fold.inputs):
                for own, given in zip(scores, self._fold_answers(configuration, fold, fitted), strict=True):
                    own.append(given)
            if number + 1 == _TRIAL_FOLDS < len(running.folds):
                targets = np.concatenate([each.held_targets for each in running.folds[:_TRIAL_FOLDS]])
                trial = min(self._judged(np.concatenate(own), targets)[2] for own in scores)
                if trial > _WORSE * running.trial:
                    return []
                running.trial = min(running.trial, trial)
        seconds = (time.monotonic() - began) / len(running.folds) / (1 if configuration.answer else len(scores))
        joined = [configuration.learners[0].join(fitted)] if configuration.learners[0].join else []
        found = [np.concatenate(own) for own in scores]
        self._save_answers(running, configuration, found, np.array([seconds, trial]), joined)
        return self._made(running, configuration, found, seconds, joined)

    def _is_too_slow(self, running: _Running, seconds: float, folds: int) -> bool:
        """Whether the folds that are left would outlast the budget. `seconds`: what so many folds took. The last hope
        of a search that has nothing yet goes on."""
        if self._time_is_up() and self.library:
            return True
        needed = seconds / folds * (len(running.folds) - folds)
        others = self.library or any(not each.tried and each is not running for each in self.families)
        return bool(others) and needed > self.context.seconds_left

    def _fold_answers(self, configuration: Configuration, fold: _Fold, fitted: list[Any]) -> list[Floats]:
        if configuration.answer is not None:
            return configuration.answer(fold.inputs, fold.targets, fold.held_inputs, self.seed)
        found = []
        for learner in configuration.learners:
            made = learner.learn(fold.inputs, fold.targets, self.seed)
            fitted += [made] if learner.join and len(fitted) < self.joined else []
            found.append(np.asarray(made.scores(fold.held_inputs), np.float64))
        return found

    def _judged(self, scores: Floats, targets: Any) -> tuple[float, Floats, float]:
        """Temperature, what of the answers counts, and their loss."""
        if self.averaged == "numbers":
            return 1.0, scores[:, 0], self._loss_of(scores[:, 0], targets)
        temperature = float(getattr(self.context.task_head.calibrated(scores, targets), "temperature", 1.0))
        likely = answers_of(scores, "classes", temperature)[np.arange(len(targets)), targets]
        return temperature, likely, self._loss_of(likely, targets)

    def _loss_of(self, likely: Floats, targets: Any) -> float:
        return float(self._losses(likely, targets).mean())

    def _losses(self, likely: Floats, targets: Any) -> Floats:
        """(..., R) -> (..., R)"""
        if self.averaged == "numbers":
            errors = np.abs(likely - targets)
            return np.asarray(errors if self.absolute else errors**2)
        return np.asarray(-np.log(likely + 1e-12))

    def _made(
        self,
        running: _Running,
        configuration: Configuration,
        found: Sequence[Floats],
        seconds: float,
        joined: list[Any],
    ) -> list[_Answered]:
        made = []
        for learner, scores in zip(configuration.learners, found, strict=True):
            if not np.isfinite(scores).all():
                continue
            temperature, likely, loss = self._judged(scores, self.targets)
            answered = _Answered(
                f"{running.group.name}: {learner.name}", running.family.name, running.group, learner, scores,
                temperature, likely, loss, seconds, joined[0] if joined else None,
            )  # fmt: skip
            made.append(answered)
        return made

    # What an earlier attempt of the run has answered

    def _file(self, running: _Running, configuration: Configuration) -> str:
        name = f"{running.group.name} {configuration.learners[0].name}"
        return "".join(letter if letter.isalnum() else "-" for letter in name) + ".safetensors"

    def _save_answers(
        self, running: _Running, configuration: Configuration, found: list[Floats], about: Floats, joined: list[Any]
    ) -> None:
        """`about`: seconds of a fit, and the loss on the first folds."""
        arrays = {f"{number}": scores for number, scores in enumerate(found)} | {"about": about}
        if joined:
            arrays |= {f"joined.{name}": array for name, array in joined[0]._asdict().items()}
        path = self.context.run.checkpoints / self._file(running, configuration)
        estimators.save_arrays(arrays, path.with_suffix(".new"), {})
        path.with_suffix(".new").rename(path)

    def _saved_answers(self, running: _Running, configuration: Configuration) -> list[_Answered] | None:
        name = self._file(running, configuration)
        folders: list[Path] = [each.checkpoints for each in self.context.run.resume_from]
        path = next((folder / name for folder in folders if (folder / name).exists()), None)
        if path is None:
            return None
        arrays, _ = estimators.load_arrays(path)
        found = [arrays[f"{number}"] for number in range(len(configuration.learners))]
        if any(len(scores) != len(self.targets) for scores in found):
            return None
        own = {key.removeprefix("joined."): array for key, array in arrays.items() if key.startswith("joined.")}
        joined = [Perceptrons(**own)] if own else []
        seconds, trial = arrays["about"].tolist()
        running.trial = min(running.trial, trial)
        self._save_answers(running, configuration, found, arrays["about"], joined)
        return self._made(running, configuration, found, seconds, joined)

    # The choice

    def finish(self) -> SelectedModel:
        if not self.library:
            raise SpeciateError(
                Code.INVALID,
                f"No configuration could be tried. {'; '.join([*self.failed][:3])}".strip(),
                "Call train_model without hyperparameters.thorough.",
                next(iter(self.failed.values()), "")[:500],
            )
        tried = sum(each.tried for each in self.families)
        self.context.progress(tried, tried, "configurations", "choosing and learning from all examples")
        chosen = self._selected(_MOST_MEMBERS)
        counts = ", ".join(f"{each.tried} of {each.family.name}" for each in self.families if each.tried)
        given_up = sum(each.given_up for each in self.families) - len(self.failed)
        self.context.notes.append(
            f"Thorough search: {tried} configurations ({counts}), {given_up} of them given up early, each judged out "
            f"of fold on {len({each.id for each in self.held})} examples. Its value is nested: each fifth of the "
            "examples judges a mean that was chosen without it. Its members learned from all of them."
            + (f" {len(self.failed)} could not learn: {'; '.join([*self.failed][:3])}." if self.failed else "")
        )
        return chosen

    def _selected(self, most: int) -> SelectedModel:
        """With fewer members where so many could not learn in time."""
        context, library = self.context, sorted(self.library, key=lambda each: (each.family, each.name))
        likely = np.array([each.likely for each in library])
        weights = self._weights(likely, self.targets, self.groups, most)
        seconds = max(context.seconds_left, _LEAST_TO_LEARN * self.budget)
        while most > 1 and sum(library[place].refit_seconds for place in weights) > seconds:
            most = min(most, len(weights)) // 2 or 1
            weights = self._weights(likely, self.targets, self.groups, most)
        judged, given = self._nested(library, likely, most)
        task_head = context.task_head.calibrated(judged, self.targets)
        shift = find_shift_for_metric(context, judged, self.held)
        estimate = measure_answers(context, context.task_head, self.held, given)
        sign = find_metric(context.payload.objective.metric).sign
        members = tuple(
            WeightedMember(self._as_evaluated(library[place], task_head, estimate), weight, library[place].temperature)
            for place, weight in weights.items()
        )
        whole = {each.group.name: each.whole for each in self.families}
        first = members[0].of
        name = f"mean of {' and '.join(f'{each.weight:.2g} {each.of.name}' for each in members)}"
        both = first._replace(
            name=name, members=members, averaged=self.averaged, scores=judged,
            shift=None if shift is None else shift.by, standing=signed_standing(sign, estimate.value),
        )  # fmt: skip
        with context.meter.stage("training"):
            made = learn_from(context, both, self.examples, whole, from_folds=True)
        rows = [
            CandidateResult(each.best.name, each.spent, self._value(each.best))
            for each in self.families
            if each.best is not None
        ]
        tried = (*rows, CandidateResult(name, 0.0, estimate.value, chosen=True))
        return SelectedModel(made, estimate, self.how, tried, nested=estimate, members=member_rows(both))

    def _value(self, one: _Answered) -> float:
        context = self.context
        head = context.task_head.calibrated(one.scores, self.targets)
        shift = find_shift_for_metric(context, one.scores, self.held)
        return measure(context, head, self.held, one.scores if shift is None else one.scores + shift.unseen).value

    def _as_evaluated(self, one: _Answered, task_head: Any, estimate: Any) -> EvaluatedLearner:
        whole = next(each.whole for each in self.families if each.group.name == one.group.name)
        return EvaluatedLearner(
            one.name, one.group, one.learner, whole, None, task_head, estimate, -one.loss, one.scores, self.held,
            joined=one.joined,
        )  # fmt: skip

    def _weights(self, likely: Floats, targets: Any, groups: Sequence[int], most: int) -> dict[int, float]:
        """Place -> weight: the mean of greedy choices on resamples of the groups. On rows as they are a choice fits
        these rows; of very many rows one choice is enough."""
        count = max(groups) + 1
        bags = int(min(_BAGS, max(1, _MOST_CELLS // likely.size)))
        chance, sums = np.random.default_rng(self.seed), dict[int, float]()
        for _ in range(bags):
            drawn = np.bincount(chance.integers(count, size=count), minlength=count) if bags > 1 else np.ones(count)
            heavy = drawn[np.asarray(groups)].astype(np.float64)
            for place, weight in self._greedy(likely, targets, heavy, most).items():
                sums[place] = sums.get(place, 0.0) + weight
        ranked = sorted(sums, key=lambda place: (-sums[place], place))
        kept = [place for place in ranked[:most] if sums[place] >= _LEAST_SHARE * bags or place == ranked[0]]
        total = sum(sums[place] for place in kept)
        return {place: sums[place] / total for place in sorted(kept)}

    def _greedy(self, likely: Floats, targets: Any, heavy: Floats, most: int) -> dict[int, float]:
        """Additions with replacement, until none lowers the loss. `heavy`: (R,) weights of the rows."""
        counts: dict[int, int] = {}
        rows = np.flatnonzero(heavy)
        likely, targets, heavy = likely[:, rows], targets[rows], heavy[rows] / heavy.sum()
        total, best = np.zeros(len(rows)), math.inf
        for size in range(1, _ROUNDS + 1):
            open_ = np.array([place for place in range(len(likely)) if place in counts or len(counts) < most])
            losses = self._losses((total + likely[open_]) / size, targets) @ heavy
            least = int(np.argmin(losses))
            if not losses[least] < best:
                break
            best = float(losses[least])
            place = int(open_[least])
            total = total + likely[place]
            counts[place] = counts.get(place, 0) + 1
        chosen = sum(counts.values())
        return {place: number / chosen for place, number in counts.items()}

    def _mean(self, library: Sequence[_Answered], weights: dict[int, float]) -> Floats:
        """Scores (R, K)."""
        total: Any = sum(
            weight * answers_of(library[place].scores, self.averaged, library[place].temperature)
            for place, weight in weights.items()
        )
        return as_scores(np.asarray(total), self.averaged)

    def _nested(self, library: Sequence[_Answered], likely: Floats, most: int) -> tuple[Floats, list[Prediction]]:
        """Scores (R, K) and answers: each part's by members, weights, temperature and decision shift that were chosen
        without it. A shift that is found on the rows that judge it makes F1 or balanced accuracy seem better."""
        context = self.context
        part = np.random.default_rng(self.seed).permutation(max(self.groups) + 1) % _PARTS
        parts, groups = part[self.groups], np.asarray(self.groups)
        found: Floats | None = None
        given: dict[int, Prediction] = {}
        for number in range(_PARTS):
            own, rest = np.flatnonzero(parts == number), np.flatnonzero(parts != number)
            if not (len(own) and len(rest)):
                continue
            weights = self._weights(likely[:, rest], self.targets[rest], groups[rest].tolist(), most)
            mean = self._mean(library, weights)
            found = np.zeros_like(mean) if found is None else found
            found[own] = mean[own]
            shift = find_shift_for_metric(context, mean[rest], [self.held[place] for place in rest])
            task_head = context.task_head.calibrated(mean[rest], self.targets[rest])
            scores = mean[own] if shift is None else mean[own] + shift.by
            answers = predict_examples(task_head, scores, [self.held[place] for place in own])
            given |= dict(zip(own.tolist(), answers, strict=True))
        assert found is not None, "there are two groups at least"
        return found, [given[place] for place in range(len(self.held))]
