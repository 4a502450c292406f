"""One CSV file per split, for tables and texts: lists as JSON, cells that a spreadsheet would run made harmless."""

from __future__ import annotations

from pathlib import Path

from speciate.datasets.exports.cells import CsvFile, notes_of_nulls
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.rows import TEXT, header, plain_rows
from speciate.datasets.exports.shipment import Shipment, has_files
from speciate.datasets.versions import Manifest


class Csv:
    name = "csv"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        if has_files(manifest) and manifest.modality != TEXT:
            return "its examples are files, which a cell cannot hold."
        if any(manifest.columns.get(name, "").endswith("[]") for name in manifest.inputs):
            return "its examples are lists of numbers, which come back from a cell as text."
        return None

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        (folder / "data").mkdir()
        configs: dict[str, str] = {}
        escaped = 0
        for piece in shipment.pieces():
            path = f"data/{piece.name}.csv"
            configs[piece.hub] = path
            with CsvFile(folder / path, header(shipment)) as file:
                for rows in plain_rows(shipment, piece):
                    file.write(rows)
                    tell(len(rows))
            escaped += file.escaped
        return Written(configs, escaped, notes_of_nulls(shipment.rows))


CSV = Csv()
