"""One folder that holds everything: where its parts lie, and the open catalog."""

from __future__ import annotations

import contextlib
import secrets
from functools import partial
from pathlib import Path

from speciate.settings import Settings, load
from speciate.workspace import catalog_identity, compaction, repair, schema
from speciate.workspace.blobs import make_folder, sync_folder
from speciate.workspace.clock import Clock, Elapsed, SystemClock
from speciate.workspace.database import Database, Transaction
from speciate.workspace.disk_space import DiskGauge
from speciate.workspace.repair import salvage_catalog

_FOLDERS = (
    "blobs", "packs", "datasets", "features", "models", "predictions", "evaluations", "runs", "cache", "backups",
    "exports",
)  # fmt: skip


class Folders:
    """Paths inside a workspace; usable in a worker too, which never opens the catalog."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalog = root / "catalog.duckdb"
        self.blobs, self.packs, self.datasets = root / "blobs", root / "packs", root / "datasets"
        self.features, self.models = root / "features", root / "models"
        self.predictions, self.evaluations = root / "predictions", root / "evaluations"
        self.runs, self.cache, self.backups, self.exports = (
            root / "runs", root / "cache", root / "backups", root / "exports",
        )  # fmt: skip
        self.logged = root / "logged"

    def make(self) -> None:
        make_folder(self.root, mode=0o700)
        for name in _FOLDERS:
            (self.root / name).mkdir(exist_ok=True)
        sync_folder(self.root)


class Workspace:
    """The daemon's view: folders, settings and the catalog. Open one per process that holds `daemon.lock`.

    Raises SpeciateError REFUSED where the catalog is lost or is not the one of these folders (catalog_identity.py);
    then nothing was made or changed.
    """

    def __init__(self, root: Path, clock: Clock | None = None, settings: Settings | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.folders = Folders(root)
        make_folder(root, mode=0o700)
        self.settings = settings or load(root)
        self.room = DiskGauge(root, self.settings.disk)
        catalog_identity.refuse_missing(root)
        catalog_identity.refuse_before_replay(root)
        self.salvaged = salvage_catalog(self.folders.catalog)
        self.made = not self.folders.catalog.exists()
        """Whether it is new: there was none in this folder before."""
        agrees = partial(catalog_identity.refuse_wrong, root, torn=self.salvaged is not None)
        with schema.opened(self.folders.catalog, agrees):  # refuses what is not ours, before anything is laid beside it
            self.folders.make()
            self.database = Database(self.folders.catalog, self.clock)
        if run := compaction.requested_by(self.database):
            self.database.close()
            compaction.compact(self.folders.catalog, run)
            self.database = Database(self.folders.catalog, self.clock)
        self._identity = self._begin()
        self.elapsed = Elapsed(root, self.clock)
        catalog_identity.write_anchor(root, catalog_identity.Anchor(self._identity, self.database.last_seq))
        repair.settle_repairs(self.folders.backups, self.database.last_seq, clean=run is None)
        self.copied_from = catalog_identity.copied_from(self.database, root, self._identity)
        """Where the original lies, if this is a copy whose jobs nobody has dealt with yet (jobs/recovery.py)."""
        if self.copied_from is None:
            self.database.transact(lambda tx: catalog_identity.settle_place(tx, root))

    def _begin(self) -> str:
        """What every catalog notes when it is opened; its identity, which lies in the file itself before we go on."""
        anchor = catalog_identity.read_anchor(self.folders.root)
        made = anchor.identity if anchor else secrets.token_hex(16)  # a torn log may have taken it along

        def begin(tx: Transaction) -> tuple[str, bool]:
            if self.salvaged:
                repair.note_gap(tx.execute, tx.now)
            return _identity(tx, made)

        identity, new = self.database.transact(begin)
        if new:
            self.database.checkpoint()
        return identity

    @property
    def identity(self) -> str:
        """Random hex digits that a catalog gets once and its backups share; no path, so that it survives a move."""
        return self._identity

    def close(self) -> None:
        run = None if self.database.closed else compaction.requested_by(self.database)
        self.elapsed.save(now=True)
        events = self.database.last_seq
        self.database.close()
        if run:
            compaction.compact(self.folders.catalog, run)
        with contextlib.suppress(OSError):  # it only dates what was said before
            catalog_identity.write_anchor(self.folders.root, catalog_identity.Anchor(self._identity, events))


def _identity(tx: Transaction, made: str) -> tuple[str, bool]:
    """Read it, or give it `made` to a new catalog and to one of before there was any; whether it was given."""
    if found := tx.execute("SELECT value FROM meta WHERE key = 'identity'"):
        return str(found[0][0]), False
    tx.execute("INSERT INTO meta VALUES ('identity', ?)", [made])
    return made, True
