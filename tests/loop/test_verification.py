"""A flipped byte in every kind of file that a workspace keeps: found, named, and the rest is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation import answer_cache
from speciate.evaluation.reports import stored_answers
from speciate.jobs.folder import Outcome, RunFolder
from speciate.loop import verification
from speciate.loop.verification import Finding, VerificationWalk
from speciate.models import sealed
from speciate.predictions import maintenance, reading
from speciate.predictions.log_files import LogFolder
from speciate.settings import Settings
from speciate.tasks import predictor
from speciate.workspace.backup import automatic_backups, damaged_file_in, save_catalog
from speciate.workspace.blobs import Blobs
from speciate.workspace.packs import PackReader, index_path
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock
from tests.predictions import world as answers


class Kept(NamedTuple):
    """A workspace with a file of each kind."""

    workspace: Workspace
    points: Manifest
    digits: Manifest
    blob: str
    model: Path
    evaluation: Path
    run: RunFolder
    checkpoint: Path
    log: LogFolder

    @property
    def root(self) -> Path:
        return self.workspace.folders.root


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    root, clock = tmp_path_factory.mktemp("kept"), ManualClock()
    workspace = Workspace(root / "workspace", clock=clock, settings=Settings(policy="auto"))
    (workspace.folders.root / "settings.toml").write_text('policy = "auto"\n')
    rows = [{"a": i % 7 + 10 * (i % 2), "b": i / 9, "label": "ab"[i % 2]} for i in range(200)]
    points = data.ingest(workspace, "points", rows=rows, label="label")
    digits = data.ingest(workspace, "digits", source=str(data.digit_folder(root / "digits", 20, 2)), label="folder")
    trained = data.run_job(workspace, "train", name="sorter", dataset="points", method="classical", hyperparameters={})
    name, _, version = trained["model"].partition("@")
    asked = {"models": ["constant:", "sorter"], "dataset": "points", "latency": False}
    evaluated = data.run_job(workspace, "evaluate", **asked)
    folder = RunFolder(workspace.folders.runs / "job-ended.1")
    folder.create({"job": "job-ended", "payload": {"value": 7}, "workspace": str(workspace.folders.root)})
    folder.end(Outcome(0, "ok"))
    checkpoint = folder.checkpoints / "checkpoint-000001"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text(json.dumps({"step": 12}))
    sealed.seal(checkpoint)
    features.write(workspace.folders, "encoder", ["one:", "two:"], np.ones((2, 4), np.float32))
    log = answers.log(workspace.folders.root, clock)
    answers.note(log, answers.texts("fine", "bad"))
    log.close()
    maintenance.seal_segments(log.folder)
    save_catalog(workspace.database, workspace.folders.backups, clock.now())
    journal = workspace.folders.predictions / "somebody" / "job-asking.0.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text(json.dumps({"key": "one:x", "repeat": 0, "output": "yes", "host": "h", "usd": 0.25}) + "\n")
    answer_cache.seal(journal)
    blob = Blobs(workspace.folders.blobs).put(b"kept for a job")
    yield Kept(
        workspace, points, digits, blob, workspace.folders.models / name / version,
        workspace.folders.evaluations / str(evaluated["evaluation"]), folder, checkpoint, log.folder,
    )  # fmt: skip
    workspace.close()


class Kind(NamedTuple):
    path: Callable[[Kept], Path]
    read: Callable[[Kept], object] | None
    """Reads what the file holds, as the product would; None where nobody reads it but a repair."""
    lost: bool = True
    """Whether reading fails; else it goes on without what the file held."""


def _pack(kept: Kept) -> Path:
    return kept.root / kept.digits.packs[0]


def _media(kept: Kept) -> list[bytes]:
    contents = version_rows.read(kept.workspace.folders, kept.digits)["_content"].to_pylist()
    with PackReader([_pack(kept)]) as reader:
        return [reader.get(content) for content in contents]


def _log_part(kept: Kept) -> Path:
    return kept.log.all_parts()[0]


def _vectors(kept: Kept) -> int:
    return len(features.read(kept.workspace.folders, "encoder", ["one:", "two:"]).vectors)


def _newest_backup(kept: Kept) -> Path:
    return automatic_backups(kept.workspace.folders.backups)[-1]


KINDS: Mapping[str, Kind] = {
    "rows of a dataset": Kind(
        lambda kept: kept.root / kept.points.parts[0].file,
        lambda kept: version_rows.read(kept.workspace.folders, kept.points),
    ),
    "a pack": Kind(_pack, _media),
    "a pack's index": Kind(lambda kept: index_path(_pack(kept)), _media),
    "a blob": Kind(
        lambda kept: Blobs(kept.workspace.folders.blobs).path(kept.blob),
        lambda kept: Blobs(kept.workspace.folders.blobs).get(kept.blob),
    ),
    "vectors": Kind(lambda kept: next(kept.workspace.folders.features.glob("*/*.parquet")), _vectors, lost=False),
    "weights": Kind(lambda kept: kept.model / "estimator.safetensors", lambda kept: predictor.load(kept.model)),
    "a model's settings": Kind(lambda kept: kept.model / "predictor.json", lambda kept: predictor.load(kept.model)),
    "a model's list of files": Kind(lambda kept: kept.model / "files.json", lambda kept: predictor.load(kept.model)),
    "an evaluation's answers": Kind(
        lambda kept: kept.evaluation / "predictions.parquet",
        lambda kept: stored_answers.read_answers(kept.evaluation),
    ),
    "an evaluation's examples": Kind(
        lambda kept: kept.evaluation / "examples.parquet",
        lambda kept: stored_answers.read_examples(stored_answers.StoredRequest(folder=kept.evaluation)),
    ),
    "an evaluation's scores": Kind(lambda kept: kept.evaluation / "scores.parquet", None),
    "answers that were kept": Kind(
        lambda kept: next(kept.workspace.folders.predictions.glob("somebody/*.parquet")),
        lambda kept: answer_cache.paid(kept.workspace.folders, "job-asking"),
    ),
    "logged answers": Kind(_log_part, lambda kept: reading.answers(kept.log)),
    "a run's spec": Kind(lambda kept: kept.run.path / "spec.json", lambda kept: kept.run.spec()),
    "a run's end": Kind(lambda kept: kept.run.path / "exit", lambda kept: kept.run.outcome(), lost=False),
    "a checkpoint": Kind(lambda kept: kept.checkpoint / "state.json", lambda kept: sealed.check(kept.checkpoint)),
    "a backup": Kind(lambda kept: next(_newest_backup(kept).glob("*events*")), None),
}


def found(kept: Kept) -> list[Finding]:
    return list(VerificationWalk(kept.workspace.folders, verification.inventory(kept.workspace)))


@pytest.fixture
def flipped(kept: Kept, request: pytest.FixtureRequest) -> Iterator[Callable[[Path, float], None]]:
    """Changes one byte; afterwards all is as it was."""
    before: list[tuple[Path, bytes, int]] = []

    def flip(path: Path, share: float) -> None:
        whole, mode = path.read_bytes(), path.stat().st_mode
        before.append((path, whole, mode))
        place = min(int(share * len(whole)), len(whole) - 1)
        path.chmod(0o644)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])

    yield flip
    for path, whole, mode in before:
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(mode)


def test_a_workspace_in_which_nothing_is_wrong_is_whole(kept: Kept) -> None:
    walk = VerificationWalk(kept.workspace.folders, verification.inventory(kept.workspace))
    assert list(walk) == []
    assert walk.seen.unsealed == 0
    assert walk.seen.files > 20


_SHARES = (0.03, 0.45, 0.97)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        pytest.param(name, share, marks=pytest.mark.slow if (number + place) % len(_SHARES) else ())
        for number, name in enumerate(KINDS)
        for place, share in enumerate(_SHARES)
    ],
)
def test_a_flipped_byte_is_found_and_named_and_the_rest_is_usable(
    kept: Kept, flipped: Callable[[Path, float], None], name: str, share: float
) -> None:
    kind = KINDS[name]
    path, whole = kind.path(kept), kind.read(kept) if kind.read else None
    flipped(path, share)
    said = found(kept)
    named = path.relative_to(kept.root).as_posix()
    assert [each for each in said if named.startswith(each.path) or path.name in each.why], said
    assert all(each.what_to_do for each in said)
    if kind.read and kind.lost:
        with pytest.raises(SpeciateError) as caught:
            kind.read(kept)
        assert caught.value.code in (Code.DAMAGED, Code.REFUSED)
        assert path.name in caught.value.message
        assert caught.value.recovery
    elif kind.read:
        assert kind.read(kept) != whole  # without it, and nothing else in its place
    for other, each in KINDS.items():
        if (
            other != name
            and each.read
            and each.path(kept).parent != path.parent
            and other not in ("a pack", "a pack's index")
        ):
            each.read(kept)


def test_the_versions_that_need_a_missing_file_are_named(kept: Kept) -> None:
    path = kept.root / kept.points.parts[0].file
    hidden = path.rename(path.with_suffix(".hidden"))
    try:
        (one,) = found(kept)
        assert (one.path, one.why, one.needed_by) == (
            kept.points.parts[0].file,
            verification.MISSING,
            (kept.points.ref,),
        )
    finally:
        hidden.rename(path)


def test_a_log_is_read_again_once_its_damaged_part_is_quarantined(
    kept: Kept, flipped: Callable[[Path, float], None]
) -> None:
    flipped(_log_part(kept), 0.4)
    (one,) = found(kept)
    assert one.may_go
    moved = verification.quarantine(kept.workspace.folders, one)
    assert moved.exists()
    assert reading.answers(kept.log).num_rows == 0
    moved.unlink()


def test_a_backup_says_itself_what_is_wrong(kept: Kept, flipped: Callable[[Path, float], None]) -> None:
    backup = _newest_backup(kept)
    assert damaged_file_in(backup) is None
    flipped(backup / "schema.sql", 0.5)
    assert damaged_file_in(backup) == "schema.sql"


def test_settings_that_are_no_toml_are_named(kept: Kept) -> None:
    path = kept.root / "settings.toml"
    text = path.read_text()
    path.write_text(text + "policy = [")
    try:
        (one,) = found(kept)
        assert one.path == "settings.toml"
    finally:
        path.write_text(text)
