"""Why the log does not hold an answer: what can be told from its id, the settings and what was dropped. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from speciate.errors import Code, SpeciateError
from speciate.ids import ALPHABET
from speciate.predictions import identity
from speciate.predictions.folder import Dropped
from speciate.settings import Log


def why(prediction: str, settings: Log, dropped: Dropped, now: float) -> SpeciateError:
    """`prediction`: an id that was not found in the log of the use case that it names."""
    parsed = identity.parse(prediction)
    if parsed is None:
        return SpeciateError(
            Code.INVALID,
            f"{prediction!r} is no id that was given to an answer: those are {identity.NOUN!r} and then "
            f"{identity.LENGTH} characters, of {ALPHABET}.",
            "Take the field `prediction` of an answer: of predict, of the slot's POST /predict, or the id of a chat "
            "completion.",
        )
    when = datetime.fromtimestamp(parsed.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if parsed.at > now + 60:
        told = f"{prediction} says that it was given at {when}, which has not been yet: no answer of this machine"
        then = "Check the id."
    elif parsed.at < now - settings.retention_days * 86_400:
        told = f"{prediction}, of {when}, expired: answers are kept for {settings.retention_days:g} days"
        then = "Give feedback sooner, or let a person raise retention_days in [log] of settings.toml."
    elif not identity.sampled(identity.bare(prediction), settings.sample):
        told = f"{prediction} was never logged: only {settings.sample:.3g} of all answers are, and it is none of them"
        then = "Give feedback on others; a person raises sample in [log] of settings.toml."
    elif parsed.at <= dropped.until:
        told = f"{prediction}, of {when}, went for want of room: the log may take {settings.quota_mb:g} MB"
        then = "Give feedback sooner, or let a person raise quota_mb in [log] of settings.toml."
    else:
        told = (
            f"{prediction}, of {when}, is not in the log: it was forgotten, the disk took no line at that time, "
            "or the log kept fewer answers then"
        )
        then = "Read speciate://use-cases/NAME/answers for what is there."
    return SpeciateError(Code.NOT_FOUND, f"{told}.", then)
