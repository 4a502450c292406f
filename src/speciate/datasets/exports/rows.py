"""Rows as plain values, for formats made of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from speciate.datasets.exports.shipment import Piece, Shipment

_ROWS = 4096
TEXT = "text"


def header(shipment: Shipment) -> list[str]:
    """The columns; first the text where that lay in a file."""
    text = [shipment.free(TEXT)] if shipment.media is not None else []
    return [*text, *shipment.rows.column_names]


def plain_rows(shipment: Shipment, piece: Piece) -> Iterator[list[list[Any]]]:
    """The cells under `header`, some thousand rows at a time. Media other than text have no place here."""
    for start in range(0, piece.rows.num_rows, _ROWS):
        batch = piece.rows.slice(start, _ROWS)
        columns = [column.to_pylist() for column in batch.columns]
        if shipment.media is not None:
            first = piece.start + start
            columns.insert(0, [text(shipment, place) for place in range(first, first + batch.num_rows)])
        yield [list(row) for row in zip(*columns, strict=True)]


def text(shipment: Shipment, place: int) -> str:
    """What a file of text says; it was UTF-8 when it was ingested."""
    assert shipment.media is not None
    return shipment.media.read(place).decode("utf-8-sig")
