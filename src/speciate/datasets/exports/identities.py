"""Whether files that name people may leave as they are: only where the caller says so. And what the card of an export
without names may tell of how it came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.operations.deidentify import COLUMN, DEIDENTIFY, holds_dicom
from speciate.datasets.versions import Manifest, Version
from speciate.errors import Code, SpeciateError


def check_version(manifest: Manifest, identified: bool) -> None:
    """REFUSED where nothing of it was de-identified and the caller does not say that names may leave."""
    if not identified and holds_dicom(manifest) and COLUMN not in manifest.columns:
        raise _refused(manifest, "files of")


def check_rows(rows: pa.Table, manifest: Manifest, identified: bool) -> None:
    """The same for single rows, as some may have come later. `rows`: those that leave."""
    if identified or not holds_dicom(manifest):
        return
    check_version(manifest, identified)
    lacking = pc.sum(pc.is_null(rows[COLUMN])).as_py() or 0
    if lacking:
        raise _refused(manifest, f"{lacking:,} of {rows.num_rows:,} examples of")


def told(chain: Sequence[Version], identified: bool) -> list[Version]:
    """The versions, newest first, as a card may tell of them: what was done before names were taken out may quote them
    (a folder, a condition on a patient), so of that only the operations are named."""
    if identified or not holds_dicom(chain[0].manifest):
        return list(chain)
    found, before = list[Version](), False
    for each in chain:
        steps = each.operation.get("steps") or []
        last = max((place for place, step in enumerate(steps) if step.get("op") == DEIDENTIFY.name), default=None)
        if before:
            each = each._replace(operation=_bare(each.operation))  # noqa: PLW2901 - the same version, told shorter
        elif last is not None:
            shorter = [_bare(step) if place < last else step for place, step in enumerate(steps)]
            each = each._replace(operation={**each.operation, "steps": shorter})  # noqa: PLW2901
        before = before or last is not None
        found.append(each)
    return found


def _bare(operation: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: operation[name] for name in ("op", "license") if name in operation}
    return kept | ({"steps": [_bare(step) for step in operation["steps"]]} if operation.get("steps") else {})


def _refused(manifest: Manifest, what: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The {what} {manifest.ref} may name people: they were not de-identified.",
        f"Call curate_dataset(dataset={manifest.name!r}, steps=[{{'op': 'deidentify'}}]) and export the version that "
        "it makes; or, where names may leave, export_dataset with identified=true.",
    )
