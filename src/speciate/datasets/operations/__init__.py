"""The operations that there are. A new one is a file beside these and a line in the table, or an entry point."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from speciate.datasets.operations.operation import Operation
from speciate.errors import Call, unknown

OPERATIONS = {
    "filter": "speciate.datasets.operations.filter_derive:FILTER",
    "deduplicate": "speciate.datasets.operations.deduplicate:DEDUPLICATE",
    "drop_outliers": "speciate.datasets.operations.drop_outliers:DROP_OUTLIERS",
    "find_label_errors": "speciate.datasets.operations.find_label_errors:FIND_LABEL_ERRORS",
    "balance": "speciate.datasets.operations.sample_balance:BALANCE",
    "sample": "speciate.datasets.operations.sample_balance:SAMPLE",
    "split": "speciate.datasets.operations.split:SPLIT",
    "relabel": "speciate.datasets.operations.relabel:RELABEL",
    "derive": "speciate.datasets.operations.filter_derive:DERIVE",
    "merge": "speciate.datasets.operations.merge:MERGE",
    "join": "speciate.datasets.operations.join:JOIN",
    "window": "speciate.datasets.operations.window:WINDOW",
    "answer": "speciate.datasets.operations.answer:ANSWER",
    "preferences": "speciate.datasets.operations.preferences:PREFERENCES",
    "variants": "speciate.datasets.operations.variants:VARIANTS",
    "deidentify": "speciate.datasets.operations.deidentify:DEIDENTIFY",
}
GROUP = "speciate.operations"
"""Entry point group of third parties: name = "module:object"."""


def find(name: str) -> Operation:
    """The operation of this name, or NOT_FOUND with near names."""
    known = table()
    if name not in known:
        raise unknown("operation", name, known, next=[Call("list_options", {"kind": "operation"})])
    module, _, attribute = known[name].partition(":")
    found: Operation = getattr(importlib.import_module(module), attribute)
    return found


def table() -> dict[str, str]:
    """Name -> "module:object": ours first, which a third party cannot replace."""
    return _third_parties() | OPERATIONS


@cache
def _third_parties() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=GROUP)}
