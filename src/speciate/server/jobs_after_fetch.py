"""Jobs that wait for models of the hub: fetches first, then the training or evaluation that named them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speciate.jobs.kinds import Kind
from speciate.server.tool_api import App, DryRun, Estimate, JobStarted, Spec, spec_json, start_job
from speciate.training.planning.fetch_first import fetch_all, models_to_fetch, plan_before_fetch


def start_job_after_fetch(
    app: App,
    kind: Kind[Spec, Any, Any],
    spec: Spec,
    models: Sequence[str],
    *,
    idempotency_key: str | None = None,
    dry_run: bool = False,
) -> JobStarted | DryRun:
    """As `start_job`. Models of the hub that are not here are fetched first, by jobs that it waits for; what does not
    depend on them is checked now, and the rest once they are here."""
    wanted = models_to_fetch(app.workspace, models)
    if not wanted:
        return start_job(app, kind, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    plan = plan_before_fetch(app.engine, kind.name, spec_json(spec), wanted)
    if dry_run:
        resolved = {**plan.resolved, "fetched_first": [each.ref for each in wanted]}
        return DryRun(valid=True, estimate=Estimate(), resolved=resolved)
    fetches = fetch_all(app.engine, wanted, idempotency_key)
    return start_job(app, kind, spec, idempotency_key=idempotency_key, after=fetches)
