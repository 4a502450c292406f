"""Which queued jobs may start now, by resources and by disk space, and which running ones must stop. Pure.

How much a run will write is what its plan says, else the most that the last runs of its kind left in their folders,
else a usual amount. A live run is taken to have written nothing yet, so several that start together cannot exceed the
disk. Kinds that free space are never held back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

from speciate.jobs.job import Job, Resources
from speciate.settings import Capacity
from speciate.workspace.disk_space import DiskSpace, format_bytes

PATIENCE_SECONDS = 60.0
COURTESY_SECONDS = 5.0
"""Seconds for which a job that somebody waits for leaves runs in the background alone."""
_MOST_NAMED = 3
_CLOCK_SECONDS = 5.0
"""Seconds by which a clock is slewed back without having been set."""


def _pool(resources: Resources) -> dict[str, float]:
    pool = {"cpu": resources.cpu, "memory": float(resources.memory_mb), "gpu": float(resources.gpu)}
    return pool | {f"named:{name}": float(count) for name, count in resources.named.items()}


def _free(capacity: Capacity, live: Iterable[Resources]) -> dict[str, float]:
    free = {"cpu": capacity.cpu, "memory": float(capacity.memory_mb), "gpu": float(capacity.gpu)}
    free |= {f"named:{name}": float(count) for name, count in capacity.named.items()}
    for resources in live:
        for name, amount in _pool(resources).items():
            free[name] = free.get(name, 0.0) - amount
    return free


def never_fits(resources: Resources, capacity: Capacity) -> str | None:
    """What this machine will never have enough of for it, in words."""
    whole = _free(capacity, ())
    for name, amount in _pool(resources).items():
        if not amount <= whole.get(name, 0.0):  # written so that what is no number never fits, either
            return f"{amount:g} of {name} asked, {whole.get(name, 0.0):g} there"
    return None


def how_many_fit(resources: Resources, capacity: Capacity) -> float:
    """How many runs that ask for the same there is room for at once, with a fraction; without limit: inf."""
    whole = _free(capacity, ())
    return min(
        (whole.get(name, 0.0) / amount for name, amount in _pool(resources).items() if amount > 0), default=math.inf
    )


def waiting(queued: Sequence[Job], chosen: Sequence[Job], live: Sequence[Job], capacity: Capacity) -> dict[str, str]:
    """Why each job that was not chosen waits: the resource that is short, and the jobs that hold it."""
    busy, started = [*live, *chosen], {job.id for job in chosen}
    free = _free(capacity, (job.resources for job in busy))
    found, before = dict[str, str](), list[str]()
    for job in sorted(queued, key=lambda job: (-job.priority, job.created, job.id)):
        if job.id not in started:
            found[job.id] = _why_waiting(job, busy, before, free)
            before.append(job.id)
    return found


def _why_waiting(job: Job, busy: Sequence[Job], before: Sequence[str], free: dict[str, float]) -> str:
    asks = _pool(job.resources)
    short = [name for name, amount in asks.items() if amount > max(0.0, free.get(name, 0.0))]
    if not short:  # enough is free, but kept for one that has waited long
        return f"It waits for its turn behind {_list_jobs(before)}."
    wants = " and ".join(f"{_amount(name, asks[name])} ({max(0.0, free.get(name, 0.0)):g} free)" for name in short)
    having = [each.id for each in busy if any(_pool(each.resources).get(name, 0.0) > 0 for name in short)]
    return f"It waits for {wants}, in use by {_list_jobs(having)}."


def _amount(pool: str, amount: float) -> str:
    known = {"cpu": "CPU core", "memory": "MB of memory", "gpu": "GPU"}
    if pool not in known:
        return f"{amount:g} of {pool.removeprefix('named:')}"
    return f"{amount:g} {known[pool]}{'s' if amount != 1 and pool != 'memory' else ''}"


def _list_jobs(jobs: Sequence[str]) -> str:
    more = [f"{len(jobs) - _MOST_NAMED} more"] if len(jobs) > _MOST_NAMED else []
    return ", ".join([*jobs[:_MOST_NAMED], *more])


def is_due(job: Job, now: float) -> bool:
    """Whether its pause before the next try is over. Where the clock went back behind the moment at which the pause was
    set, nobody knows how long that is ago: then it is, for a pause is minutes, and the clock may be back by a year."""
    return job.not_before <= now or now < job.changed - _CLOCK_SECONDS


def choose(queued: Sequence[Job], live: Sequence[Job], capacity: Capacity, now: float) -> list[Job]:
    """The jobs to start, in order. `queued` may hold jobs whose backoff has not passed."""
    free = _free(capacity, (job.resources for job in live))
    chosen = []
    for job in sorted(queued, key=lambda job: (-job.priority, job.created, job.id)):
        if not is_due(job, now):
            continue
        needs = {name: amount for name, amount in _pool(job.resources).items() if amount > 0}
        if all(free.get(name, 0.0) >= amount for name, amount in needs.items()):
            chosen.append(job)
        elif 0 <= now - job.created < PATIENCE_SECONDS:  # below 0 the clock went back, and nobody knows how long
            continue
        # Started, or reserved for one that has waited long enough.
        for name, amount in needs.items():
            free[name] = free.get(name, 0.0) - amount
    return chosen


def make_way(
    queued: Sequence[Job], chosen: Sequence[Job], live: Sequence[Job], capacity: Capacity, now: float
) -> list[Job]:  # fmt: skip
    """Runs in the background (priority below 0) that stop at a checkpoint, so that what somebody waits for can start:
    the fewest, the last begun first. Only for jobs that have waited some seconds, as short runs end by themselves, and
    where stopping is enough."""
    started = {job.id for job in chosen}
    free = _free(capacity, (job.resources for job in (*live, *chosen)))
    leaving = [job for job in live if job.priority < 0 and job.request]
    for job in leaving:
        _give_back(free, job)
    found: list[Job] = []
    for job in sorted(queued, key=lambda job: (-job.priority, job.created, job.id)):
        if job.priority < 0 or job.id in started or not is_due(job, now) or 0 <= now - job.created < COURTESY_SECONDS:
            continue
        needs = {name: amount for name, amount in _pool(job.resources).items() if amount > 0}
        left = [each for each in live if each.priority < 0 and not each.request and each not in found]
        there, stops = dict(free), list[Job]()
        for each in sorted(left, key=lambda one: (one.priority, -(one.started or 0.0), one.id)):
            if all(there.get(name, 0.0) >= amount for name, amount in needs.items()):
                break
            if any(needs.get(name) and amount > 0 for name, amount in _pool(each.resources).items()):
                _give_back(there, each)
                stops.append(each)
        if all(there.get(name, 0.0) >= amount for name, amount in needs.items()):
            found += stops
            free = there
            for name, amount in needs.items():
                free[name] = free.get(name, 0.0) - amount
    return found


def _give_back(free: dict[str, float], job: Job) -> None:
    for name, amount in _pool(job.resources).items():
        free[name] = free.get(name, 0.0) + amount


USUAL_BYTES = 64 << 20


class SpaceDecision(NamedTuple):
    start: list[Job]
    held: dict[str, str]
    """Job -> why it waits."""


def start_within_space(
    queued: Sequence[Job], live: Sequence[Job], needs: Mapping[str, int], room: DiskSpace
) -> SpaceDecision:
    """Who of `queued` may start. `needs`: job -> bytes that it will write; who is not in it is never held."""
    spare = room.spare - sum(needs.get(job.id, 0) for job in live)
    start, held = list[Job](), dict[str, str]()
    said = cache(partial(_why_no_space, room=room, busy=bool(live)))  # mostly a usual amount, for a thousand jobs
    for job in sorted(queued, key=lambda job: (-job.priority, job.created, job.id)):
        need = needs.get(job.id)
        if need is None:
            start.append(job)
        elif not room.enough or need > spare:
            held[job.id] = said(need)
        else:
            start.append(job)
            spare -= need
    return SpaceDecision(start, held)


def never_fits_disk(need: int, room: DiskSpace) -> str | None:
    """Why a run that writes so much could not even be alone on this disk, in words; None where it could."""
    most = room.total - room.floor if room.quota is None else min(room.total - room.floor, room.quota)
    if need <= most:
        return None
    return f"it may write {format_bytes(need)}, and the workspace can never have more than {format_bytes(max(0, most))}"


def _why_no_space(need: int, *, room: DiskSpace, busy: bool) -> str:
    more = ", less what runs may still write" if busy else ""
    return (
        f"It waits for room: it may write {format_bytes(need)}, but {room.short()}{more}. "
        "manage_data(action='gc', dry_run=true) shows what could go."
    )
