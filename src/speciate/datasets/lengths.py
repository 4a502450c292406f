"""How long a dataset's examples are: what is done with them costs in proportion."""

from __future__ import annotations

import duckdb

from speciate.datasets import scan
from speciate.datasets.versions import Manifest
from speciate.workspace.workspace import Folders

_MEASURED = ("seconds", "steps", "residues")
"""Columns of media of their own length. An image is brought to one size."""
_WRITTEN = ("text", "protein")


def mean_length(folders: Folders, manifest: Manifest) -> float:
    """Characters, residues, steps or seconds of a mean example; 1 where all are of one length. Never 0."""
    if manifest.modality in _WRITTEN and manifest.inputs:
        names = ['"' + name.replace('"', '""') + '"' for name in manifest.inputs]
        length = " + ".join(f"coalesce(length({name}::VARCHAR), 0)" for name in names)
    else:
        length = next((f'"{name}"' for name in _MEASURED if name in manifest.columns), "")
    if not length:
        return 1.0
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT avg({length}) FROM {scan.relation(folders, manifest)}").fetchone()
    return max(1e-3, float(found[0])) if found and found[0] is not None else 1.0
