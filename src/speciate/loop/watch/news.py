"""What is new among published base models: a refresh a week where a watch asks for it, and one digest a month.

A model that nobody fetched is told of and never downloaded; once it is fetched or installed, `new_base_model` fires.
Names, licences and sizes are what the index says of a model, as a search shows them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from speciate.models.search.refresh import NewModel
from speciate.use_cases import UseCase
from speciate.workspace.database import Database, Transaction

REFRESH_SECONDS = 7 * 86_400.0
_SHOWN = 20
_RESULTS = """
SELECT result FROM jobs WHERE kind = 'refresh' AND state = 'succeeded' AND result IS NOT NULL
    AND coalesce(ended, created) >= ? AND coalesce(ended, created) < ? ORDER BY created
"""
_DIGESTS = "SELECT data FROM events WHERE type = 'watch.digest' AND subject = ? ORDER BY seq DESC LIMIT 1"


class Digest(NamedTuple):
    """New base models of one month: how many there are, and which suit one use case."""

    month: str
    """The month, as 2026-11."""
    new: int
    suits: int
    refs: tuple[str, ...]
    """Refs of those that suit, the most fetched first."""


def refresh_key(now: float) -> str:
    """Key of the refresh of a week, counted from the epoch: the same week is the same job."""
    return f"refresh/week/{int(now // REFRESH_SECONDS)}"


def suits(model: NewModel, use_case: UseCase, modality: str) -> bool:
    """Its medium, its licence and its size are those that the use case allows; what is not known does not suit. Which
    tasks it was published for is no bound: it is a base to train on."""
    limits = use_case.limits
    licensed = not limits.licenses or model["license"] in limits.licenses
    small = limits.max_parameters is None or (
        model["parameters"] is not None and model["parameters"] <= limits.max_parameters
    )
    return modality in model["modalities"] and licensed and small and not model["ref"].startswith("api:")


def month_before(now: float) -> tuple[str, float, float]:
    """The last calendar month (UTC) that is over: its name, when it began, and when it ended."""
    day = datetime.fromtimestamp(now, UTC)
    end = datetime(day.year, day.month, 1, tzinfo=UTC)
    begin = datetime(end.year - (end.month == 1), 12 if end.month == 1 else end.month - 1, 1, tzinfo=UTC)
    return begin.strftime("%Y-%m"), begin.timestamp(), end.timestamp()


def published(database: Database, begin: float, end: float) -> list[NewModel]:
    """What the refreshes of [begin, end) found that the index had not, each once."""
    found: dict[str, NewModel] = {}
    for (text,) in database.read(_RESULTS, [begin, end]):
        for each in json.loads(text).get("new", ()):
            found.setdefault(each["ref"], each)
    return list(found.values())


def digest(month: str, models: Iterable[NewModel], use_case: UseCase, modality: str) -> Digest:
    """Pure."""
    every = list(models)
    fitting = [each["ref"] for each in every if suits(each, use_case, modality)]
    return Digest(month, len(every), len(fitting), tuple(fitting[:_SHOWN]))


def last_digest(database: Database, use_case: str) -> Digest | None:
    row = database.read_one(_DIGESTS, [f"use_case:{use_case}"])
    if row is None:
        return None
    data = json.loads(row[0])
    return Digest(data["month"], data["new"], data["suits"], tuple(data["refs"]))


def tell(tx: Transaction, use_case: str, found: Digest) -> None:
    tx.event(f"use_case:{use_case}", "watch.digest", {**found._asdict(), "refs": list(found.refs)})


def untold(database: Database, use_cases: Sequence[str], month: str) -> list[str]:
    """Use cases that were told of no month since this one."""
    return [name for name in use_cases if (last := last_digest(database, name)) is None or last.month < month]
