"""The examples of one training, split so that every candidate is evaluated on examples that it has not learned from.

`TrainingContext` also carries the head of the task, the run's budget, its notes and its report."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.jobs.run import Run, Stopped
from speciate.tasks.example_targets import evaluation_examples, settle_terms, training_examples
from speciate.tasks.families import preference
from speciate.tasks.families.anomaly import ANOMALY
from speciate.tasks.network_predictor import merge_task_heads
from speciate.tasks.task import Representation, TaskExample, TaskHead
from speciate.tasks.task_heads import TASK_HEADS
from speciate.training.language_hyperparameters import ReinforcementParameters, learns_unlabelled
from speciate.training.networks.data_parallel import ALONE, Team
from speciate.training.planning.target_checks import check_distinct, too_short
from speciate.training.resource_usage import CostMeter
from speciate.training.train_spec import Payload
from speciate.training.training_report import MethodReport, PackedVersion
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Folders

_log = logging.getLogger(__name__)


REFIT_NOTE = "The chosen model was then learned from validation examples, too; its value here is from before."
NOT_REFITTED = (
    "refit was asked for and not done: there was no time, the task is learned otherwise, or validation examples have "
    "labels that training has not."
)


class Division(NamedTuple):
    """One division: learn from the first three, validate on the rest."""

    representation: Representation
    inputs: Any  # (N, D)
    targets: Any  # (N,), or as the task_head has them
    held_inputs: Any  # (M, D)
    held: list[Example]


_MOST_FINISH_SECONDS, _FINISH_SHARE = 15.0, 0.1
"""Seconds before a run's limit when a training ends by itself, and their share of it: to save and report what it
has."""
_TOKENS_READ: Mapping[str, tuple[str, Callable[[str], int]]] = {
    "text": ("texts", lambda text: len(text.split())), "protein": ("sequences", len),
}  # fmt: skip
"""Modality -> what one medium is, and how many tokens it has at least."""
_SHARE_CUT = 0.01
_KEEP_SHARE = 20
"""Keeping the best so far costs at most so small a part of the time."""


_REPEATS, _FEW_EXAMPLES, _FEW_NUMBERS = 3, 200, 50_000
"""Folds of fewer examples than that, which hold fewer numbers or letters than that, are made so often."""


def _numbers_in(medium: Any) -> int:
    if isinstance(medium, np.ndarray):
        return medium.size
    if isinstance(medium, Mapping):
        return sum(_numbers_in(part) for part in medium.values())
    return len(medium) if isinstance(medium, str) else 1


class _Allowance:
    """A twentieth of the time that a training has taken, for one kind of work."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._last: float | None = None

    def lets(self, elapsed: float) -> bool:
        """Whether doing it once more, as long as the last time, stays within it; the first time always does."""
        return self._last is None or _KEEP_SHARE * (self._spent + self._last) <= elapsed

    def pay(self, seconds: float) -> None:
        self._spent, self._last = self._spent + seconds, seconds


class BestSoFar:
    """Keeps the best model of a training as a whole result, so that no limit takes it away.

    `keep(model)` writes it; what it raises ends no training, only the keeping. The first is written at once, a later
    one as soon as all writing stays within a twentieth of the time. Until then it waits in memory: `keep_due` writes
    it then, `keep_waiting` at once, for a run that is asked to stop.
    """

    def __init__(self, keep: Callable[[Any], None], clock: Callable[[], float]) -> None:
        self._keep, self._clock, self._began = keep, clock, clock()
        self._writing, self._copying = _Allowance(), _Allowance()
        self._waiting: Callable[[], Any] | None = None
        """Makes the model that is to be written, if there is one."""
        self._gave_up = False

    def offer(self, make: Callable[[], Any], *, learns_on: bool = False) -> None:
        """`learns_on`: the model goes on to learn, so what waits is a copy. Copies, too, take a twentieth at most."""
        if self._gave_up:
            return
        began = self._clock()
        if learns_on and not self._writing.lets(began - self._began):
            if not self._copying.lets(began - self._began):
                return
            try:
                made = make()
            except Exception:  # noqa: BLE001 - a network that cannot be copied: the training goes on
                self._give_up()
                return
            self._copying.pay(self._clock() - began)
            self._waiting = lambda: made
        else:
            self._waiting = make
        self.keep_due()

    def keep_due(self) -> None:
        if self._waiting is not None and self._writing.lets(self._clock() - self._began):
            self.keep_waiting()

    def keep_waiting(self) -> None:
        """A run that is asked to stop meanwhile leaves the model waiting."""
        if self._waiting is None:
            return
        began = self._clock()
        try:
            self._keep(self._waiting())
        except Exception:  # noqa: BLE001 - a network that cannot be copied, a full disk: the training goes on
            self._give_up()
            return
        self._waiting = None
        self._writing.pay(self._clock() - began)

    def _give_up(self) -> None:
        _log.exception("the best model so far could not be kept")
        self._waiting, self._gave_up = None, True


