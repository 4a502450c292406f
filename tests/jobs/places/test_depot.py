"""One suite over a folder, a bucket in memory and a bucket of moto's S3: moved once, checked both ways, claimed once,
swept. And what is of one kind alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Permit
from speciate.jobs.places import bucket_depot
from speciate.jobs.places.bucket_depot import Bucket, BucketDepot, BucketRoom, open_bucket
from speciate.jobs.places.depot import (
    LOOKED,
    MANIFEST,
    SENT,
    Depot,
    Entry,
    Room,
    Sent,
    bring,
    read_manifest,
    read_sent,
    write_manifest,
    write_sent,
)
from speciate.jobs.places.depots import depot_of, open_room
from speciate.jobs.places.folder_depot import FolderDepot, FolderRoom, append_growth
from speciate.jobs.places.lease import DAEMON, Lease, claim, claimed_by, read_lease, write_lease
from speciate.jobs.places.moving import Mover
from speciate.jobs.places.unpack import with_paths
from tests.jobs.places.cluster import until
from tests.jobs.places.moto import Moto

OWNER = "speciate-a"


class Kind:
    """A kind of depot, with what a test does to it behind its back."""

    def __init__(self, name: str, folder: Path, moto: Moto | None) -> None:
        self.name, self.folder, self.bucket = name, folder, Bucket(MemoryStore(), "s3://memory/x")
        self.depot: Depot
        if name == "folder":
            (folder / "shared").mkdir()
            self.depot = FolderDepot(folder / "shared" / OWNER)
            return
        if moto is not None:
            url = moto.bucket(f"b-{abs(hash(folder)):x}"[:40])
            self.bucket = open_bucket(f"{url}/x?region=us-east-1&endpoint={moto.endpoint}")
        self.depot = BucketDepot(self.bucket, OWNER)

    def damage(self, sha256: str, data: bytes) -> None:
        if self.name == "folder":
            path = self.folder / "shared" / OWNER / "objects" / sha256[:2] / sha256
            path.chmod(0o644)
            path.write_bytes(data)
        else:
            obstore.put(self.bucket.store, f"{OWNER}/objects/{sha256[:2]}/{sha256}", data)

    def sent(self, run: str = "job-a.1") -> Room:
        room = self.depot.room(run)
        write_sent(room, Sent("1", {"job": "job-a"}, (), {}, 60, None))
        return room


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    found = Moto(tmp_path_factory.mktemp("moto") / "home")
    yield found
    found.close()


@pytest.fixture(params=["folder", "memory", "s3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    found = None
    if request.param == "s3":
        found = request.getfixturevalue("moto")
        monkeypatch.setenv("HOME", str(found.home))
    made = Kind(request.param, tmp_path, found)
    made.depot.make("/a/workspace")
    return made


def test_a_file_is_moved_once_and_checked_when_it_is_taken(kind: Kind, tmp_path: Path) -> None:
    depot, source, target = kind.depot, tmp_path / "rows", tmp_path / "node" / "rows"
    source.write_bytes(b"x" * 9_000_000)
    sha256, moved = depot.put(source)
    assert moved == 9_000_000
    assert depot.put(source) == (sha256, 0)
    assert depot.put(source, known=sha256) == (sha256, 0)
    depot.take(Entry("rows", sha256, moved), target)
    assert target.read_bytes() == source.read_bytes()
    kind.damage(sha256, b"x" * 8_999_999 + b"y")
    with pytest.raises(SpeciateError) as damaged:
        depot.take(Entry("rows", sha256, moved), tmp_path / "again")
    assert damaged.value.code is Code.DAMAGED
    assert not (tmp_path / "again").exists()
    assert depot.put(source, known=sha256) == (sha256, moved), "it is moved anew"
    kind.damage(sha256, b"torn")
    assert depot.put(source, known=sha256) == (sha256, moved), "one of another size is not believed"


_MOVE = """
import sys
from pathlib import Path
from speciate.jobs.places.depots import depot_of
print("begins", flush=True)
depot_of(sys.argv[1]).put(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("name", ["folder", "s3"])
def test_an_upload_that_was_killed_is_never_read(
    name: str, moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(moto.home))
    kind = Kind(name, tmp_path, moto)
    kind.depot.make("/a/workspace")
    source = tmp_path / "pack"
    with source.open("wb") as file:
        for number in range(24):
            file.write(bytes([number]) * (1 << 20))
    with source.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    where = kind.depot.room("job-a.1").where
    for wait in (0.05, 0.1, 0.2, 0.4):
        mover = subprocess.Popen([sys.executable, "-c", _MOVE, where, str(source)], stdout=subprocess.PIPE)
        assert mover.stdout is not None
        mover.stdout.readline()
        threading.Event().wait(wait)
        mover.kill()
        mover.communicate()
        try:
            kind.depot.take(Entry("pack", sha256, 24 << 20), tmp_path / f"taken-{wait}")
        except FileNotFoundError:
            continue
        assert (tmp_path / f"taken-{wait}").stat().st_size == 24 << 20, "whole, or not there"
    assert kind.depot.put(source, known=sha256)[0] == sha256
    kind.depot.take(Entry("pack", sha256, 24 << 20), tmp_path / "taken")


def test_what_is_not_there_is_a_missing_file(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kind.depot.take(Entry("rows", "0" * 64, 1), tmp_path / "rows")
    room = kind.depot.room("job-a.1")
    assert not room.is_there()
    assert (room.read("exit"), room.has("exit"), list(room.left())) == (None, False, [])
    with pytest.raises(FileNotFoundError):
        read_sent(room)


@pytest.mark.parametrize("rounds", [8])
def test_of_all_who_claim_one_alone_has_it(kind: Kind, rounds: int) -> None:
    for number in range(rounds):
        room, won, barrier = kind.sent(f"job-a.{number}"), list[str](), threading.Barrier(6)

        def take(who: str, room: Room = room, won: list[str] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            if claim(room, who):
                won.append(who)

        crew = [threading.Thread(target=take, args=(f"node{each}",)) for each in range(6)]
        for each in crew:
            each.start()
        for each in crew:
            each.join()
        assert len(won) == 1
        assert claimed_by(room) == won[0]
        assert not claim(room, DAEMON)


def test_a_lease_is_replaced_whole_and_a_room_is_cleared(kind: Kind) -> None:
    room = kind.sent()
    assert read_lease(room) is None
    for beat in (1, 2):
        write_lease(room, Lease(beat, True, "n1"))
    assert read_lease(room) == Lease(2, True, "n1")
    room.look_anew()
    assert room.has(LOOKED) is (kind.name == "folder")
    room.write("lease", "no json")
    with pytest.raises(SpeciateError, match="cannot be read"):
        read_lease(room)
    room.clear()
    room.clear()
    assert not room.is_there()
    assert kind.depot.runs() == []


def test_a_room_that_is_cleared_takes_no_claim(kind: Kind) -> None:
    """A launch whose turn comes late: it has read what was sent, and then all of it went."""
    room = kind.sent()
    assert claim(room, DAEMON)
    room.clear()
    try:
        assert not claim(room, "node")
    except FileNotFoundError:
        assert kind.name == "folder"
    assert claimed_by(room) is None


def test_what_a_node_was_given_opens_its_room_and_its_depot(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = kind.sent()
    if kind.name == "memory":
        monkeypatch.setattr("speciate.jobs.places.depots.open_bucket", lambda url: kind.bucket)
    assert "sesame" not in room.where
    assert "AKIA" not in room.where
    assert read_sent(open_room(room.where)) == read_sent(room)
    source = tmp_path / "rows"
    source.write_text("rows")
    sha256, size = kind.depot.put(source)
    depot_of(room.where).take(Entry("rows", sha256, size), tmp_path / "taken")
    assert room.where.endswith("/job-a.1"), "its last part is the run"


@pytest.mark.parametrize("harm", ["changed", "missing", "outside", "elsewhere"])
def test_what_comes_back_is_what_the_node_wrote_or_nothing(kind: Kind, tmp_path: Path, harm: str) -> None:
    room, here = kind.sent(), tmp_path / "here"
    here.mkdir()
    work = room.work_folder(tmp_path / "scratch")
    (work / "outputs" / "model").mkdir(parents=True)
    weights = work / "outputs" / "model" / "weights"
    weights.write_text("weights")
    (work / "outputs" / "result.json").write_text("{}")
    (work / "outputs" / "elsewhere").symlink_to("/etc/passwd")
    room.carry(work, last=True)
    write_manifest(room, work)
    manifest = read_manifest(room)
    assert manifest is not None
    assert set(manifest) == {"outputs/model/weights", "outputs/result.json"}, "no link is followed"
    bring(room, here, manifest=manifest, outputs=True)
    assert (here / "outputs" / "model" / "weights").read_text() == "weights"
    (here / "outputs" / "model" / "weights").unlink()
    match harm:
        case "changed":
            weights.write_text("w3ights")
        case "missing":
            weights.unlink()
        case "outside":
            (tmp_path / "outside").write_text("x")
            room.write(MANIFEST, json.dumps({"outputs/../../outside": "0" * 64}))
        case _:
            room.write(MANIFEST, json.dumps({"spec.json": "0" * 64}))
    room.carry(work, last=True)
    with pytest.raises(SpeciateError, match="not what the node wrote"):
        bring(room, here, manifest=read_manifest(room), outputs=True)
    assert not (here / "outputs" / "model" / "weights").exists()
    assert not list(here.rglob("*.partial"))


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    room, here = FolderRoom(tmp_path / "there"), tmp_path / "here"
    (tmp_path / "there" / "outputs").mkdir(parents=True)
    here.mkdir()
    weights = tmp_path / "there" / "outputs" / "weights"
    weights.write_text("weights")
    write_manifest(room, room.path)
    weights.unlink()
    weights.symlink_to("/etc/hostname")
    with pytest.raises(SpeciateError, match="not what the node wrote"):
        bring(room, here, manifest=read_manifest(room), outputs=True)
    (tmp_path / "aside").mkdir()
    weights.unlink()
    weights.parent.rmdir()
    weights.parent.symlink_to(tmp_path / "aside")
    (tmp_path / "aside" / "weights").write_text("weights")
    with pytest.raises(SpeciateError, match="not what the node wrote"):
        bring(room, here, manifest=read_manifest(room), outputs=True)


def test_without_a_manifest_checkpoints_come_and_outputs_do_not(kind: Kind, tmp_path: Path) -> None:
    room, here = kind.sent(), tmp_path / "here"
    work = room.work_folder(tmp_path / "scratch")
    for name in ("outputs", "checkpoints/training"):
        (work / name).mkdir(parents=True)
        (work / name / "file").write_text(name)
    here.mkdir()
    room.carry(work, last=False)
    assert read_manifest(room) is None
    bring(room, here, manifest=None, outputs=False)
    assert [path.name for path in here.iterdir()] == ["checkpoints"]
    assert (here / "checkpoints" / "training" / "file").exists()


def test_checkpoints_of_a_run_that_lives_are_in_the_depot_and_old_ones_go(kind: Kind, tmp_path: Path) -> None:
    room = kind.sent()
    work = room.work_folder(tmp_path / "scratch")
    (work / "checkpoints").mkdir()
    for step in (1, 2, 3):
        (work / "checkpoints" / f"step-{step}").write_text(f"{step}")
        (work / "checkpoints" / f"step-{step - 2}").unlink(missing_ok=True)
        room.carry(work, last=False)
    assert sorted(room.left()) == ["checkpoints/step-2", "checkpoints/step-3"]
    (work / "checkpoints" / "step-3").write_text("other")
    room.carry(work, last=False)
    assert room.read("checkpoints/step-3") == b"other"


def test_what_grows_is_brought_and_a_new_daemon_begins_anew(kind: Kind, tmp_path: Path) -> None:
    room, here = kind.sent(), tmp_path / "here"
    here.mkdir()
    work = room.work_folder(tmp_path / "scratch")
    room.mirror(here, 0)
    assert list(here.iterdir()) == []
    for beat, line in enumerate(("one\n", "two\n", "three\n"), start=1):
        for name in ("log", "metrics-trial-2.jsonl"):
            with (work / name).open("a") as file:
                file.write(line)
        (work / "other").write_text("is nobody's")
        room.carry(work, last=False)
        kind.depot.room("job-a.1").mirror(here, beat) if beat == 2 else room_of_the_daemon(kind).mirror(here, beat)
    for name in ("log", "metrics-trial-2.jsonl"):
        assert (here / name).read_text() == "one\ntwo\nthree\n"
    assert not (here / "other").exists()


def room_of_the_daemon(kind: Kind) -> Room:
    """The same at each look, as the daemon keeps it."""
    kept: dict[str, Room] = kind.__dict__.setdefault("kept", {})
    return kept.setdefault("room", kind.depot.room("job-a.1"))


def test_a_sweep_leaves_what_is_needed(kind: Kind, tmp_path: Path) -> None:
    workspace, depot = tmp_path / "workspace", kind.depot
    (workspace / "datasets").mkdir(parents=True)
    for name in ("kept", "gone", "changed", "sent"):
        (workspace / "datasets" / name).write_text(name)
    mover = Mover(workspace)
    inputs, moved = mover.move_out(depot, {"inputs": ["datasets"]}, Permit("depot", frozenset()))
    assert [each.name for each in inputs] == [f"datasets/{name}" for name in ("changed", "gone", "kept", "sent")]
    assert moved == {str(workspace): ""}
    for name in ("live.1", "ended.1"):
        write_sent(depot.room(name), Sent("1", {}, inputs[3:], {}, 60, None))
    for name in ("gone", "sent"):
        (workspace / "datasets" / name).unlink()
    (workspace / "datasets" / "changed").write_text("otherwise")
    assert depot.sweep(Mover(workspace).wanted(), {"live.1"}) == len("gone") + len("changed")
    assert set(depot.objects()) == {each.sha256 for each in inputs[2:]}, "what a live run was sent stays"
    assert depot.runs() == ["live.1"]


def test_no_depot_is_made_where_there_is_none(tmp_path: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(moto.home))
    with pytest.raises(FileNotFoundError):
        FolderDepot(tmp_path / "not-mounted" / "ours").make("/a/workspace")
    bucket = BucketDepot(open_bucket(f"s3://no-such-bucket?endpoint={moto.endpoint}"), OWNER)
    assert not bucket.is_there()
    with pytest.raises(OSError, match=r"NoSuchBucket|not found|does not exist"):
        bucket.make("/a/workspace")


# Of buckets alone


def test_a_claim_whose_answer_was_lost_is_ours_when_it_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(MemoryStore(), "s3://memory")
    room = BucketRoom(bucket, f"{OWNER}/runs/job-a.1")
    room.write(SENT, "")
    put: Callable[..., object] = obstore.put
    lost = []

    def put_and_lose(*given: object, **more: object) -> object:
        answer = put(*given, **more)
        if not lost:
            lost.append(answer)
            raise obstore.exceptions.GenericError("connection reset")
        return answer

    monkeypatch.setattr(obstore, "put", put_and_lose)
    assert claim(room, "node")
    assert lost
    assert not claim(room, DAEMON)


def test_a_claim_that_is_refused_while_nobody_has_it_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at the same moment: S3 answers 409 to one, and the put of the other fails."""
    room = BucketRoom(Bucket(MemoryStore(), "s3://memory"), f"{OWNER}/runs/job-a.1")
    room.write(SENT, "")
    put: Callable[..., object] = obstore.put
    refused = list[str]()

    def refuse_once(*given: object, **more: object) -> object:
        if more.get("mode") == "create" and not refused:
            refused.append("409")
            raise obstore.exceptions.AlreadyExistsError("ConditionalRequestConflict")
        return put(*given, **more)

    monkeypatch.setattr(obstore, "put", refuse_once)
    assert claim(room, "node")
    assert refused
    assert claimed_by(room) == "node"


def test_without_an_answer_nothing_is_concluded_and_no_key_is_named(
    tmp_path: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(moto.home))
    monkeypatch.setattr(bucket_depot, "_RETRY", {"max_retries": 0})
    room = BucketRoom(open_bucket("s3://bucket?endpoint=http://127.0.0.1:1"), f"{OWNER}/runs/job-a.1")
    for call in (room.is_there, lambda: room.read("lease"), lambda: room.write("lease", ""), lambda: list(room.left()),
                 lambda: claim(room, "node"), room.clear):  # fmt: skip
        with pytest.raises(OSError) as raised:  # noqa: PT011 - whatever the library says
            call()
        assert not isinstance(raised.value, FileNotFoundError)
        assert "sesame" not in str(raised.value)
        assert "Debug" not in str(raised.value)


def test_the_keys_are_of_the_section_for_us_or_the_default(
    tmp_path: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(moto.home))
    keys = bucket_depot._renewed()
    assert (keys["access_key_id"], keys.get("secret_access_key"), keys.get("token")) == (
        "AKIAspeciate",
        "sesame%1",
        None,
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    assert bucket_depot._keys() is None, "the role of the machine"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\nrole_arn=x\n")
    assert bucket_depot._keys() is None, "a section without a key is of something else"
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id=a\naws_session_token=t\n")
    assert bucket_depot._renewed().get("token") == "t"


def test_keys_that_are_replaced_count_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[str]()

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.headers["Authorization"].partition("Credential=")[2].partition("/")[0])
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that this replaces
            """Nothing is written to the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    file = tmp_path / ".aws" / "credentials"
    text = "[default]\naws_access_key_id={}\naws_secret_access_key=x\n"
    file.write_text(text.format("OLD"))
    room = BucketRoom(open_bucket(f"s3://bucket?endpoint=http://127.0.0.1:{server.server_port}"), "o/runs/job-a.1")
    assert not room.has("lease")
    assert seen == ["OLD"]
    file.write_text(text.format("NEW"))
    until(lambda: not room.has("lease") and seen[-1] == "NEW", 10)
    file.unlink()

    def is_refused() -> bool:
        try:
            return room.has("lease")
        except OSError as error:
            return "no keys" in str(error)

    until(is_refused, 10)
    server.shutdown()
    server.server_close()


def test_without_obstore_a_bucket_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(OSError, match=r"speciate\[s3\]"):
        open_bucket("s3://bucket")


def test_a_folder_needs_no_obstore(tmp_path: Path) -> None:
    script = f"""
import sys
from speciate.jobs.places import node, places, probe
from speciate.jobs.places.depots import open_room
open_room({str(tmp_path / "none/runs/job-a.1")!r}).is_there()
print(sorted({{"ray", "obstore", "httpx2", "botocore"}} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Of folders alone


def test_what_grows_is_appended_up_to_a_limit(tmp_path: Path) -> None:
    source, target = tmp_path / "log", tmp_path / "copy"
    append_growth(source, target)
    assert not target.exists()
    source.write_text("one\n")
    append_growth(source, target)
    source.write_text("one\ntwo\n")
    append_growth(source, target)
    assert target.read_text() == "one\ntwo\n"
    append_growth(tmp_path / "log", tmp_path / "short", most=5)
    assert (tmp_path / "short").read_text() == "one\nt"


def test_paths_of_a_spec_become_those_of_the_node() -> None:
    spec = {"base": "/w/models/m", "note": "see /w/models", "other": "/world", "in": ["/w", {"at": "/pkg/minilm/x"}]}
    assert with_paths(spec, {"/w": "/n/workspace", "/pkg/minilm": "/n/workspace/outside/1/minilm"}) == {
        "base": "/n/workspace/models/m", "note": "see /w/models", "other": "/world",
        "in": ["/n/workspace", {"at": "/n/workspace/outside/1/minilm/x"}],
    }  # fmt: skip


# What somebody else has put there


@pytest.fixture
def amid(moto: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setenv("HOME", str(moto.home))
    kind = Kind("s3", tmp_path, moto)
    kind.depot.make("/a/workspace")
    return kind


@pytest.mark.parametrize("key", ["outputs/a//b", "outputs/../../x", "checkpoints/./x"])
def test_a_key_that_the_library_cannot_name_is_in_nobodys_way(amid: Kind, moto: Moto, tmp_path: Path, key: str) -> None:
    bucket = amid.bucket.url.removeprefix("s3://").partition("/")[0]
    rooms = {name: amid.sent(name) for name in ("job-a.1", "job-b.1", "job-c.1")}
    for room in rooms.values():
        room.write("checkpoints/training/step", "step")
        room.write("best-1/result.json", "{}")
        room.write("log@0", "a line\n")
    moto.put(bucket, f"x/{OWNER}/runs/job-a.1/{key}")
    (tmp_path / "here").mkdir()
    rooms["job-a.1"].mirror(tmp_path / "here", None)
    assert (tmp_path / "here" / "log").read_text() == "a line\n"
    assert "best-1/result.json" in list(rooms["job-a.1"].left())
    assert amid.depot.runs() == sorted(rooms)
    amid.depot.sweep(set(), {"job-b.1"})
    assert not rooms["job-a.1"].is_there()
    assert rooms["job-b.1"].is_there()
    assert list(rooms["job-c.1"].left()) == []
    assert list(rooms["job-a.1"].left()) in ([], ["checkpoints/training/step"])


def test_what_is_too_large_is_not_read(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_depot, "MOST_READ", 10)
    monkeypatch.setattr("speciate.jobs.places.folder_depot.MOST_READ", 10)
    room = kind.depot.room("job-a.1")
    room.write(SENT, "")
    room.write("lease", "x" * 10)
    assert room.read("lease") == b"x" * 10
    room.write("lease", "x" * 11)
    with pytest.raises(OSError, match="too large"):
        room.read("lease")


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_only_a_regular_file_of_a_room_is_read(tmp_path: Path, what: str) -> None:
    room, here, secret = FolderRoom(tmp_path / "room"), tmp_path / "here", tmp_path / "secret"
    here.mkdir()
    secret.write_text("sesame")
    room.write(SENT, "")
    for name in ("log", "lease", "outputs"):
        path = room.path / name
        if what == "link":
            path.symlink_to(secret)
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
    room.mirror(here, None)
    assert list(here.iterdir()) == []
    with pytest.raises(OSError, match=r"regular|symbolic"):
        room.read("lease")
    with pytest.raises(FileNotFoundError):
        room.fetch("outputs", here / "outputs")


def test_a_look_anew_writes_through_no_link(tmp_path: Path) -> None:
    room, mine = FolderRoom(tmp_path / "room"), tmp_path / "mine"
    room.write(SENT, "")
    mine.write_text("mine")
    (room.path / LOOKED).symlink_to(mine)
    room.look_anew()
    assert mine.read_text() == "mine"
