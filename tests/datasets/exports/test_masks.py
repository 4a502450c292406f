"""Masks leave as DICOM SEG, RTSTRUCT and NIfTI, and the other side's readers find the same voxels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from speciate.datasets.exports.mask_files import read_scan, rings_of
from speciate.errors import SpeciateError
from speciate.modalities.medical.dicom import Dicom, of_series
from speciate.modalities.medical.dicom_regions import Scan, draw_regions, regions
from speciate.modalities.medical.nifti import Nifti
from speciate.modalities.segmentation_masks import fill_polygon, mask_cell, to_runs
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.exports.worlds import seal
from tests.modalities import dicom_samples as samples
from tests.modalities import nifti_samples

pytestmark = pytest.mark.filterwarnings("ignore")  # of third parties' libraries
Voxels = npt.NDArray[np.uint8]
NAMES = ["liver", "spot"]


def labels(shape: tuple[int, ...] = (6, 32, 32)) -> Voxels:
    """A region with a hole, and a small one; parts of both in few slices."""
    made = np.zeros(shape, np.uint8)
    made[2:4, 5:20, 8:25] = 1
    made[2:4, 10:14, 12:18] = 0
    made[3, 25:28, 3:6] = 2
    return made


def ct(number: int = 1, **elements: Any) -> bytes:
    elements = {"PatientID": f"P{number}", "PixelSpacing": [0.8, 0.8]} | elements
    return of_series([samples.encoded(each) for each in samples.series(None, 2.5, number, **elements)])


def dataset(workspace: Workspace, rows: list[dict[str, Any]], media: list[bytes], modality: str = "dicom") -> None:
    named = [
        {"source": f"scan{i}", "patient": f"P{i}", "study": "S", "series": f"R{i}"} | row for i, row in enumerate(rows)
    ]
    seal(workspace, "scans", named, media=media, modality=modality)


def export(workspace: Workspace, format_: str, path: Path, **more: Any) -> dict[str, Any]:
    spec = {"dataset": "scans", "format": format_, "path": path, "identified": True} | more
    return data.run_job(workspace, "export", **spec)["report"]


def table(path: Path) -> list[dict[str, str]]:
    with (path / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_mask_opens_as_dicom_seg_beside_its_scan(workspace: Workspace, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    scan, cell = ct(), mask_cell(labels(), NAMES)
    dataset(workspace, [{"mask": cell, "mask_made_by": "lesions@v3"}], [scan])
    export(workspace, "dicom-seg", tmp_path / "out")
    (row,) = table(tmp_path / "out")
    assert "mask" not in row
    made = highdicom.seg.segread(tmp_path / "out" / row["mask_file"])
    sources = sorted((tmp_path / "out" / row["file_name"]).iterdir())
    headers = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, sources)}
    assert made.StudyInstanceUID == next(iter(headers.values())).StudyInstanceUID
    assert made.PatientID == "P1"
    assert {uid for *_, uid in made.get_source_image_uids()} <= set(headers)
    assert [each.SegmentLabel for each in made.SegmentSequence] == NAMES
    assert made.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert made.SegmentSequence[0].SegmentAlgorithmName == "lesions@v3"
    volume = made.get_volume(combine_segments=True)
    wanted = labels()
    shown = volume.match_geometry(highdicom.get_volume_from_series(list(headers.values()))).array
    decoded = Dicom().decode(scan)["voxels"]
    assert shown.shape == decoded.shape
    order = 1 if (shown == wanted).all() else -1  # which end of the patient comes first is the reader's choice
    assert (shown[::order] == wanted).all()


def test_the_same_mask_of_the_same_scan_is_the_same_object_again(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    dataset(workspace, [{"mask": mask_cell(labels(), NAMES)}], [ct()])
    found = []
    for name in ("one", "two"):
        export(workspace, "dicom-seg", tmp_path / name)
        (row,) = table(tmp_path / name)
        made = pydicom.dcmread(tmp_path / name / row["mask_file"])
        found.append((made.SeriesInstanceUID, made.SOPInstanceUID))
        assert made.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"
    assert found[0] == found[1]


def test_outlines_open_in_rt_utils_and_fill_the_same_pixels(workspace: Workspace, tmp_path: Path) -> None:
    rt_utils = pytest.importorskip("rt_utils")
    dataset(workspace, [{"mask": mask_cell(labels(), NAMES)}], [ct()])
    export(workspace, "rtstruct", tmp_path / "out")
    (row,) = table(tmp_path / "out")
    opened = rt_utils.RTStructBuilder.create_from(
        dicom_series_path=str(tmp_path / "out" / row["file_name"]),
        rt_struct_path=str(tmp_path / "out" / row["mask_file"]),
    )
    assert opened.get_roi_names() == NAMES
    for code, name in enumerate(NAMES, 1):
        shown = np.moveaxis(opened.get_roi_mask_by_name(name), -1, 0)
        assert (shown == (labels() == code)).all(), name


@pytest.mark.parametrize("format_", ["dicom-seg", "rtstruct"])
def test_any_orientation_comes_back_voxel_for_voxel(format_: str, workspace: Workspace, tmp_path: Path) -> None:
    """Coronal slices with pixels that are not square, read by the reader of ingest."""
    pytest.importorskip("highdicom")
    turned = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "PixelSpacing": [0.7, 0.9]}
    made = samples.series(None, 2.5, 4, **turned)
    for place, each in enumerate(made):
        each.ImagePositionPatient = [-11.2, 2.5 * place, 30.0]
    scan = of_series([samples.encoded(each) for each in made])
    size = Dicom().decode(scan)["voxels"].shape
    wanted = np.zeros(size, np.uint8)
    wanted[4:12, 1:4, 6:20] = 1
    wanted[20:22, 2, 1:3] = 2
    dataset(workspace, [{"mask": mask_cell(wanted, NAMES)}], [scan])
    export(workspace, format_, tmp_path / "out")
    (row,) = table(tmp_path / "out")
    parsed = read_scan(scan)
    source = Scan.of(parsed.placed, parsed.stack)
    drawn = draw_regions(regions(pydicom.dcmread(tmp_path / "out" / row["mask_file"]), source), source)
    assert drawn.names == NAMES
    assert (drawn.labels == wanted).all()


def test_nifti_masks_lie_on_their_scans(workspace: Workspace, tmp_path: Path) -> None:
    """Whatever order of axes the scan's file has."""
    organ = nifti_samples.organ(0)
    affines = [np.diag([1.0, 1.0, 1.5, 1.0]), np.diag([-2.0, 1.0, 1.5, 1.0]), np.array(
        [[0, 2.0, 0, -5], [0, 0, -1.5, 7], [1.0, 0, 0, 3], [0, 0, 0, 1]])]  # fmt: skip
    media = [nifti_samples.packed(nifti_samples.written(organ.voxels, affine)) for affine in affines]
    truths = [np.asarray(Nifti().decode(each)["voxels"] > 50, np.uint8) for each in media]
    dataset(workspace, [{"mask": mask_cell(each, ["bright"])} for each in truths], media, "nifti")
    report = export(workspace, "nifti", tmp_path / "out")
    assert report["notes"] == []
    for row in table(tmp_path / "out"):
        image = nib.load(tmp_path / "out" / row["file_name"])
        mask = nib.load(tmp_path / "out" / row["mask_file"])
        assert np.allclose(image.affine, mask.affine)
        assert ((image.get_fdata() > 50) == (np.asarray(mask.dataobj) == 1)).all()
        assert mask.header.get_intent()[0] == "label"
    named = json.loads((tmp_path / "out" / "masks" / "labels.json").read_text())
    assert list(named.values()) == [{"1": "bright"}] * 3


