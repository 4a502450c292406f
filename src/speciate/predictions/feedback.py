"""What people, agents and systems said of answers. Pure.

Feedback is only ever added. Of each source the latest counts; where sources differ, a person's label stands before an
agent's, and that before a system's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from speciate.errors import Code, SpeciateError
from speciate.predictions.reading import Given

Source = Literal["human", "agent", "system"]
SOURCES: tuple[Source, ...] = ("human", "agent", "system")
Drawn = Literal["random", "uncertain", "disagreement"]
LONGEST = 20_000
"""Characters of a label."""

BySource = Mapping[str, Given]
"""Source -> its latest feedback on one answer."""


class Feedback(BaseModel):
    """One feedback as it is sent: a label (what the answer should have been) or a score, 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prediction: str = Field(max_length=64)
    label: StrictStr | StrictInt | StrictFloat | StrictBool | dict[str, Any] | list[Any] | None = None
    score: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    source: Source
    by: str = Field("", max_length=100)
    drawn: Drawn | None = None
    new_class: StrictBool = False
    """Whether the label may be a class that the model does not know."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Feedback:
        if (self.label is None) == (self.score is None):
            raise ValueError("give either label or score")
        if len(str(self.label)) > LONGEST:
            raise ValueError(f"a label has at most {LONGEST:,} characters")
        return self


def feedback(**fields: Any) -> Feedback:
    """Raises INVALID where it is none."""
    try:
        return Feedback.model_validate(fields)
    except ValidationError as error:
        told = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise SpeciateError(
            Code.INVALID, f"This is no feedback: {told}.", "Call record_feedback with label=... or score=0 to 1."
        ) from None


class Judged(NamedTuple):
    """How right an answer was by its feedback."""

    value: float
    measure: Literal["right", "score", "absolute_error"]
    source: str
    drawn: str | None


def latest(given: Iterable[Given]) -> dict[str, dict[str, Given]]:
    """Prediction -> source -> its latest. `given` in any order."""
    found: dict[str, dict[str, Given]] = {}
    for each in sorted(given, key=lambda one: one.at):
        found.setdefault(each.prediction, {})[each.source] = each
    return found


def label(by_source: BySource) -> Given | None:
    """The feedback whose label stands; None where nobody gave one."""
    return next((by_source[source] for source in SOURCES if _labels(by_source, source)), None)


def judged(output: Any, by_source: BySource) -> Judged | None:
    """An answer beside what was said of it: by the label that stands, else by the score of the first source."""
    if (found := label(by_source)) is not None:
        if _is_number(output) and _is_number(found.label):
            return Judged(abs(output - found.label), "absolute_error", found.source, found.drawn)
        return Judged(float(same(output, found.label)), "right", found.source, found.drawn)
    for source in SOURCES:
        if source in by_source and by_source[source].score is not None:
            scored = by_source[source]
            return Judged(float(scored.score or 0.0), "score", source, scored.drawn)
    return None


def same(output: Any, told: Any) -> bool:
    """Whether an answer is what the label says: classes are compared as texts, all else as JSON."""
    if isinstance(output, str | int | float | bool) and isinstance(told, str | int | float | bool):
        return str(output).strip() == str(told).strip()
    return bool(output == told)


def disagree(output: Any, by_source: BySource) -> bool:
    """Whether a source contradicts the answer (another label, or a score below one half), or another source."""
    labels = [given.label for given in by_source.values() if given.label is not None]
    low = any(given.score is not None and given.score < 0.5 for given in by_source.values())
    return low or any(not same(output, told) for told in labels) or any(not same(labels[0], told) for told in labels)


def _labels(by_source: BySource, source: str) -> bool:
    return source in by_source and by_source[source].label is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
