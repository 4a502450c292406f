"""Dataset versions: the manifest that says what a version holds, the catalog rows that name it, and its ancestry.

A version is immutable. The same content again is the same version, whatever it was made from. If a version is deleted,
its rows go. Its provenance stays with its descendants, because roles of columns, a licence and a card follow from it:
it lies in the `operation` of each of them, under `deleted`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict

from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.jobs.job import ENDED, State
from speciate.refs import DatasetRef, dataset_ref
from speciate.workspace import tombstones
from speciate.workspace.database import Database, Transaction

if TYPE_CHECKING:
    from speciate.datasets.content_hash import Lanes


_COLUMNS = "version, manifest, parents, operation, report, job, created"
_MAKING = "SELECT id, state FROM jobs WHERE kind = 'ingest' AND spec ->> '$.name' = ? ORDER BY created DESC LIMIT 1"
_NEXT = f"""
SELECT id, kind FROM jobs
WHERE kind IN ('ingest', 'curate', 'label') AND state NOT IN ({", ".join(f"'{state}'" for state in sorted(ENDED))})
AND split_part(coalesce(spec ->> '$.dataset', spec ->> '$.name'), '@', 1) = ? ORDER BY created DESC LIMIT 1
"""
_NEWEST = f"SELECT {_COLUMNS} FROM dataset_versions WHERE name = ? ORDER BY version DESC LIMIT 1"
_VERSION = f"SELECT {_COLUMNS} FROM dataset_versions WHERE name = ? AND version = ?"
_TAGGED = "SELECT version FROM dataset_tags WHERE name = ? AND tag = ?"
_TAGS = "SELECT tag, version FROM dataset_tags WHERE name = ? ORDER BY tag"
_LANES = "SELECT lanes FROM dataset_versions WHERE name = ? AND version = ?"
_HISTORY = f"SELECT {_COLUMNS} FROM dataset_versions WHERE name = ? ORDER BY version DESC LIMIT ?"
_NAMES = "SELECT DISTINCT name FROM dataset_versions ORDER BY name"
_NEWEST_OF_ALL = "SELECT name, version FROM dataset_versions ORDER BY created DESC, name, version DESC LIMIT 1"
_LAST = "SELECT version, id, manifest FROM dataset_versions WHERE name = ? ORDER BY version DESC LIMIT 1"
_INSERT = "INSERT INTO dataset_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
DELETED = "deleted"
_NUMBERS = "SELECT version FROM dataset_versions WHERE name = ? ORDER BY version"
_OPERATIONS = "SELECT operation FROM dataset_versions WHERE name = ? ORDER BY version"
_ALL = "SELECT name, version, manifest, parents, operation, created FROM dataset_versions"
_SET = "UPDATE dataset_versions SET operation = ? WHERE name = ? AND version = ?"
_GONE: Mapping[str, object] = {"parts": [], "packs": [], "splits": {}, "labels": {}, "columns": {}}
"""Fields of a deleted version's manifest that went with the rows: they are empty."""


class DeletedVersion(TypedDict):
    """What a deleted version leaves of itself to its descendants."""

    manifest: Mapping[str, object]
    """Without what went with the rows."""
    parents: list[str]
    operation: Mapping[str, object]
    created: float


class Part(BaseModel):
    """A sealed Parquet file, or what a version still holds of it. Read with datasets/version_rows.py."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str
    rows: int
    """Number of rows in the file."""
    removed: str | None = None
    """Sealed Parquet with the `position` of each row of the file that is no longer in the version."""
    gone: int = 0
    """How many those are."""


class Manifest(BaseModel):
    """All fields that a worker needs to read a version; travels in run specs. Paths are relative to the workspace's
    root."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: int
    """0 before it is registered."""
    id: str
    modality: str
    parts: tuple[Part, ...]
    """A base, then what later versions added to it."""
    packs: tuple[str, ...] = ()
    """Packs with the bytes of media that are not in the Parquet."""
    columns: dict[str, str]
    """User's columns: name -> type as SQL names it."""
    inputs: tuple[str, ...] = ()
    """Columns that a model may see; empty if the medium is a file."""
    label: str | None = None
    """Where the label came from: a column's name or `folder`; None: unlabelled."""
    numeric: bool = False
    """Whether labels are numbers to be predicted rather than classes."""
    splits: dict[str, int] = {}
    labels: dict[str, int] = {}
    """Classes and how often they occur, at most the 10,000 most frequent; empty where labels are numbers."""
    rows: int
    """Number of rows of every quality."""
    hashing: int = 1
    """How the rows' digests became `id`: content_hash.py. Versions of before it was asked for have 1."""

    @property
    def ref(self) -> str:
        return f"{self.name}@v{self.version}"


class Version(NamedTuple):
    """A version with its provenance."""

    manifest: Manifest
    parents: list[str]
    operation: Mapping[str, Any]
    """`op`, and what it was called with."""
    report: Mapping[str, Any]
    """A `VersionReport`, of today or of an earlier time."""
    job: str | None
    created: float


