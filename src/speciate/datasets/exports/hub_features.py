"""Columns as Hugging Face `datasets` describes them, so that it reads pictures, sounds and classes as such.

The description stands in the schema of Parquet and Arrow files under `huggingface`, and in dataset_info.json.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

_MEDIA = {"image": "Image", "audio": "Audio"}
_TYPES = {
    "double": "float64", "float": "float32", "halffloat": "float16", "date32[day]": "date32", "date64[ms]": "date64",
}  # fmt: skip
MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How `datasets` stores a medium."""


def described(schema: pa.Schema, modality: str, medium: str | None, classes: dict[str, list[str]]) -> pa.Schema:
    """The schema with the description. `medium`: the column of media; `classes`: column -> names of its numbers."""
    features = {field.name: _feature(field.type) for field in schema}
    if medium is not None and modality in _MEDIA:
        features[medium] = {"_type": _MEDIA[modality]}
    features |= {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def features(schema: pa.Schema) -> dict[str, Any]:
    """What `described` wrote."""
    found: dict[str, Any] = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return found


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "LargeList"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": _TYPES.get(str(kind), str(kind)), "_type": "Value"}
