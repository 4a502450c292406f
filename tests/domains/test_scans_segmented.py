"""From a clinic's series with a doctor's segmentations to a model whose own lie beside other scans, through the tools:
DICOM in, DICOM SEG and RTSTRUCT out, opened by the readers of others."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from speciate.server.client import Client, ToolError
from tests.domains.calling import ended
from tests.domains.medical_files import chest
from tests.modalities import dicom_samples as samples

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of third parties' libraries
highdicom = pytest.importorskip("highdicom")
rt_utils = pytest.importorskip("rt_utils")
NAMES = ("lung", "nodule")
PATIENTS, SHAPE = 24, (10, 36, 36)
Labels = npt.NDArray[np.uint8]


def clinic(folder: Path) -> dict[str, Labels]:
    """Files in no order below `folder`: a series for each patient, and a SEG of it by highdicom. Series -> labels."""
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    described = [
        SegmentDescription(
            number, name, codes.cid7150.Tissue, codes.cid7166.ConnectiveTissue, SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(NAMES, 1)
    ]
    folder.mkdir()
    chance, drawn = np.random.default_rng(3), {}
    for patient in range(PATIENTS):
        body = chest(chance, True, SHAPE)
        labels = np.where(body == 800, 2, np.where(body == -820, 1, 0)).astype(np.uint8)
        noisy = (body + chance.normal(0, 20, SHAPE)).astype(np.int16)
        own = {
            "PatientID": f"P{patient:03}", "StudyInstanceUID": samples.uid(7, patient), "PixelSpacing": [0.8, 0.8],
            "FrameOfReferenceUID": samples.uid(6, patient), "StudyDate": "", "StudyTime": "", "PatientBirthDate": "",
            "PatientSex": "", "AccessionNumber": "", "StudyID": "", "ReferringPhysicianName": "",
        }  # fmt: skip
        made = samples.series(noisy, 2.5, 100 + patient, **own)
        drawn[str(made[0].SeriesInstanceUID)] = labels
        by_hand = highdicom.seg.Segmentation(
            made, labels, SegmentationTypeValues.BINARY, described, samples.uid(8, 900, patient), 9,
            samples.uid(9, 900, patient), 1, "Maker", "Model", "1", "1",
        )  # fmt: skip
        for each in (*made, by_hand):
            each.save_as(folder / f"{chance.integers(1 << 60):015x}", enforce_file_format=True)
    return drawn


def written(folder: Path) -> list[tuple[list[Any], Path]]:
    """Headers of each scan, and the file beside it."""
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not any(row["mask_left_out"] for row in rows)
    return [
        ([pydicom.dcmread(each) for each in sorted((folder / row["file_name"]).iterdir())], folder / row["mask_file"])
        for row in rows
    ]


def alike(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Dice's coefficient."""
    return float(2 * (one & other).sum() / max(one.sum() + other.sum(), 1))


def by_place(headers: list[Any]) -> list[Any]:
    return sorted(headers, key=lambda each: float(each.ImagePositionPatient[2]))


@pytest.mark.parametrize(("method", "base"), [("classical", None), ("full", "new:unet3d")])
def test_a_trained_segmenters_masks_open_beside_their_scans(
    client: Client, tmp_path: Path, method: str, base: str | None
) -> None:
    drawn = clinic(tmp_path / "sent")
    made = ended(client, "create_dataset", name="scans", source="sent", inputs=None)
    assert made["report"]["ok"] == PATIENTS
    dealt = {"train": 0.6, "validation": 0.1, "test": 0.3}
    ended(client, "curate_dataset", dataset="scans", steps=[{"op": "split", "fractions": dealt}])
    settings = {} if base is None else {"num_train_epochs": 10, "batch_size": 2, "learning_rate": [3e-3]}
    model = ended(
        client, "train_model", name="lungs", dataset="scans", method=method, task="volume-segmentation",
        target="mask", hyperparameters=settings, **({} if base is None else {"base_model": base}),
    )["model"]  # fmt: skip
    step = {"op": "answer", "model": model, "column": "found", "splits": ["test"]}
    with pytest.raises(ToolError, match=r"predict\(.*save_as"):
        client.call("curate_dataset", dataset="scans", steps=[step])
    answered = ended(client, "predict", model=model, dataset="scans:test", save_as="scans-answers")["dataset"]
    given = {"dataset": answered, "column": "prediction", "identified": True}

    ended(client, "export_dataset", format="dicom-seg", path="seg", **given)
    found = written(tmp_path / "seg")
    assert len(found) == round(0.3 * PATIENTS)
    for headers, path in found:
        opened = highdicom.seg.segread(path)
        plain = pydicom.dcmread(path)
        source, wanted = headers[0], drawn[str(headers[0].SeriesInstanceUID)]
        assert opened.StudyInstanceUID == source.StudyInstanceUID
        assert opened.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert opened.PatientID == source.PatientID
        assert {uid for *_, uid in opened.get_source_image_uids()} <= {each.SOPInstanceUID for each in headers}
        assert (plain.Modality, plain.SegmentSequence[0].SegmentAlgorithmName) == ("SEG", model)
        scan = highdicom.get_volume_from_series(headers)
        shown = opened.get_volume(combine_segments=True).match_geometry(scan).array
        low, high = (scan.get_plane_position(place)[0].ImagePositionPatient[2] for place in (0, SHAPE[0] - 1))
        labels = {each.SegmentLabel: each.SegmentNumber for each in opened.SegmentSequence}
        lungs = (shown if low < high else shown[::-1]) == labels["lung"]
        assert alike(lungs, wanted == 1) > 0.8
    print(f"\n{method}: dice of lungs", round(alike(lungs, wanted == 1), 3))

    ended(client, "export_dataset", format="rtstruct", path="rt", **given)
    for headers, path in written(tmp_path / "rt"):
        opened = rt_utils.RTStructBuilder.create_from(
            dicom_series_path=str(Path(headers[0].filename).parent), rt_struct_path=str(path)
        )
        assert "lung" in opened.get_roi_names()
        lungs = np.moveaxis(opened.get_roi_mask_by_name("lung"), -1, 0)
        wanted = drawn[str(headers[0].SeriesInstanceUID)] == 1
        first = by_place(headers)[0].SOPInstanceUID == opened.series_data[0].SOPInstanceUID
        assert alike(lungs if first else lungs[::-1], wanted) > 0.8
