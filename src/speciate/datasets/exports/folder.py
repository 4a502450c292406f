"""Media as files, `data/SPLIT/LABEL/FILE`, and beside them a `metadata.csv` per split with everything else. A mixed row
is a folder, with a file for each of its parts."""

from __future__ import annotations

from pathlib import Path

from speciate.datasets.exports.cells import CsvFile, notes_of_nulls
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.part_files import SUFFIX, files_of
from speciate.datasets.exports.shipment import Media, Piece, Shipment, has_files
from speciate.datasets.versions import Manifest
from speciate.modalities.mixed.multimodal import MULTIMODAL

_READ_BY_THE_HUB = ("image", "audio")
_ROWS = 256


class Folder:
    name = "folder"
    again = "data"
    files = True
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        return None if has_files(manifest) else "its examples are rows of a table, not files."

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        assert shipment.media is not None
        configs: dict[str, str] = {}
        escaped = 0
        for piece in shipment.pieces():
            below = "data" if piece.split is None else f"data/{piece.name}"
            (folder / below).mkdir(parents=True, exist_ok=True)
            configs[piece.hub] = f"{below}/**"
            escaped += _write_piece(shipment, shipment.media, piece, folder / below, tell)
        configs = configs if shipment.manifest.modality in _READ_BY_THE_HUB else {}
        return Written(configs, escaped, notes_of_nulls(shipment.rows))


def _write_piece(shipment: Shipment, media: Media, piece: Piece, folder: Path, tell: Tell) -> int:
    """How many cells were escaped."""
    written, mixed = set[str](), shipment.manifest.modality == MULTIMODAL.name
    with CsvFile(folder / "metadata.csv", ["file_name", *_free(shipment)]) as metadata:
        for start in range(0, piece.rows.num_rows, _ROWS):
            batch = piece.rows.slice(start, _ROWS)
            paths = [media.path(piece.start + start + row) for row in range(batch.num_rows)]
            paths = [path.removesuffix(SUFFIX) for path in paths] if mixed else paths
            for row, path in enumerate(paths):
                if path not in written:  # windows of one medium share it
                    _write(folder / path, media.read(piece.start + start + row), mixed=mixed)
                    written.add(path)
            columns = [column.to_pylist() for column in batch.columns]
            metadata.write(zip(paths, *columns, strict=True))
            tell(batch.num_rows)
    return metadata.escaped


def _write(path: Path, data: bytes, *, mixed: bool) -> None:
    for name, file in (files_of(data) if mixed else {"": data}).items():
        target = path / name if mixed else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file)


def _free(shipment: Shipment) -> list[str]:
    """The columns; one of the user's that is called as ours is `user_file_name`."""
    return [f"user_{name}" if name.lower() == "file_name" else name for name in shipment.rows.column_names]


FOLDER = Folder()
