"""Rows with their media in Arrow batches of bounded size: what the formats `parquet` and `hf` write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from speciate.datasets.exports.hub_features import MEDIUM, described
from speciate.datasets.exports.shipment import Piece, Shipment, class_names

_ROWS = 8192
_MEDIA_BYTES = 64 * 1024 * 1024
_TEXT = "text"


class Layout(NamedTuple):
    schema: pa.Schema
    """Of every batch, described for the hub."""
    medium: str | None
    """The column that holds what lay in files; None where the table has it all."""
    classes: dict[str, int]
    """Class -> the number that stands for it; empty where labels are written as they are called."""


def layout(shipment: Shipment, *, numbered: bool = False) -> Layout:
    """`numbered`: classes become numbers with their names in the description, as `datasets` trains on them."""
    modality = shipment.manifest.modality
    fields = list(shipment.rows.schema.remove_metadata())
    medium = shipment.free(modality.replace("-", "_")) if shipment.media is not None else None
    if medium is not None:
        fields.insert(0, pa.field(medium, pa.string() if modality == _TEXT else MEDIUM))
    names = class_names(shipment) if numbered else []
    if names:
        fields = [pa.field(field.name, pa.int64()) if field.name == shipment.label else field for field in fields]
    described_as = {str(shipment.label): names} if names else {}
    return Layout(
        described(pa.schema(fields), modality, medium, described_as), medium, {name: i for i, name in enumerate(names)}
    )


def batches(shipment: Shipment, piece: Piece, wanted: Layout) -> Iterator[pa.Table]:
    """The rows of a piece, a few at a time: at most about 64 MiB of media."""
    rows = _numbered(shipment, piece, wanted) if wanted.classes else piece.rows
    if wanted.medium is None:
        for start in range(0, rows.num_rows, _ROWS):
            yield rows.slice(start, _ROWS).cast(wanted.schema)
        return
    kind = wanted.schema.field(wanted.medium).type
    for start, cells in _media(shipment, piece):
        batch = rows.slice(start, len(cells)).add_column(0, wanted.medium, pa.array(cells, kind))
        yield batch.cast(wanted.schema)


def _numbered(shipment: Shipment, piece: Piece, wanted: Layout) -> pa.Table:
    names = shipment.labels[piece.start : piece.start + piece.rows.num_rows]
    numbers = pa.array([wanted.classes.get(name) for name in names], pa.int64())
    return piece.rows.set_column(piece.rows.column_names.index(shipment.label), shipment.label, numbers)


def _media(shipment: Shipment, piece: Piece) -> Iterator[tuple[int, list[object]]]:
    """Where a run of rows begins, and what its medium column holds."""
    assert shipment.media is not None
    cells: list[object] = []
    start, size = 0, 0
    for row in range(piece.rows.num_rows):
        data = shipment.media.read(piece.start + row)
        if cells and (size + len(data) > _MEDIA_BYTES or len(cells) >= _ROWS):
            yield start, cells
            start, size, cells = row, 0, []
        size += len(data)
        if shipment.manifest.modality == _TEXT:
            cells.append(data.decode("utf-8-sig"))
        else:
            cells.append({"bytes": data, "path": shipment.media.names[piece.start + row]})
    if cells:
        yield start, cells