def resolve(database: Database, ref: DatasetRef | str) -> Manifest:
    """The manifest of `name`, `name@v3` or `name@v3:test`; NOT_FOUND with near names, INVALID for an unknown split."""
    return version(database, ref).manifest


def newest(database: Database, name: str) -> Manifest:
    return resolve(database, DatasetRef(name))


def packed_lanes(database: Database, manifest: Manifest) -> bytes:
    """The multiset hash of a registered version's rows (`unpack_lanes` reads it), for the hash of a successor."""
    row = database.read_one(_LANES, [manifest.name, manifest.version])
    assert row is not None
    return bytes(row[0])


class Step(NamedTuple):
    """One version in the history of a dataset."""

    version: int
    operation: str
    parents: list[str]
    rows: int
    created: float
    job: str | None


def history(database: Database, name: str, most: int = 20) -> list[Step]:
    """The versions of a dataset, newest first."""
    return [
        Step(number, json.loads(operation)["op"], json.loads(parents), json.loads(manifest)["rows"], created, job)
        for number, manifest, parents, operation, _, job, created in database.read(_HISTORY, [name, most])
    ]


def numbers(database: Database, name: str) -> list[int]:
    """The versions that there are."""
    return [number for (number,) in database.read(_NUMBERS, [name])]


def sources_of(database: Database, name: str) -> tuple[str, ...]:
    """Where rows of any version came from, such as `hf:org/name`."""
    found = (json.loads(operation).get("source") for (operation,) in database.read(_OPERATIONS, [name]))
    return tuple(dict.fromkeys(each for each in found if isinstance(each, str)))


def tags(database: Database, name: str) -> dict[str, int]:
    """Tag -> version."""
    return dict(database.read(_TAGS, [name]))


def names(database: Database) -> list[str]:
    return [row[0] for row in database.read(_NAMES)]


def newest_of_all(database: Database) -> str | None:
    """The version of whatever dataset that was made last."""
    row = database.read_one(_NEWEST_OF_ALL)
    return f"{row[0]}@v{row[1]}" if row else None


def version(database: Database, ref: DatasetRef | str) -> Version:
    """`resolve`, with provenance."""
    wanted = _untagged(database, dataset_ref(ref) if isinstance(ref, str) else ref)
    if wanted.version is None:
        row = database.read_one(_NEWEST, [wanted.name])
    else:
        row = database.read_one(_VERSION, [wanted.name, wanted.version])
    if row is None:
        raise _no_version(database, wanted)
    _, manifest, parents, operation, report, job, created = row
    found = Manifest.model_validate_json(manifest)
    if wanted.split is not None and wanted.split not in found.splits:
        raise SpeciateError(
            Code.INVALID,
            f"{found.ref} has no split {wanted.split!r}; its splits are {', '.join(sorted(found.splits)) or 'none'}.",
            next=[Call("describe_dataset", {"dataset": found.ref})],
        )
    return Version(found, json.loads(parents), json.loads(operation), json.loads(report), job, created)


def register(
    tx: Transaction,
    manifest: Manifest,
    lanes: Lanes,
    *,
    parents: tuple[str, ...] = (),
    operation: Mapping[str, object],
    report: Mapping[str, object],
    job: str | None,
    onto: int | None = None,
) -> Manifest:
    """Make `manifest` the next version of its name; if the newest has the same rows in the same roles, return that.

    `onto`: the version that must still be the newest; CONFLICT if it is not, because the other change would be lost.
    """
    last = tx.execute(_LAST, [manifest.name])
    if onto is not None and (not last or last[0][0] != onto):
        raise SpeciateError(
            Code.CONFLICT,
            f"{manifest.name}@v{onto} is no longer the newest version: another change came first.",
            "Make the same call again; it then starts from the version that is the newest now.",
        )
    if last and last[0][1] == manifest.id and _roles(Manifest.model_validate_json(last[0][2])) == _roles(manifest):
        return manifest.model_copy(update={"version": last[0][0]})
    newest = max(last[0][0] if last else 0, tombstones.last_buried(tx, "dataset", manifest.name))
    made = manifest.model_copy(update={"version": newest + 1})
    row = (
        made.name, made.version, made.id, lanes.astype("<u2").tobytes(), made.model_dump_json(),
        json.dumps(parents), json.dumps(operation), json.dumps(report), job, tx.now,
    )  # fmt: skip
    tx.execute(_INSERT, row)
    tx.event(f"dataset:{made.name}", "dataset.created", {"version": made.version, "id": made.id})
    return made


def _roles(manifest: Manifest) -> tuple[object, ...]:
    """What a model would see and learn: the same rows in other roles are another version.

    The number of rows is there because 65,536 copies of one row add nothing to the lanes.
    """
    return manifest.modality, manifest.inputs, manifest.label is None, manifest.numeric, manifest.rows


