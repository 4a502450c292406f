"""How a run that made a version hands it over: what it returns, how the daemon reads that back, and registers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from speciate.datasets.lthash import Lanes, packed, unpacked
from speciate.datasets.succession import Sealed
from speciate.datasets.versions import Manifest, register
from speciate.errors import Code, SpeciateError
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job
from speciate.workspace.database import Transaction


class Made(NamedTuple):
    """A sealed version with all that its row in the catalog says."""

    manifest: Manifest
    lanes: Lanes
    parents: tuple[str, ...]
    operation: dict[str, Any]
    report: dict[str, Any]
    onto: int | None
    """The version that must still be the newest; None where any may be."""
    result: dict[str, Any]
    """What the job's result says beside `dataset`."""


def made(
    sealed: Sealed,
    *,
    operation: dict[str, Any],
    report: dict[str, Any],
    result: dict[str, Any],
    parents: Sequence[str] = (),
    onto: int | None = None,
) -> dict[str, Any]:
    """What `run` returns; JSON."""
    return {
        "manifest": sealed.manifest.model_dump(mode="json"),
        "lanes": packed(sealed.lanes).hex(),
        "parents": list(parents),
        "operation": operation,
        "report": report,
        "onto": onto,
        "result": result,
    }


def collect(folder: RunFolder) -> Made:
    """Reads back what `made` gave."""
    found = folder.result()
    if found is None:
        raise SpeciateError(Code.INTERNAL, f"{folder.run_id} left no result.", "Call control_job(action='retry').")
    return read(found)


def read(found: Mapping[str, Any]) -> Made:
    """What `made` gave, from JSON."""
    return Made(
        Manifest.model_validate(found["manifest"]),
        unpacked(bytes.fromhex(found["lanes"])),
        tuple(found["parents"]),
        found["operation"],
        found["report"],
        found["onto"],
        found["result"],
    )


def commit(tx: Transaction, job: Job, version: Made) -> dict[str, Any]:
    """The job's result: the `dataset` and what the run said of it."""
    manifest = register(
        tx,
        version.manifest,
        version.lanes,
        parents=version.parents,
        operation=version.operation,
        report=version.report,
        job=job.id,
        onto=version.onto,
    )
    return {"dataset": manifest.ref, **version.result}
