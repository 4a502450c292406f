"""What versions were made from: those that are there, and of deleted ones what they left to their descendants.

A deleted version's rows go; that it was, how it was made and from what stays with those that came from it, for roles of
columns, a licence and a card follow from there. It lies in the `operation` of each such version, under `deleted`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from speciate.datasets.versions import Manifest, Version, version
from speciate.errors import Code, SpeciateError
from speciate.workspace.database import Database, Transaction

DELETED = "deleted"
_ALL = "SELECT name, version, manifest, parents, operation, created FROM dataset_versions"
_SET = "UPDATE dataset_versions SET operation = ? WHERE name = ? AND version = ?"
_GONE: dict[str, Any] = {"parts": [], "packs": [], "splits": {}, "labels": {}, "columns": {}}
"""Of a manifest: what went with the rows."""


def parent(database: Database, child: Version, ref: str) -> Version | None:
    """One of `child.parents`; of a deleted one provenance alone. None where nothing is known of it any more."""
    try:
        return version(database, ref)
    except SpeciateError as error:
        if error.code is not Code.NOT_FOUND:
            raise
    heritage = child.operation.get(DELETED, {})
    left = heritage.get(ref)
    if left is None:
        return None
    operation = left["operation"] | {DELETED: heritage}
    return Version(Manifest.model_validate(left["manifest"]), left["parents"], operation, {}, None, left["created"])


def hand_down(tx: Transaction, doomed: Collection[str]) -> None:
    """Write into the versions that stay what they need to know of the doomed ones (refs) that they came from."""
    rows = {f"{name}@v{number}": (name, number, *rest) for name, number, *rest in tx.execute(_ALL)}
    left_behind = {ref: _heritage(*rows[ref][2:]) for ref in doomed if ref in rows}
    for ref, (name, number, _, parents, text, _) in rows.items():
        if ref in doomed:
            continue
        operation = json.loads(text)
        known = operation.get(DELETED, {})
        offered = {**known, **{gone: each for heritage in left_behind.values() for gone, each in heritage.items()}}
        heritage = _reached(json.loads(parents), offered)
        if heritage.keys() != known.keys():
            tx.execute(_SET, [json.dumps(operation | {DELETED: heritage}), name, number])


def _heritage(manifest: str, parents: str, text: str, created: float) -> dict[str, Any]:
    """What a version leaves: itself, and what was left to it."""
    operation = json.loads(text)
    left_to_it = operation.pop(DELETED, {})
    found = Manifest.model_validate_json(manifest)
    own = {
        "manifest": json.loads(manifest) | _GONE,
        "parents": json.loads(parents),
        "operation": operation,
        "created": created,
    }
    return {**left_to_it, found.ref: own}


def _reached(parents: Sequence[str], deleted: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the deleted versions that can be reached from these parents through deleted ones."""
    found: dict[str, Any] = {}
    left = list(parents)
    while left:
        ref = left.pop(0)
        if ref in deleted and ref not in found:
            found[ref] = deleted[ref]
            left += deleted[ref]["parents"]
    return found
