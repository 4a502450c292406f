"""Feedback on an answer: checked against the log, then added to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.predictions import identity, reading
from speciate.predictions.feedback import Feedback, Source, latest
from speciate.predictions.log import Log
from speciate.predictions.reading import Answered, Given
from speciate.predictions.unknown import why


class Recorded(NamedTuple):
    answer: Answered
    standing: dict[Source, Given]
    """The latest of each source, this one among them."""


def record(log: Log, feedback: Feedback, now: float, check: Callable[[Answered, Feedback], None]) -> Recorded:
    """Add it; on the disk when this returns. `check` raises where the label cannot be one of this answer.

    Raises what `check` raises, INVALID for what is no id, NOT_FOUND where the log does not hold the answer (with what
    is known of why), UNAVAILABLE where nothing can be written.
    """
    answer = held(log, feedback.prediction, now)
    check(answer, feedback)
    given = feedback.model_dump(exclude_none=True, exclude={"new_class"}) | {"prediction": answer.id}
    if not log.feedback(given):
        raise SpeciateError(
            Code.UNAVAILABLE,
            "The disk that holds the workspace is full or takes nothing more, so the feedback was not written.",
            "Free some space (manage_data(action='gc')), then repeat the call.",
        )
    since = reading.since_of(now, log.settings.retention_days)
    own = reading.feedback(log.folder, since=since, of=answer.id)
    return Recorded(answer, latest(own)[answer.id])  # type: ignore[arg-type]


def held(log: Log, prediction: str, now: float) -> Answered:
    """The answer of this id. Raises INVALID or NOT_FOUND."""
    parsed = identity.parse(prediction)
    if parsed is not None and parsed.tag != identity.tag(log.use_case):
        raise SpeciateError(
            Code.NOT_FOUND,
            f"{prediction} is no answer of {log.use_case!r}: its id names another use case.",
            "Send it to the slot of that use case, or call record_feedback.",
        )
    since = reading.since_of(now, log.settings.retention_days)
    found = reading.find(log.folder, prediction, since=since) if parsed is not None else None
    if found is None:
        raise why(prediction, log.settings, log.folder.dropped(), now)
    return found
