"""Vectors that a node computes: the same ones, under the same id, taken into the cache here; and what stays here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate import features
from speciate.datasets import version_rows, versions
from speciate.datasets.similarity import extractors
from speciate.datasets.similarity.embed import Payload, _begin_at_place, vector_keys
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.governance import consents
from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run
from speciate.models.encoders import Vectors
from speciate.settings import Settings
from speciate.workspace.workspace import Folders, Workspace
from tests.jobs.places.cluster import Double, allow, look_often
from tests.training.world import make_dataset, png, thirds

Open = Callable[[str], Engine]


@pytest.fixture
def double(tmp_path: Path) -> Double:
    return Double(tmp_path / "cluster")


@pytest.fixture
def open_engine(tmp_path: Path, double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """A workspace whose vectors are computed `there` or `here`, with the same data."""
    look_often(monkeypatch)
    opened: list[Engine] = []

    def begin(name: str) -> Engine:
        lab = {"lab": double.place(lease_seconds=60, kinds=["embed"])} if name == "there" else {}
        engine = Engine(Workspace(tmp_path / name, settings=Settings(policy="auto", executors=lab)))
        allow(engine.workspace, "noise", "notes")
        engine.start()
        opened.append(engine)
        chance = np.random.default_rng(0)
        media = [png(chance.integers(0, 255, (16, 16)).astype(np.uint8)) for _ in range(12)]
        make_dataset(engine.workspace, "noise", "image", {}, labels=["a"] * 12, splits=thirds(12), media=media)
        rows = [f"a sentence about {number} things" for number in range(12)]
        make_dataset(
            engine.workspace, "notes", "text", {"text": rows}, labels=["a"] * 12, splits=thirds(12), inputs=["text"]
        )
        return engine

    yield begin
    for engine in opened:
        engine.stop()
        engine.workspace.close()


def embed(engine: Engine, dataset: str, extractor: str) -> Job:
    done = engine.wait(engine.submit("embed", {"dataset": dataset, "extractor": extractor}).id, timeout=240)
    assert done.state is State.SUCCEEDED, (done.reason, done.error, engine.folder(done).log_tail(40))
    return done


def vectors(engine: Engine, dataset: str, extractor: str) -> Vectors:
    manifest = versions.resolve(engine.workspace.database, dataset)
    rows = version_rows.read(engine.workspace.folders, manifest, usable=True)
    found = extractors.load(extractor, manifest.modality, engine.workspace.folders)
    cached = features.read(engine.workspace.folders, found.id, vector_keys(rows))
    assert cached.known.all()
    return cached.vectors


def test_without_consent_vectors_are_computed_here(open_engine: Open) -> None:
    engine = open_engine("there")
    assert engine.plan("embed", {"dataset": "noise", "extractor": "descriptor"}).resources.place == "lab"
    consents.disallow(engine.workspace, "noise", "lab", "grace")
    planned = engine.plan("embed", {"dataset": "noise", "extractor": "descriptor"})
    assert planned.resources.place is None
    assert planned.departures == planned.inputs == ()
    assert "speciate allow noise --host lab" in planned.resolved["runs_here"]


@pytest.mark.parametrize(
    ("dataset", "extractor"), [("noise", "descriptor"), pytest.param("notes", "pkg:minilm", marks=pytest.mark.slow)]
)
def test_vectors_come_back_as_they_would_be_here(open_engine: Open, dataset: str, extractor: str) -> None:
    there, here = open_engine("there"), open_engine("here")
    done = embed(there, dataset, extractor)
    assert done.resources.place == "lab"
    assert done.result == embed(here, dataset, extractor).result
    np.testing.assert_allclose(
        vectors(there, dataset, extractor), vectors(here, dataset, extractor), rtol=1e-5, atol=1e-6
    )
    again = embed(there, dataset, extractor)
    assert again.resources.place is None, "what is here already is not computed there"
    assert again.result is not None
    assert (again.result["computed"], again.result["cached"]) == (0, 12)


def a_run(folder: Path, number: int = 1, identity: str | None = None) -> Run:
    extractor = extractors.load("descriptor", "image", Folders(folder))
    payload = {"extractor": "descriptor", "id": identity or extractor.id}
    made = RunFolder(folder / f"job.{number}")
    earlier = [str(folder / f"job.{each}") for each in range(number - 1, 0, -1)]
    root = folder / f"workspace-{number}"
    made.create({"payload": payload, "job": "job", "workspace": str(root), "resume_from": earlier})
    return Run(made)


def payload_of(run: Run) -> Payload:
    manifest = Manifest.model_construct(name="noise", version=1, modality="image")
    return Payload.model_construct(manifest=manifest, **run.payload)


def test_a_node_whose_vectors_would_be_others_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path, identity="descriptor-image-of-before")
    with pytest.raises(SpeciateError, match="descriptor-image-of-before is asked for") as refused:
        _begin_at_place(run, payload_of(run))
    assert refused.value.code is Code.UNAVAILABLE


def test_the_next_attempt_has_what_the_one_before_has_computed(tmp_path: Path) -> None:
    first = a_run(tmp_path)
    extractor = _begin_at_place(first, payload_of(first))
    features.write(first.folders, extractor.id, ["a", "b"], np.ones((2, 3), np.float32))
    second = a_run(tmp_path, 2)
    _begin_at_place(second, payload_of(second))
    assert features.known(second.folders, extractor.id, ["a", "b", "c"]).tolist() == [True, True, False]


def test_what_comes_back_and_is_no_vectors_is_refused(tmp_path: Path) -> None:
    here, there = Folders(tmp_path / "here"), Folders(tmp_path / "there")
    features.write(there, "x", ["a"], np.full((1, 3), np.nan, np.float32))
    with pytest.raises(SpeciateError, match="holds no vectors"):
        features.adopt(here, "x", there.features / "x", ["a"])
    features.write(there, "y", ["a"], np.ones((1, 3), np.float32))
    (part,) = (there.features / "y").glob("*.parquet")
    shutil.copy(part, tmp_path / "copy")
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    with pytest.raises(SpeciateError):
        features.adopt(here, "y", there.features / "y", ["a"])
    assert not any(here.features.rglob("*.parquet"))
    shutil.copy(tmp_path / "copy", part)
    assert features.adopt(here, "y", there.features / "y", ["a"]) == 1
    assert features.read(here, "y", ["a"]).known.all()


def test_vectors_of_other_rows_are_not_taken_in(tmp_path: Path) -> None:
    """Of rows that were purged meanwhile, say, or of other datasets."""
    here, there = Folders(tmp_path / "here"), Folders(tmp_path / "there")
    features.write(there, "x", ["a", "b"], np.ones((2, 3), np.float32))
    assert features.adopt(here, "x", there.features / "x", ["b", "c"]) == 1
    assert features.known(here, "x", ["a", "b", "c"]).tolist() == [False, True, False]


@pytest.mark.parametrize("what", ["another width", "half a number", "compressed", "repeated by reference"])
def test_a_part_that_would_spoil_the_cache_or_fill_the_memory_is_refused(tmp_path: Path, what: str) -> None:
    here, there = Folders(tmp_path / "here"), tmp_path / "there"
    there.mkdir()
    features.write(here, "x", ["a"], np.ones((1, 3), np.float32))
    size = {"another width": 16, "half a number": 14}.get(what, 12)
    table = pa.table({"key": ["b"] * 4, "content": ["b"] * 4, "vector": pa.array([bytes(size)] * 4, pa.binary(size))})
    dictionary = what == "repeated by reference"
    compression = "zstd" if what == "compressed" else "none"
    pq.write_table(table, there / "part-1.parquet", compression=compression, use_dictionary=dictionary)
    with pytest.raises(SpeciateError, match="holds no vectors") as refused:
        features.adopt(here, "x", there, ["b"])
    assert refused.value.code is Code.INVALID
    assert features.read(here, "x", ["a", "b"]).known.tolist() == [True, False]
