"""One JSONL file per split, for tables, texts and series: an object a line, with every column."""

from __future__ import annotations

from pathlib import Path

from speciate.datasets.exports.cells import as_json
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.rows import TEXT, header, plain_rows
from speciate.datasets.exports.shipment import Shipment, has_files
from speciate.datasets.versions import Manifest


class JsonLines:
    name = "jsonl"
    again = "data"
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        if has_files(manifest) and manifest.modality != TEXT:
            return "its examples are files, which a line of JSON cannot hold."
        return None

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        (folder / "data").mkdir()
        names, configs = header(shipment), dict[str, str]()
        for piece in shipment.pieces():
            path = f"data/{piece.name}.jsonl"
            configs[piece.hub] = path
            with (folder / path).open("w", encoding="utf-8", newline="\n") as file:
                for rows in plain_rows(shipment, piece):
                    file.writelines(as_json(dict(zip(names, row, strict=True))) + "\n" for row in rows)
                    tell(len(rows))
        return Written(configs)


JSONL = JsonLines()
