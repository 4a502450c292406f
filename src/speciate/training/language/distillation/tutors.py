"""Language models that teach: as models that a trainer compares with, and what they answer to questions, asked once.

An answer is kept where evaluations and the operation `answer` keep theirs, so that none of the three computes again
what another has, nor a run that was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from speciate.datasets.loading.loader import Example
from speciate.evaluation.answers import Answer, answer_all
from speciate.language import bases
from speciate.language.forms import Form
from speciate.language.generation import Sampling
from speciate.tasks import writing
from speciate.tasks.contract import Prediction
from speciate.tasks.writing import WritingPredictor
from speciate.training.specs import Teacher
from speciate.training.study import Study

_AT_ONCE = 32
"""Questions whose answers are on disk together: a kill costs no more."""
_EMPTY = "the answer is empty"
_SHOWN = 3


class Said(NamedTuple):
    """A question with a teacher's answer."""

    example: Example
    answer: str


def folder(study: Study, teacher: Teacher) -> Path:
    """Of its weights, which may be converted first."""
    return bases.ready(Path(teacher.folder), study.folders.cache)


def longest(folder: Path) -> int:
    """Tokens that a model can see, as its configuration says."""
    from transformers import AutoConfig

    read: Any = AutoConfig.from_pretrained
    return bases.longest(SimpleNamespace(config=read(folder, local_files_only=True, trust_remote_code=False)))


def asked_as(teacher: Teacher) -> Form | None:
    """How a model of ours is asked; None of one that others made."""
    return writing.form_of(Path(teacher.folder))


def predictor(study: Study, teacher: Teacher, longest_answer: int) -> WritingPredictor:
    """As it answers; one that others made writes no longer answers than the student may."""
    found = writing.load(folder(study, teacher), study.payload.threads)
    if asked_as(teacher) is None:
        found.sampling = found.sampling.model_copy(update={"max_new_tokens": longest_answer})
    return found


def answers(study: Study, teacher: Teacher, examples: Sequence[Example], longest_answer: int) -> list[Answer]:
    """One for each. Raises Stopped between batches where the run is asked to stop."""
    usual = asked_as(teacher) is not None or longest_answer == Sampling().max_new_tokens
    identity = writing.identity(Path(teacher.folder), teacher.id) + ("" if usual else f" {longest_answer}")
    model: list[WritingPredictor] = []

    def ask(some: Sequence[Example]) -> list[Prediction]:
        if not model:  # only where an answer is not known yet
            model.append(predictor(study, teacher, longest_answer))
            model[0].model.to(study.payload.device)
        return model[0].predict(some)

    def tell(done: int) -> None:
        study.progress(done, len(examples), "answers", f"asking {teacher.model}")

    return answer_all(study.run, identity, examples, ask, tell, at_once=_AT_ONCE)


def lessons_of(study: Study, examples: Sequence[Example], longest_answer: int) -> list[Said]:
    """What all teachers say to these; the same answer of two counts once. What got none is set aside and said."""
    found: dict[tuple[str, str], Said] = {}
    for teacher in study.payload.teachers:
        failed: Counter[str] = Counter()
        for example, answer in zip(examples, answers(study, teacher, examples, longest_answer), strict=True):
            text = "" if answer.output is None else str(answer.output)
            if answer.error or not text.strip():
                failed[answer.error or _EMPTY] += 1
            else:
                found.setdefault((example.id, text), Said(example, text))
        for reason, count in failed.most_common(_SHOWN):
            study.notes.append(f"{count} questions got no answer of {teacher.model} and are left out: {reason}.")
    return sorted(found.values(), key=lambda each: (each.example.id, each.answer))
