"""Small real data for tests: images as folders of PNG, short texts, peptides, series, a table. No network.

Each builder writes below a folder and returns the path to hand to `create_dataset`; `ingest` runs the whole job in
this process (its decoding still in the sandbox) and registers the version.
"""

from __future__ import annotations

import atexit
import contextlib
import csv
import importlib
import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from speciate.datasets.ingest.ingest import store_inline_rows
from speciate.datasets.versions import Manifest, resolve
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Kinds
from speciate.jobs.run import Run
from speciate.settings import Settings
from speciate.workspace.blobs import Blobs
from speciate.workspace.clock import Clock
from speciate.workspace.workspace import Workspace
from tests import attached
from tests.conftest import ManualClock

_GOOD = ("a joy from start to end", "moving and funny", "the best film of the year", "warm, clever and well acted")
_BAD = ("a waste of two hours", "dull and far too long", "the worst script in years", "cold, clumsy and badly acted")
_PLACES = ("in the city", "at the harbour", "on the train", "in a small town", "in the mountains", "on the farm")


def digit_folder(folder: Path, count: int = 120, classes: int = 10) -> Path:
    """scikit-learn's handwritten digits (8 x 8) as `folder/DIGIT/N.png`."""
    digits = load_digits(n_class=classes)
    for i in range(min(count, len(digits.target))):
        path = folder / str(digits.target[i]) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(path)
    return folder


def review_rows(count: int = 80, seed: int = 0) -> list[dict[str, Any]]:
    """Short made-up reviews: `text`, `label` (good, bad) and `film`, whose reviews belong together."""
    chance = random.Random(seed)
    rows = []
    for i in range(count):
        good = i % 2 == 0
        first, second = chance.sample(_GOOD if good else _BAD, 2)
        text = f"{first.capitalize()}: {second}, a story told {chance.choice(_PLACES)}, number {i}."
        rows.append({"text": text, "label": "good" if good else "bad", "film": f"film-{i // 4}"})
    return rows


def review_csv(path: Path, count: int = 80, seed: int = 0) -> Path:
    """`review_rows` as a CSV file."""
    rows = review_rows(count, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def peptide_fasta(path: Path, count: int = 80, seed: int = 0) -> Path:
    """Made-up peptides: `kind=cationic` ones are rich in K and R, `kind=other` ones are not."""
    chance = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for i in range(count):
            cationic = i % 2 == 0
            letters = "KRKRWLFIGA" if cationic else "DESTNQGAVP"
            sequence = "".join(chance.choices(letters, k=chance.randint(12, 30)))
            file.write(f">pep{i} kind={'cationic' if cationic else 'other'}\n{sequence}\n")
    return path


def series_ts(folder: Path, count: int = 60, steps: int = 40, seed: int = 0) -> Path:
    """Two-channel sines and noise in sktime's format: `Moves_TRAIN.ts` and `Moves_TEST.ts`."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    header = (
        "@problemName Moves\n@timeStamps false\n@univariate false\n@dimensions 2\n@classLabel true slow fast\n@data\n"
    )
    lines = []
    for i in range(count):
        fast = i % 2
        x = np.linspace(0, 2 * np.pi * (4 if fast else 1), steps) + chance.uniform(0, 6)
        channels = [np.sin(x) + chance.normal(0, 0.1, steps), np.cos(x) + chance.normal(0, 0.1, steps)]
        lines.append(
            ":".join(",".join(f"{v:.4f}" for v in channel) for channel in channels) + (":fast" if fast else ":slow")
        )
    half = count * 2 // 3
    (folder / "Moves_TRAIN.ts").write_text(header + "\n".join(lines[:half]) + "\n")
    (folder / "Moves_TEST.ts").write_text(header + "\n".join(lines[half:]) + "\n")
    return folder


def tumour_csv(path: Path, count: int = 200) -> Path:
    """scikit-learn's breast cancer measurements; the label column is `diagnosis`."""
    data = load_breast_cancer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(name.replace(" ", "_") for name in data.feature_names), "diagnosis"])
        for row, target in zip(data.data[:count], data.target[:count], strict=True):
            writer.writerow([*row, data.target_names[target]])
    return path


