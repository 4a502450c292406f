"""Meshes and point clouds as PLY files, `data/SPLIT/LABEL/NAME.ply`, and a `metadata.csv` per split with the columns.

What is a PLY already is copied; other formats are decoded, in caged processes, and written as one. A mesh with
materials, textures or buffers beside it stays what it is, a folder of its own, as a PLY holds no textures.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from speciate.datasets.exports.cells import CsvFile, notes_of_nulls
from speciate.datasets.exports.contract import Tell, Written
from speciate.datasets.exports.names import Names, safe_name
from speciate.datasets.exports.shipment import Media, Piece, Shipment, has_files
from speciate.datasets.loading.decoding import Item, decode_media
from speciate.datasets.versions import Manifest
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.forms import ply
from speciate.modalities.forms.mesh_files import main_member

_MODALITIES = ("mesh", "point-cloud")
_ROWS = 64
"""Decoded at a time."""


class Ply:
    name = "ply"
    again = "data"
    files = True
    once = True

    def misfit(self, manifest: Manifest) -> str | None:
        fits = manifest.modality in _MODALITIES and has_files(manifest)
        return None if fits else "PLY holds meshes and point clouds that lie in files."

    def write(self, shipment: Shipment, folder: Path, tell: Tell) -> Written:
        assert shipment.media is not None
        escaped = 0
        for piece in shipment.pieces():
            below = folder / ("data" if piece.split is None else f"data/{piece.name}")
            below.mkdir(parents=True, exist_ok=True)
            escaped += _write_piece(shipment, shipment.media, piece, below, tell)
        return Written({}, escaped, notes_of_nulls(shipment.rows))


def _write_piece(shipment: Shipment, media: Media, piece: Piece, folder: Path, tell: Tell) -> int:
    """How many cells were escaped."""
    names = [f"user_{name}" if name.lower() == "file_name" else name for name in shipment.rows.column_names]
    taken = Names()
    with CsvFile(folder / "metadata.csv", ["file_name", *names]) as metadata:
        for start in range(0, piece.rows.num_rows, _ROWS):
            batch = piece.rows.slice(start, _ROWS)
            places = range(piece.start + start, piece.start + start + batch.num_rows)
            converted = _converted(shipment, media, places)
            paths = [_write(media, place, folder, taken, converted.get(place)) for place in places]
            metadata.write(zip(paths, *(column.to_pylist() for column in batch.columns), strict=True))
            tell(batch.num_rows)
    return metadata.escaped


def _converted(shipment: Shipment, media: Media, places: range) -> dict[int, bytes]:
    """Place -> PLY, of what is neither one nor several files."""
    others = [place for place in places if not _stays(shipment, media.read(place))]
    if not others:
        return {}
    assert shipment.folders is not None
    packs = [shipment.folders.root / pack for pack in shipment.manifest.packs]
    items = [Item(shipment.ids[place], media.contents[place]) for place in others]
    decoded = decode_media(shipment.folders, packs, shipment.manifest.modality, items)
    return {place: _encoded(medium) for place, medium in zip(others, decoded, strict=True)}


def _stays(shipment: Shipment, data: bytes) -> bool:
    """An NPZ is a ZIP, too."""
    return data.startswith(ply.MAGIC) or (shipment.manifest.modality == "mesh" and is_bundle(data))


def _encoded(medium: dict[str, Any]) -> bytes:
    points = medium["vertices"] if "vertices" in medium else medium["points"]
    return ply.encode(points, medium.get("faces"), medium.get("colors"), medium.get("intensity"))


def _write(media: Media, place: int, folder: Path, names: Names, converted: bytes | None) -> str:
    """Where it lies below `folder`."""
    path = PurePosixPath(media.path(place))
    (folder / path.parent).mkdir(parents=True, exist_ok=True)
    data = media.read(place) if converted is None else converted
    if converted is None and not data.startswith(ply.MAGIC):
        members = members_of(data)
        for name, member in members.items():
            below = folder / path.with_suffix("") / _safe(name)
            below.parent.mkdir(parents=True, exist_ok=True)
            below.write_bytes(member)
        return str(path.with_suffix("") / _safe(main_member(members)))
    folder_name = "" if path.parent == PurePosixPath(".") else str(path.parent)
    written = path.with_name(names.claim(folder_name, path.with_suffix(".ply").name))
    (folder / written).write_bytes(data)
    return str(written)


def _safe(name: str) -> PurePosixPath:
    """A member's name as a path that leads nowhere else."""
    return PurePosixPath(*(safe_name(part) for part in PurePosixPath(name).parts if part not in ("/", ".", "..")))


PLY = Ply()
