"""Which network a training keeps: the one whose learning rate does best on examples that it has not learned from.

With a validation split the best one is kept as it is. Without one, the learning rate is chosen on the first of several
grouped folds, the others are trained at it, and all of them together say how good it is; then a network learns from
everything, for as many epochs as the folds needed (their median).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, NoReturn

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models.backbones import table
from speciate.models.backbones.contract import Backbone
from speciate.tasks.contract import Readout
from speciate.tasks.network import NetworkPredictor, as_scores, warm_start
from speciate.tasks.table import PER_UNIT
from speciate.training.costs import Spent, now
from speciate.training.network import durable, halving, precision, room, trial
from speciate.training.network.items import Prepared
from speciate.training.network.lessons import Taught, held_targets
from speciate.training.network.loop import Evaluation, Held, Learns, Scores, Training
from speciate.training.network.parameters import Parameters, Precision
from speciate.training.network.team import Follower
from speciate.training.selection import Chosen, Tried, measure
from speciate.training.specs import FullParameters
from speciate.training.study import Study
from speciate.vocabulary import find_metric

Divisions = Sequence[tuple[Sequence[Example], Sequence[Example]]]

_AROUND = (1.0, 3.0, 1 / 3)
"""Times the usual learning rate. The likeliest first: of equal ones it stays."""


class Lessons(NamedTuple):
    """What the loop is given to learn: a head with its loss, and the targets of examples."""

    head: Any
    readout: Learns
    targets: Callable[[Sequence[Example]], Any]


def plain(study: Study, backbone: Backbone) -> Lessons:
    """The task's own, from the base model's head where that has the same outputs."""
    head, folder = study.readout.head(backbone.width), study.payload.base_folder
    if folder:
        warm_start(head, study.readout, Path(folder))
    return Lessons(head, study.readout, study.targets)


def nothing_to_prepare(study: Study) -> None:
    pass


class Method(NamedTuple):
    """What a recipe does to a backbone before it is trained, and after."""

    adapt: Callable[[Backbone], None]
    finish: Callable[[Backbone], None]
    usual_rate: Callable[[str], float]
    """By base model."""
    prepare: Callable[[Study], None] = nothing_to_prepare
    """Before anything is built, in each process: what else there is to learn and to be judged by."""
    teach: Callable[[Study, Backbone], Lessons] = plain
    """Right after the backbone was made and adapted; the same each time."""


class Weighed(NamedTuple):
    ahead: trial.Work
    pace: trial.Pace
    memory: trial.Need
    micro_batch: int


class _Trained(NamedTuple):
    training: Training
    scores: Scores
    held: Sequence[Example]
    epochs: int


def choose(study: Study, parameters: FullParameters, method: Method) -> Chosen:
    """Raises `does_not_fit` before it trains, and what the trainings raise."""
    return _choice(study, parameters, method).go()


def follow(study: Study, parameters: FullParameters, method: Method, team: Follower) -> NoReturn:
    """Build the trainings of the team's leader, and take their steps with it, until it is gone."""
    team.go(_choice(study, parameters, method).build)


def weigh(study: Study, parameters: FullParameters, method: Method, steps: int) -> Weighed:
    """By so many real steps."""
    return _choice(study, parameters, method).weigh(steps)


def _choice(study: Study, parameters: FullParameters, method: Method) -> _Choice:
    import torch

    torch.set_num_threads(study.payload.threads)
    if study.payload.device == "cuda" and not torch.cuda.is_available():
        raise SpeciateError(
            Code.UNAVAILABLE,
            "settings.toml says that there is a GPU (capacity.gpu), but torch finds none.",
            "Install a torch that knows it, or set capacity.gpu to 0.",
        )
    method.prepare(study)
    base_model = study.payload.spec.base_model
    assert base_model is not None, "the plan fills in the base model"
    usual = method.usual_rate(base_model)
    rates = parameters.learning_rate or tuple(usual * times for times in _AROUND)
    return _Choice(study, parameters, method, base_model, rates)


