"""A small real data set, models trained on it by the real kind, and evaluations run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate import use_cases
from speciate.datasets import next_version, version_rows, versions
from speciate.datasets.content_hash import unpack_lanes
from speciate.datasets.versions import Manifest
from speciate.evaluation import evaluate
from speciate.jobs import rows
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Kind, Plan
from speciate.jobs.run import Run
from speciate.refs import JobId, id_from_key
from speciate.training import train
from speciate.use_cases import Definition
from speciate.worker import load
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace

SIZES = {"train": 120, "validation": 60, "test": 200}
_number = 0


def make_dataset(
    workspace: Workspace,
    name: str = "flowers",
    *,
    splits: dict[str, int] | None = None,
    numeric: bool = False,
    wrong: float = 0.3,
    inputs: tuple[str, ...] = ("x", "y"),
    of_a_group: int = 2,
    alike: bool = False,
) -> Manifest:
    """Two noisy clouds of points; `rules` holds what the system in use says, `wrong` so often. `of_a_group`: rows."""
    sizes = splits or SIZES
    random, n = np.random.default_rng(5), sum(sizes.values())
    positive = random.integers(0, 2, n).astype(bool)
    points = random.normal(0, 1, (n, 2)) + np.where(positive, 1.3, -1.3)[:, None]
    kinds = ["yes" if p else "no" for p in positive]
    if alike:
        points = np.ones((n, 2))
    said = positive ^ (random.random(n) < wrong)
    table = pa.table(
        {
            "id": [f"{name}-{i:04d}" for i in range(n)],
            "split": [split for split, count in sizes.items() for _ in range(count)],
            "label": list(points.sum(1)) if numeric else kinds,
            "group_key": [f"g{i // of_a_group}" for i in range(n)],
            "quality": ["ok"] * n,
            "reason": pa.array([None] * n, pa.string()),
            "source": pa.array([None] * n, pa.string()),
            "_content": [f"{name} content {i}" for i in range(n)],
            "_fingerprint": [f"{name} print {i}" for i in range(n)],
            "x": points[:, 0],
            "y": points[:, 1],
            "site": ["north" if i % 3 else "south" for i in range(n)],
            "rules": ["yes" if s else "no" for s in said],
        }
    )
    file = workspace.folders.datasets / f"{name}.parquet"
    pq.write_table(table, file)
    manifest = Manifest(
        name=name, version=0, id=id_from_key("dataset", name), modality="tabular",
        parts=(versions.Part(file=str(file.relative_to(workspace.folders.root)), rows=n),),
        columns={"x": "DOUBLE", "y": "DOUBLE", "site": "VARCHAR", "rules": "VARCHAR"}, inputs=inputs, label="kind",
        numeric=numeric, splits=sizes,
        labels={} if numeric else {label: kinds.count(label) for label in ("no", "yes")},
        rows=n,
    )  # fmt: skip
    lanes = np.zeros(1024, np.uint16)
    return workspace.database.transact(
        lambda tx: versions.register(tx, manifest, lanes, operation={"op": "ingest"}, report={}, job=None)
    )


def make_version(workspace: Workspace, change: Callable[[pa.Table], pa.Table], name: str = "flowers") -> Manifest:
    """The dataset's next version: its newest one's rows, changed."""
    parent = versions.newest(workspace.database, name)
    lanes = unpack_lanes(versions.packed_lanes(workspace.database, parent))
    table = change(version_rows.read(workspace.folders, parent))
    sealed = next_version.seal_changed(workspace.folders, parent, lanes, table)
    operation = {"op": "curate", "steps": []}
    return workspace.database.transact(
        lambda tx: versions.register(
            tx, sealed.manifest, sealed.lanes, parents=(parent.ref,), operation=operation, report={}, job=None
        )
    )


def define(workspace: Workspace, **changes: Any) -> None:
    given = {
        "name": "flowering", "task": "tabular-classification", "incumbent": "column:rules",
        "objective": {"metric": "accuracy", "target": 0.8},
    }  # fmt: skip
    definition = Definition.model_validate(given | changes)
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))


def train_model(workspace: Workspace, name: str = "points", **spec: Any) -> str:
    """On a line, which the clouds are told apart by: every learner and their mean take ten times as long."""
    lines = {"candidates": ["logistic", "ridge"]}
    given = {"name": name, "dataset": "flowers", "method": "classical", "hyperparameters": lines}
    return str(perform(workspace, train.KIND, given | spec)["model"])


def evaluate_models(workspace: Workspace, **spec: Any) -> dict[str, Any]:
    return perform(workspace, evaluate.KIND, {"dataset": "flowers"} | spec)


def perform(workspace: Workspace, kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
    """Plan, run and commit one job without an engine."""
    return perform_plan(workspace, kind, kind.plan(kind.spec.model_validate(spec), workspace))


def perform_plan(workspace: Workspace, kind: Kind, plan: Plan) -> dict[str, Any]:
    """Run and commit what was planned."""
    return finish(workspace, kind, *prepare(workspace, kind.name, plan.payload_json()))


def ask(workspace: Workspace, kind: Kind, plan: Plan, created: float) -> tuple[RunFolder, Job]:
    """A job of what was planned, in the catalog, that has not begun."""
    folder, job = prepare(workspace, kind.name, plan.payload_json())
    job = job.model_copy(update={"created": created})

    def keep(tx: Transaction) -> None:
        rows.insert(tx, [job])
        tx.execute("INSERT INTO job_plans VALUES (?, ?)", [job.id, json.dumps({"payload": plan.payload_json()})])

    workspace.database.transact(keep)
    return folder, job


def finish(workspace: Workspace, kind: Kind, folder: RunFolder, job: Job) -> dict[str, Any]:
    result = load(kind.run)(Run(folder))
    (folder.outputs / "result.json").write_text(json.dumps(result))
    collected = kind.collect(folder)
    return workspace.database.transact(lambda tx: kind.commit(tx, job, collected))


def prepare(workspace: Workspace, kind: str, payload: dict[str, Any], **more: Any) -> tuple[RunFolder, Job]:
    global _number  # noqa: PLW0603 - jobs of one test session have different names
    _number += 1
    identity = JobId(id_from_key("job", str(_number)))
    job = Job(id=identity, kind=kind, spec={}, fingerprint="", state=State.RUNNING, created=0, changed=0)
    folder = RunFolder(workspace.folders.runs / f"{job.id}.1")
    folder.create({"payload": payload, "job": job.id, "workspace": str(workspace.folders.root)} | more)
    return folder, job
