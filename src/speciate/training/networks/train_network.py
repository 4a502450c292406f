"""Trains networks and keeps one: the learning rate that does best on examples that it has not learned from.

With a validation split the best network is kept as it is, or, if `refit` says so, one that learns from all examples for
as many epochs, and of whose own value nothing is known. Without one, the learning rate is chosen on the first of
several grouped folds, the others are trained at it, and all of them together give its value; then a network learns from
everything, for as many epochs as the folds needed (their median)."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, NoReturn

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.models.backbones import architectures
from speciate.models.backbones.contract import Backbone, Network
from speciate.tasks.network_predictor import NetworkPredictor, as_scores, warm_start
from speciate.tasks.task import SavablePredictor, TaskHead
from speciate.tasks.task_heads import PER_UNIT
from speciate.training.held_out import measure
from speciate.training.hyperparameters import FullParameters
from speciate.training.networks import durable_training, successive_halving, trial_steps
from speciate.training.networks.batches import PreparedItems
from speciate.training.networks.data_parallel import Follower
from speciate.training.networks.kept_head import KeptHead, keep_head
from speciate.training.networks.kept_pipeline import KeptPipeline, keep_pipeline
from speciate.training.networks.optimizer import LoopParameters, Precision
from speciate.training.networks.threads import keep_threads, kept_threads
from speciate.training.networks.training_loop import Evaluation, HeldOutData, Scores, TaskLoss, Training
from speciate.training.networks.weighted_targets import SoftTargetLoss, held_out_targets
from speciate.training.planning import when_to_stop
from speciate.training.resource_usage import Usage, usage_now
from speciate.training.selection.selected_model import CandidateResult, SelectedModel
from speciate.training.training_context import REFIT_NOTE, TrainingContext
from speciate.vocabulary import find_metric

Divisions = Sequence[tuple[Sequence[Example], Sequence[Example]]]

_RATE_FACTORS = (1.0, 3.0, 1 / 3)
"""Times the usual learning rate. The likeliest first: of equal ones it stays."""


_MOST_COPIED_BYTES = 400 << 20
"""Weights of a network that is copied to be kept so far."""


class TrainingHead(NamedTuple):
    """What the loop is given to learn: a head with its loss, and the targets of examples."""

    head: Any
    task_head: TaskLoss
    targets: Callable[[Sequence[Example]], Any]


def task_head(context: TrainingContext, backbone: Backbone) -> TrainingHead:
    """The task's own, from the base model's head where that has the same outputs."""
    head, folder = context.task_head.head(backbone.width), context.payload.base_folder
    if folder:
        warm_start(head, context.task_head, Path(folder))
    return TrainingHead(head, context.task_head, context.targets)


def no_preparation(context: TrainingContext) -> None:
    pass


def train_all_weights(backbone: Network) -> tuple[str, ...]:
    backbone.module.requires_grad_(True)
    return ()


class NetworkMethod(NamedTuple):
    """What a recipe does to a backbone before it is trained, and after."""

    adapt: Callable[[Network], object]
    finish: Callable[[Network], Sequence[str]]
    """Returns the adapted layers that have learned nothing."""
    usual_rate: Callable[[str], float]
    """Usual learning rate, by base model."""
    prepare: Callable[[TrainingContext], None] = no_preparation
    """Before anything is built, in each process: what else there is to learn and to be judged by."""
    teach: Callable[[TrainingContext, Backbone], TrainingHead] = task_head
    """Right after the backbone was made and adapted; the same each time."""


class NetworkCost(NamedTuple):
    ahead: trial_steps.PlannedWork
    pace: trial_steps.StepCost
    memory: trial_steps.MemoryNeed
    micro_batch: int


class _TrainedNetwork(NamedTuple):
    training: Training
    scores: Scores
    held: Sequence[Example]
    epochs: int


def train_best_network(context: TrainingContext, parameters: FullParameters, method: NetworkMethod) -> SelectedModel:
    """Raises `does_not_fit` before it trains, and what the trainings raise."""
    return _make_search(context, parameters, method).go()


def follow_leader(
    context: TrainingContext, parameters: FullParameters, method: NetworkMethod, team: Follower
) -> NoReturn:
    """Build the trainings of the team's leader, and take their steps with it, until it is gone."""
    team.go(_make_search(context, parameters, method).build)


