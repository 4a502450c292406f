"""How long a training will take, from recorded runs of like work. Nothing recorded: nothing said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from speciate.training.specs import Option
from speciate.workspace.database import Database

_RECENT = """
SELECT id, result FROM jobs WHERE kind = 'train' AND state = 'succeeded' AND result IS NOT NULL
ORDER BY ended DESC LIMIT 200
"""
_FEWEST_EXAMPLES = 100
"""Below this a run's time is mostly start-up: it is not scaled down further."""


class Recorded(NamedTuple):
    """One run that ended well."""

    job: str
    method: str
    base_model: str | None
    modality: str
    examples: int
    seconds: float


class Estimate(NamedTuple):
    seconds: float
    known_from: tuple[str, ...]
    """The jobs that it comes from."""


def recorded(database: Database) -> list[Recorded]:
    """Newest first."""
    found = []
    for job, result in database.read(_RECENT):
        report = json.loads(result).get("report", {})
        if {"method", "modality", "examples", "seconds"} <= report.keys():
            found.append(
                Recorded(
                    job,
                    report["method"],
                    report.get("base_model"),
                    report["modality"],
                    report["examples"],
                    report["seconds"],
                )
            )
    return found


def estimate(runs: Sequence[Recorded], option: Option, modality: str, examples: int) -> Estimate | None:
    """Median seconds per example of the five newest like runs, times the examples."""
    like = [
        run
        for run in runs
        if (run.method, run.base_model, run.modality) == (option.method, option.base_model, modality)
    ][:5]
    if not like:
        return None
    rate = median(run.seconds / max(run.examples, _FEWEST_EXAMPLES) for run in like)
    return Estimate(rate * max(examples, _FEWEST_EXAMPLES), tuple(run.job for run in like))
