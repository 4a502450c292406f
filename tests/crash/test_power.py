"""Loss of power: what a disk may hold after it, and that a workspace opens on every such disk with all it promised.

All of it through a daemon and its workers, thousands of disks: `make power`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.workspace.rebuild import rebuild_catalog
from tests.crash import disk, power
from tests.crash.disk import Call, Model, Record, Recording
from tests.crash.power import Campaign, Moment

REPOSITORY = Path(__file__).parents[2]
CATALOG = "workspace/catalog.duckdb"
MODELS: tuple[Model, ...] = ("ext4", "posix")


# What a disk may hold: the rules

ROOT = 1
FILE, OTHER, FOLDER = 2, 3, 4


def recorded(*records: tuple[Call, int, int, int, bytes]) -> Recording:
    return Recording([Record(*each) for each in records], ROOT)


def made(number: int, name: bytes, folder: int = ROOT) -> tuple[Call, int, int, int, bytes]:
    return (Call.MADE, number, folder, 0, name)


def written(number: int, data: bytes, offset: int = 0) -> tuple[Call, int, int, int, bytes]:
    return (Call.WRITTEN, number, 0, offset, data)


def synced(number: int) -> tuple[Call, int, int, int, bytes]:
    return (Call.SYNCED, number, 0, 0, b"")


def renamed(number: int, old: bytes, new: bytes) -> tuple[Call, int, int, int, bytes]:
    return (Call.RENAMED, number, ROOT, ROOT, old + b"\0" + new)


def states(recording: Recording, model: Model, draws: int = 40) -> list[disk.State]:
    at = len(recording.records) - 1
    return [recording.state(at, choice) for _, choice in disk.choices(model, draws, 0)]


@pytest.mark.parametrize("model", MODELS)
def test_what_was_synced_with_its_folder_is_in_every_state(model: Model) -> None:
    recording = recorded(made(FILE, b"kept"), written(FILE, b"all"), synced(FILE), synced(ROOT))
    assert all(state == {"kept": b"all"} for state in states(recording, model))


def test_posix_may_lose_the_name_of_a_synced_file_and_ext4_does_not() -> None:
    recording = recorded(made(FILE, b"kept"), written(FILE, b"all"), synced(FILE))
    assert {} in states(recording, "posix")
    assert all(state == {"kept": b"all"} for state in states(recording, "ext4"))


@pytest.mark.parametrize("model", MODELS)
def test_a_name_may_come_without_data(model: Model) -> None:
    found = states(recorded(made(FILE, b"new"), written(FILE, b"all")), model)
    assert {"new": b""} in found
    assert {} in found
    assert {"new": b"all"} in found
    assert ({"new": b"\0\0\0"} in found) is (model == "posix")


@pytest.mark.parametrize("model", MODELS)
def test_a_rename_loses_no_file(model: Model) -> None:
    recording = recorded(
        made(FILE, b"kept"), written(FILE, b"old"), synced(FILE), made(OTHER, b"new"), written(OTHER, b"new"),
        synced(OTHER), synced(ROOT), renamed(OTHER, b"new", b"kept"),
    )  # fmt: skip
    found = states(recording, model)
    assert all(b"new" in state.values() for state in found)
    assert {"kept": b"new"} in found
    assert {"kept": b"old", "new": b"new"} in found


def test_pages_are_torn_at_sectors() -> None:
    old, new = b"o" * 8192, b"n" * 8192
    recording = recorded(made(FILE, b"f"), written(FILE, old), synced(FILE), synced(ROOT), written(FILE, new))
    contents = {state["f"] for state in states(recording, "posix", draws=200)}
    mixed = [each for each in contents if each not in (old, new)]
    assert any(each is not None and each[:4096] != each[4096:] for each in mixed)
    assert any(each is not None and 0 < each[:4096].count(b"n") < 4096 for each in mixed)
    cuts = [each.count(b"n") % disk.SECTOR for each in mixed if each is not None]
    assert set(cuts) == {0}


def test_ext4_keeps_names_in_their_order() -> None:
    recording = recorded(*(made(number, str(number).encode()) for number in range(2, 9)))
    for state in states(recording, "ext4"):
        assert sorted(state) == [str(number) for number in range(2, 2 + len(state))]
    assert any("8" in state and "2" not in state for state in states(recording, "posix"))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 9000), st.binary(min_size=1, max_size=5000)),
            st.tuples(st.just("cut"), st.integers(0, 9000), st.just(b"")),
            st.tuples(st.just("sync"), st.just(0), st.just(b"")),
        ),
        max_size=12,
    )
)
def test_the_whole_recording_is_what_was_written(steps: list[tuple[str, int, bytes]]) -> None:
    with tempfile.TemporaryFile() as file:
        records = [made(FILE, b"f")]
        for what, offset, data in steps:
            if what == "write":
                os.pwrite(file.fileno(), data, offset)
            elif what == "cut":
                os.ftruncate(file.fileno(), offset)
            call = {"write": Call.WRITTEN, "cut": Call.CUT, "sync": Call.SYNCED}[what]
            records.append((call, FILE, 0, offset, data))
        file.seek(0)
        whole = file.read()
    recording = recorded(*records, synced(ROOT))
    assert recording.last() == {"f": whole}
    if not steps or steps[-1][0] == "sync":
        assert all(state == {"f": whole} for model in MODELS for state in states(recording, model, draws=5))


# A workspace that is recorded


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """In memory where there is some: thousands of small files are laid down."""
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder).resolve()


@pytest.fixture(scope="module")
def recording(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Of a program that takes every step of power_steps.py."""
    folder = tmp_path_factory.mktemp("recorder")
    recorder = disk.recorder(folder, root)
    environment = os.environ | recorder.environment | {"XDG_CONFIG_HOME": str(root / "config")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.power_steps", str(root), str(recorder.library)], env=environment,
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = Recording(recorder.records(), root.stat().st_ino)
    assert found.mapped == 0
    assert power.differences(found, root) == []
    return found


def test_what_a_step_wrote_is_on_the_disk_when_it_returns(recording: Recording, root: Path) -> None:
    """The strictest disk: it has what was synced, and no name that was not."""
    lost, looked = [], 0
    for at, text in recording.marks():
        there = recording.state(at, disk.Choice())
        ((_, least), *_) = disk.choices("posix", 0, 0)
        kept = recording.state(at, least)
        for path in json.loads(text)["files"]:
            name, looked = Path(path).relative_to(root).as_posix(), looked + 1
            assert there[name]
            if kept.get(name) != there[name]:
                lost.append(name)
    assert lost == []
    assert looked > 40


def tried(recording: Recording, root: Path, moments: Sequence[Moment]) -> Campaign:
    campaign = Campaign(recording, root)
    for number, moment in enumerate(moments):
        for model in MODELS:
            campaign.try_moment(moment, model, 1, number)
    return campaign


# A catalog and folders of two days


def at_end_of(recording: Recording, operation: str) -> disk.State:
    """As it lay there when the first step of an operation had returned."""
    ends = [
        at for at, text in recording.marks() if (note := json.loads(text))["operation"] == operation and note["facts"]
    ]
    return recording.state(ends[0], disk.Choice())


def mixed(catalog: disk.State, folders: disk.State) -> disk.State:
    def part(state: disk.State, *, is_catalog: bool) -> disk.State:
        return {path: data for path, data in state.items() if path.startswith(CATALOG) is is_catalog}

    return part(catalog, is_catalog=True) | part(folders, is_catalog=False)


def test_yesterdays_catalog_is_refused_and_rebuilt_beside_todays_files(recording: Recording, root: Path) -> None:
    disk.lay_down(mixed(at_end_of(recording, "seal"), recording.last()), root)
    refused = power.open_disk(root, []).refused
    assert "its newest backup" in refused
    assert "speciate rebuild" in refused
    rebuild_catalog(root / "workspace")
    assert power.open_disk(root, [["dataset", "made@v1", 4], ["alias", "digits", ["m@v1"], 0]]) == ("", (), 2)


def test_todays_catalog_over_yesterdays_files_serves_nothing_by_halves(recording: Recording, root: Path) -> None:
    """It opens, and says of each thing that is missing what is missing and where to look."""
    disk.lay_down(mixed(recording.last(), at_end_of(recording, "commit")), root)
    found = power.open_disk(root, [["use case", "digits"]])
    assert found.refused == ""
    told = "\n".join(found.wrong)
    for name in ("datasets/made/", "packs/", "models/m/v1"):
        assert re.search(rf"^{name}\S*: it is missing$", told, re.MULTILINE), (name, told)
    for refusal in ("made@v1: SpeciateError: ", "m@v1: SpeciateError: ", "behind digits: SpeciateError: "):
        assert refusal in told
    assert "restore the folders from the backup that the catalog is of; `speciate verify --all` names" in told
    assert "Traceback" not in told


@pytest.mark.slow
def test_a_workspace_opens_on_every_disk_with_all_that_was_acknowledged(recording: Recording, root: Path) -> None:
    moments = power.moments(recording)
    campaign = tried(recording, root, [*moments[::20], *{each.operation: each for each in moments}.values()])
    assert campaign.told() == ""
    assert all(campaign.row(operation, model).states for operation in power.OPERATIONS for model in MODELS)


def test_some_disks_that_a_cut_could_leave_open(recording: Recording, root: Path) -> None:
    campaign = tried(recording, root, power.moments(recording)[::150])
    assert campaign.told() == ""


def test_without_its_syncs_a_workspace_would_lose_what_it_acknowledged(recording: Recording, root: Path) -> None:
    """So the disks above show something."""
    unsynced = [each for each in recording.records if each.call not in (Call.SYNCED, Call.DATA_SYNCED)]
    campaign = Campaign(Recording(unsynced, root.stat().st_ino), root)
    campaign.try_moment(power.moments(campaign.recording)[-1], "ext4", 0, 0)
    assert "acknowledged and lost" in campaign.told() or campaign.row("backup", "ext4").refused
