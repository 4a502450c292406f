"""deidentify: the files of a version rewritten, its columns filled anew, its groups and splits as they were."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from pydicom.data import get_testdata_file

from speciate.datasets.columns import CONTENT, KEY, ORIGIN, with_column
from speciate.datasets.curate import parse_steps, preflight_step
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.operations.deidentify import COLUMN, key_of
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities.bundles import members_of
from speciate.modalities.medical.deidentification.pseudonyms import Pseudonyms
from speciate.privacy.purge_datasets import Target, purge_keys, sealed_files
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import Curated, apply, context_of, curate, read
from tests.security import scans

PROFILE = ["basic", "retain_institution"]


class World(NamedTuple):
    """Scans, and what became of them: made once, as each job starts processes of its own."""

    workspace: Workspace
    source: Path
    before: Manifest
    after: Curated


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("deidentify")
    workspace, source = Workspace(root / "workspace"), scans.folder(root / "source")
    labels = {"path": str(source / "labels.csv"), "key": "file", "column": "finding"}
    before = data.ingest(workspace, "scans", source=str(source), modality="dicom", labels=labels)
    step = {"op": "deidentify", "profile": PROFILE, "drop_columns": ["room"], "pseudonym_columns": ["ward"]}
    yield World(workspace, source, before, curate(workspace, "scans", step))
    workspace.close()


def blobs(workspace: Workspace, manifest: Manifest) -> list[bytes]:
    with PackReader([workspace.folders.root / pack for pack in manifest.packs]) as reader:
        contents = read(workspace, manifest.ref)[CONTENT].to_pylist()
        return [reader.get(content) for content in contents if content]


def traces_in(data: bytes) -> list[bytes]:
    return [trace for trace in scans.TRACES if trace in data]


def test_the_version_holds_no_old_bytes_and_no_cell_that_names_somebody(world: World) -> None:
    workspace, after = world.workspace, world.after
    assert not set(after.manifest.packs) & set(world.before.packs)
    for pack in after.manifest.packs:
        assert traces_in((workspace.folders.root / pack).read_bytes()) == [b"ZQHOSPITAL"]  # as the option keeps it
    assert traces_in(repr(after.rows.drop_columns(["_sketch"]).to_pylist()).encode()) == []
    assert traces_in(repr(read(workspace, world.before.ref).to_pylist()).encode()) != []
    assert [len(members_of(blob)) for blob in blobs(workspace, after.manifest)] == [3, 3, 3, 3]
    assert set(after.rows[COLUMN].to_pylist()) == {"basic+retain_institution"}


def test_groups_splits_labels_and_pixels_are_as_they_were(world: World) -> None:
    folders = world.workspace.folders
    rows = {row[ORIGIN]: row for row in world.after.rows.to_pylist()}
    old = {example.id: example.media["voxels"] for example in load_examples(folders, world.before)}
    new = {example.id: example.media["voxels"] for example in load_examples(folders, world.after.manifest)}
    for row in read(world.workspace, world.before.ref).to_pylist():
        now = rows[row[KEY]]
        assert (now["split"], now["label"]) == (row["split"], row["label"])
        assert now["group_key"] == now["patient"] != row["group_key"]
        assert now["id"] != row["id"]
        assert (new[now["id"]] == old[row["id"]]).all()
    assert len({row["group_key"] for row in rows.values()}) == 4


def test_the_audit_lists_changes_and_quotes_nobody(world: World) -> None:
    audit = world.after.steps[0]["audit"]
    assert (audit["profile"], audit["files"], audit["not_possible"]) == ("basic+retain_institution", 4, 0)
    assert audit["tags"]["00100010 Patient's Name"] == {"replaced": 12}
    assert audit["tags"]["00080080 Institution Name"] == {"kept": 12}
    assert audit["tags"]["private attributes"] == {"removed": 24}
    assert audit["columns"]["pseudonyms"] == ["comment", "file", "ward"]
    assert audit["columns"]["dropped"] == ["room"]
    assert audit["columns"]["kept"] == ["finding"]
    assert traces_in(repr(audit).encode()) == []


def test_columns_that_are_named_go_or_get_pseudonyms(world: World) -> None:
    rows = world.after.rows
    assert "room" not in rows.column_names
    for name, count in (("ward", 2), ("comment", 4), ("file", 4)):
        assert len(set(rows[name].to_pylist())) == count
        assert all(cell.startswith("P-") for cell in rows[name].to_pylist())


@pytest.mark.slow
def test_the_same_file_gets_the_same_pseudonyms_again_and_others_in_another_dataset(world: World) -> None:
    workspace = world.workspace
    again = curate(workspace, "scans@v1", {"op": "deidentify"})
    data.ingest(workspace, "other", source=str(world.source), modality="dicom")
    other = curate(workspace, "other", {"op": "deidentify"})

    def patients(found: Curated) -> set[str]:
        return set(found.rows["patient"].to_pylist())

    assert patients(world.after) == patients(again)
    assert not patients(world.after) & patients(other)


@pytest.mark.slow
def test_windows_of_a_scan_share_its_rewritten_file(world: World) -> None:
    after = curate(world.workspace, "scans@v1", {"op": "window", "steps": 1}, {"op": "deidentify"})
    assert after.rows.num_rows == 12
    assert len(set(after.rows[CONTENT].to_pylist())) == 4
    assert len(set(after.rows["id"].to_pylist())) == len(set(after.rows[KEY].to_pylist())) == 12
    assert set(after.rows["steps"].to_pylist()) == {1}
    assert len(list(load_examples(world.workspace.folders, after.manifest))) == 12


def test_a_file_that_could_not_be_read_at_first_is_out_with_the_reason_and_counted(
    workspace: Workspace, tmp_path: Path
) -> None:
    """No bytes of such a file are kept, only the hash and its header's fields."""
    (tmp_path / "sent").mkdir()
    for name in ("JPEG-lossy.dcm", "JPGExtended.dcm"):
        shutil.copy(get_testdata_file(name), tmp_path / "sent")
    before = data.ingest(workspace, "scans", source=str(tmp_path / "sent"), modality="dicom")
    old = {row["source"]: row for row in read(workspace, before.ref).to_pylist()}
    unread = next(row for row in old.values() if row["quality"] == "error")
    assert len(old) == 2
    assert unread[CONTENT]
    assert unread["photometric"]
    after = curate(workspace, "scans", {"op": "deidentify"})
    audit = after.steps[0]["audit"]
    assert (audit["files"], audit["not_possible"]) == (1, 1)
    (row,) = [row for row in after.rows.to_pylist() if row["quality"] == "error"]
    assert row["reason"].startswith("It could not be de-identified: it could not be read when it came in")
    kept = {name for name, cell in row.items() if cell is not None}
    assert kept <= {"id", "group_key", "quality", "reason", "source", ORIGIN}
    assert row["group_key"] != unread["group_key"]


