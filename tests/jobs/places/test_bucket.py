"""Runs at a place whose depot is a bucket: moto's S3, a double of Ray, real processes that share no folder."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sklearn.datasets import load_digits

from speciate.datasets import versions
from speciate.jobs.engine import Engine
from speciate.jobs.job import Job, State
from speciate.jobs.places.bucket_depot import BucketDepot, open_bucket
from speciate.jobs.places.probe import look_from_here, look_from_there
from speciate.jobs.process_identity import identity
from speciate.models import registry
from speciate.settings import Place, Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.ingest.test_ingest_at_a_place import images, zipped
from tests.jobs.places.cluster import allow, until
from tests.jobs.places.moto import Moto
from tests.jobs.places.ray_double import RayDouble
from tests.training.world import make_dataset, png, thirds

Open = Callable[..., Engine]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    found = Moto(tmp_path_factory.mktemp("moto") / "home")
    yield found
    found.close()


class InBucket(RayDouble):
    """A double of Ray whose nodes reach a bucket, and no folder of ours."""

    def __init__(self, folder: Path, moto: Moto) -> None:
        super().__init__(folder)
        self.moto, self.url = moto, f"{moto.bucket(f'b-{abs(hash(folder)):x}'[:40])}/lab"

    def place(self, **changes: object) -> Place:
        return super().place(**{"depot": self.url, "endpoint": self.moto.endpoint, **changes})

    @property
    def there(self) -> BucketDepot:
        engine = open_bucket(f"{self.url}?endpoint={self.moto.endpoint}")
        return BucketDepot(engine, self.owner)

    owner = ""


@pytest.fixture
def double(tmp_path: Path, moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Iterator[InBucket]:
    monkeypatch.setenv("HOME", str(moto.home))
    monkeypatch.setattr("speciate.jobs.places.bucket_depot.BucketRoom.look_seconds", 0.5)
    made = InBucket(tmp_path / "cluster", moto)
    yield made
    made.close()


def workers(double: InBucket) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "speciate.worker" in (process.info["cmdline"] or []) and str(double.scratch) in process.info["cmdline"][-1]
    ]


def running(engine: Engine, double: InBucket, **spec: object) -> Job:
    job = engine.submit("placed", {"seconds": 30, **spec})
    until(lambda: (found := engine.folder(engine.get(job.id)).progress()) is not None and found.done > 1)
    double.owner = (engine.get(job.id).handle or {})["folder"].partition("/")[0]
    return engine.get(job.id)


def test_a_run_goes_there_and_all_of_it_comes_back(open_engine: Open, double: InBucket) -> None:
    engine = open_engine()
    root = engine.workspace.folders.root
    (root / "datasets" / "rows.txt").write_text("rows")
    done = engine.wait(engine.submit("reads", {"reads": ["datasets/rows.txt"]}).id, timeout=120)
    assert done.state is State.SUCCEEDED, (done.reason, done.error)
    assert done.result is not None
    assert done.result["there"] == {"datasets/rows.txt": "rows"}
    assert Path(*done.result["names"]).is_relative_to(double.scratch), "on the node's own disk"
    assert done.result["root"] == str(engine.workspace.folders.root), "it is told by its path here"
    assert list(double.scratch.rglob("*.txt")) == [], "nothing stays on the node"
    double.owner = (done.handle or {})["folder"].partition("/")[0]
    until(lambda: double.there.runs() == [])
    mover = engine.places.executor("lab")._mover  # type: ignore[attr-defined]
    before = mover.moved
    again = engine.wait(engine.submit("reads", {"reads": ["datasets/rows.txt"], "value": 2}).id, timeout=120)
    assert again.state is State.SUCCEEDED
    assert mover.moved == before == len("rows"), "the second run moves no byte"
    (root / "datasets" / "rows.txt").unlink()
    engine.workspace.database.transact(lambda tx: tx.event("workspace", "data.forgotten"))
    until(lambda: list(double.there.objects()) == [])
    said = "".join(path.read_text() for path in double.jobs.glob("*.words"))
    assert "sesame" not in said
    assert "AKIA" not in said


@pytest.mark.slow
def test_a_training_makes_the_model_that_it_makes_here_and_the_second_moves_no_data(
    open_engine: Open, double: InBucket
) -> None:
    engine = open_engine(lease_seconds=30)
    digits = load_digits()
    make_dataset(
        engine.workspace, "digits", "image", {}, labels=[str(each) for each in digits.target[:120]], splits=thirds(120),
        media=[png((image * 15).astype("uint8")) for image in digits.images[:120]],
    )  # fmt: skip
    allow(engine.workspace, "digits")
    mover, moved, made = engine.places.executor("lab")._mover, list[int](), {}  # type: ignore[attr-defined]
    for name, place in (("here", "here"), ("there", "lab"), ("again", "lab")):
        spec = {"name": name, "dataset": "digits", "method": "classical", "resources": {"cpu": 1, "place": place}}
        done = engine.wait(engine.submit("train", spec).id, timeout=240)
        assert done.state is State.SUCCEEDED, (done.reason, done.error, engine.folder(done).log_tail(40))
        card = registry.resolve(engine.workspace.database, engine.workspace.folders, f"{name}@v1").card
        made[name], moved = card, [*moved, mover.moved]
    assert made["here"].metrics == made["there"].metrics
    assert made["there"].id == made["again"].id, "to the last bit, on one machine"
    assert 0 == moved[0] < moved[1] == moved[2]


@pytest.mark.slow
def test_an_ingest_goes_on_from_the_packs_that_a_dead_node_left_in_the_bucket(
    open_engine: Open, double: InBucket, tmp_path: Path
) -> None:
    source = zipped(images(tmp_path / "images", 2400), tmp_path / "images.zip")
    engine = open_engine(kinds=["ingest"], lease_seconds=6)
    allow(engine.workspace, "set")
    job = engine.submit("ingest", {"name": "set", "source": str(source), "label": "folder"})
    until(lambda: bool(engine.get(job.id).handle))
    double.owner = (engine.get(job.id).handle or {})["folder"].partition("/")[0]
    room = double.there.room(f"{job.id}.1")
    until(lambda: any(name.startswith("checkpoints/part-") for name in room.left()), 400)
    (pid,) = workers(double)
    psutil.Process(pid).parent().send_signal(signal.SIGKILL)  # type: ignore[union-attr]
    done = engine.wait(job.id, timeout=500)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2), (done.reason, done.error)
    first = (engine.folder(done).path / "progress.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["done"] >= 768, "what the first attempt had finished is not read again"
    here = Workspace(tmp_path / "here", settings=Settings(policy="auto"))
    assert versions.resolve(engine.workspace.database, "set") == data.ingest(here, "set", source=source, label="folder")
    here.close()


@pytest.mark.slow(reason="a node that dies, over a bucket")
def test_a_node_that_dies_leaves_its_checkpoints_in_the_bucket(open_engine: Open, double: InBucket) -> None:
    engine = open_engine(lease_seconds=3)
    job = running(engine, double)
    room = double.there.room(f"{job.id}.1")
    until(lambda: any(name.startswith("checkpoints/") for name in room.left()))
    (pid,) = workers(double)
    psutil.Process(pid).parent().send_signal(signal.SIGKILL)  # type: ignore[union-attr]
    until(lambda: not identity(pid), 5)
    until(lambda: engine.get(job.id).attempt == 2 and engine.get(job.id).state is State.RUNNING)
    assert engine.get(job.id).losses == 1
    until(lambda: engine.folder(engine.get(job.id)).progress() is not None)
    found = engine.folder(engine.get(job.id)).progress()
    assert found is not None
    assert found.done > 1, "it goes on where the first one was"


def test_who_is_asked_to_stop_leaves_a_checkpoint(open_engine: Open, double: InBucket) -> None:
    engine = open_engine()
    job = running(engine, double)
    engine.control(job.id, "pause")
    until(lambda: engine.get(job.id).state is State.PAUSED)
    assert int((engine.folder(job).checkpoints / "step").read_text()) > 0


@pytest.mark.slow(reason="six seconds; with a folder as the depot it is in the default run")
def test_a_daemon_that_comes_back_adopts_what_runs(open_engine: Open, double: InBucket) -> None:
    engine = open_engine()
    job = running(engine, double, seconds=5)
    (pid,) = workers(double)
    engine = open_engine()
    done = engine.wait(job.id, timeout=120)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert done.result is not None
    assert done.result["pid"] == pid
    lines = (engine.folder(job).path / "progress.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)), "what an earlier daemon brought is not there twice"


@pytest.mark.slow
def test_the_bucket_goes_away_and_comes_back(open_engine: Open, double: InBucket, moto: Moto) -> None:
    engine = open_engine(lease_seconds=3)
    job = running(engine, double)
    (pid,) = workers(double)
    moto.suspend()
    try:
        until(lambda: not identity(pid), 20)
        until(lambda: engine.trouble(job.id) is not None, 60)
        assert (engine.get(job.id).attempt, engine.get(job.id).state) == (1, State.RUNNING)
        assert len(double.launches()) == 1
    finally:
        moto.resume()
    until(lambda: engine.get(job.id).attempt == 2)
    until(lambda: len(double.launches()) == 2)


def test_the_probe_tells_whether_conditional_puts_hold(
    double: InBucket, moto: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = double.place()
    found = {each.name: each for each in (*look_from_here(place), *look_from_there(place, 60))}
    assert all(found[name].ok for name in ("cluster", "depot", "job", "shared", "delay")), found
    assert "conditional" in found["depot"].what
    missing = double.place(depot="s3://no-such-bucket")
    assert not {each.name: each.ok for each in look_from_here(missing)}["depot"]
    monkeypatch.setattr("speciate.jobs.places.bucket_depot._Objects.create", lambda *_: True)
    broken = {each.name: each for each in look_from_here(place)}["depot"]
    assert not broken.ok
    assert "could begin twice" in broken.what