class _Choice:
    def __init__(
        self, study: Study, parameters: FullParameters, method: Method, base_model: str, rates: Sequence[float]
    ) -> None:
        self._study, self._parameters, self._method = study, parameters, method
        self._precision: Precision = "float32" if parameters.precision == "auto" else parameters.precision
        """Until it is settled."""
        self._base_model, self._rates = base_model, rates
        self._divisions: Divisions = list(study.divisions(parameters.folds))
        self._metric = find_metric(study.payload.objective.metric)

    def go(self) -> Chosen:
        self._study.tally.planned_steps = self._ahead().steps
        self._passed = self._searched().steps
        found, first = self._search()
        parts = [first, *self._folds(self._rates[found.candidate])]
        held = [example for part in parts for example in part.held]
        scores = as_scores([score for part in parts for score in part.scores])
        readout = self._study.readout.calibrated(scores, self._study.targets(held))
        best = measure(self._study, readout, held, scores)
        whole = first.training
        if not self._study.validation and self._has_time("a network could learn from all examples, not only a fold's"):
            whole = self._whole(self._rates[found.candidate], max(1, round(median(part.epochs for part in parts))))
        self._method.finish(whole.backbone)
        for module in (whole.backbone.module, whole.head):
            module.cpu().eval()
        head = whole.readout.served(whole.head) if isinstance(whole.readout, Taught) else whole.head
        predictor = NetworkPredictor(self._study.payload.task, readout, whole.backbone, head)
        return Chosen(predictor, best, self._study.how, tuple(self._tried(found)))

    def weigh(self, steps: int) -> Weighed:
        """What each part costs, and how much there is of it; nothing is kept."""
        training, judge, build = self._trial(0)
        memory, _ = trial.need(training)
        pace = trial.pace(training, judge, build, steps)
        before = now()
        durable.place(self._study.run, "trial").checkpoints.save(training.state(), {})
        pace, ahead = pace._replace(save=now().minus(before)), self._ahead()
        asked, device = self._parameters.precision, self._study.payload.device
        settled = precision.settle(asked, training, device, pace, pace.of(ahead).seconds)
        return Weighed(ahead, pace.faster(settled.gain), memory, training.micro_batch)

    def _ahead(self) -> trial.Work:
        return self._work(len(self._rates), self._parameters.epochs)

    def _least(self) -> trial.Work:
        return self._work(1, 1)

    def _searched(self) -> trial.Work:
        learn, held = self._divisions[0]
        counts = [(len(learn), len(held))]
        return trial.work(len(self._rates), self._parameters.epochs, self._parameters.batch_size, counts, None)

    def _work(self, candidates: int, epochs: int) -> trial.Work:
        counts = [(len(learn), len(held)) for learn, held in self._divisions]
        whole = None if self._study.validation else len(self._study.train)
        return trial.work(candidates, epochs, self._parameters.batch_size, counts, whole)

    def _search(self) -> tuple[halving.Found, _Trained]:
        study, held = self._study, self._divisions[0][1]
        training, judge, build = self._trial(0)
        settled = precision.known(study.run)
        if settled is None:  # else what went on before has fitted
            work, asked = (self._ahead(), self._least()), self._parameters.precision
            settled = room.check(study, asked, training, judge, build, *work)
            study.tally.steps = 0  # those were no part of it
        del training
        self._settle(settled)
        found = halving.search(
            study.run,
            len(self._rates),
            lambda candidate: self._training(0, self._rates[candidate], self._parameters.epochs),
            judge,
            over_budget=lambda: study.over_budget,
            enough=partial(self._enough, held),
            steps_after=study.tally.planned_steps - self._passed,
        )
        return found, self._judged(found.training, judge, held)

    def _settle(self, settled: precision.Settled) -> None:
        """For all trainings of this run and its later attempts, and for who repeats it."""
        precision.keep(self._study.run, settled)
        self._precision = settled.used
        self._study.settle("precision", settled.used, settled._asdict())

    def _folds(self, rate: float) -> Iterator[_Trained]:
        for place in range(1, len(self._divisions)):
            if self._has_time(f"fold {place + 1} of {len(self._divisions)}"):
                yield self._fold(place, rate)

    def _has_time(self, what: str) -> bool:
        if self._study.over_budget:
            self._study.notes.append(f"The budget ended before {what}.")
        return not self._study.over_budget

    def _fold(self, place: int, rate: float) -> _Trained:
        study, judge = self._study, self._trial(place)[1]
        training = self._training(place, rate, self._parameters.epochs)
        durable.train(
            study.run, training, judge, where=durable.place(study.run, f"fold-{place + 1}"),
            over_budget=lambda: study.over_budget, report=self._reporter(training, f"fold {place + 1}"),
        )  # fmt: skip
        return self._judged(training, judge, self._divisions[place][1])

    def _whole(self, rate: float, epochs: int) -> Training:
        training = self._training(None, rate, epochs)
        where, report = durable.place(self._study.run, "whole"), self._reporter(training, "all examples")
        durable.train(
            self._study.run, training, where=where, over_budget=lambda: self._study.over_budget, report=report
        )
        return training

    def _reporter(self, training: Training, part: str) -> Callable[[int, str], None]:
        """Steps count on from the part before: a run whose count went back would look like one that gets nowhere."""
        before, study = self._passed, self._study
        self._passed += training.total
        return lambda step, message: study.progress(
            before + step, study.tally.planned_steps, "steps", f"{part}: {message}"
        )

    def _training(self, division: int | None, rate: float, epochs: int) -> trial.Tallied:
        """Anew; the same each time. Of a division's one side; None: of all that there is to learn from."""
        with self._study.tally.stage("preparing"):
            return self.build(division, rate, epochs, self._precision)

    def build(self, division: int | None, rate: float, epochs: int, precision: Precision) -> trial.Tallied:
        import torch

        study, given = self._study, self._parameters
        recipe = {"division": division, "rate": rate, "epochs": epochs, "precision": precision}
        learn = study.train if division is None else self._divisions[division][0]
        seed = study.payload.spec.seed
        media = [example.media for example in learn]
        folder = study.payload.base_folder
        torch.manual_seed(seed)
        backbone = table.build(
            self._base_model, media, seed, Path(folder) if folder else None, **self._options(study.readout)
        )
        self._method.adapt(backbone)
        torch.manual_seed(seed)  # the head's weights do not depend on what the backbone drew
        lessons = self._method.teach(study, backbone)
        wanted = given.model_dump(include=set(Parameters.model_fields)) | {
            "learning_rate": rate, "epochs": epochs, "precision": precision
        }  # fmt: skip
        return trial.Tallied(
            study.tally,
            backbone,
            lessons.head,
            lessons.readout,
            self._items(backbone, learn),
            lessons.targets(learn),
            Parameters.model_validate(wanted),
            seed,
            memory_retries=study.run.memory_retries,
            device=study.team.device or study.payload.device,
            team=study.team.of(recipe),
        )

    def _options(self, readout: Readout) -> dict[str, Any]:
        """Of the preprocessing: names of things are known by their capitals, and what comes next by what is last."""
        if readout.family == "forecasting":
            return {"ending": True}
        return {"cased": True} if readout.family in PER_UNIT and self._base_model == "new:bert" else {}

    def _items(self, backbone: Backbone, examples: Sequence[Example]) -> Prepared:
        prepare = partial(backbone.prepare, per_unit=self._study.readout.family in PER_UNIT)
        return Prepared([example.media for example in examples], prepare, backbone.length)

    def _trial(self, division: int) -> tuple[trial.Tallied, Held, Spent]:
        """A training to try out, what judges it and those like it, and what building both cost.

        Held-out examples are prepared as the training's backbone does it, which is fitted on what it learns alone.
        """
        before, held = now(), self._divisions[division][1]
        training = self._training(division, self._rates[0], self._parameters.epochs)
        with self._study.tally.stage("preparing"):
            items = self._items(training.backbone, held)
        targets = held_targets(training.readout, self._study.targets(held))
        judge = Held(items, targets, partial(self._value, held), self._metric.sign)
        return training, judge, now().minus(before)

    def _value(self, held: Sequence[Example], scores: Scores) -> float:
        return float(measure(self._study, self._study.readout, held, as_scores(scores)).value)

    def _enough(self, held: Sequence[Example], evaluation: Evaluation) -> bool:
        """Whether the whole interval reaches the target."""
        target = self._study.payload.objective.target
        if target is None or not self._metric.sign * evaluation.value >= self._metric.sign * target:
            return False
        found = measure(self._study, self._study.readout, held, as_scores(evaluation.scores))
        return min(self._metric.sign * found.low, self._metric.sign * found.high) >= self._metric.sign * target

    def _judged(self, training: Training, judge: Held, held: Sequence[Example]) -> _Trained:
        _, scores = training.judge(judge.items, judge.targets)
        step = training.best.step if training.best else training.step
        return _Trained(training, scores, held, max(1, round(step / training.epoch_steps)))

    def _tried(self, found: halving.Found) -> list[Tried]:
        def name(candidate: int) -> str:
            return f"{self._base_model}: learning rate {self._rates[candidate]:.2g}"

        return [
            Tried(
                name(standing.candidate),
                standing.seconds,
                None if standing.value is None or not math.isfinite(standing.value) else standing.value,
                f"{standing.why} after {standing.epochs} epochs" if standing.candidate != found.candidate else "",
                standing.candidate == found.candidate,
            )
            for standing in found.standings
        ]
