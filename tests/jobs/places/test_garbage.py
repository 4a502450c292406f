"""What a node or a cluster may leave or answer that nobody wrote so: it is of one run alone, and the others get on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from speciate.errors import Code, SpeciateError
from speciate.jobs.executors import Alive, Ended, Gone, Pending, RunSpec, Unreachable
from speciate.jobs.folder import EXIT, RunFolder, to_checked
from speciate.jobs.places.bucket_depot import Bucket, BucketRoom, _Objects, open_bucket
from speciate.jobs.places.depot import MANIFEST, SENT, bring, files_left, read_manifest, read_sent
from speciate.jobs.places.folder_depot import FolderRoom
from speciate.jobs.places.lease import LEASE, Lease, claim, write_lease
from speciate.jobs.places.node import Carrier, _exit, _hand_over
from speciate.jobs.places.verdict import Status
from tests.jobs.places.cluster import until
from tests.jobs.places.test_away import OK, TERMS, World

DEEP = "[" * 100_000
LEASES = ("[]", "5", "null", DEEP, '{"beat": 1e999, "held": true}', '{"beat": "x", "held": true}', '{"beat": 1}')
EXITS = ("{}", "[]", DEEP, '{"code": 1, "class": "x", "next": 5}', '{"code": null, "class": "ok"}')
NAMES = ("a\0b", "\ud800", ".", "n" * 300, "a//b", "x\n", "../../x")
MANIFESTS = (
    "[]", DEEP, "no json", '{"best-x/result.json": "0"}', *(json.dumps({f"outputs/{name}": "0"}) for name in NAMES)
)  # fmt: skip
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize(
    ("name", "text"),
    [*((LEASE, text) for text in LEASES), *((EXIT, text) for text in EXITS), *((MANIFEST, text) for text in MANIFESTS)],
    ids=lambda text: ascii(text[:40]),
)
def test_garbage_of_one_run_leaves_the_others_alone(tmp_path: Path, kind: str, name: str, text: str) -> None:
    world = World(tmp_path, kind)
    world.others = ["job-b.1"]
    world.executor.submit(RunSpec("job-b.1", {"payload": {}, "resources": {}}))
    world.look()
    for run in ("job-a.1", "job-b.1"):
        world.nodes.begin(run)
    room = world.depot.room("job-a.1")
    if name == MANIFEST:
        room.write(EXIT, OK)
        write_lease(room, Lease(2, held=False))
    room.write(name, text)
    for _ in range(5):
        world.executor.look()
        assert isinstance(world.executor.poll(world.executor.handle("job-b.1")), Alive)
    found = world.executor.poll(world.executor.handle("job-a.1"))
    if name == MANIFEST:
        assert isinstance(found, Ended)
        assert found.outcome.kind == "transient"
    else:
        assert isinstance(found, Unreachable if name == LEASE else Alive)
    world.nodes.finish("job-b.1")
    world.depot.room("job-b.1").write(MANIFEST, "{}")
    world.executor.look()
    assert isinstance(world.executor.poll(world.executor.handle("job-b.1")), Ended)


def test_one_whose_exit_nobody_can_read_counts_as_lost(tmp_path: Path) -> None:
    world = World(tmp_path, "folder")
    world.look()
    world.nodes.begin("job-a.1")
    world.look()
    world.nodes.die("job-a.1")
    world.depot.room("job-a.1").write(EXIT, "{}")
    world.clock.advance(TERMS.lost + 1)
    assert isinstance(world.look(), Gone)


def test_whatever_a_cluster_raises_it_says_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, "folder")
    world.look()

    def fail(names: Sequence[str]) -> Mapping[str, Status]:
        raise TypeError("unhashable type: 'list'")

    world.cluster.statuses = fail  # type: ignore[method-assign]
    world.clock.advance(30)
    assert isinstance(world.look(), Unreachable)
    world.nodes.begin("job-a.1")
    assert isinstance(world.look(), Alive)


def test_whatever_is_raised_of_one_run_the_others_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, "bucket")
    world.executor.submit(RunSpec("job-b.1", {"payload": {}, "resources": {}}))
    world.others = ["job-b.1"]
    there = world.executor._there

    def fail_for_one(watched: object) -> object:
        if watched is world.executor._runs["job-a.1"]:
            raise ZeroDivisionError("a fault of ours")
        return there(watched)  # type: ignore[arg-type]

    monkeypatch.setattr(world.executor, "_there", fail_for_one)
    for _ in range(3):
        world.executor.look()
    assert isinstance(world.executor.poll(world.executor.handle("job-b.1")), Pending)
    assert "ZeroDivisionError" in str(world.executor.poll(world.executor.handle("job-a.1")))
    assert caplog.text.count("ZeroDivisionError: a fault") == 1, "logged, and not at each look"


def test_a_full_disk_here_is_of_one_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, "bucket")
    world.executor.submit(RunSpec("job-b.1", {"payload": {}, "resources": {}}))
    create = RunFolder.create

    def fail_for_one(folder: RunFolder, spec: object) -> None:
        if folder.run_id == "job-a.1":
            raise OSError(28, "No space left on device")
        create(folder, spec)  # type: ignore[arg-type]

    monkeypatch.setattr(RunFolder, "create", fail_for_one)
    world.executor.look()
    assert isinstance(world.executor.poll(world.executor.handle("job-b.1")), Pending)


def test_what_was_sent_and_is_no_such_document_is_damaged(tmp_path: Path) -> None:
    room = FolderRoom(tmp_path / "room")
    for text in ("{}", "[]", '{"inputs": [[]]}', '{"inputs": [], "odd": 1}'):
        room.write(SENT, text)
        with pytest.raises(SpeciateError) as raised:
            read_sent(room)
        assert raised.value.code is Code.DAMAGED


def test_names_that_exclude_each_other_are_not_what_a_node_wrote(tmp_path: Path) -> None:
    room, here = FolderRoom(tmp_path / "room"), tmp_path / "here"
    (room.path / "outputs").mkdir(parents=True)
    (room.path / "outputs" / "a").write_text("")
    here.mkdir()
    room.write(MANIFEST, json.dumps({"outputs/a": EMPTY, "outputs/a/b": EMPTY}))
    with pytest.raises(SpeciateError, match="not what the node wrote"):
        bring(room, here, manifest=read_manifest(room), outputs=True)


# On a node


class Kept:
    """As a lease that is held."""

    run_out = fenced = released = False

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("name", [b"a\nb", b"\xff", b"n\x01"])
def test_a_file_that_cannot_be_carried_is_told_in_the_exit(tmp_path: Path, name: bytes) -> None:
    room, keeper = BucketRoom(Bucket(MemoryStore(), "s3://memory"), "o/runs/job-a.1"), Kept()
    room.write(SENT, "")
    assert claim(room, "node")
    folder = RunFolder(tmp_path / "run")
    folder.outputs.mkdir(parents=True)
    (folder.outputs / "fine").write_text("fine")
    (folder.outputs / os.fsdecode(name)).write_text("odd")
    (folder.path / EXIT).write_text(to_checked({"code": 0, "class": "ok"}))
    room.carry(folder.path, last=True)
    assert _hand_over(room, folder, keeper)  # type: ignore[arg-type]
    assert keeper.released
    assert list(read_manifest(room) or ()) == ["outputs/fine"]
    said = json.loads(room.read(EXIT) or b"")
    assert said["class"] == "user"
    assert "whose name cannot be brought back" in said["message"]
    assert said["message"].isascii()


def test_an_exit_that_is_not_good_stays_as_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.outputs.mkdir(parents=True)
    (folder.outputs / "a\nb").write_text("")
    (folder.path / EXIT).write_text(to_checked({"code": 1, "class": "transient"}))
    outcome = folder.outcome()
    assert outcome is not None
    assert _exit(folder, outcome) == (folder.path / EXIT).read_text()


def test_a_carrier_goes_on_whatever_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, calls = FolderRoom(tmp_path), list[int]()
    room.write("claimed", "")

    def fail(self: FolderRoom, folder: Path, *, last: bool) -> None:
        calls.append(1)
        raise ValueError("no such name")

    monkeypatch.setattr(FolderRoom, "carry", fail)
    carrier = Carrier(room, tmp_path, 0.01)
    until(lambda: len(calls) > 2, 10)
    carrier.end()


def test_only_a_number_makes_a_folder_the_best_so_far(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for name in ("best-2", "best-10", "best-x", "best-", "best-3.old"):
        (folder.path / name).mkdir(parents=True)
        (folder.path / name / "result.json").write_text("{}")
    best = folder.best_so_far()
    assert best is not None
    assert best.outputs.name == "best-10"
    assert {path.parts[0] for path in files_left(folder.path)} == {"best-2", "best-10"}


@pytest.mark.parametrize("text", ["a", "[default]\na = 1\n[default]\nb = 2\n"])
def test_a_file_of_keys_that_cannot_be_read_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(text)
    with pytest.raises(OSError, match="cannot be read"):
        open_bucket("s3://bucket")


# What goes from a depot, and when


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_what_went_here_while_a_run_read_it_goes_once_that_has_ended(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path, kind)
    rows = tmp_path / "workspace" / "rows"
    rows.write_text("name: Ada")
    live = world.others = ["job-b.1"]
    world.executor.submit(RunSpec("job-b.1", {"payload": {}, "resources": {}, "inputs": ["rows"]}))
    world.look()
    world.nodes.begin("job-b.1")
    rows.unlink()
    world.executor.sweep()
    world.look()
    assert len(list(world.depot.objects())) == 1, "it lives, and reads that"
    world.nodes.finish("job-b.1")
    world.depot.room("job-b.1").write(MANIFEST, "{}")
    world.look()
    live.clear()
    world.executor.forget(world.executor.handle("job-b.1"))
    world.look()
    assert list(world.depot.objects()) == []
    world.executor.forget(world.executor.handle("job-a.1"))
    assert not world.executor._sweep, "and then an end is no reason to look through the depot"


class Order:
    """A store of objects in which a call may be the last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        for name in ("upload", "delete"):
            monkeypatch.setattr(_Objects, name, self._noting(name, getattr(_Objects, name)))

    def _noting(self, what: str, call: Callable[..., None]) -> Callable[..., None]:
        def note(objects: _Objects, names: str | list[str], *more: object) -> None:
            self.calls += [(what, name) for name in ([names] if isinstance(names, str) else names)]
            call(objects, names, *more)

        return note


