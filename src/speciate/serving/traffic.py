"""What a deployment served in the last day, from its hourly tallies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from speciate.evaluation.pages.inline_charts import Line
from speciate.serving.deployment_folder import deployment_folder
from speciate.serving.hourly_tallies import HourTally, quantile_seconds, read_hours
from speciate.workspace.workspace import Folders

_DAY = 86_400.0


class Traffic(NamedTuple):
    """Requests to a use case's deployment over the last day."""

    requests: int
    failed: int
    per_second: float
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    slow: int
    timed: int
    by_hour: tuple[Line, ...]
    by_model: Mapping[str, int]


def read_traffic(folders: Folders, name: str, now: float) -> Traffic | None:
    """None where no deployment ever served it over HTTP."""
    folder = deployment_folder(folders, name).hours
    if not folder.exists():
        return None
    hours = read_hours(folder, now - _DAY, now)
    requests, seconds = sum(each.requests for each in hours), sum(each.seconds for each in hours)
    models: dict[str, int] = {}
    for each in hours:
        models[each.model] = models.get(each.model, 0) + each.requests
    return Traffic(
        requests, sum(each.failed for each in hours), requests / _DAY, _in_ms(seconds / requests) if requests else None,
        _in_ms(quantile_seconds(hours, 0.5)), _in_ms(quantile_seconds(hours, 0.95)),
        sum(each.slow for each in hours), sum(each.timed for each in hours), _by_hour(hours, now), models,
    )  # fmt: skip


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _by_hour(hours: Sequence[HourTally], now: float) -> tuple[Line, ...]:
    """Requests of each of the last 24 hours, of what is in production and of a canary."""
    last = math.floor(now / 3600)
    lines = []
    for alias, role in (("production", "candidate"), ("canary", "baseline")):
        counts = dict.fromkeys(range(-23, 1), 0)
        for each in hours:
            if each.alias == alias and each.hour - last in counts:
                counts[each.hour - last] += each.requests
        if any(counts.values()):
            lines.append(Line(alias, role, [(float(hour), float(count)) for hour, count in counts.items()]))
    return tuple(lines)