def _untagged(database: Database, ref: DatasetRef) -> DatasetRef:
    if ref.tag is None:
        return ref
    row = database.read_one(_TAGGED, [ref.name, ref.tag])
    if row is None:
        known = tags(database, ref.name)
        if not known and ref.name not in names(database):
            raise _no_version(database, ref)
        shown = ", ".join(f"{tag} (v{number})" for tag, number in known.items()) or "none"
        raise SpeciateError(
            Code.NOT_FOUND,
            f"Dataset {ref.name!r} has no tag {ref.tag!r}; its tags are: {shown}.",
            f"Call describe_dataset(dataset={ref.name!r}), or manage_data(action='tag') to set one.",
        )
    return ref._replace(version=row[0], tag=None)


def _not_yet(name: str, job: str, state: str) -> SpeciateError:
    """A dataset whose first version is being made, or was not made after all."""
    if state in (State.FAILED, State.CANCELLED, State.DEAD):
        message = f"There is no dataset {name!r}: {job}, which was to make it, is {state}."
        return SpeciateError(Code.NOT_FOUND, message, next=[Call("get_job", {"job": job}, "for why")])
    message = f"There is no dataset {name!r} yet: {job} is making it ({state})."
    return SpeciateError(Code.NOT_FOUND, message, next=[Call("wait_for_job", {"job": job}, ", then this again")])


def _no_version(database: Database, ref: DatasetRef) -> SpeciateError:
    row = database.read_one(_NEWEST, [ref.name])
    if row is None:
        job = database.read_one(_MAKING, [ref.name])
        if job is not None and job[1] != State.SUCCEEDED:  # after a success it was deleted
            return _not_yet(ref.name, *job)
        return unknown(
            "dataset", ref.name, names(database), next=[Call("describe_dataset", {}, "for all, or create_dataset")]
        )
    if making := database.read_one(_NEXT, [ref.name]):
        return SpeciateError(
            Code.NOT_FOUND,
            f"Dataset {ref.name!r} has no version {ref.version} yet; the newest is v{row[0]}, and {making[0]} "
            f"({making[1]}) is making the next.",
            next=[Call("wait_for_job", {"job": making[0]}, ", then this again")],
        )
    return SpeciateError(
        Code.NOT_FOUND,
        f"Dataset {ref.name!r} has no version {ref.version}; the newest is v{row[0]}.",
        next=[Call("describe_dataset", {"dataset": ref.name})],
    )


def find_parent(database: Database, child: Version, ref: str) -> Version | None:
    """One of `child.parents`; of a deleted one only its provenance. None if nothing is known of it."""
    try:
        return version(database, ref)
    except SpeciateError as error:
        if error.code is not Code.NOT_FOUND:
            raise
    heritage: Mapping[str, DeletedVersion] = child.operation.get(DELETED, {})
    left = heritage.get(ref)
    if left is None:
        return None
    operation = {**left["operation"], DELETED: heritage}
    return Version(Manifest.model_validate(left["manifest"]), left["parents"], operation, {}, None, left["created"])


def keep_ancestry(tx: Transaction, doomed: Collection[str]) -> None:
    """Writes into the remaining versions what they need to know of the doomed ones (refs) that they came from."""
    rows = {f"{name}@v{number}": (name, number, *rest) for name, number, *rest in tx.execute(_ALL)}
    left_behind = {ref: _ancestry_of_deleted(*rows[ref][2:]) for ref in doomed if ref in rows}
    for ref, (name, number, _, parents, text, _) in rows.items():
        if ref in doomed:
            continue
        operation = json.loads(text)
        known = operation.get(DELETED, {})
        offered = {**known, **{gone: each for heritage in left_behind.values() for gone, each in heritage.items()}}
        heritage = _reachable_deleted(json.loads(parents), offered)
        if heritage.keys() != known.keys():
            tx.execute(_SET, [json.dumps(operation | {DELETED: heritage}), name, number])


def _ancestry_of_deleted(manifest: str, parents: str, text: str, created: float) -> dict[str, DeletedVersion]:
    """What a deleted version leaves: itself, and what was left to it."""
    operation = json.loads(text)
    left_to_it = operation.pop(DELETED, {})
    found = Manifest.model_validate_json(manifest)
    own: DeletedVersion = {
        "manifest": {**json.loads(manifest), **_GONE},
        "parents": json.loads(parents),
        "operation": operation,
        "created": created,
    }
    return {**left_to_it, found.ref: own}


def _reachable_deleted(parents: Sequence[str], deleted: Mapping[str, DeletedVersion]) -> dict[str, DeletedVersion]:
    """The deleted versions that can be reached from these parents through deleted ones."""
    found: dict[str, DeletedVersion] = {}
    left = list(parents)
    while left:
        ref = left.pop(0)
        if ref in deleted and ref not in found:
            found[ref] = deleted[ref]
            left += deleted[ref]["parents"]
    return found
