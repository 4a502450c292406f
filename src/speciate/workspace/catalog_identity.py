"""Whether the catalog in a workspace is the one of its folders, and whether the workspace is a copy of another one.

What a catalog does not name looks like garbage, so a wrong catalog ends in deleted data. It is compared, before
anything is made or changed, with what else remembers it: `identity.json` beside it, the automatic backups and the
folders. The decision (`find_doubt`) is a pure function of these facts; a catalog that is doubted is refused, and
`speciate rebuild` is the way back. Older workspaces have no identity: they get one where nothing contradicts.

A copy must not run what the original has queued: two of them would ask endpoints, pay and notify twice. So a catalog
notes where it lies (path and inode of its folder), and `speciate backup` marks what it makes. A folder that was moved
is no copy: it keeps its inode, or, on another disk, cannot be told from one and is treated as one. Nor is one that lies
where it lay, whatever its inode: it was restored there, or mounted anew."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb

from speciate.errors import Code, SpeciateError
from speciate.workspace import repair
from speciate.workspace.blobs import write_durably
from speciate.workspace.database import Database, Transaction

ANCHOR = "identity.json"
REBUILT = "workspace.rebuilt"
"""The event with which a catalog begins that was made from a backup."""
_SHOWN = 5
_HEX32, _HEX64 = "[0-9a-f]" * 32, "[0-9a-f]" * 64
_RUNS, _MODELS, _ROWS = (
    "runs/job-*.[0-9]*/spec.json", "models/*/v[0-9]*/files.json", f"datasets/*/{_HEX32}.parquet",
)  # fmt: skip
_SIGNS = (
    "audit.heads", "backups/auto-*Z-[0-9]*/load.sql", _MODELS, _ROWS, f"packs/{_HEX32}.pack", _RUNS,
    "evaluations/evaluation-*/*.parquet",
)  # fmt: skip
"""What only a workspace has in which something happened. Names that we give: anybody has a folder `models`."""
_MORE_SIGNS = (
    ANCHOR, "backups/torn-*/catalog.duckdb", "backups/replaced-*/*", "catalog.duckdb.wal", f"blobs/??/{_HEX64}",
    "logged/*/lines/*.jsonl", "logged/*/parts/*.answers.parquet",
)  # fmt: skip
"""What only a workspace has that had a catalog."""
_IDENTITY = "SELECT value FROM meta WHERE key = 'identity'"
_NEWEST = "SELECT coalesce(max(seq), 0) FROM events"
_EVENT = "SELECT stamp, type FROM events WHERE seq = ?"
_SAVED_IDENTITY = "SELECT value FROM read_parquet(?) WHERE key = 'identity'"
_SAVED_EVENT = "SELECT stamp, type FROM read_parquet(?) WHERE seq = ?"
_NAMED = "SELECT 1 FROM jobs WHERE id IN (SELECT unnest(?::VARCHAR[])) LIMIT 1"
_NAMED_MODEL = "SELECT 1 FROM model_versions WHERE name || '/v' || version IN (SELECT unnest(?::VARCHAR[])) LIMIT 1"
_MANIFESTS = "SELECT manifest FROM dataset_versions"
_log = logging.getLogger(__name__)

Read = Callable[[str, Sequence[object]], Sequence[tuple[Any, ...]]]
"""Runs one SELECT, on a connection or a `Database`."""


class Anchor(NamedTuple):
    """What `identity.json` says: whose folders these are, and how far the catalog had come when it was last closed."""

    identity: str
    events: int = 0


class CatalogSummary(NamedTuple):
    """What a catalog or a backup says of itself."""

    identity: str | None
    events: int
    """The number of its newest event."""


class SavedBackup(NamedTuple):
    """An automatic backup that can be read."""

    path: Path
    identity: str | None
    events: int
    event: tuple[Any, ...]
    """Stamp and type of its newest event."""


class CatalogFacts(NamedTuple):
    catalog: CatalogSummary | None
    """None: there is no file, or one without tables."""
    anchor: Anchor | None = None
    backup: CatalogSummary | None = None
    """The newest that can be read and is not of another workspace."""
    continues: bool = True
    """Whether the catalog has the backup's newest event."""
    signs: tuple[str, ...] = ()
    """Signs of use among what lies in the folders."""
    knows_some: bool = True
    """Whether the catalog names anything of what lies there."""


class Doubt(NamedTuple):
    kind: Literal["gone", "empty", "older", "shorter", "diverged", "foreign"]
    """`shorter`: only than it once was; nothing that is left has more."""
    why: str


