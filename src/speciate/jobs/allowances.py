"""What each run may spend of the money that people allowed: runs at once never exceed a cap together.

A run that lives holds what its plan may spend (`Plan.spends`): its budget or, without one, all that is left. A job
whose share is held by others waits in the queue. Nothing is written for this: what is held follows from the state of
jobs, so a run that is gone holds nothing, and what it spent is recorded as it leaves that state (`record`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Code, SpeciateError
from speciate.workspace.database import Database, Transaction

_SPEND = """
INSERT INTO spending
VALUES ($1, $2, $3, $4, greatest($5, (SELECT granted FROM consents WHERE dataset = $1 AND host = $2)))
ON CONFLICT (dataset, host, job) DO UPDATE SET usd = greatest(usd, excluded.usd), stamp = excluded.stamp
"""
_CAPS = "SELECT dataset, host, usd_cap, granted, expires FROM consents"
_SPENT = """
SELECT s.dataset, s.host, split_part(s.job, '.', 1), sum(s.usd)
FROM spending s JOIN consents c ON s.dataset = c.dataset AND s.host = c.host AND s.stamp >= c.granted GROUP BY ALL
"""
_LIVE = """
SELECT j.id, p.plan -> 'spends' FROM jobs j JOIN job_plans p ON p.job = j.id
WHERE j.state IN ('starting', 'running') AND json_array_length(p.plan, '$.spends') > 0
ORDER BY j.created, j.id
"""
_ROUNDING_USD = 1e-9


class Spend(BaseModel):
    """What a job may spend on sending examples of a dataset to a host."""

    model_config = ConfigDict(frozen=True)
    dataset: str
    """Name of the dataset."""
    host: str
    usd: float | None = Field(None, ge=0)
    """At most, of all its attempts together; None: whatever is left of what was allowed."""


class Share(NamedTuple):
    """What one job may spend of one sum that was allowed."""

    usd: float
    """What its attempts may spend together."""
    alone: float
    """What they might spend together, if no other job lived."""
    holders: tuple[str, ...]
    """Jobs that hold some of the sum."""

    @property
    def waits(self) -> bool:
        return bool(self.holders) and self.usd < self.alone - _ROUNDING_USD


Consented = tuple[str, str]
"""Dataset and host."""


class Ledger(NamedTuple):
    caps: Mapping[Consented, float]
    """Sums in force, in USD."""
    spent: Mapping[Consented, Mapping[str, float]]
    """USD by job, since the sum was allowed."""
    holding: Mapping[str, Sequence[Spend]]
    """Jobs with a run that lives, and those that are to start before the one in question."""

    def share(self, job: str, spend: Spend) -> Share | None:
        """None where nobody allows it, or no longer."""
        what = (spend.dataset, spend.host)
        if what not in self.caps:
            return None
        spent = self.spent.get(what, {})
        others = self.caps[what] - sum(usd for name, usd in spent.items() if name != job)
        alone = max(0.0, min(others, math.inf if spend.usd is None else spend.usd))
        held, holders = 0.0, list[str]()
        for name, spends in self.holding.items():
            for each in spends:
                if name != job and (each.dataset, each.host) == what:
                    held += math.inf if each.usd is None else max(0.0, each.usd - spent.get(name, 0.0))
                    holders.append(name)
        return Share(max(0.0, min(alone, others - held)), alone, tuple(holders))

    def why_it_waits(self, job: str, spends: Sequence[Spend]) -> str | None:
        """In a sentence; None where it may start. Raises REFUSED where nobody allows it, or no longer."""
        for spend in spends:
            share = self.share(job, spend)
            if share is None:
                raise SpeciateError(
                    Code.REFUSED,
                    f"No example of {spend.dataset!r} may be sent to {spend.host}: what a person allowed when the job "
                    "was submitted was taken back, or its time is over.",
                    f"A person decides, on a terminal: speciate allow {spend.dataset} --host {spend.host} --usd CAP. "
                    f"Then call control_job(job={job!r}, action='retry').",
                )
            if share.waits:
                cap = self.caps[spend.dataset, spend.host]
                return (
                    f"It waits for money: {' and '.join(share.holders)} may spend what is left of the {cap:g} USD "
                    f"allowed for {spend.dataset!r} at {spend.host}. Jobs with a budget_usd that fit into it together "
                    "run at once."
                )
        return None

    def with_holder(self, job: str, spends: Sequence[Spend]) -> Ledger:
        return self._replace(holding={**self.holding, job: spends})


def ledger(database: Database) -> Ledger:
    """The ledger as of now."""
    now = database.now()
    spent = dict[Consented, dict[str, float]]()
    for dataset, host, job, usd in database.read(_SPENT):
        spent.setdefault((dataset, host), {})[job] = usd
    return Ledger(
        caps={
            (dataset, host): cap
            for dataset, host, cap, granted, expires in database.read(_CAPS)
            if expires is None or (now < expires and granted < expires)
        },
        spent=spent,
        holding={job: [Spend.model_validate(each) for each in json.loads(text)] for job, text in database.read(_LIVE)},
    )


def by_host(ledger: Ledger, job: str, spends: Sequence[Spend]) -> dict[str, float]:
    """What the job's attempts together may spend at each host. What nobody allows any longer is 0."""
    shares = {each.host: ledger.share(job, each) for each in spends}
    return {host: share.usd if share else 0.0 for host, share in shares.items()}


def record(tx: Transaction, dataset: str, host: str, usd: float, job: str) -> None:
    """That `job` spent so much in all; told again, it only replaces a smaller sum.

    It counts for the consent that is in force, also where the clock went back since that was given.
    """
    tx.execute(_SPEND, [dataset, host, job, usd, tx.now])
