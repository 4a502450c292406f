"""Rows of a table: the input columns are the medium. Decoded: dict of column -> number, text, bool or None."""

from __future__ import annotations

import json
import math
from typing import Any

from speciate.modalities.contract import DecodeError, Header, Pixels
from speciate.modalities.drawing import text_card

Row = dict[str, Any]
_LONGEST = 1024 * 1024  # bytes of one row


class Tabular:
    name = "tabular"
    suffixes = (".json",)
    analyzer = None
    ngrams = (1, 1)

    def sniff(self, head: bytes, name: str) -> bool:
        return name.lower().endswith(self.suffixes) and head.lstrip().startswith(b"{")

    def inspect(self, data: bytes) -> Header:
        return Header(len(data), {"bytes": len(data)})

    def decode(self, data: bytes) -> Row:
        """One JSON object."""
        if len(data) > _LONGEST:
            raise DecodeError("refused", f"The row has {len(data):,} bytes, more than {_LONGEST:,}.")
        try:
            return self.admit(json.loads(data))
        except (ValueError, RecursionError) as error:
            raise DecodeError("error", f"Not JSON: {error}.") from error

    def admit(self, value: Any) -> Row:
        if not isinstance(value, dict):
            raise DecodeError("error", "A row must be an object of columns.")
        if all(_missing(cell) for cell in value.values()):
            raise DecodeError("error", "Every input of the row is missing.")
        for column, cell in value.items():
            if not isinstance(cell, int | float | str | bool | None):
                raise DecodeError("error", f"Column {column!r} holds a {type(cell).__name__}, not a number or a text.")
            if isinstance(cell, float) and math.isinf(cell):
                raise DecodeError("error", f"Column {column!r} is infinite.")
        return value

    def fingerprint(self, media: Row) -> str:
        return json.dumps({name: None if _missing(cell) else cell for name, cell in media.items()}, sort_keys=True)

    def describe(self, media: Row) -> str:
        """Learners encode the columns themselves; this is the row as a document for those that count."""
        return " ".join(f"{name}={cell}" for name, cell in sorted(media.items()) if not _missing(cell))

    def thumbnail(self, media: Row) -> Pixels:
        return text_card("\n".join(f"{name}: {cell}" for name, cell in media.items()))


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


TABULAR = Tabular()
