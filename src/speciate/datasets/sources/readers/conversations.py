"""Cells that hold conversations, as data for language models have them: lists of messages become texts.

A cell is then a JSON list of `{"role", "content"}` (modalities/messages.py), and a list of one turn of the assistant
the text of that turn: an answer.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from speciate.modalities.messages import ASSISTANT, is_listed, messages

_SPOKEN = ({"role", "content"}, {"from", "value"})


def told(table: pa.Table) -> pa.Table:
    """The table with columns of messages as texts; all others as they are."""
    for place, field in enumerate(table.schema):
        if _holds_messages(field.type):
            cells = [_whole(cell) for cell in table.column(place).to_pylist()]
            table = table.set_column(place, field.name, pa.array(map(as_text, cells), pa.string()))
    return table


def as_text(cell: Any) -> Any:
    """A list that is meant as messages as its text, anything else as it is. A list that is no conversation stays as it
    was written: whoever admits the text says what is wrong with it."""
    if not is_listed(cell):
        return cell
    try:
        found = messages(cell)
    except ValueError:
        return json.dumps(cell, ensure_ascii=False, default=str)
    if len(found) == 1 and found[0].role == ASSISTANT:
        return found[0].content
    return json.dumps([each.shown() for each in found], ensure_ascii=False)


def _holds_messages(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = {field.name for field in kind.value_type}
    return any(spoken <= names for spoken in _SPOKEN)


def _whole(cell: Any) -> Any:
    """Without the fields that Arrow adds where other rows have them; an empty list is no cell."""
    return [{name: value for name, value in (each or {}).items() if value is not None} for each in cell or ()] or None
