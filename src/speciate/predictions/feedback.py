"""Feedback of people, agents and systems on answers: what it says, and how it is checked and added to the log.

Feedback is only ever added. The latest of each source counts. If sources differ, a person's label wins over an agent's,
and an agent's over a system's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
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
from speciate.predictions import prediction_ids, reading
from speciate.predictions.log import AnswerLog
from speciate.predictions.log_files import DroppedAnswers
from speciate.predictions.reading import LoggedAnswer, StoredFeedback
from speciate.refs import ALPHABET
from speciate.settings import Log

Source = Literal["human", "agent", "system"]
SOURCES: tuple[Source, ...] = ("human", "agent", "system")
Selection = Literal["random", "uncertain", "disagreement"]
LONGEST, LONGEST_MASK = 20_000, 1 << 18
"""Characters of a label, and of one that is a mask: that of a photo of 4 megapixels has 25,000 to 110,000."""

BySource = Mapping[str, StoredFeedback]
"""Source -> its latest feedback on one answer."""


class Feedback(BaseModel):
    """One feedback as it is sent: a label (what the answer should have been) or a score, 0 to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prediction: str = Field(max_length=64)
    label: StrictStr | StrictInt | StrictFloat | StrictBool | Mapping[str, Any] | list[Any] | None = None
    score: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    source: Source
    by: str = Field("", max_length=100)
    drawn: Selection | None = None
    new_class: StrictBool = False
    """Whether the label may be a class that the model does not know."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Feedback:
        if (self.label is None) == (self.score is None):
            raise ValueError("give either label or score")
        if len(str(self.label)) > (most := longest(self.label)):
            raise ValueError(f"a label has at most {most:,} characters")
        return self


def longest(label: Any) -> int:
    """Characters that a label like this may have."""
    regions = isinstance(label, list) and all(isinstance(each, Mapping) and "segmentation" in each for each in label)
    return LONGEST_MASK if regions or (isinstance(label, str) and label.startswith('{"labels"')) else LONGEST


def make_feedback(**fields: Any) -> Feedback:
    """Raises INVALID with the first problem."""
    try:
        return Feedback.model_validate(fields)
    except ValidationError as error:
        problem = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise SpeciateError(
            Code.INVALID, f"This is no feedback: {problem}.", "Call record_feedback with label=... or score=0 to 1."
        ) from None


class Correctness(NamedTuple):
    """How right an answer was by its feedback."""

    value: float
    measure: Literal["right", "score", "absolute_error"]
    source: str
    drawn: str | None


def latest_by_source(given: Iterable[StoredFeedback]) -> dict[str, dict[str, StoredFeedback]]:
    """Prediction -> source -> its latest. `given` in any order."""
    found: dict[str, dict[str, StoredFeedback]] = {}
    for each in sorted(given, key=lambda one: one.at):
        found.setdefault(each.prediction, {})[each.source] = each
    return found


def prevailing_label(by_source: BySource) -> StoredFeedback | None:
    """The feedback whose label counts; None if nobody gave a label."""
    return next((by_source[source] for source in SOURCES if _has_label(by_source, source)), None)


def correctness(output: Any, by_source: BySource) -> Correctness | None:
    """How right an answer was: by the prevailing label, else by the score of the first source."""
    if (found := prevailing_label(by_source)) is not None:
        if _is_number(output) and _is_number(found.label):
            return Correctness(abs(output - found.label), "absolute_error", found.source, found.drawn)
        return Correctness(float(matches_label(output, found.label)), "right", found.source, found.drawn)
    for source in SOURCES:
        if source in by_source and by_source[source].score is not None:
            scored = by_source[source]
            return Correctness(float(scored.score or 0.0), "score", source, scored.drawn)
    return None


def matches_label(output: Any, label: Any) -> bool:
    """Whether an answer is what the label says: classes are compared as texts, all else as JSON."""
    if isinstance(output, str | int | float | bool) and isinstance(label, str | int | float | bool):
        return str(output).strip() == str(label).strip()
    return bool(output == label)


def has_disagreement(output: Any, by_source: BySource) -> bool:
    """Whether a source contradicts the answer (another label, or a score below one half), or another source."""
    labels = [given.label for given in by_source.values() if given.label is not None]
    low = any(given.score is not None and given.score < 0.5 for given in by_source.values())
    return (
        low
        or any(not matches_label(output, label) for label in labels)
        or any(not matches_label(labels[0], label) for label in labels)
    )


def _has_label(by_source: BySource, source: str) -> bool:
    return source in by_source and by_source[source].label is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class RecordedFeedback(NamedTuple):
    answer: LoggedAnswer
    standing: dict[Source, StoredFeedback]
    """The latest of each source, this one among them."""


def store_feedback(
    log: AnswerLog, feedback: Feedback, now: float, check: Callable[[LoggedAnswer, Feedback], None]
) -> RecordedFeedback:
    """Add it; on the disk when this returns. `check` raises where the label cannot be one of this answer.

    Raises what `check` raises, INVALID for what is no id, NOT_FOUND where the log does not hold the answer (with what
    is known of why), UNAVAILABLE where nothing can be written.
    """
    answer = find_logged_answer(log, feedback.prediction, now)
    check(answer, feedback)
    given = feedback.model_dump(exclude_none=True, exclude={"new_class"}) | {"prediction": answer.id}
    if not log.feedback(given):
        raise SpeciateError(
            Code.UNAVAILABLE,
            "The disk that holds the workspace is full or takes nothing more, so the feedback was not written.",
            "Free some space (manage_data(action='gc')), then repeat the call.",
        )
    since = reading.retention_start(now, log.settings.retention_days)
    own = reading.feedback(log.folder, since=since, of=answer.id)
    return RecordedFeedback(answer, latest_by_source(own)[answer.id])  # type: ignore[arg-type]


def find_logged_answer(log: AnswerLog, prediction: str, now: float) -> LoggedAnswer:
    """The answer of this id. Raises INVALID or NOT_FOUND."""
    parsed = prediction_ids.parse(prediction)
    if parsed is not None and parsed.tag != prediction_ids.tag(log.use_case):
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{prediction} is no answer of {log.use_case!r}: its id names another use case.",
            "Send it to the deployment of that use case, or call record_feedback.",
        )
    since = reading.retention_start(now, log.settings.retention_days)
    found = reading.find(log.folder, prediction, since=since) if parsed is not None else None
    if found is None:
        raise missing_answer_error(prediction, log.settings, log.folder.dropped(), now)
    return found


def missing_answer_error(prediction: str, settings: Log, dropped: DroppedAnswers, now: float) -> SpeciateError:
    """Why the log does not hold this answer, as far as its id, the settings and the dropped answers tell. Pure.

    `prediction`: an id that was not found in the log of the use case that it names.
    """
    parsed = prediction_ids.parse(prediction)
    if parsed is None:
        return SpeciateError(
            Code.INVALID,
            f"{prediction!r} is no id that was given to an answer: those are {prediction_ids.NOUN!r} and then "
            f"{prediction_ids.LENGTH} characters, of {ALPHABET}.",
            "Take the field `prediction` of an answer of predict or of a deployment's POST /predict, or the id of a "
            "chat completion.",
        )
    when = datetime.fromtimestamp(parsed.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if parsed.at > now + 60:
        message = f"{prediction} says that it was given at {when}, which has not been yet: no answer of this machine"
        advice = "Check the id."
    elif parsed.at < now - settings.retention_days * 86_400:
        message = f"{prediction}, of {when}, expired: answers are kept for {settings.retention_days:g} days"
        advice = "Give feedback sooner, or let a person raise retention_days in [log] of settings.toml."
    elif not prediction_ids.is_sampled(prediction_ids.strip_chat_prefix(prediction), settings.sample):
        message = f"{prediction} was never logged: only {settings.sample:.3g} of all answers are, and not this one"
        advice = "Give feedback on others; a person raises sample in [log] of settings.toml."
    elif parsed.at <= dropped.until:
        message = f"{prediction}, of {when}, went for want of room: the log may take {settings.quota_mb:g} MB"
        advice = "Give feedback sooner, or let a person raise quota_mb in [log] of settings.toml."
    else:
        message = (
            f"{prediction}, of {when}, is not in the log: it was forgotten, the disk took no line at that time, "
            "or the log kept fewer answers then"
        )
        advice = "Read speciate://use-cases/NAME/answers for what is there."
    return SpeciateError(Code.NOT_FOUND, f"{message}.", advice)
