"""How well the catalog knows its folders, for garbage_rules.py: its backups, its gaps, and when jobs were at work.

A row that a kept backup of this very catalog has and the catalog has not, although nobody deleted it, was lost: what it
names counts as named, the backup is kept, and `get_status` says so. Backups from before something was forgotten are
not asked.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from speciate.datasets.versions import Manifest
from speciate.workspace import gaps, lost
from speciate.workspace.backup import made_at
from speciate.workspace.database import Database
from speciate.workspace.garbage_rules import Custody, joined, lacking
from speciate.workspace.lost import Saved
from speciate.workspace.tombstones import buried
from speciate.workspace.workspace import Workspace

_FIRST = "SELECT min(stamp) FROM events"
_FORGOTTEN = "SELECT value FROM meta WHERE key = 'forgotten'"
_WORKED = """
SELECT created, CASE WHEN state IN ('succeeded', 'failed', 'cancelled', 'dead') THEN coalesce(ended, changed)
    ELSE 9e15 END
FROM jobs WHERE executor = 'local'
"""
_VERSIONS = {noun: f"SELECT name || '@v' || version FROM {noun}_versions" for noun in ("dataset", "model")}
_JOBS = "SELECT id FROM jobs"
_EVALUATIONS = "SELECT id FROM evaluations"
_SAVED = {
    "dataset": "SELECT name || '@v' || version FROM read_parquet(?)",
    "model": "SELECT name || '@v' || version FROM read_parquet(?)",
    "evaluation": "SELECT id FROM read_parquet(?)",
    "job": "SELECT id FROM read_parquet(?)",
}
_FILES = {
    "dataset": "dataset_versions.parquet", "model": "model_versions.parquet", "evaluation": "evaluations.parquet",
    "job": "jobs.parquet",
}  # fmt: skip
_MANIFESTS = """
SELECT manifest FROM read_parquet(?) WHERE name || '@v' || version IN (SELECT unnest(?::VARCHAR[]))
"""
_SPECS = "SELECT spec FROM read_parquet(?) WHERE id IN (SELECT unnest(?::VARCHAR[]))"
_log = logging.getLogger(__name__)


class Lost(NamedTuple):
    """Rows that backups have and the catalog has lost."""

    refs: list[str]
    """`name@v3` of datasets and models, ids of evaluations and jobs."""
    manifests: list[Manifest]
    models: list[str]
    evaluations: list[str]
    specs: list[dict[str, Any]]
    """Of jobs."""
    backups: list[str]
    """Names of those that have them; they are kept (workspace/backup.py)."""


def custody(workspace: Workspace, cutoff: float) -> Custody:
    """Of the catalog over its folders now. Untrusted where `identity.json` is not of this catalog."""
    database = workspace.database
    first, saved = database.read(_FIRST)[0][0], backups(workspace)
    return Custody(
        trusted=belongs(workspace.folders.root, workspace.identity),
        cutoff=cutoff,
        witnessed=max((made_at(each.path) for each in saved), default=0.0),
        since=9e15 if first is None else float(first),
        gaps=tuple(gaps.noted(database.read)),
        worked=joined((float(since), float(until)) for since, until in database.read(_WORKED)),
    )


def belongs(root: Path, identity: str) -> bool:
    anchor = lost.read_anchor(root)
    return anchor is not None and anchor.identity == identity


def backups(workspace: Workspace) -> list[Saved]:
    """Automatic backups of this catalog, fullest first; of those from before something was forgotten, none."""
    database = workspace.database
    forgotten = database.read_one(_FORGOTTEN)
    found = lost.trusted(database.read, workspace.folders.root, workspace.identity)
    return [saved for saved in found if forgotten is None or saved.events > int(forgotten[0])]


def lost_rows(workspace: Workspace) -> Lost:
    """Of all kept backups."""
    database, saved_before = workspace.database, backups(workspace)  # first: whatever they have was committed by then
    known: dict[str, set[str]] = {noun: {ref for (ref,) in database.read(sql)} for noun, sql in _VERSIONS.items()}
    known["evaluation"] = {ref for (ref,) in database.read(_EVALUATIONS)}
    known["job"] = {ref for (ref,) in database.read(_JOBS)}
    deleted = {noun: {f"{name}@v{number}" for name, number in buried(database, noun)} for noun in ("dataset", "model")}
    found = Lost([], [], [], [], [], [])
    for saved in saved_before:
        try:
            _add_lost(database, saved.path, known, deleted, found)
        except (duckdb.Error, ValueError):
            _log.exception("the backup %s cannot be compared with the catalog", saved.path.name)
    return found


def _add_lost(
    database: Database, backup: Path, known: dict[str, set[str]], deleted: dict[str, set[str]], found: Lost
) -> None:
    """What this backup adds to what the fuller ones showed; `known` grows by it."""
    missing: dict[str, list[str]] = {}
    for noun, sql in _SAVED.items():
        saved = [ref for (ref,) in database.read(sql, [str(backup / _FILES[noun])])]
        missing[noun] = lacking(saved, known[noun], deleted.get(noun, set()))
        known[noun].update(missing[noun])
        found.refs.extend(missing[noun])
    found.manifests.extend(_manifests(database, backup, missing["dataset"]))
    found.models.extend(missing["model"])
    found.evaluations.extend(missing["evaluation"])
    if any(missing.values()):
        found.backups.append(backup.name)
    if missing["job"]:
        rows = database.read(_SPECS, [str(backup / _FILES["job"]), missing["job"]])
        found.specs.extend(json.loads(spec) for (spec,) in rows)


def _manifests(database: Database, backup: Path, refs: Sequence[str]) -> list[Manifest]:
    if not refs:
        return []
    rows = database.read(_MANIFESTS, [str(backup / _FILES["dataset"]), list(refs)])
    return [Manifest.model_validate_json(text) for (text,) in rows]
