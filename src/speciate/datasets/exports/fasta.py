"""One FASTA file per split: a header of name and KEY=VALUE pairs, then the sequence in lines of 60.

Each chain of a structure is a record, and `structure` names its structure: FASTA has no positions of atoms.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speciate.datasets.exports.format import ExportContent, Piece, ReportProgress, WriteReport, has_files
from speciate.datasets.loading.decoding import MediaItem, decode_media
from speciate.datasets.versions import Manifest
from speciate.modalities.biology.protein_structures import chains

_NAME = "name"
_LINE = 60
_ROWS = 1024
_NO_KEY = re.compile(r"[^\w.\-]")
_PLAIN = re.compile(r'[^\s"]\S*')
_OF_STRUCTURES = (
    "Structures leave as the sequences of their chains, a record each: export the format folder for their files."
)


class Fasta:
    name = "fasta"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        if manifest.modality != "protein" or not (has_files(manifest) or len(manifest.inputs) == 1):
            return "FASTA holds one sequence of residues per example, which lies in one column or in a file."
        return None

    def write(self, export: ExportContent, folder: Path, progress: ReportProgress) -> WriteReport:
        (folder / "data").mkdir()
        several = False
        for piece in export.pieces():
            with (folder / "data" / f"{piece.name}.fasta").open("w", encoding="utf-8", newline="\n") as file:
                for start in range(0, piece.rows.num_rows, _ROWS):
                    rows = piece.rows.slice(start, _ROWS).to_pylist()
                    for place, (row, own) in enumerate(
                        zip(rows, _sequences(export, piece, start, rows), strict=True), piece.start + start
                    ):
                        several |= export.media is not None
                        file.writelines(f"{line}\n" for line in _records(export, place, row, own))
                    progress(len(rows))
        return WriteReport(notes=(_OF_STRUCTURES,) if several else ())


def _sequences(export: ExportContent, piece: Piece, start: int, rows: list[dict[str, Any]]) -> list[list[str]]:
    """The sequences of each row: one, or those of a structure's chains."""
    if export.media is None:
        return [[re.sub(r"\s+", "", str(row[export.manifest.inputs[0]]))] for row in rows]
    assert export.folders is not None
    first = piece.start + start
    items = [MediaItem(export.ids[place], export.media.contents[place]) for place in range(first, first + len(rows))]
    packs = [export.folders.root / pack for pack in export.manifest.packs]
    media = decode_media(export.folders, packs, export.manifest.modality, items)
    return [[each] if isinstance(each, str) else chains(each) for each in media]


def _records(export: ExportContent, place: int, row: dict[str, Any], sequences: list[str]) -> Iterator[str]:
    medium = () if export.media is not None else export.manifest.inputs
    given = row.get(_NAME) if export.media is None else export.media.names[place].partition(".")[0]
    name = re.sub(r"\s+", "_", str(given or export.ids[place])).lstrip(">") or export.ids[place]
    pairs = [
        f"{_NO_KEY.sub('_', key)}={_value(cell)}"
        for key, cell in row.items()
        if key != _NAME and key not in medium and isinstance(cell, str | int | float) and cell != ""
    ]
    for number, sequence in enumerate(sequences, 1):
        of = [f"structure={_value(name)}"] if len(sequences) > 1 else []
        yield " ".join([f">{name}.{number}" if of else f">{name}", *of, *pairs])
        yield from textwrap.wrap(sequence, _LINE)


def _value(cell: str | int | float) -> str:
    """The cell as it is, or quoted as JSON if it has blanks or looks quoted."""
    text = str(cell)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


FASTA = Fasta()
