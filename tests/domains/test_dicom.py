"""DICOM from end to end through the tools: a hospital's folder becomes a model that serves, patients stay together."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from speciate.datasets import version_rows
from speciate.datasets.splits import audit_split, members_of
from speciate.datasets.versions import resolve
from speciate.server.client import Client
from speciate.workspace.workspace import Workspace
from tests import data
from tests.domains.calling import answers_of_page, ended
from tests.domains.medical_files import hospital


@pytest.mark.slow
def test_a_folder_of_a_hospital_becomes_a_model_that_serves(client: Client, tmp_path: Path) -> None:
    hospital(tmp_path, patients=60)
    answers = answers_of_page(client, "dicom.md")
    made = answers["create_dataset"]
    report = made["report"]
    assert report["ok"] == sum(report[quality] for quality in ("ok", "partial", "refused", "error")) > 120
    assert len(answers["query_dataset"]["untrusted"]["rows"]) == 20
    curated = ended(
        client, "curate_dataset", dataset=made["dataset"],
        steps=[
            {"op": "filter", "where": "modality_code = 'CT' AND slices >= 10"},
            {"op": "deduplicate", "by": "content"},
            {"op": "split", "fractions": {"train": 0.5, "validation": 0.1, "test": 0.4}, "seed": 1},
        ],
    )  # fmt: skip
    described = client.call("describe_dataset", dataset=curated["dataset"])
    assert described["modality"] == "dicom"
    assert described["split_audit"]["groups_across"] == 0
    shown = client.call("preview_dataset", dataset=curated["dataset"], count=4)
    assert len(shown["untrusted"]["rows"]) == 4
    client.call(
        "define_use_case", name="nodules", task="volume-classification",
        objective={"metric": "balanced_accuracy"}, positive_label="nodule",
    )  # fmt: skip
    result = ended(
        client, "specialize", use_case="nodules", dataset=curated["dataset"], budget_minutes=4, methods=["classical"]
    )
    value = result["candidates"][0]["value"]
    print("balanced accuracy", value, result["candidates"][0]["interval"], "verdict", result["decision"]["verdict"])
    assert value >= 0.8  # the majority class has 0.5
    assert result["decision"]["verdict"] == "promote"
    row = client.call(
        "query_dataset", dataset=curated["dataset"],
        sql="SELECT series, label FROM examples WHERE split = 'test' AND label = 'nodule' ORDER BY series LIMIT 1",
    )["untrusted"]["rows"][0]  # fmt: skip
    folder = _series(tmp_path, row[0])
    answer = client.call("predict", model=result["candidates"][0]["model"], inputs=[{"path": folder.name}])
    assert answer["predictions"][0]["untrusted"]["output"] == "nodule", answer


def _series(folder: Path, uid: str) -> Path:
    """The files of one series in a folder of their own."""
    import pydicom

    found = folder / "one"
    found.mkdir()
    for path in (folder / "sent").iterdir():
        if pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID == uid:
            shutil.copy(path, found / path.name)
    return found


def test_patients_never_cross_a_split_and_a_random_split_would_let_them(workspace: Workspace, tmp_path: Path) -> None:
    findings = hospital(tmp_path, patients=12, shape=(4, 24, 24))
    labels = {"path": findings, "key": "patient", "column": "finding"}
    manifest = data.ingest(workspace, "chests", source=tmp_path / "sent", labels=labels)
    rows = version_rows.read(workspace.folders, resolve(workspace.database, manifest.ref))
    members = members_of(rows, "dicom")
    splits = rows["split"].to_pylist()
    of_patients: dict[str, set[str]] = {}
    for patient, split in zip(rows["patient"].to_pylist(), splits, strict=True):
        of_patients.setdefault(patient, set()).add(split)
    assert len(of_patients) == 12
    assert all(len(found) == 1 for found in of_patients.values())
    assert set(splits) == {"train", "validation", "test"}
    assert audit_split(members, splits)["groups_across"] == 0
    random.Random(0).shuffle(splits)
    assert audit_split(members, splits)["groups_across"] > 0