def measure_network_cost(
    context: TrainingContext, parameters: FullParameters, method: NetworkMethod, steps: int
) -> NetworkCost:
    """Cost of a training, measured on so many real steps."""
    return _make_search(context, parameters, method).weigh(steps)


def _make_search(context: TrainingContext, parameters: FullParameters, method: NetworkMethod) -> _NetworkSearch:
    import torch

    torch.set_num_threads(context.payload.threads)
    if context.payload.device == "cuda" and not torch.cuda.is_available():
        raise SpeciateError(
            Code.UNAVAILABLE,
            "settings.toml says that there is a GPU (capacity.gpu), but torch finds none.",
            "Install a torch that knows it, or set capacity.gpu to 0.",
        )
    method.prepare(context)
    base_model = context.payload.spec.base_model
    assert base_model is not None, "the plan fills in the base model"
    usual = method.usual_rate(base_model)
    rates = parameters.learning_rate or tuple(usual * times for times in _RATE_FACTORS)
    draws = context.task_head.family == "image-generation"
    kept = keep_pipeline(context) if draws else keep_head(context)
    return _NetworkSearch(context, parameters, method, base_model, rates, kept)


class _NetworkSearch:
    def __init__(
        self,
        context: TrainingContext,
        parameters: FullParameters,
        method: NetworkMethod,
        base_model: str,
        rates: Sequence[float],
        kept: KeptHead | KeptPipeline | None = None,
    ) -> None:
        self._context, self._parameters, self._method, self._kept = context, parameters, method, kept
        self._precision: Precision = "float32" if parameters.precision == "auto" else parameters.precision
        """Precision of the steps; float32 where it is not settled yet."""
        self._base_model, self._rates = base_model, rates
        self._offered = -math.inf
        self._steps: int | None = None
        """Steps of a training that has no time for a whole epoch; else None."""
        self._better: tuple[int, int, Scores] | None = None
        """Candidate and step of the latest evaluation that was better than those before, with its scores."""
        self._divisions: Divisions = list(context.divisions(parameters.folds))
        self._metric = find_metric(context.payload.objective.metric)
        known = [one for one in context.validation if context.has_known_targets([one])] if parameters.refit else []
        self._refits = bool(known)
        """Whether what was chosen learns once more, from validation examples as well."""
        self._everything = [*context.train, *known]

    def go(self) -> SelectedModel:
        self._context.meter.planned_steps = self._ahead().steps
        self._passed = self._searched().steps
        found, first = self._search()
        parts = [first, *self._folds(self._rates[found.candidate])]
        held = [example for part in parts for example in part.held]
        scores = as_scores([score for part in parts for score in part.scores])
        task_head = self._context.task_head.calibrated(scores, self._context.targets(held))
        best = measure(self._context, task_head, held, scores)
        whole = first.training
        if self._refits and self._has_time("the network could learn from validation examples, too"):
            whole = self._whole(self._rates[found.candidate], first.epochs)
            self._context.notes.append(REFIT_NOTE)
            self._context.learned_validation = True
        elif not self._context.validation and self._has_time(
            "a network could learn from all examples, not only a fold's"
        ):
            whole = self._whole(self._rates[found.candidate], max(1, round(median(part.epochs for part in parts))))
        if silent := self._method.finish(whole.backbone):
            self._context.report["silent_layers"] = list(silent)
            shown = f"{', '.join(silent[:3])}{' and others' if len(silent) > 3 else ''}"
            self._context.notes.append(f"{len(silent)} adapted layers have learned nothing: {shown}.")
        self._context.note_cut_texts(getattr(whole.backbone, "max_tokens", None))
        predictor = self._predictor(whole.backbone, whole.head, whole.task_head, task_head, held)
        return SelectedModel(predictor, best, self._context.how, tuple(self._tried(found)))

    def _predictor(
        self, backbone: Any, head: Any, loss: TaskLoss, task_head: TaskHead, held: Sequence[Example]
    ) -> SavablePredictor:
        """Predictor of a network that is trained no further."""
        for module in (backbone.module, head):
            module.cpu().eval()
        if self._kept is not None:
            return self._kept.predictor(backbone, task_head, held)
        served = loss.served(head) if isinstance(loss, SoftTargetLoss) else head
        return NetworkPredictor(self._context.payload.task, task_head, backbone, served)

    def _offer(self, held: Sequence[Example], candidate: int, training: Training, evaluation: Evaluation) -> None:
        """A better network than any before may be kept in case the run's limit passes."""
        self._better = candidate, evaluation.step, evaluation.scores
        value = self._metric.sign * evaluation.value
        size = sum(each.numel() * each.element_size() for each in training.backbone.module.state_dict().values())
        if value > self._offered and size <= _MOST_COPIED_BYTES:
            self._offered = value
            self._context.offer_best(partial(self._so_far, held, candidate, training, evaluation), learns_on=True)

    def _so_far(
        self, held: Sequence[Example], candidate: int, training: Training, evaluation: Evaluation
    ) -> SelectedModel:
        """A copy: the training goes on with what it has. Copying draws nothing and changes no weight."""
        scores = as_scores(evaluation.scores)
        task_head = self._context.task_head.calibrated(scores, self._context.targets(held))
        best = measure(self._context, task_head, held, scores)
        backbone, head = copy.deepcopy((training.backbone, training.head))
        self._method.finish(backbone)
        predictor = self._predictor(backbone, head, training.task_head, task_head, held)
        name = f"{self._base_model}: learning rate {self._rates[candidate]:.2g}"
        return SelectedModel(predictor, best, self._context.how, (CandidateResult(name, 0.0, best.value, "", True),))

    def weigh(self, steps: int) -> NetworkCost:
        """What each part costs, and how much there is of it; nothing is kept."""
        training, judge, build = self._trial(0)
        memory = trial_steps.rehearse(self._context, training).memory
        pace = trial_steps.step_cost(training, judge, build, steps)
        before = usage_now()
        durable_training.training_place(self._context.run, "trial").checkpoints.save(training.state(), {})
        pace, ahead = pace._replace(save=usage_now().minus(before)), self._ahead()
        asked, device = self._parameters.precision, self._context.payload.device
        settled = trial_steps.choose_precision(asked, training, device, pace, pace.of(ahead).seconds)
        return NetworkCost(ahead, pace.faster(settled.gain), memory, training.micro_batch)

    def _ahead(self) -> trial_steps.PlannedWork:
        return self._work(len(self._rates), self._parameters.num_train_epochs)

    def _searched(self) -> trial_steps.PlannedWork:
        learn, held = self._divisions[0]
        counts = [(len(learn), len(held))]
        return trial_steps.planned_work(
            len(self._rates), self._parameters.num_train_epochs, self._parameters.batch_size, counts, None
        )

    def _work(self, candidates: int, epochs: int) -> trial_steps.PlannedWork:
        counts = [(len(learn), len(held)) for learn, held in self._divisions]
        whole = len(self._everything) if self._refits or not self._context.validation else None
        return trial_steps.planned_work(candidates, epochs, self._parameters.batch_size, counts, whole)

    def _search(self) -> tuple[successive_halving.SearchResult, _TrainedNetwork]:
        context, held = self._context, self._divisions[0][1]
        training, judge, build = self._trial(0)
        settled, fitted = trial_steps.kept_choice(context.run), trial_steps.kept_fit(context.run)
        trial_steps.take_threads(context, kept_threads(context.run) or context.payload.threads)
        if settled is None:  # else what went on before has fitted
            asked, rates = self._parameters.precision, len(self._rates)
            settled, fitted = trial_steps.check_fit(context, asked, training, judge, build, self._work, rates)
            context.meter.steps = 0  # those were no part of it
        del training
        self._settle(settled, fitted)
        found = successive_halving.search(
            context.run,
            len(self._rates),
            lambda candidate: self._training(0, self._rates[candidate], self._parameters.num_train_epochs),
            judge,
            over_budget=lambda: context.over_budget,
            enough=partial(self._enough, held),
            better=partial(self._offer, held),
            steps_after=context.meter.planned_steps - self._passed,
        )
        return found, self._judged(found.training, judge, held, found.candidate)

    def _settle(self, settled: trial_steps.PrecisionChoice, fitted: trial_steps.FittedWork | None) -> None:
        """For all trainings of this run and its later attempts, and for who repeats it."""
        if fitted is not None:
            trial_steps.keep_fit(self._context.run, fitted)
            keep_threads(self._context.run, self._context.payload.threads)
            self._steps = fitted.steps
            if fitted[:2] != (len(self._rates), self._parameters.num_train_epochs):
                self._context.settle("learning_rate", tuple(self._rates[: fitted.rates]))
                self._context.settle("num_train_epochs", fitted.epochs)
            self._rates = self._rates[: fitted.rates]
            self._parameters = self._parameters.model_copy(update={"num_train_epochs": fitted.epochs})
            self._context.meter.planned_steps = min(self._ahead().steps, self._steps or sys.maxsize)
            self._passed = min(self._searched().steps, self._steps or sys.maxsize)
        trial_steps.keep_choice(self._context.run, settled)
        self._precision = settled.used
        self._context.settle("precision", settled.used, settled._asdict())

    def _folds(self, rate: float) -> Iterator[_TrainedNetwork]:
        for place in range(1, len(self._divisions)):
            if self._has_time(f"fold {place + 1} of {len(self._divisions)}"):
                yield self._fold(place, rate)

    def _has_time(self, what: str) -> bool:
        if self._context.over_budget:
            self._context.notes.append(f"The budget ended before {what}.")
        return not self._context.over_budget

    def _fold(self, place: int, rate: float) -> _TrainedNetwork:
        context, judge = self._context, self._trial(place)[1]
        training = self._training(place, rate, self._parameters.num_train_epochs)
        durable_training.train_durably(
            context.run, training, judge, where=durable_training.training_place(context.run, f"fold-{place + 1}"),
            over_budget=lambda: context.over_budget, report=self._reporter(training, f"fold {place + 1}"),
        )  # fmt: skip
        return self._judged(training, judge, self._divisions[place][1])

    def _whole(self, rate: float, epochs: int) -> Training:
        training = self._training(None, rate, epochs)
        where, report = (
            durable_training.training_place(self._context.run, "whole"),
            self._reporter(training, "all examples"),
        )
        durable_training.train_durably(
            self._context.run, training, where=where, over_budget=lambda: self._context.over_budget, report=report
        )
        return training

    def _reporter(self, training: Training, part: str) -> Callable[[int, str], None]:
        """Steps count on from the part before: a run whose count went back would look like one that gets nowhere."""
        before, context = self._passed, self._context
        self._passed += training.total
        return lambda step, message: context.progress(
            before + step, context.meter.planned_steps, "steps", f"{part}: {message}"
        )

    def _training(self, division: int | None, rate: float, epochs: int) -> trial_steps.MeasuredTraining:
        """Anew; the same each time. Of a division's one side; None: of all that there is to learn from."""
        with self._context.meter.stage("preparing"):
            return self.build(division, rate, epochs, self._precision, self._steps)

    def build(
        self, division: int | None, rate: float, epochs: int, precision: Precision, steps: int | None = None
    ) -> trial_steps.MeasuredTraining:
        import torch

        context, given = self._context, self._parameters
        recipe = {"division": division, "rate": rate, "epochs": epochs, "precision": precision, "steps": steps}
        learn = self._everything if division is None else self._divisions[division][0]
        seed = context.payload.spec.seed
        torch.manual_seed(seed)
        backbone, target_head = self._own_head(seed, learn) if self._kept is None else self._published_head(seed)
        torch.set_num_threads(context.payload.threads)  # a teacher or a base model that was loaded meanwhile sets them
        wanted = given.model_dump(include=set(LoopParameters.model_fields)) | {
            "learning_rate": rate, "num_train_epochs": epochs, "precision": precision
        }  # fmt: skip
        return trial_steps.MeasuredTraining(
            context.meter,
            backbone,
            target_head.head,
            target_head.task_head,
            self._items(backbone, learn),
            target_head.targets(learn),
            LoopParameters.model_validate(wanted),
            seed,
            memory_retries=context.run.memory_retries,
            device=context.team.device or context.payload.device,
            team=context.team.of(recipe),
            most_steps=steps,
        )

    def _own_head(self, seed: int, learn: Sequence[Example]) -> tuple[Network, TrainingHead]:
        """A head of ours on a backbone."""
        import torch

        context, folder = self._context, self._context.payload.base_folder
        backbone = architectures.build(
            self._base_model, [example.media for example in learn], seed, Path(folder) if folder else None,
            **self._options(context.task_head),
        )  # fmt: skip
        self._method.adapt(backbone)
        torch.manual_seed(seed)  # the head's weights do not depend on what the backbone drew
        return backbone, self._method.teach(context, backbone)

    def _published_head(self, seed: int) -> tuple[Network, TrainingHead]:
        """The network has its own head, so what is put on it passes its outputs on."""
        import torch

        assert self._kept is not None, "build() sees to it"
        network: Any = self._kept.network()
        self._method.adapt(network)
        torch.manual_seed(seed)
        head: Any = torch.nn.Identity()
        return network, TrainingHead(head, self._context.task_head, self._context.targets)

    def _options(self, task_head: TaskHead) -> Mapping[str, bool]:
        """Options of the preprocessing: taggers keep capital letters, for they mark names; forecasters keep a series'
        end."""
        if task_head.family == "forecasting":
            return {"ending": True}
        return {"cased": True} if task_head.family in PER_UNIT and self._base_model == "new:bert" else {}

    def _items(self, backbone: Network, examples: Sequence[Example]) -> PreparedItems:
        prepare = partial(backbone.prepare, per_unit=self._context.task_head.family in PER_UNIT)
        return PreparedItems([example.media for example in examples], prepare, backbone.length)

    def _trial(self, division: int) -> tuple[trial_steps.MeasuredTraining, HeldOutData, Usage]:
        """A training to try out, what judges it and those like it, and what building both cost.

        Held-out examples are prepared as the training's backbone does it, which is fitted on what it learns alone.
        """
        before, held = usage_now(), self._divisions[division][1]
        training = self._training(division, self._rates[0], self._parameters.num_train_epochs)
        with self._context.meter.stage("preparing"):
            items = self._items(training.backbone, held)
        targets = held_out_targets(training.task_head, self._context.targets(held))
        judge = HeldOutData(items, targets, partial(self._value, held), self._metric.sign, self._show)
        return training, judge, usage_now().minus(before)

    def _show(self, training: Training) -> None:
        """What a pipeline draws by now."""
        if isinstance(self._kept, KeptPipeline):
            network: Any = training.backbone
            self._kept.draw(network, training.step)

    def _value(self, held: Sequence[Example], scores: Scores) -> float:
        return float(measure(self._context, self._context.task_head, held, as_scores(scores)).value)

    def _enough(self, held: Sequence[Example], evaluation: Evaluation) -> bool:
        """Whether a verdict on the test split is a sure pass, and no more is wanted."""
        objective, sign = self._context.payload.objective, self._metric.sign
        if (
            objective.aim == "best"
            or objective.target is None
            or not sign * evaluation.value >= sign * objective.target
        ):
            return False
        found = measure(self._context, self._context.task_head, held, as_scores(evaluation.scores))
        measured = when_to_stop.Measured(sign * found.value, found.standard_error, found.n)
        sure = when_to_stop.probability_of_pass(
            measured, sign * objective.target, objective.test_examples, objective.level
        )
        return sure >= when_to_stop.SURE

    def _judged(
        self, training: Training, judge: HeldOutData, held: Sequence[Example], candidate: int | None = None
    ) -> _TrainedNetwork:
        """`candidate`: of the search, whose best weights may have been judged a moment ago."""
        step = training.best.step if training.best else training.step
        if training.best and candidate is not None and self._better and self._better[:2] == (candidate, step):
            scores = self._better[2]
        else:
            _, scores = training.judge(judge.items, judge.targets)
        return _TrainedNetwork(training, scores, held, max(1, round(step / training.epoch_steps)))

    def _tried(self, found: successive_halving.SearchResult) -> list[CandidateResult]:
        def name(candidate: int) -> str:
            return f"{self._base_model}: learning rate {self._rates[candidate]:.2g}"

        return [
            CandidateResult(
                name(standing.candidate),
                standing.seconds,
                None if standing.value is None or not math.isfinite(standing.value) else standing.value,
                f"{standing.why} after {standing.epochs} epochs" if standing.candidate != found.candidate else "",
                standing.candidate == found.candidate,
            )
            for standing in found.standings
        ]
