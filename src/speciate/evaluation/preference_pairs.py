"""Evaluations as a source of preference pairs for curation's `preferences`: answers of several models with scores."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from speciate.datasets.operations.context import EvaluationAnswers
from speciate.datasets.operations.operation import Others, Outside
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation.metrics import alone, judged
from speciate.evaluation.reports import report, stored_answers
from speciate.refs import dataset_ref
from speciate.vocabulary import Family, find_metric
from speciate.workspace import integrity
from speciate.workspace.workspace import Workspace


class PairsRequest(BaseModel):
    """What the run reads of an evaluation; the payload of `Outside`."""

    model_config = ConfigDict(frozen=True)
    folder: Path
    models: tuple[str, ...]
    metric: str
    main: bool
    """The metric is the evaluation's main one, whose scores stand beside the answers."""
    sign: int
    """1 if more is better."""


_OF_TEXTS: tuple[Family, ...] = ("generation", "transcription", "classification")


def plan(parameters: Any, manifest: Manifest, others: Others, workspace: Workspace) -> Outside | None:
    """None where the step has its answers in columns. Raises NOT_FOUND, INVALID for an evaluation of other examples."""
    if parameters.evaluation is None:
        return None
    found = report.find_report(workspace.database, parameters.evaluation)
    if dataset_ref(found.dataset).name != manifest.name:
        raise SpeciateError(
            Code.INVALID,
            f"The evaluation {parameters.evaluation!r} is about {found.dataset}, not about {manifest.name}.",
            f"Name one of {manifest.name}, or curate {dataset_ref(found.dataset).name!r}.",
        )
    models = [found.row(name).model for name in parameters.models] or [row.model for row in found.leaderboard]
    if len(set(models)) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"{parameters.evaluation!r} has answers of {', '.join(models)}, and a pair needs two models.",
            "Name two of its models.",
        )
    metric = parameters.metric or found.metric
    more_is_better = found.better == "higher" if metric == found.metric else _sign(metric) > 0
    request = PairsRequest(
        folder=workspace.folders.evaluations / parameters.evaluation,
        models=tuple(models),
        metric=metric,
        main=metric == found.metric,
        sign=1 if more_is_better else -1,
    )
    return Outside(names={"models": request.models, "metric": metric}, payload=request.model_dump(mode="json"))


def read(payload: Mapping[str, Any]) -> EvaluationAnswers:
    """The first answer of each model to each example, with its score; more is better.

    Raises INVALID if the evaluation has no such score per example.
    """
    request = PairsRequest.model_validate(payload)
    scores = {} if request.main else _scores(request)
    found: dict[str, dict[str, tuple[str | None, float | None, str]]] = defaultdict(dict)
    for answer in stored_answers.read_answers(request.folder, request.models):
        output, model, example = stored_answers.output_of(answer), answer["model"], answer["example"]
        score = answer["score"] if request.main else scores.get((model, example))
        signed = None if score is None or math.isnan(score) else request.sign * score
        found[example].setdefault(model, (None if output is None else str(output), signed, model))
    return EvaluationAnswers(request.metric, {name: list(each.values()) for name, each in found.items()})


def scores(metric: str, references: Sequence[str | None], given: Sequence[str | None]) -> list[float | None]:
    """A score per answer, higher is better; None without a reference or an answer, or if the metric leaves it out."""
    known = find_metric(metric)
    family = next((each for each in _OF_TEXTS if each in known.families), known.families[0])
    places = [i for i, (reference, answer) in enumerate(zip(references, given, strict=True)) if reference and answer]
    found: list[float | None] = [None] * len(references)
    if not places:
        return found
    references, given = [references[place] for place in places], [given[place] for place in places]
    labels = sorted({str(each) for each in (*references, *given)}) if family == "classification" else ()
    try:
        values = alone(known, judged(family, references, given, [None] * len(places), labels))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SpeciateError(
            Code.INVALID,
            f"{metric!r} cannot compare these answers with these references; untrusted says why.",
            "Call curate_dataset again with metric='exact_match' or 'chrf'.",
            str(error),
        ) from error
    for place, value in zip(places, values, strict=True):
        found[place] = None if math.isnan(value) else known.sign * float(value)
    return found


def _scores(request: PairsRequest) -> dict[tuple[str, str], float]:
    of_metric = [("metric", "=", request.metric)]
    rows = integrity.read_table(
        request.folder / "scores.parquet", stored_answers.LOST, stored_answers.RECOVERY, filters=of_metric
    ).to_pylist()
    if not rows:
        raise SpeciateError(
            Code.INVALID,
            f"The evaluation has no score {request.metric!r} of single examples.",
            "Call describe_evaluation for its metrics, or leave metric out.",
        )
    return {(row["model"], row["example"]): row["value"] for row in rows}


def _sign(metric: str) -> int:
    """More is better under a judge's or a scorer's metric, which the table of metrics lacks."""
    try:
        return find_metric(metric).sign
    except SpeciateError:
        return 1
