"""A mixed row as a call gives it, parts by their names: `{"scan": "7.dcm", "report": "a text", "vitals": {"age": 7}}`.

What a part of text or of a table says is the part itself; of any other, a path, which is checked as every
path is. `{"path": ...}` is a path for every part. A part that is not named, or is null, is missing. Rows may bring the
other parts of the rows that a model was trained on: those are passed over, and files that they name are not read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from speciate.errors import Code, SpeciateError, closest
from speciate.modalities import find
from speciate.modalities.mixed.multimodal import PartName, part_name

Read = Callable[[str], bytes]
_FILE = "path"


def parts_of_row(
    row: Mapping[str, Any], parts: Sequence[str], read: Read, ignored: Sequence[str] = ()
) -> dict[str, Any]:
    """NAME.MODALITY -> {value} or {data}, the file's bytes in Base64. `parts`: those that the model reads, `ignored`:
    those that rows may bring beside them; `read`: the bytes at a path, or SpeciateError.

    INVALID where a name is neither, or the row has only parts that the model does not read.
    """
    known = {part.own: part for name in parts if (part := part_name(name))}
    beside = {part.own for name in ignored if (part := part_name(name))}
    found: dict[str, Any] = {}
    for name, cell in row.items():
        if name in beside:
            continue
        if name not in known:
            raise SpeciateError(
                Code.INVALID,
                f"The row names {name!r}; this model reads the parts {', '.join(known)}. {closest(name, known)}",
                "Call predict again with these parts.",
            )
        path = _path(known[name], cell)
        if path is not None:
            found[str(known[name])] = {"data": base64.b64encode(read(path)).decode()}
        elif cell is not None:
            found[str(known[name])] = {"value": cell}
    if row and row.keys() <= beside:
        raise SpeciateError(
            Code.INVALID,
            f"The row has only {', '.join(row)}, and this model reads the parts {', '.join(known)}.",
            "Call predict again with some of these parts.",
        )
    return found


def _path(part: PartName, cell: Any) -> str | None:
    if isinstance(cell, dict) and list(cell) == [_FILE] and isinstance(cell[_FILE], str):
        return str(cell[_FILE])
    written = find(part.modality).analyzer is not None
    return cell if isinstance(cell, str) and not written else None
