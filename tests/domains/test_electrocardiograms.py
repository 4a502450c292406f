"""A folder of DICOM electrocardiograms: series in millivolts, a patient in one split, and then without the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from speciate.datasets.loading.loader import load_examples
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate, read

PATIENTS, EACH = 4, 2


def folder(root: Path) -> Path:
    """Recordings made of the one real one: every other patient's heart beats half as high."""
    root.mkdir()
    lines = ["file_name,voltage"]
    for number in range(PATIENTS * EACH):
        patient = number // EACH
        dataset = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm")))
        dataset.PatientID, dataset.PatientName = f"ZQMRN{patient}", f"ZQNAME{patient}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.99.{number}"
        group = dataset.WaveformSequence[0]
        samples = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12)
        group.WaveformData = (np.roll(samples, 101 * number, axis=0) // (1 + patient % 2)).astype("<i2").tobytes()
        dataset.save_as(root / f"{number}.dcm")
        lines.append(f"{number}.dcm,{('high', 'low')[patient % 2]}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.slow
def test_a_patients_recordings_stay_in_one_split_and_lose_the_patient(workspace: Workspace, tmp_path: Path) -> None:
    source = folder(tmp_path / "ecg")
    made = data.ingest(workspace, "ecg", source=str(source), modality="time-series", label="voltage")
    rows = read(workspace, made.ref)
    assert made.labels == {"high": 4, "low": 4}
    assert set(zip(rows["unit"].to_pylist(), rows["sampling_hz"].to_pylist(), strict=True)) == {("mV", 1000.0)}
    splits = {(row["group_key"], row["split"]) for row in rows.to_pylist()}
    assert len(splits) == PATIENTS
    assert {group for group, _ in splits} == {f"ZQMRN{number}" for number in range(PATIENTS)}
    after = curate(workspace, "ecg", {"op": "deidentify", "profile": "basic+modified_dates"})
    assert {example.media.shape for example in load_examples(workspace.folders, after.manifest)} == {(12, 10_000)}
    assert b"ZQ" not in b"".join((workspace.folders.root / pack).read_bytes() for pack in after.manifest.packs)
    assert "ZQ" not in repr(after.rows.drop_columns(["_sketch"]).to_pylist())
    assert len({(row["group_key"], row["split"]) for row in after.rows.to_pylist()}) == PATIENTS
