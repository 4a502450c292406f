"""A catalog that is lost or is not the one of the folders: refused, nothing made or deleted, and the way back works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.errors import Code, SpeciateError
from speciate.settings import Settings
from speciate.workspace import catalog_identity, repair
from speciate.workspace.backup import automatic_backups, back_up, save_catalog
from speciate.workspace.catalog_identity import Anchor, CatalogFacts, CatalogSummary, find_doubt
from speciate.workspace.database import Transaction
from speciate.workspace.rebuild import rebuild_catalog
from speciate.workspace.repair import salvage_catalog
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

pytestmark = pytest.mark.durable

_KEYS = "SELECT key FROM meta WHERE value = 'x' ORDER BY key"


def add(workspace: Workspace, *keys: str) -> None:
    def insert(tx: Transaction) -> None:
        for key in keys:
            tx.execute("INSERT INTO meta VALUES (?, 'x')", [key])
            tx.event(key, "added")

    workspace.database.transact(insert)


def opened(root: Path, clock: ManualClock) -> Workspace:
    return Workspace(root, clock, Settings())


def listing(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a closed workspace `w`: three events, two of them in a backup, and some data; `before` holds the
    catalog as it was after the first. It does not know where it lies, so no copy is taken for one."""
    folder, clock = tmp_path_factory.mktemp("used"), ManualClock()
    workspace = opened(folder / "w", clock)
    add(workspace, "a")
    forget_place(workspace)
    workspace.close()
    (folder / "before").mkdir()
    shutil.copy(folder / "w" / "catalog.duckdb", folder / "before")
    workspace = opened(folder / "w", clock)
    forget_place(workspace)
    clock.advance(60)
    add(workspace, "b")
    save_catalog(workspace.database, workspace.folders.backups, clock.now())
    add(workspace, "c")
    pack = workspace.folders.packs / f"{'ab' * 16}.pack"
    pack.write_bytes(b"precious")
    workspace.close()
    return folder


def forget_place(workspace: Workspace) -> None:
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'place'"))


@pytest.fixture
def root(used: Path, tmp_path: Path, clock: ManualClock) -> Path:
    """A copy of `used`, at the time of its last event."""
    shutil.copytree(used, tmp_path, dirs_exist_ok=True)
    clock.advance(60)
    return tmp_path / "w"


def deleted(root: Path, clock: ManualClock) -> None:
    (root / "catalog.duckdb").unlink()


def emptied(root: Path, clock: ManualClock) -> None:
    (root / "catalog.duckdb").write_bytes(b"")


def without_tables(root: Path, clock: ManualClock) -> None:
    deleted(root, clock)
    duckdb.connect(str(root / "catalog.duckdb")).close()


def another_ones(root: Path, clock: ManualClock, events: int = 0) -> None:
    """That of a new workspace, or of one in which as much happened."""
    other = opened(root.parent / "other", clock)
    add(other, *(f"other{number}" for number in range(events)))
    other.close()
    shutil.copy(root.parent / "other" / "catalog.duckdb", root / "catalog.duckdb")


def older(root: Path, clock: ManualClock) -> None:
    shutil.copy(root.parent / "before" / "catalog.duckdb", root / "catalog.duckdb")


def diverged(root: Path, clock: ManualClock) -> None:
    """An older one in which other things happened since, more than the newest backup knows."""
    shutil.move(root.parent / "before", root.parent / "aside")
    clock.advance(1000)
    workspace = opened(root.parent / "aside", clock)
    add(workspace, *(f"other{number}" for number in range(9)))
    workspace.close()
    shutil.copy(root.parent / "aside" / "catalog.duckdb", root / "catalog.duckdb")


LOSSES: list[Callable[[Path, ManualClock], None]] = [
    deleted, emptied, without_tables, another_ones, partial(another_ones, events=9), older, diverged,
]  # fmt: skip
NAMES = ["deleted", "emptied", "without_tables", "fresh", "another_workspaces", "older", "diverged"]
RARE = {"emptied", "fresh", *(f"{name}-before_identities" for name in NAMES if name != "diverged")}
"""What is refused as another one here is, or without a backup; the hardest to tell without an anchor is not rare."""


