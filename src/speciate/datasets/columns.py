"""The columns that every version has, how the user's columns get names beside them, and how a cell becomes a class
name.

Imports no pyarrow at its top: sandboxed processes start with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from speciate.modalities.tabular import plain

if TYPE_CHECKING:
    import pyarrow as pa


FIXED = ("id", "split", "label", "group_key", "quality", "reason", "source")
CONTENT, FINGERPRINT, KEY = "_content", "_fingerprint", "_key"
SKETCH, START, STOP, ORIGIN = "_sketch", "_start", "_stop", "_origin"
HIDDEN = (CONTENT, FINGERPRINT, KEY, SKETCH, START, STOP, ORIGIN)
"""sha256 of the input (of a file: of its bytes, which name it in the packs), of its fingerprint, and of all source
cells, whatever roles they play (of a file: of its bytes again); a short code that near-duplicates nearly share
(modalities.sketches); begin and end of a window in its medium, in the modality's unit; and the key of the example that
it was cut from (of windows of windows: of the first)."""
PROVENANCE = ("id", "reason", "source", FINGERPRINT, KEY, SKETCH, ORIGIN)
"""The origin of a row and its key: another value does not change the content of a version."""

WINDOW_START, WINDOW_STOP = "window_start", "window_stop"
"""Columns for people that say the same of a window as the hidden ones."""

QUALITIES = ("ok", "partial", "refused", "error")
"""What an item can be: only rows that are ok are ever loaded."""
_TAKEN = ("file_row_number", "change", "label_before")
"""Names that scans and views of changes give to columns."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_LONGEST_CLASS, _BEGINNING = 64, 55  # characters
_SHORTENED = re.compile(r".{55}~[0-9a-f]{8}")
SHORTENED = "{count} classes have names of more than 64 characters: stored are the first 55 and a hash."


def rename(names: Iterable[str]) -> dict[str, str]:
    """The user's names -> names as they are stored: clean, at most 64 characters, none taken (in any case: SQL)."""
    taken = {*FIXED, *HIDDEN, *_TAKEN}
    renamed: dict[str, str] = {}
    for name in names:
        chosen, number = clean(name), 1
        while chosen.lower() in taken:
            suffix = "" if number == 1 else f"_{number}"
            chosen = f"user_{clean(name)}"[: 64 - len(suffix)] + suffix
            number += 1
        taken.add(chosen.lower())
        renamed[name] = chosen
    return renamed


def clean(name: str) -> str:
    """A name that may stand outside `untrusted`: at most 64 characters, none that controls or turns the text."""
    return _CONTROL.sub("", name).strip()[:64] or "column"


def array(values: list[Any]) -> pa.Array:
    """Values of one column with the type that holds them all; text if they have none in common."""
    import pyarrow as pa

    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        found = pa.array([None if value is None else str(value) for value in values], pa.string())
    return found.cast(pa.string()) if pa.types.is_null(found.type) else found


def with_column(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """`rows` with a column in the place of the one of this name, else as the last one."""
    place = rows.schema.get_field_index(name)
    return rows.append_column(name, values) if place < 0 else rows.set_column(place, name, values)


def type_name(kind: pa.DataType) -> str:
    """Name of a type as SQL calls it, for people."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"{type_name(kind.value_type)}[]"
    named = {
        "VARCHAR": types.is_string(kind) or types.is_large_string(kind),
        "BIGINT": types.is_integer(kind),
        "DOUBLE": types.is_floating(kind),
        "BOOLEAN": types.is_boolean(kind),
        "TIMESTAMP": types.is_timestamp(kind),
        "DATE": types.is_date(kind),
        "BLOB": types.is_binary(kind),
    }
    return next((name for name, fits in named.items() if fits), str(kind).upper())


def class_name(value: Any) -> str:
    """A class as it is stored, for ingest, labels and feedback alike: 1 and 1.0 are the same class, a list is JSON.

    Empty if nothing of the value can be printed.
    """
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    text = str(value).lower() if isinstance(value, bool) else str(plain(value)).strip()
    return shorten_class_name("".join(c for c in text if c.isprintable()))


def alike_class_warnings(counts: Mapping[str, int]) -> list[str]:
    """A warning where classes differ in case or blanks alone, with the step that joins them. `counts`: of examples."""
    alike: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    found = [names for names in alike.values() if len(names) > 1]
    if not found:
        return []
    shown = "; ".join(" and ".join(f"{clean(name)!r} ({counts[name]:,})" for name in names) for names in found[:3])
    mapping = {clean(name): clean(names[0]) for names in found[:3] for name in names[1:]}
    more = f", and {len(found) - 3:,} more" if len(found) > 3 else ""
    return [
        f"Classes that differ in case or blanks alone: {shown}{more}. A model learns them apart. If they are one, a "
        f"step {{'op': 'relabel', 'mapping': {mapping}}} of curate_dataset joins them."
    ]


def shorten_class_name(name: str) -> str:
    """A class name of at most 64 characters: the beginning of a longer one and a hash, so that names stay distinct."""
    if len(name) <= _LONGEST_CLASS:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[:_BEGINNING]}~{digest[: _LONGEST_CLASS - _BEGINNING - 1]}"


def is_shortened(name: str) -> bool:
    return _SHORTENED.fullmatch(name) is not None