def find_doubt(facts: CatalogFacts, *, torn: bool = False) -> Doubt | None:
    """Why the catalog may not be the one of these folders; None where everything agrees. `torn`: the end of its log was
    just cut off, so that only a backup can say that it is too short. Pure."""
    catalog, anchor, backup = facts.catalog, facts.anchor, facts.backup
    there = f"its data are there: {', '.join(facts.signs)}" if facts.signs else "it had one"
    if catalog is None:
        return Doubt("gone", f"is gone or empty, but {there}") if facts.signs or anchor or backup else None
    expected = anchor.identity if anchor else backup.identity if backup else None
    if catalog.identity and expected and catalog.identity != expected:
        return Doubt("foreign", "is that of another workspace")
    if backup and catalog.events < backup.events:
        return Doubt("older", f"ends at event {catalog.events}, and its newest backup at {backup.events}")
    if backup and not facts.continues:
        return Doubt("diverged", f"has another event {backup.events} than its newest backup")
    if catalog.events == 0 and facts.signs and not torn:
        return Doubt("empty", f"is empty, but {there}")
    if expected and not catalog.identity and not torn:
        return Doubt("older", "is from before this workspace got its identity")
    if anchor and catalog.events < anchor.events and not torn:
        return Doubt("shorter", f"ends at event {catalog.events}, and it had come to {anchor.events}")
    if anchor is None and not facts.knows_some:
        return Doubt("foreign", f"names nothing of what lies there: {', '.join(facts.signs)}")
    return None


def refuse_missing(root: Path) -> None:
    """Raise REFUSED where there is no catalog and there was one. Reads names alone. An empty file that a killed first
    start left, which DuckDB would not open, goes."""
    if refused := missing_catalog_error(root):
        raise refused
    catalog = root / "catalog.duckdb"
    if not (catalog.exists() and catalog.stat().st_size):
        catalog.unlink(missing_ok=True)


def missing_catalog_error(root: Path) -> SpeciateError | None:
    """What to refuse with where there is no catalog and there was one. Reads names alone, and changes nothing."""
    catalog = root / "catalog.duckdb"
    if catalog.exists() and catalog.stat().st_size:
        return None
    found = find_doubt(CatalogFacts(None, read_anchor(root), signs=signs_of_use(root, (*_SIGNS, *_MORE_SIGNS))))
    return doubt_error(root, found) if found else None


def refuse_wrong(root: Path, connection: duckdb.DuckDBPyConnection, *, torn: bool = False) -> None:
    """Raise REFUSED where the catalog on this connection, of whatever schema, is not the one of the folder."""
    if found := find_doubt(gather_facts(root, connection), torn=torn):
        raise doubt_error(root, found)