@pytest.mark.parametrize(
    ("lose", "anchored"),
    [
        pytest.param(lose, anchored, id=name, marks=pytest.mark.slow if name in RARE else ())
        for anchored, suffix in ((True, ""), (False, "-before_identities"))
        for lose, name in zip(LOSSES, (f"{name}{suffix}" for name in NAMES), strict=True)
    ],
)
def test_a_lost_catalog_is_refused_and_rebuild_brings_back_what_the_newest_backup_held(
    root: Path, clock: ManualClock, lose: Callable[[Path, ManualClock], None], anchored: bool
) -> None:
    lose(root, clock)
    if not anchored:
        (root / catalog_identity.ANCHOR).unlink()
    before = listing(root)
    with pytest.raises(SpeciateError, match=f"speciate rebuild --workspace {root}") as caught:
        opened(root, clock)
    assert caught.value.code is Code.REFUSED
    assert listing(root) == before, "nothing is made, changed or deleted meanwhile"
    report = rebuild_catalog(root, clock)
    assert report.source.startswith("auto-")
    replaced = report.kept
    if lose is not deleted:
        assert replaced
        assert (replaced / "catalog.duckdb").read_bytes() == before["catalog.duckdb"]
    workspace = opened(root, clock)
    assert {("a",), ("b",)} <= set(workspace.database.read(_KEYS))
    assert workspace.database.read("SELECT type FROM events ORDER BY seq DESC LIMIT 1") == [(catalog_identity.REBUILT,)]
    add(workspace, "after")
    workspace.close()
    opened(root, clock).close()
    assert (root / "packs" / f"{'ab' * 16}.pack").exists()


@pytest.mark.parametrize(
    "lose",
    [pytest.param(deleted, id="deleted", marks=pytest.mark.slow), pytest.param(emptied, id="emptied")],
)
def test_without_a_backup_rebuild_begins_anew_and_knows_that_it_knows_nothing(
    root: Path, clock: ManualClock, lose: Callable[[Path, ManualClock], None]
) -> None:
    shutil.rmtree(automatic_backups(root / "backups")[0])
    identity = catalog_identity.read_anchor(root)
    lose(root, clock)
    with pytest.raises(SpeciateError, match="speciate rebuild"):
        opened(root, clock)
    assert rebuild_catalog(root, clock).source == "nothing"
    workspace = opened(root, clock)
    assert identity
    assert workspace.identity == identity.identity
    assert repair.read_gaps(workspace.database.read) == [(0.0, clock.now())]
    workspace.close()


def test_an_older_catalog_is_refused_also_where_no_backup_is_newer(root: Path, clock: ManualClock) -> None:
    shutil.rmtree(automatic_backups(root / "backups")[0])
    older(root, clock)
    with pytest.raises(SpeciateError, match="ends at event 1, and it had come to 3"):
        opened(root, clock)
    report = rebuild_catalog(root, clock)
    assert report.source == "the catalog itself, which opens"
    assert "after event 1" in report.lost[0]
    workspace = opened(root, clock)
    ((since, until),) = repair.read_gaps(workspace.database.read)
    assert since <= clock.now() - 60 < until
    workspace.close()


def test_a_kill_in_the_middle_of_rebuild_costs_nothing(root: Path, clock: ManualClock) -> None:
    older(root, clock)
    code = "import sys; from pathlib import Path; from speciate.workspace.rebuild import rebuild_catalog as r; r(Path(sys.argv[1]))"  # noqa: E501
    for point in ("rebuild_before_replace", "rebuild_after_replace"):
        environment = os.environ | {"SPECIATE_FAULT": f"{point}:kill"}
        process = subprocess.run([sys.executable, "-c", code, str(root)], env=environment, check=False)
        assert process.returncode == -9, point
    rebuild_catalog(root, clock)
    workspace = opened(root, clock)
    assert workspace.database.read(_KEYS) == [("a",), ("b",)]
    workspace.close()


