"""What watches spent: minutes and dollars of every job below their keys, by episode and for monitoring.

Each job belongs to one line, so the lines sum to what all jobs of the watches took.
"""

from __future__ import annotations

from typing import NamedTuple

from speciate.workspace.database import Database

_ALL = """
WITH RECURSIVE own AS (
    SELECT id, key AS root, run_seconds, executor FROM jobs WHERE starts_with(key, ?)
    UNION ALL
    SELECT jobs.id, own.root, jobs.run_seconds, jobs.executor FROM jobs JOIN own ON jobs.parent = own.id
    WHERE jobs.key IS NULL OR NOT starts_with(jobs.key, 'watch/')
)
SELECT split_part(root, '/', 2) AS use_case, try_cast(split_part(root, '/', 3) AS BIGINT) AS episode,
       coalesce(sum(run_seconds) FILTER (executor = 'local'), 0) / 60, coalesce(sum(usd), 0), count(*)
FROM own LEFT JOIN (SELECT job, sum(usd) AS usd FROM spending GROUP BY job) paid ON paid.job = own.id
GROUP BY ALL ORDER BY ALL
"""


class Cost(NamedTuple):
    use_case: str
    episode: int | None
    """Number of the episode; None for monitoring, which no episode asked for."""
    minutes: float
    """Minutes of all runs on this machine, also of failed ones; without queueing."""
    usd: float
    jobs: int


def everywhere(database: Database) -> list[Cost]:
    """Costs of every watch, in the order of use cases and episodes."""
    return [Cost(*row) for row in database.read(_ALL, ["watch/"])]


def of_episode(database: Database, use_case: str, number: int) -> Cost:
    found = [Cost(*row) for row in database.read(_ALL, [f"watch/{use_case}/{number}/"])]
    return found[0] if found else Cost(use_case, number, 0.0, 0.0, 0)
