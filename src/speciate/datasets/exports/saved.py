"""What Hugging Face `datasets` saves: a folder that `datasets.load_from_disk` opens, classes as ClassLabel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from speciate.datasets.exports.columnar import Layout, batches, layout
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.hub_features import features
from speciate.datasets.exports.shipment import Piece, Shipment
from speciate.datasets.versions import Manifest

_DATA = "data-00000-of-00001.arrow"


class Saved:
    name = "hf"
    again = "."
    files = False
    once = False

    def misfit(self, manifest: Manifest) -> str | None:
        return None

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        """A DatasetDict where the rows lie in splits, else a Dataset."""
        wanted, pieces = layout(shipment, numbered=True), list(shipment.pieces())
        if [piece.split for piece in pieces] == [None]:
            _save(shipment, pieces[0], wanted, folder, tell)
            return Written()
        for piece in pieces:
            _save(shipment, piece, wanted, folder / piece.hub, tell)
        _write_json(folder / "dataset_dict.json", {"splits": [piece.hub for piece in pieces]})
        return Written()


def _save(shipment: Shipment, piece: Piece, wanted: Layout, folder: Path, tell: Tell) -> None:
    folder.mkdir(exist_ok=True)
    with pa.OSFile(str(folder / _DATA), "wb") as file, pa.ipc.new_stream(file, wanted.schema) as writer:
        for batch in batches(shipment, piece, wanted):
            writer.write_table(batch)
            tell(batch.num_rows)
    _write_json(
        folder / "dataset_info.json",
        {"citation": "", "description": "", "features": features(wanted.schema), "homepage": "", "license": ""},
    )
    _write_json(
        folder / "state.json",
        {
            "_data_files": [{"filename": _DATA}],
            "_fingerprint": hashlib.sha256(f"{shipment.manifest.id} {piece.split}".encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None if piece.split is None else piece.hub,
        },
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


SAVED = Saved()