def test_a_dicom_scan_gives_a_nifti_mask_in_its_place(workspace: Workspace, tmp_path: Path) -> None:
    dataset(workspace, [{"mask": mask_cell(labels(), NAMES)}], [ct()])
    report = export(workspace, "nifti", tmp_path / "out")
    assert "only their masks were written" in report["notes"][0]
    assert "The scans are not among the files" in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "images").exists()
    (row,) = table(tmp_path / "out")
    mask = nib.load(tmp_path / "out" / row["mask_file"])
    assert nib.aff2axcodes(mask.affine) == ("L", "P", "S")
    at = mask.affine @ [8, 5, 2, 1]  # column, row, slice of a corner of the liver
    assert np.allclose(at[:3], [11.2 - 8 * 0.8, 11.2 - 5 * 0.8, 2 * 2.5])
    assert (np.asarray(mask.dataobj).transpose(2, 1, 0) == labels()).all()


def test_overlapping_segments_stay_whole(workspace: Workspace, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    one, two = np.zeros((2, 6, 32, 32), np.uint8)
    one[1:4, 4:20, 4:20] = 1
    two[2, 8:12, 8:30] = 1
    cells = [json.loads(mask_cell(one, ["organ"])), json.loads(mask_cell(two, ["vessel"]))]
    dataset(workspace, [{"mask": json.dumps(cells)}], [ct()])
    export(workspace, "dicom-seg", tmp_path / "seg")
    made = highdicom.seg.segread(tmp_path / "seg" / table(tmp_path / "seg")[0]["mask_file"])
    assert made.SegmentsOverlap == "YES"
    sums = made.get_volume().array.sum(axis=(0, 1, 2))
    assert sums.tolist() == [one.sum(), two.sum()]
    export(workspace, "nifti", tmp_path / "nifti")
    assert len(table(tmp_path / "nifti")[0]["mask_file"].split()) == 2
    export(workspace, "rtstruct", tmp_path / "rt")
    assert len(pydicom.dcmread(tmp_path / "rt" / table(tmp_path / "rt")[0]["mask_file"]).ROIContourSequence) == 2


def test_answers_of_a_model_are_stretched_over_their_scan(workspace: Workspace, tmp_path: Path) -> None:
    small = np.zeros((16, 16, 16), np.uint8)
    small[4:12, 4:12, 4:12] = 1
    answer = {"labels": ["lesion"], "size": [16, 16, 16], "rle": to_runs(small)}
    dataset(workspace, [{"found": json.dumps(answer), "found_made_by": "lesions@v1"}], [ct()])
    export(workspace, "nifti", tmp_path / "out", column="found")
    (row,) = table(tmp_path / "out")
    mask = np.asarray(nib.load(tmp_path / "out" / row["mask_file"]).dataobj)
    assert mask.shape == (32, 32, 6)
    assert 0.09 < mask.mean() < 0.17  # an eighth


BAD = {
    "another size": mask_cell(labels((5, 32, 32)), NAMES),
    "nothing": mask_cell(np.zeros((6, 32, 32), np.uint8), NAMES),
    "no mask": "a fine day",
    "a list of something": "[1, 2]",
    "other runs": '{"labels": ["a"], "size": [6, 32, 32], "runs": "AAAA"}',
    "too large": '{"labels": ["a"], "size": [99999, 99999, 99999], "rle": [1, 5]}',
    "one name twice": mask_cell(labels(), ["x" * 70 + "a", "x" * 70 + "b"]),
}


def test_masks_that_do_not_fit_are_left_out_and_said(workspace: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    rows = [{"mask": cell} for cell in (*BAD.values(), None, mask_cell(labels(), NAMES))]
    dataset(workspace, rows, [ct(number) for number in range(1, len(rows) + 1)])
    report = export(workspace, "dicom-seg", tmp_path / "out")
    written = table(tmp_path / "out")
    assert [bool(row["mask_file"]) for row in written] == [False] * (len(BAD) + 1) + [True]
    reasons = [row["mask_left_out"] for row in written]
    assert reasons[0] == "it is of 5 x 32 x 32 voxels, and its scan of 6 x 32 x 32"
    assert reasons[1] == "it shows nothing"
    assert all(reasons[: len(BAD)])
    assert reasons[len(BAD) :] == ["", ""]
    assert report["notes"][0].startswith(f"{len(BAD)} masks were left out: ")
    assert "1 rows have no mask." in report["notes"]
    assert len([*(tmp_path / "out").rglob("*.seg.dcm")]) == 1


def test_scans_without_a_place_and_foreign_sources_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    film = samples.encoded(samples.film())
    dataset(workspace, [{"mask": mask_cell(labels(), NAMES)}], [film])
    with pytest.raises(SpeciateError, match="no place in the patient"):
        export(workspace, "dicom-seg", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [each.name for each in tmp_path.iterdir() if "exporting" in each.name] == []
    with pytest.raises(SpeciateError, match="no column 'nothing'"):
        export(workspace, "rtstruct", tmp_path / "out", column="nothing")
    with pytest.raises(SpeciateError, match="takes no column"):
        export(workspace, "folder", tmp_path / "out", column="mask")
    seal(workspace, "texts", [{"text": "a", "mask": "b"}], inputs=("text",))
    with pytest.raises(SpeciateError, match="no DICOM files"):
        export(workspace, "dicom-seg", tmp_path / "out", dataset="texts")


def test_names_of_people_leave_only_if_asked(workspace: Workspace, tmp_path: Path) -> None:
    dataset(workspace, [{"mask": mask_cell(labels(), NAMES)}], [ct()])
    with pytest.raises(SpeciateError, match="identified"):
        export(workspace, "dicom-seg", tmp_path / "out", identified=False)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_fill_to_the_mask_that_they_are_of(mask: npt.NDArray[np.bool_]) -> None:
    filled = np.zeros(mask.shape, bool)
    for ring in rings_of(mask):
        assert len(ring) >= 4
        filled ^= fill_polygon(np.array(ring) + 0.5, mask.shape)
    assert (filled == mask).all()
