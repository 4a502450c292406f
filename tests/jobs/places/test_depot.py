"""Files by content on a shared disk: moved once, checked both ways, swept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speciate.errors import Code, SpeciateError
from speciate.jobs.places.depot import MANIFEST, Depot, Entry, bring, mirror, read_manifest, write_manifest
from speciate.jobs.places.moving import Mover
from speciate.jobs.places.unpack import with_paths


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    (tmp_path / "shared").mkdir()
    found = Depot(tmp_path / "shared" / "ours")
    found.make("/a/workspace")
    return found


def test_a_file_is_moved_once_and_checked_when_it_is_taken(depot: Depot, tmp_path: Path) -> None:
    source, target = tmp_path / "rows", tmp_path / "node" / "rows"
    source.write_bytes(b"x" * 3_000_000)
    sha256, moved = depot.put(source)
    assert moved == 3_000_000
    assert depot.put(source) == (sha256, 0)
    assert depot.put(source, known=sha256) == (sha256, 0)
    depot.take(Entry("rows", sha256, moved), target)
    assert target.read_bytes() == source.read_bytes()
    torn = depot.object(sha256)
    torn.chmod(0o644)
    torn.write_bytes(b"x" * 2_999_999 + b"y")
    with pytest.raises(SpeciateError) as damaged:
        depot.take(Entry("rows", sha256, moved), tmp_path / "again")
    assert damaged.value.code is Code.DAMAGED
    assert not (tmp_path / "again").exists()
    assert depot.put(source, known=sha256) == (sha256, moved), "it is moved anew"


def test_no_depot_is_made_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Depot(tmp_path / "not-mounted" / "ours").make("/a/workspace")


@pytest.mark.parametrize("harm", ["changed", "missing", "link", "outside"])
def test_what_comes_back_is_what_the_node_wrote_or_nothing(tmp_path: Path, harm: str) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "outputs" / "model").mkdir(parents=True)
    here.mkdir()
    weights = there / "outputs" / "model" / "weights"
    weights.write_text("weights")
    (there / "outputs" / "result.json").write_text("{}")
    (there / "outputs" / "elsewhere").symlink_to("/etc/passwd")
    write_manifest(there)
    manifest = read_manifest(there)
    assert manifest is not None
    assert set(manifest) == {"outputs/model/weights", "outputs/result.json"}, "no link is followed"
    bring(there, here, manifest=manifest, outputs=True)
    assert (here / "outputs" / "model" / "weights").read_text() == "weights"
    (here / "outputs" / "model" / "weights").unlink()
    match harm:
        case "changed":
            weights.write_text("w3ights")
        case "missing":
            weights.unlink()
        case "link":
            weights.unlink()
            weights.symlink_to("/etc/hostname")
        case "outside":
            (tmp_path / "outside").write_text("x")
            (there / MANIFEST).write_text(json.dumps({"../outside": "0" * 64}))
    with pytest.raises(SpeciateError, match="not what the node wrote"):
        bring(there, here, manifest=read_manifest(there), outputs=True)
    assert not (here / "outputs" / "model" / "weights").exists()
    assert not list(here.rglob("*.partial"))


def test_without_a_manifest_checkpoints_come_and_outputs_do_not(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for name in ("outputs", "checkpoints/training"):
        (there / name).mkdir(parents=True)
        (there / name / "file").write_text(name)
    here.mkdir()
    assert read_manifest(there) is None
    bring(there, here, manifest=None, outputs=False)
    assert [path.name for path in here.iterdir()] == ["checkpoints"]
    assert (here / "checkpoints" / "training" / "file").exists()


def test_a_sweep_leaves_what_is_needed(depot: Depot, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "datasets").mkdir(parents=True)
    for name in ("kept", "gone", "changed"):
        (workspace / "datasets" / name).write_text(name)
    mover = Mover(workspace)
    inputs, moved = mover.move_out(depot, {"inputs": ["datasets"]})
    assert [each.name for each in inputs] == ["datasets/changed", "datasets/gone", "datasets/kept"]
    assert moved == {str(workspace): ""}
    for name in ("live.1", "ended.1"):
        depot.run(name).mkdir()
    (workspace / "datasets" / "gone").unlink()
    (workspace / "datasets" / "changed").write_text("otherwise")
    depot.sweep(Mover(workspace).wanted(), {"live.1"})
    (kept,) = (each.sha256 for each in inputs if each.name == "datasets/kept")
    assert set(depot.objects()) == {kept}
    assert [path.name for path in depot.runs()] == ["live.1"]


def test_what_grows_is_appended_up_to_a_limit(tmp_path: Path) -> None:
    source, target = tmp_path / "log", tmp_path / "copy"
    mirror(source, target)
    assert not target.exists()
    source.write_text("one\n")
    mirror(source, target)
    source.write_text("one\ntwo\n")
    mirror(source, target)
    assert target.read_text() == "one\ntwo\n"
    mirror(tmp_path / "log", tmp_path / "short", most=5)
    assert (tmp_path / "short").read_text() == "one\nt"


def test_paths_of_a_spec_become_those_of_the_node() -> None:
    spec = {"base": "/w/models/m", "note": "see /w/models", "other": "/world", "in": ["/w", {"at": "/pkg/minilm/x"}]}
    assert with_paths(spec, {"/w": "/n/workspace", "/pkg/minilm": "/n/workspace/outside/1/minilm"}) == {
        "base": "/n/workspace/models/m", "note": "see /w/models", "other": "/world",
        "in": ["/n/workspace", {"at": "/n/workspace/outside/1/minilm/x"}],
    }  # fmt: skip
