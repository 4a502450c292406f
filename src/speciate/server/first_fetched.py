"""Starting a job whose base models may still be on the hub: then they are fetched first, by jobs that it waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speciate.server import surface
from speciate.server.surface import App, DryRun, Estimate, JobStarted
from speciate.training.arriving import arriving, fetch_all, plan_without


def start_job(
    app: App,
    kind: str,
    spec: Mapping[str, Any],
    base_models: Sequence[str],
    *,
    idempotency_key: str | None = None,
    dry_run: bool = False,
) -> JobStarted | DryRun:
    """As that of the surface. Where a base model must come first, what does not depend on it is checked now, and the
    rest when it is here."""
    wanted = arriving(app.workspace, base_models)
    if not wanted:
        return surface.start_job(app, kind, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    plan = plan_without(app.engine, kind, spec, wanted)
    if dry_run:
        resolved = plan.resolved | {"fetched_first": [each.ref for each in wanted]}
        return DryRun(valid=True, estimate=Estimate(), resolved=resolved)
    fetches = fetch_all(app.engine, wanted, idempotency_key)
    return surface.start_job(app, kind, spec, idempotency_key=idempotency_key, after=fetches)