def test_a_result_so_far_is_whole_wherever_a_node_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, order = BucketRoom(Bucket(MemoryStore(), "s3://memory"), "o/runs/job-a.1"), Order(monkeypatch)
    best = tmp_path / "best-1"
    (best / "model").mkdir(parents=True)
    for name in ("a", "model/weights", "result.json", "z"):
        (best / name).write_text(name)
    room.carry(tmp_path, last=False)
    assert order.calls[-1] == ("upload", "best-1/result.json")
    assert len(order.calls) == 4
    order.calls.clear()
    shutil.rmtree(best)
    room.carry(tmp_path, last=False)
    assert order.calls[0] == ("delete", "best-1/result.json")
    assert list(room.left()) == []


def test_nothing_is_carried_into_a_room_that_went(tmp_path: Path) -> None:
    room, keeper = BucketRoom(Bucket(MemoryStore(), "s3://memory"), "o/runs/job-a.1"), Kept()
    room.write(SENT, "")
    assert claim(room, "node")
    folder = RunFolder(tmp_path / "run")
    folder.outputs.mkdir(parents=True)
    folder.log.write_text("a line")
    room.clear()
    carrier = Carrier(room, folder.path, 0.01)
    keeper.fenced = True
    assert not _hand_over(room, folder, keeper)  # type: ignore[arg-type]
    carrier.end()
    assert room._objects.names() == {}
