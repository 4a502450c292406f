"""An ingest at a place: the same version as here, from what was moved there alone; and what stays here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from speciate.datasets import next_version, version_rows, versions
from speciate.datasets.ingest import ingest_place
from speciate.datasets.ingest.ingest import KIND, IngestSpec
from speciate.datasets.ingest.ingest import run as ingest_run
from speciate.datasets.loading.loader import packs
from speciate.errors import Code, SpeciateError
from speciate.jobs.egress import Permit
from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder, read_checked, write_checked
from speciate.jobs.job import Job, State
from speciate.jobs.places import executor
from speciate.jobs.places.folder_depot import FolderDepot
from speciate.jobs.places.moving import Mover
from speciate.jobs.run import Run
from speciate.settings import Place, Settings
from speciate.workspace.packs import PackReader
from speciate.workspace.workspace import Folders, Workspace
from tests import data
from tests.jobs.places.cluster import Double, allow, look_often, until

Open = Callable[..., Engine]


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


@pytest.fixture
def open_engine(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """A workspace whose ingests run at `lab`."""
    look_often(monkeypatch)
    opened: list[Engine] = []

    def begin(**place: Any) -> Engine:
        lab = double.place(lease_seconds=20, kinds=["ingest"], **place)
        engine = Engine(Workspace(tmp_path / "there", settings=Settings(policy="auto", executors={"lab": lab})))
        allow(engine.workspace, "set")
        engine.start()
        opened.append(engine)
        return engine

    yield begin
    for engine in opened:
        engine.stop()
        engine.workspace.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "here", settings=Settings(policy="auto"))
    yield workspace
    workspace.close()


def images(folder: Path, count: int, seed: int = 0) -> Path:
    chance = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("bright", "dark")[number % 2] / f"{seed}-{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (12, 12)).astype(np.uint8)).save(path, compress_level=1)
    return folder


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.png")):
            file.write(path, path.relative_to(folder))
    return archive


def table(path: Path, rows: range, more: float = 0) -> Path:
    """`more`: on the column of whole numbers, which then are none."""
    lines = [f'{{"text": "a sentence about {n} things", "label": "{"ab"[n % 2]}", "n": {n + more}}}' for n in rows]
    path.write_text("\n".join(lines))
    return path


def as_spec(**spec: Any) -> dict[str, Any]:
    return {"name": "set", **{name: str(value) if isinstance(value, Path) else value for name, value in spec.items()}}


def ingest(engine: Engine, **spec: Any) -> Job:
    done = engine.wait(engine.submit("ingest", as_spec(**spec)).id, timeout=240)
    assert done.state is State.SUCCEEDED, (done.reason, done.error, engine.folder(done).log_tail(40))
    return done


def version(workspace: Workspace) -> dict[str, Any]:
    """All that the catalog knows of it, but for when and by which job."""
    found = versions.version(workspace.database, "set")
    return {**found.manifest.model_dump(), "operation": found.operation, "report": found.report, "of": found.parents}


def objects(double: Double) -> set[str]:
    return {path.name for path in double.depot.rglob("objects/??/*")}


def workspace_files(workspace: Workspace) -> list[Path]:
    folders = workspace.folders
    return sorted(path for folder in (folders.packs, folders.datasets) for path in folder.rglob("*") if path.is_file())


def check_a_daemon_that_died_in_between_does_it_again(engine: Engine, job: Job) -> None:
    folder, known = engine.folder(job), workspace_files(engine.workspace)
    for path in known:
        shutil.copy(path, folder.outputs / path.relative_to(engine.workspace.folders.root))
    KIND.adopt(folder)
    assert workspace_files(engine.workspace) == known


def check_same(there: Workspace, here: Workspace) -> None:
    """And readable."""
    assert version(there) == version(here)
    folders, manifest = there.folders, versions.resolve(there.database, "set")
    rows = version_rows.read(folders, manifest)
    assert rows.num_rows == manifest.rows
    if not manifest.inputs:
        with PackReader(packs(folders, manifest)) as reader:
            for content in rows["_content"].drop_null().to_pylist():
                assert reader.get(content)


def test_media_are_decoded_there_and_the_version_is_the_one_of_here(
    open_engine: Open, here: Workspace, double: Double, tmp_path: Path
) -> None:
    source = images(tmp_path / "images", 40)
    (source / "dark" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no image")
    (source / "README.md").write_text("about them")
    (source / ".hidden").write_text("not moved")
    there = open_engine()
    done = ingest(there, source=source, label="folder")
    assert done.resources.place == "lab"
    assert len(double.launches()) == 1
    data.ingest(here, "set", source=source, label="folder")
    check_same(there.workspace, here)
    assert version(here)["operation"]["source"] == str(source)
    assert there.folder(done).progress() is not None
    assert [path.name for path in workspace_files(there.workspace)] == [path.name for path in workspace_files(here)]
    until(lambda: not objects(double), 60)
    check_a_daemon_that_died_in_between_does_it_again(there, done)
    more = images(tmp_path / "more", 60, seed=1)
    added = ingest(there, name="set@v1", source=more, add=True)
    assert added.resources.place == "lab"
    data.ingest(here, "set@v1", source=more, add=True)
    check_same(there.workspace, here)
    own = {hashlib.sha256(path.read_bytes()).hexdigest() for path in more.rglob("*.png")}
    until(lambda: not objects(double) & own, 60)  # the depot keeps files of the workspace alone


@pytest.mark.parametrize(
    "how", [pytest.param("an archive", marks=pytest.mark.slow), "a table of labels beside", "read in place"]
)
def test_each_source_is_the_same_version_there_and_here(
    open_engine: Open, here: Workspace, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = images(tmp_path / "data" / "images", 12)
    spec: dict[str, Any] = {"source": source, "label": "folder"}
    shared: list[str] = []
    match how:
        case "an archive":
            spec["source"] = zipped(source, tmp_path / "images.zip")
        case "a table of labels beside":
            names = [path.relative_to(tmp_path / "data") for path in sorted(source.rglob("*.png"))]
            labels = tmp_path / "data" / "labels.csv"
            labels.write_text("path,kind\n" + "".join(f"{name},{'xy'[i % 2]}\n" for i, name in enumerate(names)))
            spec = {"source": source, "labels": {"path": str(labels), "key": "path", "column": "kind"}}
        case "read in place":
            shared = [str(tmp_path / "data")]
            monkeypatch.setattr(ingest_place.secrets, "inodes", lambda workspace: frozenset({(0, 1)}))
    there = open_engine(shared=shared)
    assert bool(there.plan("ingest", as_spec(**spec)).sources) == (not shared)
    assert ingest(there, **spec).resources.place == "lab"
    data.ingest(here, "set", **spec)
    check_same(there.workspace, here)
    assert versions.resolve(here.database, "set").labels


@pytest.mark.slow
def test_what_the_source_is_refused_for_names_it_as_the_caller_did(
    open_engine: Open, here: Workspace, tmp_path: Path
) -> None:
    spec = {"source": table(tmp_path / "rows.jsonl", range(10)), "label": "missing"}
    there = open_engine()
    done = there.wait(there.submit("ingest", as_spec(**spec)).id, timeout=120)
    assert done.state is State.FAILED
    assert done.error is not None
    with pytest.raises(SpeciateError) as refused:
        data.ingest(here, "set", **spec)
    assert (done.error["message"], done.error["recovery"]) == (refused.value.message, refused.value.recovery)


def workers(run: str) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if "speciate.worker" in (words := process.info["cmdline"] or ())
        and any(f"/{run}" in word for word in words)
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.slow(reason="seven seconds; kills of trainings there, and of ingests here, are in the default run")
def test_a_worker_that_is_killed_costs_what_was_in_no_finished_part(
    open_engine: Open, here: Workspace, tmp_path: Path
) -> None:
    source = images(tmp_path / "images", 2400)  # three parts and more
    there = open_engine()
    job = there.submit("ingest", {"name": "set", "source": str(source), "label": "folder"}).id
    room = Path(str(there.workspace.settings.executors["lab"].depot))
    until(lambda: bool(workers(f"{job}.1")), 240)
    (pid,) = workers(f"{job}.1")
    until(lambda: any(room.glob(f"*/runs/{job}.1/checkpoints/part-*.parquet")), 240)
    os.kill(pid, signal.SIGKILL)
    done = there.wait(job, timeout=240)
    assert (done.state, done.attempt) == (State.SUCCEEDED, 2), (done.reason, done.error)
    first = json.loads((there.folder(done).path / "progress.jsonl").read_text().splitlines()[0])
    assert first["done"] >= 768, "what the first attempt had finished is not read again"
    data.ingest(here, "set", source=source, label="folder")
    check_same(there.workspace, here)


@pytest.mark.slow
def test_a_cancelled_ingest_leaves_nothing(open_engine: Open, double: Double, tmp_path: Path) -> None:
    source = images(tmp_path / "images", 1200)
    there = open_engine()
    job = there.submit("ingest", {"name": "set", "source": str(source), "label": "folder"}).id
    until(lambda: bool(workers(f"{job}.1")), 120)
    there.control(job, "cancel")
    assert there.wait(job, timeout=120).state is State.CANCELLED
    assert versions.names(there.workspace.database) == []
    until(lambda: not [path for path in double.depot.rglob("*") if path.is_file() and path.name != "workspace"], 60)


def where(engine: Engine, **spec: Any) -> tuple[str | None, str]:
    planned = engine.plan("ingest", {"name": "set", **spec})
    return planned.resources.place, planned.resolved.get("runs_here", "")


def test_what_cannot_go_stays_here_and_its_plan_says_why(
    open_engine: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = open_engine(capacity={"cpu": 8, "memory_mb": 8000})
    assert where(there, source="pkg:iris") == (None, "only files and folders are ingested elsewhere")
    source = images(tmp_path / "images", 4)
    assert where(there, source=str(source)) == ("lab", "")
    (tmp_path / "beyond.png").write_bytes((source / "dark" / "0-00001.png").read_bytes())
    (source / "linked.png").symlink_to(tmp_path / "beyond.png")
    assert (
        where(there, source=str(source))[1] == "its source holds files that are not read, such as links that lead out"
    )
    (source / "linked.png").unlink()
    own = there.workspace.folders.root / "settings.toml"
    own.write_text("")
    os.link(own, source / "settings.png")
    assert where(there, source=str(source))[0] is None, "a hard link to a file of ours is one, too"
    (source / "settings.png").unlink()
    monkeypatch.setattr(ingest_place, "_MEMORY_MB", 1 << 20)
    assert "it does not fit at lab" in where(there, source=str(source))[1]
    monkeypatch.setattr(ingest_place, "_MEMORY_MB", 1)
    monkeypatch.setattr(ingest_place, "MOST_FILES", 3)
    assert "more than 3 files" in where(there, source=str(source))[1]


def lab(tmp_path: Path) -> Place:
    """To be planned for; nothing is sent there."""
    return Place(kind="slurm", depot=str(tmp_path), python="/bin/python", kinds=("ingest",))


def test_without_consent_for_the_name_to_be_an_ingest_runs_here(here: Workspace, tmp_path: Path) -> None:
    here.settings = here.settings.model_copy(update={"executors": {"lab": lab(tmp_path)}})
    spec = IngestSpec(name="set", source=images(tmp_path / "images", 4), label="folder")
    planned = KIND.plan(spec, here)
    assert planned.resources.place is None
    assert planned.sources == planned.departures == ()
    assert "speciate allow set --host lab" in planned.resolved["runs_here"]
    allow(here, "set")
    planned = KIND.plan(spec, here)
    assert planned.resources.place == "lab"
    assert [each.dataset for each in planned.departures] == ["set"]


def test_a_large_dataset_is_not_moved_for_a_few_more(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.ingest(here, "set", source=images(tmp_path / "images", 40), label="folder")
    here.settings = here.settings.model_copy(update={"executors": {"lab": lab(tmp_path)}})
    allow(here, "set")
    spec = IngestSpec(name="set@v1", source=images(tmp_path / "more", 4, seed=1), add=True)
    assert KIND.plan(spec, here).resources.place == "lab"
    monkeypatch.setattr(ingest_place, "LITTLE", 0)
    planned = KIND.plan(spec, here)
    assert planned.resources.place is None
    assert "more bytes than its source" in planned.resolved["runs_here"]


@pytest.mark.parametrize("what", ["a link out of it", "a hard link to a file of ours"])
def test_nothing_but_the_source_is_moved_whatever_happens_to_it_meanwhile(tmp_path: Path, what: str) -> None:
    source, root = images(tmp_path / "images", 4), tmp_path / "workspace"
    root.mkdir()
    (root / "settings.toml").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    if what == "a link out of it":
        (source / "dark" / "x.png").symlink_to(tmp_path / "secret")
    else:
        os.link(root / "settings.toml", source / "dark" / "x.png")
    depot = FolderDepot(tmp_path / "depot")
    depot.make("w")
    with pytest.raises(SpeciateError, match="no plain file of it any more"):
        Mover(root).move_out(depot, {"sources": [str(source)]}, Permit("depot", frozenset({"set"})))
    assert b"secret" not in b"".join(path.read_bytes() for path in depot.root.rglob("*") if path.is_file())


def run_at_node(workspace: Workspace, **spec: Any) -> RunFolder:
    """The folder of a run here, with what it left there, without a cluster between."""
    number = len(list(workspace.folders.runs.iterdir()))
    planned = KIND.plan(IngestSpec.model_validate(as_spec(**spec)), workspace)
    assert planned.resources.place == "lab"
    root = workspace.folders.root.parent / f"node-{number}"
    for name in planned.inputs:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(workspace.folders.root / name, root / name)
    (root / "cache").mkdir(parents=True)
    folders = [RunFolder(workspace.folders.runs / f"job-{number}.1"), RunFolder(root / "runs" / f"job-{number}.1")]
    for folder, place in zip(folders, (workspace.folders.root, root), strict=True):
        resources = planned.resources.model_dump()
        folder.create(
            {"payload": planned.payload_json(), "job": "job", "workspace": str(place), "resources": resources}
        )
    here, there = folders
    write_checked(there.outputs / "result.json", ingest_run(Run(there)))
    shutil.copytree(there.outputs, here.outputs, dirs_exist_ok=True)
    shutil.rmtree(root)
    return here


def take_in(workspace: Workspace, folder: RunFolder) -> None:
    KIND.adopt(folder)
    made = KIND.collect(folder)
    job = Job(id="job-x", kind="ingest", spec={}, fingerprint="", state=State.RUNNING, created=0, changed=0)
    workspace.database.transact(lambda tx: KIND.commit(tx, job, made))


def test_further_versions_are_the_ones_of_here(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_version, "MOST_PARTS", 2)
    settings = Settings(policy="auto", executors={"lab": lab(tmp_path)})
    there = Workspace(tmp_path / "there", settings=settings)
    allow(there, "set")
    for spec in (
        {"name": "set", "source": table(tmp_path / "rows.jsonl", range(60))},
        {"name": "set", "source": table(tmp_path / "more.jsonl", range(80))},  # splits as they were
        {"name": "set@v2", "source": table(tmp_path / "added.jsonl", range(80, 90)), "add": True},
        {"name": "set@v3", "source": table(tmp_path / "halves.jsonl", range(90, 95), 0.5), "add": True},  # all anew
        {"name": "set@v4", "source": table(tmp_path / "known.jsonl", range(90, 95), 0.5), "add": True},
        *({"name": f"set@v{4 + n}", "source": table(tmp_path / f"{n}.jsonl", range(100 + n, 101 + n)), "add": True}
          for n in range(3)),  # more parts than a version keeps
    ):  # fmt: skip
        take_in(there, run_at_node(there, **spec))
        data.ingest(here, **spec)
        check_same(there, here)
    there.close()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """What a run at a node left of a few images."""
    folder = tmp_path_factory.mktemp("left")
    workspace = Workspace(folder / "workspace", settings=Settings(policy="auto", executors={"lab": lab(folder)}))
    allow(workspace, "set")
    yield run_at_node(workspace, source=images(folder / "images", 6), label="folder")
    workspace.close()


def spoil(folder: RunFolder, what: str) -> None:
    """Change what a node left as it must not be."""
    document = read_checked(folder.outputs / "result.json", "")
    manifest, outputs = document["manifest"], folder.outputs
    (pack,) = outputs.glob("packs/*.pack")
    match what:
        case "another name":
            manifest["name"] = "other"
        case "another id":
            manifest["id"] = "0" * 64
        case "lanes of other rows":
            document["lanes"] = "00" * (len(document["lanes"]) // 2)
        case "lanes cut short":
            document["lanes"] = document["lanes"][:-4]
        case "more rows than there are":
            manifest["rows"] += 1
        case "other labels":
            manifest["labels"] = {"bright": 1}
        case "a part elsewhere":
            manifest["parts"][0]["file"] = "../" + manifest["parts"][0]["file"]
        case "a part that is none":
            part = outputs / manifest["parts"][0]["file"]
            part.write_bytes(part.read_bytes()[:-1])
        case "a pack cut short":
            pack.write_bytes(pack.read_bytes()[:-1])
        case "no index":
            pack.with_suffix(".parquet").unlink()
        case "a pack left out":
            manifest["packs"] = []
        case "another source":
            document["operation"]["source"] = "/elsewhere"
        case "a parent":
            document["parents"] = ["other@v1"]
        case "another result":
            document["result"]["dataset"] = "other@v1"
        case "another report":
            document["report"] = document["result"]["report"] = ["no", "report"]
        case "no manifest":
            del document["manifest"]
    write_checked(outputs / "result.json", document)


@pytest.mark.parametrize(
    "what",
    [
        "another name", "another id", "lanes of other rows", "lanes cut short", "more rows than there are",
        "other labels", "a part elsewhere", "a part that is none", "a pack cut short", "no index", "a pack left out",
        "another source", "a parent", "another result", "another report", "no manifest",
    ],
)  # fmt: skip
def test_what_comes_back_and_is_no_version_is_refused(left: RunFolder, tmp_path: Path, what: str) -> None:
    folder = RunFolder(Path(shutil.copytree(left.path, tmp_path / "job-0.1")))
    spoil(folder, what)
    with pytest.raises(SpeciateError, match="no version that an ingest makes") as refused:
        KIND.adopt(folder)
    assert refused.value.code is Code.INVALID
    folders = Folders(Path(folder.spec()["workspace"]))
    assert not list(folders.packs.iterdir())
    assert not list(folders.datasets.rglob("*.parquet"))


def test_a_job_whose_version_is_none_fails(open_engine: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = executor.bring

    def bring(room: Any, target: Path, **how: Any) -> None:
        brought(room, target, **how)
        spoil(RunFolder(target), "another id")

    monkeypatch.setattr(executor, "bring", bring)
    there = open_engine()
    spec = {"name": "set", "source": str(images(tmp_path / "images", 6)), "label": "folder"}
    done = there.wait(there.submit("ingest", spec).id, timeout=120)
    assert (done.state, done.attempt) == (State.FAILED, 1)
    assert done.error is not None
    assert "its hash cannot be so" in done.error["message"]
    assert versions.names(there.workspace.database) == []