def test_bytes_of_a_readable_file_that_are_lost_are_no_reason_to_leave_it_out(world: World) -> None:
    pool = Pool(world.workspace.folders, world.workspace.settings)
    rows = read(world.workspace, world.before.ref)
    rows = with_column(rows, CONTENT, pa.array(["0" * 64, *rows[CONTENT].to_pylist()[1:]]))
    try:
        with pytest.raises(SpeciateError, match="No pack of 1 holds 0000"):
            apply(rows, context_of(world.workspace, world.before, pool, "job-lost"), op="deidentify")
    finally:
        pool.close()


def test_purging_a_patient_purges_the_rewritten_files(world: World) -> None:
    folders = world.workspace.folders
    target = Target(dataset="scans", group="ZQMRN0")
    files, _ = sealed_files(folders)
    known = purge_keys(folders, files, [world.before, world.after.manifest], target)
    (mine,) = [row for row in world.after.rows.to_pylist() if row[CONTENT] in known[CONTENT]]
    assert mine["group_key"] == Pseudonyms(key_of(folders.root, "scans")).name("ZQMRN0")


def test_the_key_is_for_its_owners_eyes_alone(tmp_path: Path) -> None:
    key = key_of(tmp_path, "scans")
    path = tmp_path / "deidentification.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_of(tmp_path, "scans") == key != key_of(tmp_path, "other")
    path.chmod(0o644)
    with pytest.raises(SpeciateError, match="others may read it"):
        key_of(tmp_path, "scans")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"profile": "basic+clean_pixels"}, "'clean_pixels' is not available: nothing here reads or paints over text"),
        ({"profile": "basic+clean_graphics"}, "'clean_graphics' is not available"),
        ({"profile": "advanced"}, "There is no option 'advanced'"),
        ({"profile": "basic+modified_dates+retain_full_dates"}, "Dates are either kept in full or modified"),
        ({"drop_columns": ["nowhere"]}, "has no column 'nowhere'"),
        ({"drop_columns": ["finding"]}, "The column 'finding' is the label"),
    ],
)
def test_impossible_steps_are_refused_before_a_file_is_read(step: dict[str, object], message: str) -> None:
    (parsed,) = parse_steps([{"op": "deidentify", **step}])
    with pytest.raises(SpeciateError, match=message):
        preflight_step(parsed, version_of("dicom"), {})


def test_other_modalities_are_refused() -> None:
    (parsed,) = parse_steps([{"op": "deidentify"}])
    with pytest.raises(SpeciateError, match="deidentify rewrites DICOM files, and scans@v1 holds image"):
        preflight_step(parsed, version_of("image"), {})


def version_of(modality: str) -> Manifest:
    columns = {"finding": "VARCHAR", "ward": "VARCHAR"}
    return Manifest(
        name="scans", version=1, id="", modality=modality, parts=(), columns=columns, label="finding", rows=4
    )
