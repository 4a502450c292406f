"""The formats of exports. A new one is a file beside these and a line in the table."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError, unknown

if TYPE_CHECKING:  # the table of names needs no pyarrow
    from speciate.datasets.exports.format import Format

FORMATS = {
    "folder": "speciate.datasets.exports.folders:FOLDER",
    "parquet": "speciate.datasets.exports.parquet:PARQUET",
    "csv": "speciate.datasets.exports.csv_jsonl:CSV",
    "jsonl": "speciate.datasets.exports.csv_jsonl:JSONL",
    "hf": "speciate.datasets.exports.parquet:DATASETS_FOLDER",
    "coco": "speciate.datasets.exports.coco:COCO",
    "webdataset": "speciate.datasets.exports.webdataset:WEBDATASET",
    "fasta": "speciate.datasets.exports.fasta:FASTA",
    "ply": "speciate.datasets.exports.folders:PLY",
    "lerobot": "speciate.datasets.exports.lerobot:LEROBOT",
    "dicom": "speciate.datasets.exports.folders:DICOM",
    "dicom-seg": "speciate.datasets.exports.masks:DICOM_SEG",
    "rtstruct": "speciate.datasets.exports.masks:RTSTRUCT",
    "nifti": "speciate.datasets.exports.masks:NIFTI",
    "webvtt": "speciate.datasets.exports.webvtt:WEBVTT",
}


def find(name: str) -> Format:
    """The format of this name, or NOT_FOUND with near names."""
    if name not in FORMATS:
        raise unknown("format", name, FORMATS, next=[Call("list_options", {"kind": "format"})])
    module, _, attribute = FORMATS[name].partition(":")
    found: Format = getattr(importlib.import_module(module), attribute)
    return found


def fitting(name: str, manifest: Manifest) -> Format:
    """The format of this name; INVALID with the formats that fit if it cannot hold the version."""
    chosen = find(name)
    if (reason := chosen.misfit(manifest)) is not None:
        fits = ", ".join(other for other in FORMATS if find(other).misfit(manifest) is None)
        raise SpeciateError(
            Code.INVALID,
            f"The format {name!r} does not fit {manifest.ref}: {reason}",
            f"Call export_dataset again with one of the formats {fits}.",
        )
    return chosen


def column_of(name: str, manifest: Manifest, wanted: str | None) -> str | None:
    """The column that a format turns into files: the one that was named, else its own. INVALID where there is none, or
    where the format takes none."""
    chosen = find(name)
    if not hasattr(chosen, "column"):
        if wanted is None:
            return None
        takes = ", ".join(other for other in FORMATS if hasattr(find(other), "column"))
        raise SpeciateError(
            Code.INVALID, f"The format {name!r} takes no column: it holds all of them.", f"Formats that do: {takes}."
        )
    column: str | None = wanted or chosen.column
    if column is None or column in manifest.columns:
        return column
    raise SpeciateError(
        Code.INVALID,
        f"{manifest.ref} has no column {column!r}.",
        f"Call export_dataset again with column as one of: {', '.join(manifest.columns) or 'none, it has no columns'}.",
        next=[Call("describe_dataset", {"dataset": manifest.ref})],
    )
