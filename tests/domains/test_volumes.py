"""Volumes from end to end through the tools: a folder of scans with masks becomes a model that finds lesions and one
that outlines them, beside what answers without a model; copies of a scan stay on one side of a split."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from speciate.datasets import version_rows
from speciate.datasets.splits import audit_split, members_of
from speciate.datasets.versions import resolve
from speciate.server.client import Client
from speciate.workspace.workspace import Workspace
from tests import data
from tests.documentation import calls_in, page
from tests.domains.calling import ended
from tests.domains.medical_files import decathlon, sent_again
from tests.modalities.nifti_samples import organ, packed, written


def calls() -> list[dict[str, Any]]:
    """The arguments of the calls in docs/volumes.md, in their order."""
    return [call.arguments for call in calls_in(page("volumes.md"))]


def values(result: dict[str, Any]) -> dict[str, float]:
    return {each["model"]: each["value"] for each in result["report"]["leaderboard"]}


@pytest.mark.slow
def test_scans_with_masks_become_models_that_find_and_outline_lesions(client: Client, tmp_path: Path) -> None:
    decathlon(tmp_path, range(90))
    create, curate, define, specialize = calls()
    made = ended(client, "create_dataset", **create)
    assert made["report"]["ok"] == 90
    curated = ended(client, "curate_dataset", **curate)
    described = client.call("describe_dataset", dataset=curated["dataset"])
    assert described["modality"] == "nifti"
    assert described["split_audit"]["near_duplicates_across"] == 0
    shown = client.call("preview_dataset", dataset=curated["dataset"], count=4)
    assert len(shown["untrusted"]["rows"]) == 4

    client.call(
        "define_use_case", name="findings", task="volume-classification",
        objective={"metric": "accuracy", "target": 0.7},
    )  # fmt: skip
    found = ended(
        client, "specialize", use_case="findings", dataset=curated["dataset"], budget_minutes=5, methods=["classical"]
    )
    print("accuracy", values(found), found["candidates"][0]["interval"], found["decision"]["verdict"])
    assert found["candidates"][0]["value"] >= 0.8  # the commoner label has 0.5
    assert found["decision"]["verdict"] == "promote"

    client.call("define_use_case", **define)
    outlined = ended(client, "specialize", **specialize)
    print("dice", values(outlined), outlined["candidates"][0]["interval"], outlined["decision"]["verdict"])
    model = outlined["candidates"][0]["model"]
    assert outlined["candidates"][0]["value"] > 0.7
    assert outlined["decision"]["verdict"] == "promote"
    evaluated = ended(
        client, "evaluate_models", models=["constant:", model], dataset=f"{curated['dataset']}:test",
        metrics=["hausdorff_95"], latency=False,
    )  # fmt: skip
    print("hausdorff_95", values(evaluated))
    assert values(evaluated)[model] < values(evaluated)["constant:"] / 2  # millimetres
    path = tmp_path / "scans" / "imagesTr" / "p000.nii.gz"
    answer = client.call("predict", model=model, inputs=[{"path": str(path)}])
    assert "error" not in answer["predictions"][0], answer
    output = answer["predictions"][0]["untrusted"]["output"]
    assert "organ" in json.dumps(output)


def test_copies_of_a_scan_never_cross_a_split_and_a_random_split_would_let_them(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Of each patient the scan, the same values in another type, and what another machine sent of it."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed in range(16):
        made = organ(seed, lesion=seed % 2 == 0, side=20)
        (folder / f"{seed:02}-first.nii.gz").write_bytes(packed(written(made.voxels)))
        (folder / f"{seed:02}-same.nii").write_bytes(written(made.voxels.astype("float32")).to_bytes())
        (folder / f"{seed:02}-again.nii.gz").write_bytes(sent_again(made, seed))
    manifest = data.ingest(workspace, "organs", source=folder)
    rows = version_rows.read(workspace.folders, resolve(workspace.database, manifest.ref))
    members = members_of(rows, "nifti")
    splits = rows["split"].to_pylist()
    of_patients: dict[str, set[str]] = {}
    for source, split in zip(rows["source"].to_pylist(), splits, strict=True):
        of_patients.setdefault(source[:2], set()).add(split)
    assert len(of_patients) == 16
    assert all(len(found) == 1 for found in of_patients.values())
    assert set(splits) == {"train", "validation", "test"}
    found = audit_split(members, splits)
    assert found["near_duplicates_across"] == found["identical_after_normalising_across"] == 0
    random.Random(0).shuffle(splits)
    found = audit_split(members, splits)
    assert found["near_duplicates_across"] > 0
    assert found["identical_after_normalising_across"] > 0