def test_a_damaged_newest_backup_does_not_stand_in_the_way_of_the_one_before(root: Path, clock: ManualClock) -> None:
    workspace = opened(root, clock)
    newest = save_catalog(workspace.database, workspace.folders.backups, clock.now() + 60)
    workspace.close()
    (newest / "jobs.parquet").write_bytes(b"garbage")  # it still says how far it came, and cannot be imported
    deleted(root, clock)
    report = rebuild_catalog(root, clock)
    assert f"backup {newest.name}: it cannot be read" in report.lost
    assert report.kept
    assert (report.kept / newest.name).exists(), "set aside, for the new catalog does not go on from it"
    opened(root, clock).close()


def test_a_log_of_another_catalog_is_never_replayed_and_stays(root: Path, clock: ManualClock) -> None:
    older(root, clock)
    code = "import sys, os; from pathlib import Path; from speciate.workspace.workspace import Workspace as W; w = W(Path(sys.argv[1])); w.database.transact(lambda tx: tx.event('x', 'y')); os._exit(9)"  # noqa: E501
    subprocess.run([sys.executable, "-c", code, str(root.parent / "killed")], check=False)
    shutil.copy(root.parent / "killed" / "catalog.duckdb.wal", root / "catalog.duckdb.wal")
    with pytest.raises(SpeciateError, match="speciate rebuild"):
        opened(root, clock)
    kept = [path.read_bytes() for path in root.rglob("catalog.duckdb.wal")]
    assert (root.parent / "killed" / "catalog.duckdb.wal").read_bytes() in kept


@pytest.mark.parametrize("what", ["events", "identity"])
def test_a_catalog_without_events_or_identity_and_without_a_backup_is_begun_anew(
    root: Path, clock: ManualClock, what: str
) -> None:
    shutil.rmtree(automatic_backups(root / "backups")[0])
    with duckdb.connect(str(root / "catalog.duckdb")) as connection:
        connection.execute("DELETE FROM events" if what == "events" else "DELETE FROM meta WHERE key = 'identity'")
    with pytest.raises(SpeciateError, match="speciate rebuild"):
        opened(root, clock)
    report = rebuild_catalog(root, clock)
    assert report.source == "nothing"
    assert report.kept
    assert (report.kept / "catalog.duckdb").exists()
    workspace = opened(root, clock)
    assert repair.read_gaps(workspace.database.read) == [(0.0, clock.now())]
    workspace.close()


def test_a_kill_right_after_a_torn_log_was_cut_is_no_loss(root: Path, clock: ManualClock) -> None:
    code = "import sys, os; from pathlib import Path; from speciate.workspace.workspace import Workspace as W; w = W(Path(sys.argv[1])); [w.database.transact(lambda tx: tx.event('x', 'y')) for _ in range(9)]; os._exit(9)"  # noqa: E501
    subprocess.run([sys.executable, "-c", code, str(root)], check=False)
    log = root / "catalog.duckdb.wal"
    data = bytearray(log.read_bytes())
    data[-40] ^= 0xFF
    log.write_bytes(data)
    catalog_identity.write_anchor(root, catalog_identity.read_anchor(root)._replace(events=12))  # type: ignore[union-attr]
    kept = salvage_catalog(root / "catalog.duckdb")  # and the power went
    assert kept
    workspace = opened(root, clock)
    assert workspace.salvaged == kept
    assert 3 < workspace.database.last_seq < 12
    assert len(repair.read_gaps(workspace.database.read)) == 1
    workspace.close()
    again = opened(root, clock)
    assert again.salvaged is None, "once"
    again.close()


# What opens


def test_a_folder_with_names_that_anybody_gives_is_no_lost_workspace(tmp_path: Path, clock: ManualClock) -> None:
    for name in (
        "evaluations/2024/scores.parquet", "backups/auto-may.zip", "models/resnet/v1/weights.bin", "packs/a.pack",
        "datasets/mine/train.parquet", "runs/first/spec.json", "blobs/ab/x", "logged/web/today.log",
    ):  # fmt: skip
        (tmp_path / "w" / name).parent.mkdir(parents=True)
        (tmp_path / "w" / name).touch()
    opened(tmp_path / "w", clock).close()
    opened(tmp_path / "w", clock).close()


