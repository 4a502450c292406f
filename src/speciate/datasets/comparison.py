"""What differs between the sealed rows of two versions; runs in a service process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.sealing import digests


def compare(payload: dict[str, Any]) -> dict[str, Any]:
    """The service behind `describe.difference`: {old: [file], new: [file]} -> counts of examples."""
    old, new = _digests(payload["old"]), _digests(payload["new"])
    both = old.keys() & new.keys()
    return {
        "added": len(new.keys() - both),
        "removed": len(old.keys() - both),
        "changed": sum(old[key] != new[key] for key in both),
    }


def _digests(files: list[str]) -> dict[str, bytes]:
    table = pa.concat_tables([pq.read_table(Path(file)) for file in files], promote_options="permissive")
    return dict(zip(table["id"].to_pylist(), digests(table), strict=True))
