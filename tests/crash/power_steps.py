"""What a workspace writes, step by step in one process, for tests/crash/test_power.py: python -m ... ROOT LIBRARY."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from speciate.cli import sealed_keys
from speciate.datasets import versions
from speciate.datasets.content_hash import LANES
from speciate.evaluation.answer_cache import AnswerKey, CachedAnswer, Journal
from speciate.jobs.atomic_folder import hidden_folder_beside, move_into_place
from speciate.jobs.run import Run
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.settings import Log, Settings
from speciate.workspace import repair
from speciate.workspace.backup import back_up, save_catalog
from speciate.workspace.blobs import Blobs, make_folder
from speciate.workspace.workspace import Workspace
from tests.crash.power import Marks
from tests.datasets import sealed as made
from tests.promotion import world

TEXT = {"output": "a", "confidence": 0.9, "error": None}
IMAGE = {"data": "iVBORw0KGgo="}
"""The first bytes of a PNG, in Base64."""


def dataset(workspace: Workspace, mark: Marks) -> None:
    mark("seal")
    manifest = made.images(workspace.folders, 4)
    no_lanes = np.zeros(LANES, np.uint16)
    found = workspace.database.transact(
        lambda tx: versions.register(tx, manifest, no_lanes, operation={}, report={}, job=None)
    )
    mark("seal", ["dataset", found.ref, 4], files=[found.parts[0].file, *found.packs])


def blob(workspace: Workspace, mark: Marks) -> None:
    blobs = Blobs(workspace.folders.blobs)
    digest = blobs.put(b"a blob")
    mark("seal", files=[blobs.path(digest)])


def model(workspace: Workspace, mark: Marks) -> None:
    mark("commit")
    staged = workspace.folders.runs / "staged"
    staged.mkdir()
    (staged / "weights").write_bytes(b"weights" * 1000)
    card = ModelCard(name="m", id=sealed.seal(staged), task="text-classification", modality="text", method="classical")
    found = workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged))
    mark("commit", ["model", found.ref], files=[registry.version_folder(workspace.folders, "m", 1) / "weights"])


def checkpointed(workspace: Workspace, mark: Marks) -> None:
    """The catalog's log is folded in, and the next commit begins another one."""
    mark("commit")
    workspace.database.checkpoint()
    world.define(workspace)
    mark("commit", ["use case", "digits"], files=["catalog.duckdb.wal"])


def alias(workspace: Workspace, mark: Marks) -> None:
    mark("promote")
    world.judge(workspace, "m@v1")
    assert world.ask_promotion(workspace, "m@v1")["state"] == "applied"
    mark("promote", ["alias", "digits", ["m@v1"], 0])


def log(workspace: Workspace, mark: Marks) -> None:
    """Answers whose inputs are text and files, and feedback."""
    mark("log")
    writer = AnswerLog(log_folder(workspace.folders, "digits"), Log(), workspace.clock)
    names = writer.ids(2)
    about = AnsweringModel("m@v1", 1, "image")
    assert writer.note(names, [{"text": "one"}, IMAGE], [TEXT, TEXT], about, 1.0)
    assert writer.feedback({"prediction": names[0], "label": "a", "source": "human"})
    (segment,) = writer.folder.all_segments()
    (medium,) = writer.folder.media.glob("??/*")
    mark("log", ["feedback", "digits", names[0]], ["answers", "digits", names], files=[segment, medium])
    writer.close()


def backups(workspace: Workspace, mark: Marks) -> None:
    mark("backup")
    saved = save_catalog(workspace.database, workspace.folders.backups, workspace.clock.now())
    mark("backup", files=sorted(saved.iterdir()))
    copy = workspace.folders.root.parent / "saved"
    back_up(workspace, copy)
    mark("backup", ["saved", "saved"], files=sorted(path for path in copy.rglob("*") if path.is_file()))


def paid_answers(workspace: Workspace, mark: Marks) -> None:
    """Of a model that costs money: what was answered is never asked again."""
    with Journal(workspace.folders, "fingerprint", "job-1") as journal:
        journal.keep([(AnswerKey("a"), CachedAnswer("yes"))])
        (lines,) = workspace.folders.predictions.glob("*/*.jsonl")
        mark("other", files=[lines])
    (table,) = workspace.folders.predictions.glob("*/*.parquet")
    mark("other", files=[table])


def torn_log(workspace: Workspace, mark: Marks) -> None:
    """Another catalog, whose log ends in bytes that DuckDB did not write: it is copied aside before it is cut."""
    other = workspace.folders.root.parent / "torn"
    make_folder(other)
    shutil.copy(workspace.folders.root / "catalog.duckdb.wal", other)
    with (other / "catalog.duckdb.wal").open("ab") as file:
        file.write(b"\1\2\3")
    kept = repair._copy_aside(other / "catalog.duckdb", other / "catalog.duckdb.wal")
    mark("other", files=[kept / "catalog.duckdb.wal"])


def export(workspace: Workspace, mark: Marks) -> None:
    target = workspace.folders.root.parent / "out" / "rows"
    run = cast(Run, SimpleNamespace(checkpoints=workspace.folders.runs / "staged"))
    with hidden_folder_beside(target) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "rows.csv").write_text("a,b\n")
        move_into_place(run, folder, target, {})
    mark("other", files=[target / "below" / "rows.csv"])


def key(workspace: Workspace, mark: Marks) -> None:
    """With which a person approves: who enrolled it needs it."""
    sealed_keys._COST["n"] = 1 << 4
    stored, _ = sealed_keys.create("anna", "a passphrase of some length")
    mark("other", files=[stored.path])


STEPS = (checkpointed, dataset, blob, model, alias, log, paid_answers, torn_log, export, key, backups)


def main(arguments: Sequence[str]) -> None:
    root, library = map(Path, arguments)
    mark = Marks(library, root / "workspace")
    workspace = Workspace(root / "workspace", settings=Settings(policy="auto"))
    for step in STEPS:
        step(workspace, mark)
    mark("other")
    workspace.close()


if __name__ == "__main__":
    main(sys.argv[1:])
