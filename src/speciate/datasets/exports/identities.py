"""Whether files that name people may leave as they are: only where the caller says so."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from speciate.datasets.operations.deidentify import COLUMN, holds_dicom
from speciate.datasets.versions import Manifest
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


def _refused(manifest: Manifest, what: str) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The {what} {manifest.ref} may name people: they were not de-identified.",
        f"Call curate_dataset(dataset={manifest.name!r}, steps=[{{'op': 'deidentify'}}]) and export the version that "
        "it makes; or, where names may leave, export_dataset with identified=true.",
    )
