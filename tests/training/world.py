"""Datasets as sealed Parquet, and a job's three steps without an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate import use_cases
from speciate.datasets import versions
from speciate.datasets.columns import array
from speciate.datasets.versions import Manifest
from speciate.jobs.folder import RunFolder, write_whole
from speciate.jobs.job import Job, State
from speciate.jobs.run import Run
from speciate.refs import JobId
from speciate.training import train, train_run
from speciate.training.train_spec import TrainSpec
from speciate.use_cases import Aim, Definition, Objective, Suites, UseCaseLimits
from speciate.workspace.packs import PackWriter
from speciate.workspace.workspace import Workspace


def make_dataset(
    workspace: Workspace,
    name: str,
    modality: str,
    columns: Mapping[str, Sequence[Any]],
    *,
    labels: Sequence[str | float],
    splits: Sequence[str],
    inputs: Sequence[str] = (),
    groups: Sequence[str] | None = None,
    media: Sequence[bytes] = (),
) -> Manifest:
    """One version, as ingest would write it. `media`: encoded files, where `inputs` is empty."""
    count, folders = len(labels), workspace.folders
    packs: tuple[str, ...] = ()
    contents: list[str] = [f"{i:064x}" for i in range(count)]
    if media:
        with PackWriter(folders.packs) as writer:
            contents = [writer.add(data) for data in media]
            packs = (str(writer.seal().relative_to(folders.root)),)
    fixed = {
        "id": [f"{name}-{i:06d}" for i in range(count)],
        "split": list(splits),
        "label": list(labels),
        "group_key": list(groups) if groups else [None] * count,
        "quality": ["ok"] * count,
        "reason": [""] * count,
        "source": [""] * count,
        "_content": contents,
        "_fingerprint": contents,
    }
    path = folders.datasets / f"{name}.parquet"
    table = pa.table({key: array(list(values)) for key, values in {**fixed, **columns}.items()})
    pq.write_table(table, path)
    numeric = isinstance(labels[0], float)
    manifest = Manifest(
        name=name,
        version=0,
        id=name,
        modality=modality,
        parts=(versions.Part(file=str(path.relative_to(folders.root)), rows=count),),
        packs=packs,
        columns=dict.fromkeys(columns, "VARCHAR"),
        inputs=tuple(inputs),
        label="label",
        numeric=numeric,
        splits={split: list(splits).count(split) for split in sorted(set(splits))},
        labels={} if numeric else {str(label): list(labels).count(label) for label in sorted(set(labels))},
        rows=count,
    )
    lanes = np.zeros(1024, np.uint16)
    return workspace.database.transact(
        lambda tx: versions.register(tx, manifest, lanes, operation={"op": "test"}, report={}, job=None)
    )


def thirds(count: int, names: Sequence[str] = ("train", "validation", "test")) -> list[str]:
    """Half for the first split, the rest dealt to the others."""
    others = names[1:]
    return [names[0] if i % 2 == 0 or not others else others[(i // 2) % len(others)] for i in range(count)]


def define(
    workspace: Workspace,
    name: str,
    task: str,
    target: float | None = None,
    metric: str = "accuracy",
    incumbent: str | None = None,
    core: str | None = None,
    target_column: str | None = None,
    positive_label: str | None = None,
    licenses: Sequence[str] = (),
    aim: Aim = "pass",
) -> None:
    definition = Definition(
        name=name,
        task=task,
        objective=Objective(metric=metric, target=target, aim=aim),
        incumbent=incumbent,
        suites=Suites(core=core),
        target_column=target_column,
        positive_label=positive_label,
        limits=UseCaseLimits(licenses=tuple(licenses)),
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))


def train_now(workspace: Workspace, job: str = "job-x", **spec: Any) -> dict[str, Any]:
    """Plan, run and commit; the job's result."""
    wanted = TrainSpec(**spec)
    folder = run_folder(workspace, job, train.plan(wanted, workspace).payload_json())
    write_whole(folder.outputs / "result.json", _json(train_run.run(Run(folder))))
    collected = train.collect(folder)
    row = Job(id=JobId(job), kind="train", spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0)
    return workspace.database.transact(lambda tx: train.commit(tx, row, collected))


def run_folder(workspace: Workspace, job: str, payload: Mapping[str, Any]) -> RunFolder:
    folder = RunFolder(workspace.folders.runs / f"{job}.1")
    folder.create({"payload": dict(payload), "job": job, "workspace": str(workspace.folders.root)})
    return folder


def png(pixels: Any) -> bytes:
    """(H, W) uint8 as a PNG file."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def model_path(workspace: Workspace, ref: str) -> Path:
    from speciate.models import registry

    return registry.resolve(workspace.database, workspace.folders, ref).path


def _json(value: Any) -> str:
    import json

    return json.dumps(value)
