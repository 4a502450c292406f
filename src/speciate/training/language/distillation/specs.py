"""What can be set of `distill` where the task is to write: another thing than of networks with a head.

It stands apart from specs.py, whose methods are of language models alone.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from speciate.training.hyperparameters import Parameters
from speciate.training.language.specs import Changes, LanguageParameters


class LanguageDistillParameters(LanguageParameters):
    """Of a language model that learns from others: `distill` for text-generation."""

    changes: Changes = Field("full", description="full: every weight. lora: small changes to all linear layers.")
    answers: Literal["given", "teacher", "student"] = Field(
        "given",
        description="Whose answers are learned from. given: the dataset's. teacher: those that it writes to the same "
        "questions. student: those that the student writes while it learns (on-policy).",
    )
    weight: float | None = Field(
        None, ge=0, le=1,
        description="Of the teacher's chances of what comes next (of one teacher where it has another vocabulary); the "
        "rest learns the answers word by word. None: 1, or 0 where answers are the teacher's, of another vocabulary.",
    )  # fmt: skip
    divergence: float | None = Field(
        None, ge=0, le=1,
        description="From the teacher's chances. 0: all it may say (forward KL). 1: its likeliest (reverse KL). "
        "Between: Jensen-Shannon. None: 1 for the student's answers, else 0.",
    )  # fmt: skip
    temperature: float = Field(1.0, gt=0, le=100, description="Of both models' chances, and of the student's answers.")
    share: float = Field(
        1.0, gt=0, le=1, description="Of steps that learn from the student's answers; the others from the dataset's."
    )
    layers: int | None = Field(
        None, ge=1, description="The student keeps so many of its base model's, evenly spread; none: all of them."
    )
    unlabelled: bool = Field(True, description="Learn from questions without an answer, unless answers are given.")
    control: bool = Field(False, description="Train the same student on the dataset's answers alone, to be compared.")

    @model_validator(mode="after")
    def _chances_of_own_answers(self) -> Self:
        if self.answers == "student" and self.weight not in (None, 1):
            raise ValueError("of the student's own answers nothing is learned word by word: leave weight out")
        if self.answers != "student" and self.share != 1:
            raise ValueError("share is about answers='student' alone")
        return self


def learns_without(parameters: Parameters) -> bool:
    """Whether a student learns from questions alone: its teacher answers them, or it does itself."""
    if not isinstance(parameters, LanguageDistillParameters):
        return False
    return parameters.unlabelled and parameters.answers != "given" and parameters.share == 1


WRITTEN = ("text-generation",)
LANGUAGE_FORMS: dict[str, type[LanguageParameters]] = {"distill": LanguageDistillParameters}
"""Of methods that other tasks have, too: what can be set where the task is to write."""
