"""DICOM files as archives have them, `PATIENT/STUDY/SERIES/00001.dcm`, and a `metadata.csv` with labels and columns.

A series of several instances is a folder, and `file_name` names it; one of a single instance is a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speciate.datasets.exports.cells import CsvFile, notes_of_nulls
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.names import Names, safe_name
from speciate.datasets.exports.shipment import Shipment, has_files
from speciate.datasets.versions import Manifest
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.scans.dicom import member_name

_FOLDERS = ("patient", "study", "series")
_ROWS = 256


class DicomFolders:
    name = "dicom"
    again = "."
    files = True
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        return None if manifest.modality == "dicom" and has_files(manifest) else "its examples are no DICOM files."

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        assert shipment.media is not None
        rows, names, placed = shipment.rows, Names(), dict[str, str]()
        header = [f"user_{name}" if name.lower() == "file_name" else name for name in rows.column_names]
        with CsvFile(folder / "metadata.csv", ["file_name", *header]) as metadata:
            for start in range(0, rows.num_rows, _ROWS):
                batch = rows.slice(start, _ROWS)
                paths = []
                for row, cells in enumerate(_places(batch)):
                    content = shipment.media.contents[start + row]
                    if content not in placed:  # windows of one medium share it
                        placed[content] = _write(shipment.media.read(start + row), folder, names, cells)
                    paths.append(placed[content])
                metadata.write(zip(paths, *(column.to_pylist() for column in batch.columns), strict=True))
                tell(batch.num_rows)
        return Written({}, metadata.escaped, notes_of_nulls(rows))


def _places(batch: Any) -> list[list[str]]:
    """The names of the three folders of each row."""
    columns = [batch[name].to_pylist() if name in batch.column_names else [None] * batch.num_rows for name in _FOLDERS]
    return [
        [safe_name(str(cell)) if cell else f"unknown {name}" for name, cell in zip(_FOLDERS, cells, strict=True)]
        for cells in zip(*columns, strict=True)
    ]


def _write(data: bytes, folder: Path, names: Names, cells: list[str]) -> str:
    """What the file or the folder is called below the export."""
    above = "/".join(cells[:2])
    below = f"{above}/{names.claim(above, cells[2])}"
    files = list(members_of(data).values()) if is_bundle(data) else [data]
    (folder / below).mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(files, 1):
        (folder / below / member_name(number)).write_bytes(each)
    return below if len(files) > 1 else f"{below}/{member_name(1)}"


DICOM = DicomFolders()