def test_a_copied_a_moved_and_a_backed_up_workspace_open(root: Path, clock: ManualClock, tmp_path: Path) -> None:
    workspace = opened(root, clock)
    identity = workspace.identity
    back_up(workspace, tmp_path / "backup")
    workspace.close()
    shutil.copytree(root, tmp_path / "copy")
    root.rename(tmp_path / "moved")
    for name in ("backup", "copy", "moved"):
        workspace = opened(tmp_path / name, clock)
        assert workspace.identity == identity
        assert len(workspace.database.read(_KEYS)) == 3
        workspace.close()


def test_a_workspace_of_before_identities_gets_its_own(root: Path, clock: ManualClock) -> None:
    with duckdb.connect(str(root / "catalog.duckdb")) as connection:
        connection.execute("DELETE FROM meta WHERE key = 'identity'")
    (root / catalog_identity.ANCHOR).unlink()
    (backup,) = automatic_backups(root / "backups")
    with duckdb.connect() as connection:
        meta = str(backup / "meta.parquet")
        connection.execute(f"CREATE TABLE m AS FROM '{meta}' WHERE key <> 'identity'")
        connection.execute(f"COPY m TO '{meta}' (FORMAT parquet)")
    workspace = opened(root, clock)
    assert catalog_identity.read_anchor(root) == Anchor(workspace.identity, 3)
    workspace.close()
    opened(root, clock).close()


def test_a_backup_of_another_workspace_among_ours_is_not_asked(root: Path, clock: ManualClock) -> None:
    other = opened(root.parent / "other", clock)
    add(other, *(f"other{number}" for number in range(50)))
    saved = save_catalog(other.database, other.folders.backups, clock.now() + 1e6)
    other.close()
    shutil.copytree(saved, root / "backups" / saved.name)
    opened(root, clock).close()
    deleted(root, clock)
    assert rebuild_catalog(root, clock).source != saved.name


def test_a_new_folder_opens_and_a_kill_between_catalog_and_identity_is_no_loss(
    tmp_path: Path, clock: ManualClock
) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "catalog.duckdb").touch()
    workspace = opened(tmp_path / "w", clock)
    workspace.database.close()
    (tmp_path / "w" / catalog_identity.ANCHOR).unlink()
    again = opened(tmp_path / "w", clock)
    assert again.identity == workspace.identity
    again.close()


# The decision

_ids = st.sampled_from([None, "one", "two"])
_known = st.none() | st.builds(CatalogSummary, _ids, st.integers(0, 4))
_facts = st.builds(
    CatalogFacts, _known, st.none() | st.builds(Anchor, st.sampled_from(["one", "two"]), st.integers(0, 4)), _known,
    continues=st.booleans(), signs=st.sampled_from([(), ("packs/a.pack",)]), knows_some=st.booleans(),
)  # fmt: skip


@given(facts=_facts, torn=st.booleans())
def test_what_is_not_doubted_has_all_that_is_known_of_it(facts: CatalogFacts, torn: bool) -> None:
    if find_doubt(facts, torn=torn) is not None:
        return
    catalog, anchor, backup = facts.catalog, facts.anchor, facts.backup
    if catalog is None:
        assert (anchor, backup, facts.signs) == (None, None, ()), "made where there are no traces of one"
        return
    assert not backup or (catalog.events >= backup.events and facts.continues)
    assert not anchor or catalog.identity == anchor.identity or (torn and catalog.identity is None)
    assert not anchor or torn or catalog.events >= anchor.events
    assert catalog.events or not facts.signs or torn


@given(facts=_facts, torn=st.booleans())
def test_a_catalog_with_everything_is_never_doubted(facts: CatalogFacts, torn: bool) -> None:
    good = facts._replace(
        catalog=CatalogSummary("one", 5), continues=True, knows_some=True,
        anchor=facts.anchor and facts.anchor._replace(identity="one"),
        backup=facts.backup and facts.backup._replace(identity="one"),
    )  # fmt: skip
    assert find_doubt(good, torn=torn) is None