def refuse_useless(root: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Raise REFUSED where something is better than this catalog: a backup, or a new one. For a rebuild, after which
    `refuse_wrong` must not refuse what it kept."""
    facts = gather_facts(root, connection)
    found = find_doubt(facts)
    if found and not (found.kind == "shorter" and facts.catalog and facts.catalog.events):
        raise doubt_error(root, found)


def refuse_before_replay(root: Path) -> None:
    """Refuses as `refuse_wrong` does, before a log that a killed owner left is folded into the file. What cannot be
    read like that is for `salvage_catalog` to mend."""
    if not (root / "catalog.duckdb.wal").exists():
        return
    torn = repair.find_unfinished(root / "backups") is not None
    with contextlib.suppress(duckdb.Error), duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as connection:
        refuse_wrong(root, connection, torn=torn)


def doubt_error(root: Path, found: Doubt) -> SpeciateError:
    return SpeciateError(
        Code.REFUSED,
        f"The catalog of {root} (catalog.duckdb) {found.why}. Nothing was changed.",
        f"Put the right file back, or run `speciate rebuild --workspace {root}`: it takes the newest backup and the "
        "run folders, and keeps what is there aside. To begin anew: `speciate init --workspace` with a new folder.",
    )


def gather_facts(root: Path, connection: duckdb.DuckDBPyConnection) -> CatalogFacts:
    """The facts of an open catalog; one without tables counts as none."""
    anchor = read_anchor(root)
    read = reader_of(connection)
    try:
        identity, events = _own_identity(read), int(read(_NEWEST, [])[0][0])
    except duckdb.CatalogException:
        return CatalogFacts(None, anchor, signs=signs_of_use(root, (*_SIGNS, *_MORE_SIGNS)))
    saved = next(readable_backups(read, root / "backups", anchor.identity if anchor else None), None)
    found = signs_of_use(root) if anchor is None or events == 0 else ()
    return CatalogFacts(
        CatalogSummary(identity, events),
        anchor,
        CatalogSummary(saved.identity, saved.events) if saved else None,
        continues=saved is None or _has_event(read, saved),
        signs=found,
        knows_some=anchor is not None or not found or _knows_some_run(root, read),
    )


def signs_of_use(root: Path, patterns: Sequence[str] = _SIGNS) -> tuple[str, ...]:
    """Names of what tells that something happened here, one of each kind, at most five."""
    found = (next(root.glob(pattern), None) for pattern in patterns)
    return tuple(path.relative_to(root).as_posix() for path in found if path is not None)[:_SHOWN]


def reader_of(connection: duckdb.DuckDBPyConnection) -> Read:
    return lambda sql, parameters: connection.execute(sql, parameters).fetchall()


# Backups


def readable_backups(read: Read, folder: Path, identity: str | None) -> Iterator[SavedBackup]:
    """Automatic backups that can be read and are of this identity, or of before there was any; fullest first. Where
    `identity` is None, any."""
    named = [path for path in folder.glob("auto-*-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(named, key=lambda path: (events_of(path), path.name), reverse=True):
        try:
            owner = read(_SAVED_IDENTITY, [str(path / "meta.parquet")])
            event = read(_SAVED_EVENT, [str(path / "events.parquet"), events_of(path)])
        except duckdb.Error:
            _log.warning("the backup %s cannot be read", path.name)
            continue
        if event and (identity is None or not owner or owner[0][0] == identity):
            yield SavedBackup(path, str(owner[0][0]) if owner else None, events_of(path), tuple(event[0]))


def trusted_backups(read: Read, root: Path, identity: str) -> Iterator[SavedBackup]:
    """Backups of the very catalog that `read` reads: it has the newest event of each. Fullest first."""
    return (saved for saved in readable_backups(read, root / "backups", identity) if _has_event(read, saved))


def events_of(backup: Path) -> int:
    """The number of the newest event in an automatic backup: the end of its name."""
    return int(backup.name.rpartition("-")[2])


def _has_event(read: Read, saved: SavedBackup) -> bool:
    """A purge may change what an event says, so its time and type are compared alone."""
    return [tuple(row) for row in read(_EVENT, [saved.events])] == [saved.event]


def _own_identity(read: Read) -> str | None:
    rows = read(_IDENTITY, [])
    return str(rows[0][0]) if rows else None


def _knows_some_run(root: Path, read: Read) -> bool:
    """Whether the catalog names a run, a model version or a sealed file that is there; true where none of them is."""
    runs = [path.parent.name.rpartition(".")[0] for path in root.glob(_RUNS)]
    models = [f"{path.parent.parent.name}/{path.parent.name}" for path in root.glob(_MODELS)]
    files = [path.relative_to(root).as_posix() for path in root.glob(_ROWS)]
    if not (runs or models or files):
        return True
    manifests = "\n".join(text for (text,) in read(_MANIFESTS, [])) if files else ""
    return bool(read(_NAMED, [runs]) or read(_NAMED_MODEL, [models]) or any(name in manifests for name in files))


# The anchor


def read_anchor(root: Path) -> Anchor | None:
    """None where the file is missing or is not one of ours."""
    try:
        saved = json.loads((root / ANCHOR).read_text())
        return Anchor(str(saved["identity"]), int(saved["events"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_anchor(root: Path, anchor: Anchor) -> None:
    if read_anchor(root) != anchor:
        write_durably(root / ANCHOR, json.dumps(anchor._asdict()).encode())


COPIED = "workspace.copied"
SUBJECT = "workspace:place"
_PLACE, _MARK, _OF = "place", "copied_from", "copy_of"
_GET = "SELECT value FROM meta WHERE key = ?"
_PUT = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_DROP = "DELETE FROM meta WHERE key = ?"


class Place(NamedTuple):
    path: str
    inode: int


def current_place(root: Path) -> Place:
    return Place(str(root.resolve()), root.stat().st_ino)


def is_copy(noted: Place | None, now: Place, *, original_there: bool) -> bool:
    """Whether a workspace is a copy, by where the catalog last lay and where it lies; `original_there`: another folder
    lies where it last lay and has the same identity. Pure."""
    if noted is None or noted.path == now.path:
        return False
    return original_there or noted.inode != now.inode


def copied_from(database: Database, root: Path, identity: str) -> str | None:
    """Path of the original, where this workspace is a copy whose jobs nobody has dealt with yet."""
    if marked := database.read_one(_GET, [_MARK]):
        return str(marked[0])
    noted = _read_place(database.read_one(_GET, [_PLACE]))
    if noted is None or not is_copy(
        noted, current_place(root), original_there=_other_workspace_at(Path(noted.path), root, identity)
    ):
        return None
    return noted.path


def settle_place(tx: Transaction, root: Path, original: str | None = None) -> None:
    """From now on the catalog belongs where it lies. `original`: whose copy it is."""
    now = current_place(root)
    rows = tx.execute(_GET, [_PLACE])
    if _read_place(rows[0] if rows else None) != now:
        tx.execute(_PUT, [_PLACE, json.dumps(now)])
    if original is not None:
        tx.execute(_DROP, [_MARK])
        tx.execute(_PUT, [_OF, original])


def original_of(database: Database) -> str | None:
    """The workspace that this one is a copy of, as it was found when it was first opened; None where it is no copy."""
    row = database.read_one(_GET, [_OF])
    return str(row[0]) if row else None


def mark_copy(original: Path) -> tuple[str, str]:
    """Key and value of the row of `meta` that marks a copy."""
    return _MARK, str(original)


def _read_place(row: tuple[object, ...] | None) -> Place | None:
    if row is None:
        return None
    path, inode = json.loads(str(row[0]))
    return Place(str(path), int(inode))


def _other_workspace_at(there: Path, root: Path, identity: str) -> bool:
    """Whether a workspace of this identity lies at `there` that is not the one at `root`."""
    try:
        same = there.samefile(root)
    except OSError:
        return False
    anchor = read_anchor(there)
    return not same and anchor is not None and anchor.identity == identity
