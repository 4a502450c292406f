"""Rows of a table: the input columns are the medium. Decoded: dict of column -> number, text, bool or None."""

from __future__ import annotations

import hashlib
import json
import math
from functools import lru_cache
from typing import Any

import numpy as np

from speciate.errors import Code, SpeciateError
from speciate.modalities.contract import DecodeError, Header, Modality, Pixels, Vector
from speciate.modalities.drawing import text_card
from speciate.modalities.row_similarity import ROWS, sketch_row

Row = dict[str, Any]
"""A user's row: column -> cell, of whatever type its column has."""
_LONGEST = 1024 * 1024  # bytes of one row
_WIDTH = 256
_SPELLED_MISSING = frozenset(
    {
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "N/A", "NA", "NULL",
        "NaN", "n/a", "nan", "null",
    }
)  # fmt: skip
"""As Arrow's reader of CSV has them in columns of numbers."""
_LONGEST_SHOWN = 40


class Tabular(Modality[Row]):
    name = "tabular"
    suffixes = (".json",)
    sketching = ROWS

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
        cells = {name: None if _missing(cell) else plain(cell) for name, cell in media.items()}
        return json.dumps(cells, sort_keys=True)

    def measure(self, media: Row) -> dict[str, int | float]:
        return {}  # the columns can be filtered already

    def describe(self, media: Row) -> str:
        """Learners encode the columns themselves; this is the row as a document for those that count."""
        return " ".join(f"{name}={cell}" for name, cell in sorted(media.items()) if not _missing(cell))

    def features(self, media: Row) -> Vector:
        """(256,): numbers and texts at places that the name of their column gives (signed feature hashing).

        Numbers are made smaller by the inverse hyperbolic sine: near zero they stay, large ones become logarithms.
        """
        found = np.zeros(_WIDTH, np.float32)
        for name, cell in media.items():
            if not _missing(cell):
                number = isinstance(cell, int | float)
                place, sign = _place(name if number else f"{name}={cell}")
                found[place] += sign * (math.asinh(cell) if number else 1.0)
        return found

    def sketch(self, media: Row) -> bytes | None:
        return sketch_row(media)

    def thumbnail(self, media: Row) -> Pixels:
        return text_card("\n".join(f"{name}: {cell}" for name, cell in media.items()))


def number(column: str, cell: Any) -> float:
    """A cell of a column where training saw numbers; NaN where it is missing. Raises INVALID for another value.

    A text counts as missing where a reader of CSV would say so. One cell that is no number makes a column of text of
    all of its cells, and the others mean what they meant before."""
    if _missing(cell) or (isinstance(cell, str) and cell.strip() in _SPELLED_MISSING):
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.inf
    if math.isinf(value):
        raise SpeciateError(
            Code.INVALID,
            f"{column!r} must be a number.",
            "Call again with a number in this column, or null.",
            foreign=f"It is {_shown(cell)}.",
        )
    return value


def _shown(cell: Any) -> str:
    text = str(cell)
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


@lru_cache(10_000)
def _place(text: str) -> tuple[int, int]:
    number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return number // 2 % _WIDTH, 1 if number % 2 else -1


def plain(cell: Any) -> Any:
    """1 for 1.0: a column of whole numbers becomes one of fractions when rows are added that need it."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


TABULAR = Tabular()
