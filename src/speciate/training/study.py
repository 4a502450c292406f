"""The examples of one training, divided so that every candidate is judged on examples that it has not learned from."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation.truth import true_answer
from speciate.jobs.run import Run, Stopped
from speciate.tasks.classification import Classification
from speciate.tasks.contract import Readout, Representation
from speciate.tasks.regression import Regression
from speciate.training.specs import Payload
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Folders


class Part(NamedTuple):
    """One division: learn from the first three, be judged on the rest."""

    representation: Representation
    inputs: Any  # (N, D)
    targets: npt.NDArray[Any]  # (N,)
    held_inputs: Any  # (M, D)
    held: list[Example]


class Study:
    """Examples with an answer, the readout of the task, and the run's budget."""

    def __init__(self, run: Run, payload: Payload, examples: Sequence[Example]) -> None:
        self.payload, self._run = payload, run
        self.notes: list[str] = []
        self._answers: dict[str, str | float] = {}
        answered = [example for example in examples if self._note_answer(example)]
        if len(answered) < len(examples):
            self.notes.append(f"{len(examples) - len(answered)} examples without {payload.target!r} were left out.")
        self.train = [example for example in answered if example.split == "train"]
        self.validation = [example for example in answered if example.split == "validation"]
        self.readout: Readout = self._make_readout()
        minutes = payload.spec.budget_minutes
        self._deadline = time.monotonic() + minutes * 60 if minutes else math.inf

    def answers(self, examples: Sequence[Example]) -> list[str | float]:
        return [self._answers[example.id] for example in examples]

    def targets(self, examples: Sequence[Example]) -> npt.NDArray[Any]:
        return self.readout.targets(self.answers(examples))

    @property
    def folders(self) -> Folders:
        return self._run.folders

    @property
    def how(self) -> str:
        return "validation" if self.validation else "out-of-fold"

    def parts(self, represent: Callable[[Sequence[Example]], Representation], folds: int) -> Iterator[Part]:
        """The validation split against the training split; without one, grouped folds of the training split.

        Representations are fitted on the learning side only.
        """
        for learn, held in self._divisions(folds):
            representation = represent(learn)
            yield Part(
                representation,
                representation.encode(learn),
                self.targets(learn),
                representation.encode(held),
                held,
            )

    def checkpoint(self) -> None:
        """Between candidates: nothing is lost by stopping here, for a candidate costs seconds."""
        if self._run.stopping:
            raise Stopped

    @property
    def over_budget(self) -> bool:
        return time.monotonic() > self._deadline

    def progress(self, done: float, total: float | None, unit: str, message: str) -> None:
        self._run.progress(done, total, unit, message)

    def _note_answer(self, example: Example) -> bool:
        numeric = find_task(self.payload.task).family == "regression"
        answer = true_answer(example, self.payload.manifest, self.payload.target, numeric=numeric)
        if answer is not None:
            self._answers[example.id] = answer
        return answer is not None

    def _make_readout(self) -> Readout:
        answers, task = self.answers(self.train), find_task(self.payload.task)
        distinct = len(set(answers))
        if distinct < 2:
            raise SpeciateError(
                Code.INVALID,
                f"The training split of {self.payload.dataset} has {distinct} different value(s) of "
                f"{self.payload.target!r}: there is nothing to learn.",
                f"Call describe_dataset(dataset={self.payload.dataset!r}).",
            )
        return Classification.of(answers) if task.family == "classification" else Regression.of(answers)

    def _divisions(self, folds: int) -> Iterator[tuple[list[Example], list[Example]]]:
        if self.validation:
            yield self.train, self.validation
            return
        found = False
        for learn, held in self._fold_places(folds):
            parts = [self.train[i] for i in learn], [self.train[i] for i in held]
            if self.readout.labels and {str(a) for a in self.answers(parts[0])} != set(self.readout.labels):
                continue  # a fold that holds all examples of a label cannot judge
            found = True
            yield parts
        if not found:
            raise SpeciateError(
                Code.INVALID,
                f"{self.payload.dataset} has no validation split and too few groups per label to make one.",
                "Add examples from other groups with add_examples, or bring a validation split.",
            )

    def _fold_places(self, folds: int) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

        groups = [example.group or example.id for example in self.train]
        folds = min(folds, len(set(groups)))
        if self.readout.labels:  # more folds than the commonest label has examples cannot be made
            folds = min(folds, max(Counter(self.answers(self.train)).values()))
        if folds < 2:
            return iter(())
        seed = self.payload.spec.seed
        maker = StratifiedGroupKFold if self.readout.labels else GroupKFold
        splitter = maker(folds, shuffle=True, random_state=seed)
        places: Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = splitter.split(
            np.zeros(len(self.train)), self.targets(self.train), groups
        )
        return places
