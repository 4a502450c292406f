"""Which queued jobs may start now. Pure.

Highest priority first, then oldest. A job that does not fit is passed over by smaller ones for a minute; after that
nothing that would compete with it starts, so that it cannot starve.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from speciate.jobs.job import Job, Resources
from speciate.settings import Capacity

PATIENCE_SECONDS = 60.0


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
        if amount > whole.get(name, 0.0):
            return f"{amount:g} of {name} asked, {whole.get(name, 0.0):g} there"
    return None


def choose(queued: Sequence[Job], live: Sequence[Job], capacity: Capacity, now: float) -> list[Job]:
    """The jobs to start, in order. `queued` may hold jobs whose backoff has not passed."""
    free = _free(capacity, (job.resources for job in live))
    chosen = []
    for job in sorted(queued, key=lambda job: (-job.priority, job.created, job.id)):
        if job.not_before > now:
            continue
        needs = {name: amount for name, amount in _pool(job.resources).items() if amount > 0}
        if all(free.get(name, 0.0) >= amount for name, amount in needs.items()):
            chosen.append(job)
        elif now - job.created < PATIENCE_SECONDS:
            continue
        # Started, or reserved for one that has waited long enough.
        for name, amount in needs.items():
            free[name] = free.get(name, 0.0) - amount
    return chosen
