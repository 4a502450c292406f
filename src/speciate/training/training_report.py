"""What a training reports, as JSON: the result of the job `train`, which `specialize`, cards and pages read.

Stored names: a field that is renamed here would be missing in every report that was made before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

MethodReport = dict[str, Any]
"""What a method adds to the report, and hyperparameters that were left to the training: other keys for each method."""
PackedVersion = Mapping[str, Any]
"""A dataset version that was made for the training, as `next_version.pack_version` gives it."""


class NestedValue(TypedDict):
    value: float | None
    standard_error: float | None


class Validation(TypedDict):
    """The chosen candidate's value of the metric on held-out examples. None where it does not exist."""

    value: float | None
    interval: list[float] | None
    """95 %."""
    standard_error: float | None
    n: int
    how: str
    method: str
    nested: NotRequired[NestedValue]
    """The value of a choice that was made without the examples that judge it. Where the best is wanted, on tables."""


class CandidateRow(TypedDict):
    """A setting that was tried, or was not, for a `reason`."""

    name: str
    seconds: float
    value: float | None
    chosen: bool
    reason: NotRequired[str]


class MemberRow(TypedDict):
    """A learner that the model answers by; one of several has its weight in their mean."""

    learner: str
    settings: str
    """In a few words; empty: the usual ones."""
    reads: str
    """The representation of an example that it reads."""
    weight: float


class Repetition(TypedDict):
    """What came out otherwise than the first time, and what may be why: name -> [before, after]."""

    like: str
    same_model: bool
    same_dataset: bool
    metrics: Mapping[str, Sequence[object]]
    environment: Mapping[str, Sequence[object]]


class LearningCurve(TypedDict):
    """The chosen learner's value when it learns from parts of the training examples."""

    points: list[list[float]]
    """[examples, value]."""
    examples_for_target: int | None
    """How many would do, at least; None where the curve does not say."""


class TrainReport(TypedDict, total=False):
    """Report of a training, with the keys of a `MethodReport` beside these."""

    dataset: str
    task: str
    modality: str
    method: str
    base_model: str | None
    metric: str
    target: str | None
    validation: Validation
    candidates: list[CandidateRow]
    members: list[MemberRow]
    """The learners that the model is made of, where it was chosen among such."""
    examples: int
    labels: list[str]
    seconds: float
    cost: Mapping[str, Any]
    """What `estimates` scales with, and what it scales."""
    dearer: list[Mapping[str, Any]]
    notes: list[str]
    parts: list[str]
    ignored_parts: list[str]
    left_out: int | None
    usd: float
    repetition: Repetition
    learning_curve: LearningCurve
    """Only where the target was missed."""
    replay: dict[str, object]
    """What continual learning drew from earlier versions."""