def ingest(workspace: Workspace, name: str, **spec: Any) -> Manifest:
    """One ingest, as the engine would run it; the registered version. `rows` as create_dataset takes them."""
    if "rows" in spec:
        spec["rows"] = store_inline_rows(workspace, spec["rows"])
    return resolve(workspace.database, run_job(workspace, "ingest", name=name, **spec)["dataset"])


def seeded(root: Path, name: str, **spec: Any) -> Path:
    """`root`: now a closed workspace with one dataset, for `copied`."""
    workspace = Workspace(root, ManualClock(), Settings(policy="auto"))
    ingest(workspace, name, **spec)
    workspace.close()
    return root


@cache
def _new_workspaces() -> tuple[Path, Path]:
    """Closed and to be copied, one by the system's clock and one by a test's: they do not know where they lie."""
    folder = tempfile.TemporaryDirectory(prefix="fresh-")
    atexit.register(folder.cleanup)
    made = Path(folder.name, "system"), Path(folder.name, "manual")
    for root, clock in zip(made, (None, ManualClock()), strict=True):
        workspace = Workspace(root, clock, Settings())
        workspace.database.transact(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'place'"))
        workspace.close()
    return made


def fresh(folder: Path, *, manual: bool = False) -> Path:
    """`folder`: now a new workspace that nobody opened yet, its catalog attached where it is opened, for a third of
    what it costs to make one. `manual`: of a test's own clock."""
    shutil.copytree(_new_workspaces()[manual], folder)
    attached.attach_in(folder)
    return folder


@contextlib.contextmanager
def to_copy(blank: Path, root: Path, clock: Clock) -> Iterator[Workspace]:
    """`root`: a copy of the fixture `blank`, to be filled now and copied for each test, which is not told that."""
    shutil.copytree(blank, root)
    workspace = Workspace(root, clock, Settings(policy="auto"))
    yield workspace
    workspace.database.transact(lambda tx: tx.execute("DELETE FROM meta WHERE key = 'place'"))
    workspace.close()


@contextlib.contextmanager
def copied(
    seed: Path, folder: Path, clock: Clock | None = None, settings: Settings | None = None
) -> Iterator[Workspace]:
    """A copy of a closed workspace, at `folder`: what was ingested once is each test's own to change."""
    shutil.copytree(seed, folder)
    with attached.catalog_in(folder):
        workspace = Workspace(folder, clock, settings or Settings(policy="auto"))
        yield workspace
        workspace.close()


def run_job(workspace: Workspace, kind: str, **spec: Any) -> dict[str, Any]:
    """Plan, run, collect and commit one job in this process, as the engine would; its result."""
    found = Kinds()[kind]
    job_id = f"job-{kind}-{len(list(workspace.folders.runs.iterdir()))}"
    folder = RunFolder(workspace.folders.runs / f"{job_id}.1")
    wanted = found.spec(**spec)
    plan = found.plan(wanted, workspace)
    job = Job(id=job_id, kind=kind, spec={}, fingerprint="", state=State.RUNNING, created=0, changed=0)
    if found.act is not None:
        act = found.act
        return workspace.database.transact(lambda tx: act(tx, wanted, job, workspace.settings))
    told = {"job": job_id, "workspace": str(workspace.folders.root), "resources": plan.resources.model_dump()}
    folder.create({"payload": plan.payload_json(), **told})
    module, _, function = found.run.partition(":")
    result = getattr(importlib.import_module(module), function)(Run(folder))
    (folder.outputs / "result.json").write_text(json.dumps(result))
    collected = found.collect(folder)
    return workspace.database.transact(lambda tx: found.commit(tx, job, collected))


def label(workspace: Workspace, dataset: str, labels: dict[str, Any], source: str = "human") -> Manifest:
    """New labels for single examples; the registered version."""
    content = Blobs(workspace.folders.blobs).put(json.dumps(labels).encode())
    made = run_job(workspace, "label", dataset=dataset, labels=content, source=source)
    return resolve(workspace.database, made["dataset"])
