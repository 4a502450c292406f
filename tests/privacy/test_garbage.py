"""Garbage is what nothing names and nobody may yet name; everything else stays."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.datasets.content_hash import seal_rows
from speciate.privacy import garbage
from speciate.privacy.garbage import ACCOUNTED, OF_JOBS, Custody, Live, Spared, implausible, joined, lacking, spared
from speciate.workspace.backup import file_sum
from speciate.workspace.blobs import Blobs
from speciate.workspace.packs import PackWriter, index_path
from speciate.workspace.scratch import remove_abandoned
from speciate.workspace.workspace import Folders

_NOTHING = Live(files=frozenset(), blobs=frozenset(), runs=frozenset(), models=frozenset(), evaluations=frozenset())
_OLD, _CUTOFF = 1_000_000.0, 2_000_000.0
_CUSTODY = Custody(trusted=True, cutoff=_CUTOFF, witnessed=_CUTOFF, worked=((0.0, _CUTOFF),))
_HEX = "0123456789abcdef" * 2


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path)
    folders.make()
    return folders


def _aged(path: Path, at: float = _OLD) -> Path:
    """Written at that time, and all that is in it."""
    for entry in (path, *path.rglob("*")):
        os.utime(entry, (at, at))
    return path


def _file(path: Path, text: str = "x" * 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _sealed(name: str) -> str:
    """As a file of rows is named."""
    return hashlib.sha256(name.encode()).hexdigest()[:32] + ".parquet"


def _pack(folders: Folders, data: bytes) -> Path:
    with PackWriter(folders.packs) as writer:
        writer.add(data)
        return writer.seal()


def _part(path: Path, **columns: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def _sealed_part(folders: Folders, **columns: list[str]) -> str:
    """A file of rows, named by its content, as the manifest has it."""
    path = _part(folders.datasets / "d" / "unsealed", **columns)
    sealed = path.rename(path.with_name(f"{file_sum(path)[:32]}.parquet"))
    return sealed.relative_to(folders.root).as_posix()


def _found(folders: Folders, live: Live = _NOTHING) -> set[tuple[str, str]]:
    found = garbage.find(folders, live, _CUSTODY)
    return {(each.kind, each.path.relative_to(folders.root).as_posix()) for each in found}


def test_a_pack_goes_with_its_index_and_stays_with_it(folders: Folders) -> None:
    kept, lost = _pack(folders, b"kept"), _pack(folders, b"lost")
    _aged(folders.packs)
    live = _NOTHING.model_copy(update={"files": frozenset({f"packs/{kept.name}"})})
    assert _found(folders, live) == {("packs", f"packs/{lost.name}"), ("packs", f"packs/{index_path(lost).name}")}


def test_what_a_run_in_flight_has_sealed_stays_until_it_is_older_than_the_cutoff(folders: Folders) -> None:
    _pack(folders, b"no manifest names it yet")
    _part(folders.datasets / "d" / _sealed("new"), id=["a"])
    assert _found(folders) == set()


def test_blobs_stay_for_jobs_and_as_media_of_a_version(folders: Folders) -> None:
    blobs = Blobs(folders.blobs)
    media, rows, lost = blobs.put(b"media"), blobs.put(b"rows"), blobs.put(b"lost")
    part = _sealed_part(folders, id=["a"], _content=[media])
    _aged(folders.root)
    live = _NOTHING.model_copy(update={"files": frozenset({part}), "blobs": frozenset({rows})})
    assert _found(folders, live) == {("blobs", f"blobs/{lost[:2]}/{lost}")}


def test_a_blob_that_is_wanted_again_is_young_again(folders: Folders) -> None:
    blobs = Blobs(folders.blobs)
    blobs.put(b"twice")
    _aged(folders.blobs)
    blobs.put(b"twice")
    assert _found(folders) == set()


def test_cached_vectors_go_when_none_of_their_items_is_in_a_version(folders: Folders) -> None:
    part = _sealed_part(folders, id=["a"], _content=["c1"])
    _part(folders.features / "e" / f"part-{_HEX}.parquet", key=["c1", "c9"], content=["c1", "c9"])
    _part(folders.features / "e" / f"part-{_HEX[::-1]}.parquet", key=["c8"], content=["c8"])
    _aged(folders.root)
    live = _NOTHING.model_copy(update={"files": frozenset({part})})
    assert _found(folders, live) == {("features", f"features/e/part-{_HEX[::-1]}.parquet")}


def test_of_models_only_the_deleted_go_and_of_runs_only_those_that_are_listed(folders: Folders) -> None:
    for name in (
        "models/m/v1/model.json",
        "models/m/v2/model.json",
        "runs/job-a.1/log",
        "runs/job-b.1/log",
        "evaluations/evaluation-2/x",
    ):
        _file(folders.root / name)
    _aged(folders.root)
    live = _NOTHING.model_copy(update={"runs": frozenset({"job-a.1"}), "models": frozenset({"m/v1"})})
    assert _found(folders, live) == {
        ("models", "models/m/v1"),
        ("runs", "runs/job-a.1"),
        ("evaluations", "evaluations/evaluation-2"),
    }


def test_leftovers_of_killed_writers_go(folders: Folders) -> None:
    names = [
        "packs/.pack-12-abcdef012345.partial", "datasets/d/.abc.parquet.12.0a1b2c3d", "features/e/.f00d.tmp",
        "blobs/ab/.abab.12.0a1b2c3d", "models/m/.v3.12",
    ]  # fmt: skip
    for name in names:
        _file(folders.root / name)
    _file(folders.features / "e" / ".lock")
    _aged(folders.root)
    assert _found(folders) == {("leftovers", name) for name in names}


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="nobody can tell where a process stands")
def test_the_folder_that_a_service_process_stands_in_stays(folders: Folders) -> None:
    used, left = folders.cache / "pool" / "used", folders.cache / "pool" / "left"
    used.mkdir(parents=True)
    left.mkdir()
    _file(folders.cache / "thumbnail.png")
    _aged(folders.root)
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, cwd=used, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert _found(folders) == {("cache", "cache/thumbnail.png"), ("cache", "cache/pool/left")}
        process.communicate(b"\n")


def test_a_scratch_folder_in_use_stays_and_goes_after_a_kill(folders: Folders) -> None:
    code = (
        "import sys; from pathlib import Path; from speciate.workspace.scratch import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as place: print(place.name, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(folders.cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        _aged(folders.root)
        remove_abandoned(folders.cache)
        assert (folders.cache / name).is_dir()
        assert _found(folders) == set()
        process.kill()
        process.wait()
    assert _found(folders) == {("cache", f"cache/{name}")}
    remove_abandoned(folders.cache)
    assert not (folders.cache / name).exists()


def test_deleting_tells_the_bytes_by_kind_and_may_be_repeated(folders: Folders) -> None:
    _file(folders.cache / "a", "x" * 7)
    _file(folders.root / "evaluations" / "evaluation-2" / "x", "y" * 5)
    _aged(folders.root)
    found = garbage.find(folders, _NOTHING, _CUSTODY)
    assert garbage.delete(found) == {"cache": 7, "evaluations": 5}
    assert garbage.delete(found) == {}


def test_what_is_written_again_between_finding_and_deleting_stays(folders: Folders) -> None:
    again, lost = (_part(folders.datasets / "d" / _sealed(name), id=["a"]) for name in ("again", "lost"))
    _aged(folders.root)
    found = garbage.find(folders, _NOTHING, _CUSTODY)
    os.utime(again)  # as sealing the same rows does
    assert garbage.delete(found).keys() == {"datasets"}
    assert (again.exists(), lost.exists()) == (True, False)


def test_what_a_job_names_beside_our_files_is_never_opened(folders: Folders, tmp_path: Path) -> None:
    foreign = _file(tmp_path / "upload.parquet", "text,label")
    lost = Blobs(folders.blobs).put(b"lost")
    _part(folders.features / "e" / f"part-{_HEX}.parquet", key=["c1"])
    _aged(folders.root)
    names = {str(foreign), "upload.parquet", "datasets/../upload.parquet", "x" * 5000 + ".parquet", "\0.parquet"}
    live = _NOTHING.model_copy(update={"files": frozenset(names)})
    assert _found(folders, live) == {
        ("blobs", f"blobs/{lost[:2]}/{lost}"),
        ("features", f"features/e/part-{_HEX}.parquet"),
    }


def test_what_a_damaged_file_may_need_stays(folders: Folders) -> None:
    Blobs(folders.blobs).put(b"perhaps")
    _file(folders.datasets / "d" / _sealed("part"), "PAR1 no longer")
    _part(folders.features / "e" / f"part-{_HEX}.parquet", key=["c1"])
    _file(folders.features / "e" / f"part-{_HEX[::-1]}.parquet", "torn")
    _aged(folders.root)
    live = _NOTHING.model_copy(update={"files": frozenset({f"datasets/d/{_sealed('part')}"})})
    assert _found(folders, live) == {("features", f"features/e/part-{_HEX[::-1]}.parquet")}


def test_checkpoints_and_exports_go_where_it_is_said_and_nothing_beside_them(folders: Folders) -> None:
    for name in ("job-a.1", "job-b.1"):
        _file(folders.runs / name / "checkpoints" / "step-1" / "weights")
        _file(folders.runs / name / "log")
    (folders.runs / "job-c.1" / "checkpoints").mkdir(parents=True)
    old, named = folders.exports / "old", folders.exports / "named"
    for path in (_file(old / "train.csv"), _file(named / "train.csv")):
        _aged(path)
    _aged(folders.root)
    _file(folders.exports / "new" / "train.csv")
    live = _NOTHING.model_copy(
        update={"checkpoints": frozenset({"job-a.1", "job-c.1"}), "files": frozenset({str(named)})}
    )
    assert _found(folders, live) == {("checkpoints", "runs/job-a.1/checkpoints")}, "exports stay unless it is said"
    live = live.model_copy(update={"exports_before": _CUTOFF})
    assert _found(folders, live) == {("checkpoints", "runs/job-a.1/checkpoints"), ("exports", "exports/old")}


_NOTES = [
    "models/notes.txt", "models/m/notes.txt", "models/m/v1/notes.txt", "datasets/notes.parquet",
    "datasets/d/mine.parquet", "packs/README", "packs/mine.pack", "blobs/ab/notes", "features/e/mine.parquet",
    "features/e/mine.tmp", "predictions/p/mine.parquet", "evaluations/mine/notes.txt", "notes.txt",
]  # fmt: skip


def test_what_we_never_wrote_is_never_touched(folders: Folders) -> None:
    for name in (*_NOTES, "models/m/v1/files.json", "models/m/v1/model.json", "models/m/v1/weights.safetensors"):
        _file(folders.root / name)
    _file(folders.root / "models/m/v1/files.json", '{"weights.safetensors": "abc"}')
    _aged(folders.root)
    live = _NOTHING.model_copy(update={"models": frozenset({"m/v1"})})
    found = garbage.find(folders, live, _CUSTODY)
    assert [(each.kind, each.path.name) for each in found] == [("models", "v1")]
    garbage.delete(found)
    left = {path.relative_to(folders.root).as_posix() for path in folders.root.rglob("*") if path.is_file()}
    assert left == set(_NOTES)
    assert garbage.find(folders, live, _CUSTODY) == [], "what is left of a deleted version is not found again"


def test_a_catalog_that_names_almost_nothing_is_not_believed(folders: Folders) -> None:
    for number in range(12):
        _part(folders.datasets / "d" / _sealed(str(number)), id=["a"])
    _file(folders.cache / "thumbnail.png")
    _aged(folders.root)
    found = garbage.survey(folders, _NOTHING, _CUSTODY)
    assert [each.kind for each in found.garbage] == ["cache"]
    assert found.spared[Spared.IMPLAUSIBLE]["files"] == 12
    live = _NOTHING.model_copy(update={"files": frozenset(f"datasets/d/{_sealed(str(n))}" for n in range(2))})
    assert len(garbage.find(folders, live, _CUSTODY)) == 11, "two of twelve are named: the others may be garbage"


def test_a_flipped_byte_in_a_table_of_rows_costs_no_blob(folders: Folders) -> None:
    blobs = Blobs(folders.blobs)
    lost = blobs.put(b"nobody seems to need it")
    sealed = seal_rows(pa.table({"id": ["a"], "_content": [blobs.put(b"media")]}), folders.datasets / "d")
    _aged(folders.blobs)
    live = _NOTHING.model_copy(update={"files": frozenset({f"datasets/d/{sealed.name}"})})
    assert _found(folders, live) == {("blobs", f"blobs/{lost[:2]}/{lost}")}
    sealed.chmod(0o644)
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:])
    assert _found(folders, live) == set()


# What may be deleted, as a table and as properties: no moment and no doubt may make a needed file garbage.


_KINDS = sorted(ACCOUNTED | OF_JOBS | {"blobs", "features", "predictions"})
_GOOD = Custody(
    trusted=True, cutoff=1000.0, witnessed=900.0, since=100.0, gaps=((300.0, 400.0),), worked=((150.0, 500.0),)
)


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("datasets", 200.0, None), ("datasets", 1000.0, Spared.YOUNG), ("datasets", 950.0, Spared.UNSEEN),
        ("datasets", 50.0, Spared.BEFORE), ("datasets", 350.0, Spared.GAP), ("datasets", 300.0, Spared.GAP),
        ("datasets", 600.0, Spared.NOBODY), ("evaluations", 600.0, Spared.NOBODY), ("blobs", 600.0, None),
        ("blobs", 350.0, Spared.GAP), ("blobs", 50.0, Spared.BEFORE), ("blobs", 950.0, Spared.UNSEEN),
        ("cache", 950.0, None), ("cache", 50.0, None), ("cache", 1000.0, Spared.YOUNG), ("runs", 350.0, None),
    ],
)  # fmt: skip
def test_what_nothing_names_goes_only_where_everything_agrees(
    kind: str, written: float, expected: Spared | None
) -> None:
    assert spared(kind, written, _GOOD) is expected
    assert spared(kind, written, _GOOD.model_copy(update={"trusted": False})) is Spared.DISTRUST


_moments = st.floats(0, 2000, allow_nan=False)
_spans = st.tuples(_moments, _moments).map(lambda pair: (min(pair), max(pair)))
_custodies = st.builds(
    Custody, trusted=st.booleans(), cutoff=_moments, witnessed=_moments, since=_moments,
    gaps=st.lists(_spans, max_size=3).map(tuple), worked=st.lists(_spans, max_size=4).map(joined),
)  # fmt: skip


@given(kind=st.sampled_from(_KINDS), written=_moments, custody=_custodies)
def test_whatever_goes_was_known_to_be_garbage(kind: str, written: float, custody: Custody) -> None:
    if spared(kind, written, custody) is not None:
        return
    assert custody.trusted
    assert written < custody.cutoff
    if kind in ACCOUNTED:
        return
    assert custody.since - 2 <= written <= custody.witnessed
    assert not any(since <= written <= until for since, until in custody.gaps)
    if kind in OF_JOBS:
        assert any(since - 2 <= written <= until + 2 for since, until in custody.worked)


@given(kind=st.sampled_from(_KINDS), written=_moments, custody=_custodies, gap=_spans)
def test_to_know_less_never_makes_more_garbage(
    kind: str, written: float, custody: Custody, gap: tuple[float, float]
) -> None:
    less = [
        {"trusted": False}, {"gaps": (*custody.gaps, gap)}, {"witnessed": custody.witnessed / 2},
        {"cutoff": custody.cutoff / 2}, {"since": custody.since * 2}, {"worked": custody.worked[1:]},
    ]  # fmt: skip
    if spared(kind, written, custody) is not None:
        assert all(spared(kind, written, custody.model_copy(update=each)) is not None for each in less)


_rows = st.lists(st.integers(0, 9), max_size=8)


@given(saved=_rows, known=_rows, deleted=_rows)
def test_what_a_backup_has_is_named_deleted_on_the_record_or_lost(
    saved: list[int], known: list[int], deleted: list[int]
) -> None:
    missing = lacking(saved, known, deleted)
    assert set(saved) <= {*missing, *known, *deleted}
    assert not set(missing) & {*known, *deleted}


@given(spans=st.lists(_spans, max_size=6), moment=_moments)
def test_joined_spans_hold_the_same_moments(spans: list[tuple[float, float]], moment: float) -> None:
    found = joined(spans)
    inside = [any(since <= moment <= until for since, until in each) for each in (spans, found)]
    assert inside[0] == inside[1]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("named", "going", "expected"), [(0, 9, False), (0, 10, True), (1, 10, True), (2, 12, False), (100, 899, False)]
)
def test_a_few_files_are_never_implausible(named: int, going: int, expected: bool) -> None:
    assert implausible(named, going) is expected
