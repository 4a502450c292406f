"""One FASTA file per split: a header of name and KEY=VALUE pairs, then the sequence in lines of 60."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.rows import plain_rows
from speciate.datasets.exports.shipment import Shipment, has_files
from speciate.datasets.versions import Manifest

_NAME, _DESCRIPTION = "name", "description"
_LINE = 60
_NO_KEY = re.compile(r"[^\w.\-]")


class Fasta:
    name = "fasta"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        if manifest.modality != "protein" or has_files(manifest) or len(manifest.inputs) != 1:
            return "FASTA holds one sequence of residues per example, which lies in one column."
        return None

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        (folder / "data").mkdir()
        for piece in shipment.pieces():
            with (folder / "data" / f"{piece.name}.fasta").open("w", encoding="utf-8", newline="\n") as file:
                place = piece.start
                for rows in plain_rows(shipment, piece):
                    for row in rows:
                        cells = dict(zip(shipment.rows.column_names, row, strict=True))
                        file.write("\n".join(_record(shipment, place, cells)) + "\n")
                        place += 1
                    tell(len(rows))
        return Written(notes=("Cells with spaces, and descriptions, are not in FASTA headers.",))


def _record(shipment: Shipment, place: int, cells: dict[str, object]) -> Iterator[str]:
    sequence = shipment.manifest.inputs[0]
    name = re.sub(r"\s+", "_", str(cells.get(_NAME) or shipment.ids[place])).lstrip(">")
    pairs = [
        f"{_NO_KEY.sub('_', key)}={value}"
        for key, value in cells.items()
        if key not in (_NAME, _DESCRIPTION, sequence)
        and isinstance(value, str | int | float)
        and re.fullmatch(r"\S+", str(value))
    ]
    yield " ".join([f">{name or shipment.ids[place]}", *pairs])
    yield from textwrap.wrap(re.sub(r"\s+", "", str(cells[sequence])), _LINE)


FASTA = Fasta()