class EarlierSlice(NamedTuple):
    """Held-out examples of an earlier version."""

    dataset: str
    split: str
    examples: list[Example]
    """Questions."""


class TrainingContext:
    """The examples to learn and to validate on, the head of the task, the run's budget, and the processes that train.

    An example of `train` has all that is learned from it, one of `validation` only what a model may see.
    """

    def __init__(
        self,
        run: Run,
        payload: Payload,
        examples: Sequence[Example],
        meter: CostMeter | None = None,
        team: Team = ALONE,
    ) -> None:
        learned = [example for example in examples if example.split == "train"]
        terms = settle_terms(payload.terms, payload.task, learned)
        self.payload, self.run = payload.model_copy(update={"terms": terms}), run
        self.meter, self.team = meter or CostMeter(run), team
        self.notes: list[str] = []
        self.beside: PackedVersion | None = None
        """A dataset version that was made for this training, as `next_version.pack_version` gives it."""
        self.unlabelled: set[str] = set()
        """Ids of training examples without a label, where a teacher gives the target."""
        self.slices: list[EarlierSlice] = []
        """Held-out examples of earlier versions, oldest first, in continual learning."""
        self.learned_validation = False
        """Whether what was chosen has then learned from validation examples as well."""
        self.report: MethodReport = {}
        """What the report says of hyperparameters that were left to the training, and what a method adds to it."""
        self._labels: dict[str, object] = {}
        held = [example for example in examples if example.split == "validation"]
        plans = payload.head == "published" and find_task(payload.task).family == "control"
        self.train = self._noted(evaluation_examples if plans else training_examples, learned)  # plans: kept_head.py
        self.validation = self._noted(evaluation_examples, held)
        self._note_unlabelled(learned, held)
        self.task_head: TaskHead = self._make_task_head()
        minutes = payload.spec.budget_minutes
        self._budget = minutes * 60 if minutes else math.inf
        self.meter.begin_budget()
        self._finish_seconds = min(_MOST_FINISH_SECONDS, _FINISH_SHARE * (run.limit_seconds or math.inf))
        self.best_so_far: BestSoFar | None = None
        """Set where the run has a limit."""

    def settle(self, name: str, value: Any, how: Any = None) -> None:
        """A hyperparameter that was left open: from here on recorded as if it had been asked for, so that a repetition
        has the same. `how`: JSON, for the report; None where a note says it."""
        spec, parameters = self.payload.spec, self.payload.parameters
        spec = spec.model_copy(update={"hyperparameters": {**spec.hyperparameters, name: value}})
        parameters = parameters.model_copy(update={name: value})
        self.payload = self.payload.model_copy(update={"spec": spec, "parameters": parameters})
        if how is not None:
            self.report[name] = how

    def keep_only(self, ids: set[str]) -> None:
        """Learn and validate on these examples alone."""
        self.train = [example for example in self.train if example.id in ids]
        self.validation = [example for example in self.validation if example.id in ids]

    def learn_from(self, examples: Sequence[TaskExample]) -> None:
        """Learn from these in the place of the training examples that they were made of."""
        self._labels |= {each.example.id: each.target for each in examples}
        self.train = [each.example for each in examples]

    def labels(self, examples: Sequence[Example]) -> list[Any]:
        return [self._labels[example.id] for example in examples]

    def label(self, example: Example) -> Any:
        """None where the example has none, which only training examples may lack."""
        return self._labels.get(example.id)

    def targets(self, examples: Sequence[Example]) -> Any:
        return self.task_head.encode_targets(self.labels(examples))

    def has_known_targets(self, examples: Sequence[Example]) -> bool:
        """Whether training has seen the label of each; True where a target is no single label."""
        return not self.labelled or set(self.labels(examples)) <= set(self.task_head.labels)

    def note_training_examples(self, examples: Sequence[Example]) -> list[Example]:
        """Training examples of another version with their labels; an id that is taken already becomes another."""
        return self._noted(training_examples, self._apart(examples))

    def note_questions(self, examples: Sequence[Example]) -> list[Example]:
        """Held-out examples of another version, likewise."""
        return self._noted(evaluation_examples, self._apart(examples))

    def extend_task_head(self, old: TaskHead) -> None:
        """The head has the labels of the earlier model's head, and those of all that is learned now."""
        self.task_head = merge_task_heads(old, self._make_task_head())

    def _apart(self, examples: Sequence[Example]) -> list[Example]:
        return [each._replace(id=self._free(each.id)) for each in examples]

    def _free(self, name: str) -> str:
        names = (name if number == 1 else f"{name}#{number}" for number in count(1))
        return next(each for each in names if each not in self._labels)

    @property
    def folders(self) -> Folders:
        return self.run.folders

    @property
    def how(self) -> str:
        return "validation" if self.validation else "out-of-fold"

    @property
    def labelled(self) -> bool:
        """Whether each example has one label, so that folds can have all of them."""
        return self.task_head.family in ("classification", "ordinal")

    def parts(self, represent: Callable[[Sequence[Example]], Representation], folds: int) -> Iterator[Division]:
        """The validation split against the training split; without one, grouped folds of the training split.

        Representations are fitted on the learning side only. Few examples are dealt into folds several times: which
        fold an example falls into would decide more than what is compared.
        """
        repeats = range(1, _REPEATS if self._is_small else 1)
        every = (pair for repeat in repeats for pair in self._folded(self.train, folds, repeat))
        for learn, held in chain(self.divisions(folds), every):
            representation = represent(learn)
            yield Division(
                representation,
                representation.encode(learn),
                self.targets(learn),
                representation.encode(held),
                held,
            )

    def checkpoint(self) -> None:
        """To be called between candidates: nothing is lost by stopping here, for a candidate costs seconds."""
        self.meter.keep_if_due()
        if self.run.stopping:
            raise Stopped

    @property
    def over_budget(self) -> bool:
        return self.seconds_left < 0

    @property
    def seconds_left(self) -> float:
        """Seconds until the end of the budget, which all attempts of the run share, or until so near the run's limit
        that the model can still be saved; infinite without either."""
        return min(self._budget - self.meter.budgeted, self.run.seconds_left - self._finish_seconds)

    def offer_best(self, make: Callable[[], Any], *, learns_on: bool = False) -> None:
        """To be called where there is a better model than before: `make()` gives it as a recipe would, a
        `SelectedModel`. It is kept in case the run's limit passes. `learns_on`: `make` copies what changes later."""
        if self.best_so_far is not None:
            self.best_so_far.offer(make, learns_on=learns_on)

    def progress(self, done: float, total: float | None, unit: str, message: str) -> None:
        if self.best_so_far is not None:
            self.best_so_far.keep_due()
        self.run.progress(done, total, unit, message)

    def _noted(self, pose: Callable[..., list[TaskExample]], examples: Sequence[Example]) -> list[Example]:
        """What can be learned of the examples or asked; their labels are noted."""
        payload = self.payload
        posed = pose(examples, payload.manifest, payload.target, payload.task, payload.terms)
        self._labels |= {one.example.id: one.target for one in posed}
        return [one.example for one in posed]

    def note_cut_texts(self, most: int | None) -> None:
        """Notes how many texts are surely longer than the `most` tokens that a network reads, two special ones
        included: a word is one token or more. None: it reads other media."""
        modality = self.payload.manifest.modality
        texts = [example.media for example in self.train if isinstance(example.media, str)]
        if most is None or modality not in _TOKENS_READ or not texts:
            return
        what, count_tokens = _TOKENS_READ[modality]
        cut = sum(count_tokens(text) > most - 2 for text in texts)
        if cut >= _SHARE_CUT * len(texts):
            self.notes.append(
                f"At least {cut:,} of {len(texts):,} training {what} are longer than the {most:,} tokens that the "
                "network reads: it does not see the rest of them. method='classical' does."
            )

    def _note_unlabelled(self, learned: Sequence[Example], held: Sequence[Example]) -> None:
        """Notes why some examples are excluded. Anomalies have a label, and yet are not learned from."""
        used = {example.id.partition("#")[0] for example in (*self.train, *self.validation)}
        self.unlabelled_train = [example for example in learned if example.id not in used]
        """Training examples without a label."""
        self.unlabelled_held = [example for example in held if example.id not in used]
        if isinstance(self.payload.parameters, ReinforcementParameters):
            return  # they are asked all the same
        not_learned = sum(example.id not in used for example in learned)
        missing = sum(example.id not in used for example in held)
        if find_task(self.payload.task).family != "anomaly":
            missing += not_learned
        elif not_learned:  # without a label they would count as normal
            odd = self.payload.terms.positive_label or ANOMALY
            self.notes.append(f"{not_learned} examples labelled {odd!r} are not learned from.")
        if missing:
            lacking = repr(self.payload.target or "anything to learn")
            if self.payload.task == preference.PREFERENCE:
                lacking = "two different answers"
            self.notes.append(f"{missing} examples without {lacking} were excluded.")

    def _make_task_head(self) -> TaskHead:
        labels, family = self.labels(self.train), find_task(self.payload.task).family
        if family == "forecasting" and not labels:
            raise too_short(self.payload.dataset, self.payload.terms.horizon)
        if self.payload.task == preference.PREFERENCE and not labels:
            raise SpeciateError(
                Code.INVALID,
                f"No training example of {self.payload.dataset} has two different answers: {preference.REJECTED!r} is "
                f"missing or the same as {self.payload.target!r}.",
                "Name the column of better answers with target, or another dataset: curate_dataset(steps=[{'op': "
                "'preferences', ...}]) makes pairs.",
            )
        asks = isinstance(self.payload.parameters, ReinforcementParameters) or learns_unlabelled(
            self.payload.parameters
        )
        check_distinct(labels, self.payload.dataset, self.payload.target, find_task(self.payload.task), asks=asks)
        task_head: TaskHead = TASK_HEADS[family].fit(labels, self._settings())
        return task_head

    def _settings(self) -> Mapping[str, Any]:
        """What a task_head may depend on."""
        terms = self.payload.terms._replace(modality=self.payload.manifest.modality)
        tuned = {"objective_metric": self.payload.objective.metric}
        return self.payload.parameters.model_dump() | terms._asdict() | tuned

    def divisions(self, folds: int) -> Iterator[tuple[list[Example], list[Example]]]:
        if self.validation:
            yield self.train, self.validation
            return
        found = False
        for parts in self._folded(self.train, folds):
            found = True
            yield parts
            if self.task_head.family == "retrieval":
                break  # examples are compared with each other, and the vectors of two models cannot be
        if not found:
            raise SpeciateError(
                Code.INVALID,
                f"{self.payload.dataset} has no validation split and too few groups per label to make one.",
                "Add examples from other groups with add_examples, or bring a validation split.",
            )

    def folded(
        self, examples: Sequence[Example], folds: int, repeat: int = 0
    ) -> Iterator[tuple[list[Example], list[Example]]]:
        """Grouped folds of these examples, of both splits. Only for `_FAMILIES_WITH_FOLDS`. `repeat`: each number deals
        them otherwise."""
        return self._folded(examples, folds, repeat)

    @property
    def _is_small(self) -> bool:
        """Whether folds are made, and cost little."""
        few = not self.validation and len(self.train) < _FEW_EXAMPLES and self.task_head.family != "retrieval"
        return few and sum(_numbers_in(example.media) for example in self.train) < _FEW_NUMBERS

    def _folded(
        self, examples: Sequence[Example], folds: int, repeat: int = 0
    ) -> Iterator[tuple[list[Example], list[Example]]]:
        for learn, held in self._fold_places(examples, folds, repeat):
            parts = [examples[i] for i in learn], [examples[i] for i in held]
            if not self.has_each_label(parts[0], examples):
                continue  # a fold that holds all examples of a label cannot judge
            yield parts

    def has_each_label(self, part: Sequence[Example], of: Sequence[Example] | None = None) -> bool:
        """Whether each label of `of`, the training examples by default, is in a part of them. True where an example has
        no single label."""
        whole = self.train if of is None else of
        return not self.labelled or set(self.labels(part)) == set(self.labels(whole))

    def _fold_places(
        self, examples: Sequence[Example], folds: int, repeat: int
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

        groups = [example.group or example.id for example in examples]
        folds = min(folds, len(set(groups)))
        if self.labelled:  # more folds than the commonest label has examples cannot be made
            folds = min(folds, max(Counter(self.labels(examples)).values()))
        if folds < 2:
            return iter(())
        seed = (self.payload.spec.seed + repeat) % 2**32
        maker = StratifiedGroupKFold if self.labelled else GroupKFold
        splitter = maker(folds, shuffle=True, random_state=seed)
        places: Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = splitter.split(
            np.zeros(len(examples)), self.targets(examples) if self.labelled else None, groups
        )
        return places
