"""Time to model, and its guards, as pure functions over the event log.

Time to model runs from `use_case.created` to the first production answer of a model version that passed the gates and
was not rolled back since. Between the two lie milestones that the winning version passed; a stage is the time from one
milestone to the next, so that the stages add up to the whole. Waiting (in the queue, for a person) is inside the stage
where it happened. A use case that was answered is `provisional`: `done` needs a bake period, which does not exist yet.

Stages follow the notion of DORA's lead time; `change_failure_rate` is DORA's, with rollbacks as failures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from speciate.workspace.database import Event

STAGES = ("data", "train", "evaluate", "promote", "first_answer")
_MONTH = 30 * 86_400.0


class TimeToModel(NamedTuple):
    state: Literal["open", "provisional"]
    seconds: float
    """Up to now where the state is open."""
    stages: dict[str, float]
    """Stage -> seconds, of the stages that are over; {data, train, evaluate, promote, first_answer}."""
    model: str | None


class Deliveries(NamedTuple):
    models_deployed_30d: int
    """Distinct versions that were promoted and not rolled back."""
    change_failure_rate: float | None
    """Promotions of 30 days that were rolled back, as a share; None where there were none."""


class Lineage(NamedTuple):
    """When the version that counts passed its milestones; None: not (yet) seen."""

    data: float | None
    train: float | None
    evaluate: float | None
    promote: float | None
    first_answer: float | None


def time_to_model(use_case: str, events: Sequence[Event], now: float, dataset: str | None = None) -> TimeToModel:
    """Of one use case. `events` in order of `seq`, of any subject; `dataset` (`name@v1`) is what the winner saw."""
    subject = f"use_case:{use_case}"
    own = [event for event in events if event.subject == subject]
    start = next((event.at for event in own if event.type == "use_case.created"), None)
    if start is None:
        return TimeToModel("open", 0.0, {}, None)
    answer = _first_lasting_answer(own)
    model = answer.data["model"] if answer else None
    lineage = _lineage(own, events, start, model, dataset)
    stages = _spans(start, lineage)
    if answer:
        return TimeToModel("provisional", answer.at - start, stages, model)
    return TimeToModel("open", now - start, stages, None)


def deliveries(events: Iterable[Event], now: float) -> Deliveries:
    """Over all use cases, of the last 30 days."""
    moves = [event for event in events if event.type == "alias.moved" and event.at > now - _MONTH]
    promoted = {(move.subject, move.data["after"]) for move in moves if move.data["action"] == "promote"}
    undone = {(move.subject, move.data["before"]) for move in moves if move.data["action"] == "rollback"}
    failed = promoted & undone
    return Deliveries(len(promoted - undone), len(failed) / len(promoted) if promoted else None)


def _first_lasting_answer(own: Sequence[Event]) -> Event | None:
    undone = {
        event.data["before"] for event in own if event.type == "alias.moved" and event.data["action"] == "rollback"
    }
    answers = (event for event in own if event.type == "production.answered")
    return next((event for event in answers if event.data["model"] not in undone), None)


def _lineage(
    own: Sequence[Event], events: Sequence[Event], start: float, model: str | None, dataset: str | None
) -> Lineage:
    """Milestones of `model`; of any version while none has answered."""

    def first(found: Iterable[Event], **wanted: str | None) -> float | None:
        for event in found:
            if all(value is None or event.data.get(key) == value for key, value in wanted.items()):
                return event.at
        return None

    def of_type(among: Iterable[Event], type: str) -> Iterable[Event]:  # noqa: A002 - the column
        return (event for event in among if event.type == type)

    promoted = first(of_type(own, "alias.moved"), after=model)
    trained = first(of_type(events, "model.created"), model=model) if model else None
    decided = first(of_type(own, "decision.made"), candidate=model)
    data = first(of_type(_of_dataset(events, dataset), "dataset.created"))
    answered = first(of_type(own, "production.answered"), model=model) if model else None
    return Lineage(data, trained, decided, promoted, answered)


def _of_dataset(events: Sequence[Event], dataset: str | None) -> list[Event]:
    """Those of one version, `name@v1`; none where it is not known."""
    name, _, version = (dataset or "").partition("@v")
    return [event for event in events if event.subject == f"dataset:{name}" and str(event.data["version"]) == version]


def _spans(start: float, lineage: Lineage) -> dict[str, float]:
    """A milestone that was passed before the clock started, or before the one ahead of it, cost nothing."""
    spans, last = {}, start
    for stage, moment in zip(STAGES, lineage, strict=True):
        if moment is None:
            continue
        spans[stage] = max(0.0, moment - last)
        last = max(last, moment)
    return spans
