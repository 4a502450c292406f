"""One folder that holds everything: where its parts lie, and the open catalog."""

from __future__ import annotations

import secrets
from pathlib import Path

from speciate.clock import Clock, SystemClock
from speciate.settings import Settings, load
from speciate.workspace import rewriting
from speciate.workspace.database import Database, Transaction
from speciate.workspace.elapsed import Elapsed
from speciate.workspace.migrations import migrate
from speciate.workspace.room import RoomGauge
from speciate.workspace.salvage import salvage

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
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _FOLDERS:
            (self.root / name).mkdir(exist_ok=True)


class Workspace:
    """The daemon's view: folders, settings and the catalog. Open one per process that holds `daemon.lock`."""

    def __init__(self, root: Path, clock: Clock | None = None, settings: Settings | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.folders = Folders(root)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings = settings or load(root)
        self.room = RoomGauge(root, self.settings.disk)
        self.salvaged = salvage(self.folders.catalog)
        migrate(self.folders.catalog)  # refuses what is not ours, before anything is laid beside it
        self.folders.make()
        self.database = Database(self.folders.catalog, self.clock)
        if run := rewriting.asked(self.database):
            self.database.close()
            rewriting.rewrite(self.folders.catalog, run)
            self.database = Database(self.folders.catalog, self.clock)
        self._identity = self.database.transact(_identity)
        self.elapsed = Elapsed(root, self.clock)

    @property
    def identity(self) -> str:
        """Random hex digits that a catalog gets once and that its backups share. No path: it survives a move."""
        return self._identity

    def close(self) -> None:
        run = None if self.database.closed else rewriting.asked(self.database)
        self.elapsed.save(now=True)
        self.database.close()
        if run:
            rewriting.rewrite(self.folders.catalog, run)


def _identity(tx: Transaction) -> str:
    """Read it, or make it for a new catalog and for one of before there was any."""
    if found := tx.execute("SELECT value FROM meta WHERE key = 'identity'"):
        return str(found[0][0])
    made = secrets.token_hex(16)
    tx.execute("INSERT INTO meta VALUES ('identity', ?)", [made])
    return made
