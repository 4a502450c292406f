"""Merging: several models of one base as one, by their weights."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from speciate.server.surface import App, DryRun, DryRunFlag, IdempotencyKey, JobStarted, start_job, tool
from speciate.training.merging.specs import MergeMethod

Models = Annotated[list[str], Field(min_length=1, max_length=64, description="Trained here from one base model.")]


@tool()
def merge_models(
    app: App,
    name: Annotated[str, Field(description="The merge gets the next version of this name.")],
    models: Models,
    method: Annotated[MergeMethod, Field(description="soup: mean; greedy: of those that help on validation.")],
    weights: Annotated[list[float] | None, Field(description="One a model; slerp: shares of two.")] = None,
    dataset: Annotated[str | None, Field(description="To choose and measure on; default: what all learned.")] = None,
    hyperparameters: Annotated[
        dict[str, Any] | None, Field(description="density, scale (ties, dare); seed (dare).")
    ] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> JobStarted | DryRun:
    """Make one model of several of one base and task by their weights, without training. Then call evaluate_models."""
    given = {
        "name": name,
        "models": models,
        "method": method,
        "weights": weights,
        "dataset": dataset,
        "hyperparameters": hyperparameters,
    }
    spec = {key: value for key, value in given.items() if value is not None}
    return start_job(app, "merge", spec, idempotency_key=idempotency_key, dry_run=dry_run)
