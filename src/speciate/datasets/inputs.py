"""What a model sees of rows whose medium lies in their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa


def input_values(modality: str, inputs: Sequence[str], table: pa.Table) -> list[Any]:
    """What the input columns of each row hold, as the modality admits it: several texts are one, a line each."""
    if modality == "tabular":
        rows: list[Any] = table.select(list(inputs)).to_pylist()
        return rows
    if len(inputs) == 1:
        return list(table[inputs[0]].to_pylist())
    columns = [table[name].to_pylist() for name in inputs]
    if modality == "time-series":
        return [list(channels) for channels in zip(*columns, strict=True)]
    return ["\n".join(str(cell) for cell in cells if cell is not None) for cells in zip(*columns, strict=True)]
