"""Meshes from end to end through the tools: a folder of parts becomes a model that serves, copies stay together."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speciate.datasets import version_rows
from speciate.datasets.splits import audit_split, members_of
from speciate.datasets.versions import resolve
from speciate.server.client import Client
from speciate.workspace.workspace import Workspace
from tests import data
from tests.documentation import page, programs_in
from tests.domains.calling import answers_of_page, ended
from tests.domains.machine_parts import FAMILIES, copies, rough, turned
from tests.modalities.mesh_samples import exported

KINDS = ("stl", "obj", "ply", "off", "glb")


def store(folder: Path, of_each: int, *, again: int = 0) -> None:
    """`folder/FAMILY/NAME`: parts as a scanner and several programs left them, turned anyhow and in any format; the
    first `again` of each family a second time, as a copy."""
    chance = np.random.default_rng(0)
    for family, make in FAMILIES.items():
        (folder / family).mkdir(parents=True)
        for number in range(of_each):
            part = make(chance)
            kind = KINDS[number % len(KINDS)]
            there = turned(rough(part, chance), chance, chance.uniform(0.5, 2))
            (folder / family / f"{number:03}.{kind}").write_bytes(exported(there, kind))
            if number < again:
                what, copy = list(copies(there, chance))[number % 5]
                other = KINDS[(number + 1) % len(KINDS)]
                (folder / family / f"{number:03} {what}.{other}").write_bytes(exported(copy, other))


@pytest.mark.slow
def test_a_folder_of_parts_becomes_a_model_that_serves(client: Client, tmp_path: Path) -> None:
    store(tmp_path / "parts", 30, again=2)
    (tmp_path / "parts" / "nut" / "empty.stl").write_bytes(b"")
    (tmp_path / "parts" / "nut" / "cut.ply").write_bytes((tmp_path / "parts" / "nut" / "002.ply").read_bytes()[:-9])
    report = answers_of_page(client, "meshes.md")["create_dataset"]["report"]
    assert report["ok"] == 6 * 32
    assert report["partial"] + report["error"] == 2
    curated = ended(
        client, "curate_dataset", dataset="parts",
        steps=[
            {"op": "deduplicate", "by": "perceptual"},
            {"op": "split", "fractions": {"train": 0.5, "validation": 0.1, "test": 0.4}, "seed": 1},
        ],
    )  # fmt: skip
    assert curated["steps"][0]["before"] - curated["steps"][0]["after"] >= 12  # the copies
    described = client.call("describe_dataset", dataset=curated["dataset"])
    assert described["split_audit"]["near_duplicates_across"] == 0
    shown = client.call("preview_dataset", dataset=curated["dataset"], count=4)
    assert len(shown["untrusted"]["rows"]) == 4
    client.call("define_use_case", name="families", task="mesh-classification", objective={"metric": "accuracy"})
    result = ended(
        client, "specialize", use_case="families", dataset=curated["dataset"], budget_minutes=4, methods=["classical"]
    )
    value, simple = result["candidates"][0]["value"], _without_forms(client, curated["dataset"])
    print("accuracy", value, result["candidates"][0]["interval"], simple, result["decision"]["verdict"])
    assert value >= 0.9
    assert value > max(simple.boxes, simple.commonest) + 0.1
    assert result["decision"]["verdict"] == "promote"
    answer = client.call(
        "predict", model=result["candidates"][0]["model"], inputs=[{"path": "parts/gear/007.ply"}]
    )  # fmt: skip
    assert answer["predictions"][0]["untrusted"]["output"] == "gear", answer


class Simple(NamedTuple):
    """Accuracies on the test split, of so many examples."""

    examples: int
    commonest: float
    """Of the label that most examples to learn from have."""
    boxes: float
    """Of what sees only the extents of a part, in order of size."""


def _without_forms(client: Client, dataset: str) -> Simple:
    rows = client.call(
        "query_dataset", dataset=dataset, limit=500,
        sql="SELECT split, label, extent_x, extent_y, extent_z FROM examples WHERE quality = 'ok'",
    )["untrusted"]["rows"]  # fmt: skip
    sides = np.log(np.sort([row[2:] for row in rows], axis=1))
    label, test = np.array([row[1] for row in rows]), np.array([row[0] == "test" for row in rows])
    names, counts = np.unique(label[~test], return_counts=True)
    learner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(sides[~test], label[~test])
    return Simple(
        examples=int(test.sum()),
        commonest=float(np.mean(label[test] == names[counts.argmax()])),
        boxes=float(learner.score(sides[test], label[test])),
    )


def test_the_guide_measures_points_as_it_says() -> None:
    (program,) = programs_in(page("meshes.md"))
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["chamfer"](names["found"].points, names["moved"]) < 0.02
    assert names["f_score"](names["found"].points, names["moved"], threshold=0.02) > 0.95


def test_copies_never_cross_a_split_and_a_random_split_would_let_them(workspace: Workspace, tmp_path: Path) -> None:
    store(tmp_path / "parts", 5, again=5)
    manifest = data.ingest(workspace, "parts", source=tmp_path / "parts", label="folder")
    rows = version_rows.read(workspace.folders, resolve(workspace.database, manifest.ref))
    members, splits = members_of(rows, "mesh"), rows["split"].to_pylist()
    assert set(splits) == {"train", "validation", "test"}
    of_parts: dict[str, set[str]] = {}
    for source, split in zip(rows["source"].to_pylist(), splits, strict=True):
        of_parts.setdefault(source.partition(".")[0].partition(" ")[0], set()).add(split)
    assert len(of_parts) == 30
    assert all(len(found) == 1 for found in of_parts.values()), of_parts
    assert audit_split(members, splits)["near_duplicates_across"] == 0
    random.Random(0).shuffle(splits)
    assert audit_split(members, splits)["near_duplicates_across"] > 0
