"""In which order the candidates of a search may go forward where the best is wanted: for the evaluation to keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from speciate.evaluation.fixed_order import evidence_of, fixed_order
from speciate.evaluation.reports.report import ValidationEvidence
from speciate.jobs.kinds import Child
from speciate.training.cascade.candidates import SpecializeSpec, TrainedCandidate, trained_candidates
from speciate.training.planning.published_steps import RACE
from speciate.vocabulary import find_metric


def going_forward(spec: SpecializeSpec, children: Sequence[Child], models: Iterable[str]) -> list[dict[str, Any]]:
    """What validation examples say of these models, the first to go forward first; empty where the cheapest that passes
    is wanted. JSON, as a spec holds it."""
    if spec.aim != "best":
        return []
    wanted = set(models)
    once = {one.model: one for one in reversed(trained_candidates(children)) if one.model in wanted}
    every = [*reversed(once.values())]  # two trainings may end in one version
    nested = any(one.figures.get("nested") for one in every)
    searched = any(one.candidate.thorough for one in every)
    trained = [_of_training(one, nested=nested, searched=searched) for one in every]
    races = [child.result for child in children if child.step == RACE and child.result]
    raced = [evidence_of(row, row["n"], RACE) for race in races for row in race["rows"] if row["model"] in wanted]
    metrics = [*(one.report["metric"] for one in trained_candidates(children)), *(race["metric"] for race in races)]
    if not metrics:
        return []
    return [one.model_dump(mode="json") for one in fixed_order([*raced, *trained], find_metric(metrics[0]))]


def _of_training(candidate: TrainedCandidate, *, nested: bool, searched: bool) -> ValidationEvidence:
    """`nested`: whether another's value is. One that is not is too kind beside it: the same rows stopped a network.
    `searched`: whether there was a thorough search. It has most learners of the others among its own, and was the
    better one in seven of eight draws in which values put it first in two (evals/LOG.md); so who goes before it must be
    better by a standard error."""
    said, behind = candidate.figures, searched and not candidate.candidate.thorough
    return ValidationEvidence(
        model=candidate.model, value=said["value"], standard_error=said["standard_error"], n=said.get("n") or 0,
        how=f"{said['how']}, nested" if said.get("nested") else said["how"],
        optimistic=candidate.judged_apart or behind or (nested and not said.get("nested")),
    )  # fmt: skip
