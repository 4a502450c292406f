"""How often a watch tells people: a month in which everything happens that a watch tells of, counted by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import Job
from speciate.loop.notifications import DeliveryFailed, Hook, Notice, notice_of
from speciate.loop.watch import news
from speciate.loop.watch.definition import DAY
from speciate.promotion import bake
from speciate.settings import Notify, Settings
from speciate.workspace.database import Transaction
from tests.loop.watch import year as world
from tests.loop.watch.year import START, USE_CASE, Step, Window, Year

DAYS = 31
LOOKS = (0.3, 0.8)
"""When a day is looked at."""
AT_ONCE = ("approval.requested", "watch.labels", "alias.moved")
"""Questions, and what was taken out of production."""
TIMES = {"budget": (2, 3, 12, 22), "digest": (1, 16, 23), "disagreement": (2, 12, 16), "rollback": (8, 23)}
"""Days on which a thing happens; each of these is told of."""


class Told(NamedTuple):
    day: int
    type: str
    seq: int


class Person:
    """Takes notices; on some days what brings them is broken."""

    def __init__(self, year: Year) -> None:
        self.year, self.told = year, list[Told]()

    def __call__(self, notice: Notice) -> None:
        day = int((self.year.clock.time - START) // DAY)
        if day in (12, 13):
            raise DeliveryFailed("it is down")
        self.told.append(Told(day, notice.kind, int(notice.id.rpartition("-")[2])))


def _happens(year: Year, day: int) -> None:
    """What a watch tells of, beside the episodes that it goes through by itself; twice, as nothing prevents it."""
    for name, days in TIMES.items():
        for _ in range(0 if day not in days else 1 if name == "rollback" else 2):
            year.database.transact(lambda tx, name=name: _event(tx, name))  # type: ignore[misc]  # bound now


def _event(tx: Transaction, name: str) -> None:
    subject = f"use_case:{USE_CASE}"
    if name == "digest":
        news.tell(tx, USE_CASE, news.Digest("2027-01", 12, 3, ()))
    elif name == "rollback":
        tx.event(subject, "alias.moved", {"action": "rollback", "actor": bake.ACTOR, "before": "m@v3", "after": "m@v2"})
    else:
        tx.event(subject, f"watch.{name}", {"episode": 1, "text": name})


def _broken(tx: Transaction, spec: Step, job: Job, settings: Settings) -> Mapping[str, object]:
    raise SpeciateError(Code.INVALID, "no room")


def _alarming(tx: Transaction, spec: Window, job: Job, settings: Settings) -> Mapping[str, object]:
    signal = {"name": "inputs", "alarm": True, "onset": spec.begin, "log_evidence": 7.0}
    return {"signals": [signal]}


@pytest.mark.parametrize("mines", ["well", "badly"])
def test_a_month_has_at_most_one_notice_a_day_beside_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mines: str
) -> None:
    monkeypatch.setattr(world, "SHIFTS", (3, 17))
    monkeypatch.setattr(world, "DEFECT", 2)
    monkeypatch.setattr(world, "_monitor", _alarming)
    if mines == "badly":
        monkeypatch.setattr(world, "_mine", _broken)
    year = Year(tmp_path / "w")
    person = Person(year)
    hook = Hook(year.workspace, "command", person)
    since = year.database.last_seq
    for day in range(DAYS):
        for part in LOOKS:
            year.clock.time = START + (day + part) * DAY
            year.database.transact(year._bake)
            year.watcher.look()
            if part == LOOKS[1]:
                _happens(year, day)
            hook.look()
    told, types = person.told, {each.seq: each.type for each in year.database.events_after(since, 10_000)}
    raw = [each for each in year.database.events_after(since, 10_000) if notice_of(each, Notify(), "w") is not None]
    year.close()
    counted = Counter(each.day for each in told if types[each.seq] not in AT_ONCE)
    assert counted
    assert max(counted.values()) == 1, counted
    assert len(raw) > len(told), "more happened than was told"
    assert len({each.seq for each in told}) == len(told), "nothing is told twice"
    found = {types[each.seq] for each in told}
    assert {"watch.ended", "alias.moved"} <= found
    assert ("watch.labels" in found) is (mines == "well")
    assert not any(type_.startswith("job.") for type_ in found), "the end of an episode tells of its jobs"
    rolled_back = [each for each in raw if each.type == "alias.moved"]
    assert {int((each.at - START) // DAY) for each in rolled_back} >= {8, 23}
    for day in (8, 23):
        assert any(each.day == day and types[each.seq] == "alias.moved" for each in told), "at once"


def test_a_clock_that_is_set_back_silences_nobody(tmp_path: Path) -> None:
    year = Year(tmp_path / "w")
    person = Person(year)
    hook = Hook(year.workspace, "command", person)
    for days in (40, 0, 0.5, 1.1):
        year.clock.time = START + days * DAY
        year.database.transact(lambda tx: _event(tx, "budget"))
        hook.look()
    year.close()
    assert [each.day for each in person.told] == [40, 0, 1], "that of half a day later waits, and the newest is told"
