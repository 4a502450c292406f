"""Outlines and segmentations, written by pydicom and highdicom, on the voxels of their scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import highdicom
import numpy as np
import pydicom.pixels.utils
import pytest
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileDataset
from pydicom.sr.codedict import codes

from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.dicom import DICOM, stack_of
from speciate.modalities.medical.dicom_instances import instance_name, slices
from speciate.modalities.medical.dicom_regions import RegionMap, Scan, draw_regions, regions
from tests.modalities import dicom_samples as samples

Corners = Sequence[tuple[float, float]]


def scan_of(series: Sequence[Dataset]) -> Scan:
    placed = [each for one in series for each in slices(one, instance_name(one))]
    return Scan.of(placed, stack_of(placed, len(series)))


def shown(annotation: Dataset, series: Sequence[Dataset]) -> RegionMap:
    scan = scan_of(series)
    return draw_regions(regions(annotation, scan), scan)


def square(top: int, left: int, bottom: int, right: int) -> Corners:
    """Corners of pixels in (column, row), at the edges of the pixels that it holds."""
    return [(left - 0.5, top - 0.5), (right - 0.5, top - 0.5), (right - 0.5, bottom - 0.5), (left - 0.5, bottom - 0.5)]


def outlines(series: Sequence[Dataset], rois: dict[str, Iterable[tuple[int, Corners]]]) -> FileDataset:
    """An RTSTRUCT: name -> (slice, corners in pixels)."""
    made = samples.dataset(np.zeros((2, 2), np.uint16), "1.2.840.10008.5.1.4.1.1.481.3", Modality="RTSTRUCT")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(made, keyword)
    made.SeriesInstanceUID, made.SOPInstanceUID = samples.uid(8, 77), samples.uid(9, 77, 1)
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), 1):
        roi, drawn_, sequence = Dataset(), Dataset(), []
        roi.ROINumber, roi.ROIName = number, name
        for place, corners in contours:
            on, contour = series[place], Dataset()
            x, y, z = on.ImagePositionPatient
            rows, columns = on.PixelSpacing
            points = [(x + column * columns, y + row * rows, z) for column, row in corners]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.4f}" for point in points for value in point]
            sequence.append(contour)
        drawn_.ReferencedROINumber, drawn_.ContourSequence = number, sequence
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn_)
    frame, study, of = Dataset(), Dataset(), Dataset()
    of.SeriesInstanceUID = series[0].SeriesInstanceUID
    frame.FrameOfReferenceUID = series[0].FrameOfReferenceUID
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [of], [study]
    made.ReferencedFrameOfReferenceSequence = [frame]
    return made


def segmentation(series: Sequence[FileDataset], labels: Any, names: Sequence[str], kind: str = "BINARY") -> Any:
    """A SEG by highdicom. `labels`: (D, H, W) in the order of the series."""
    for each in series:
        each.StudyDate = each.StudyTime = each.PatientBirthDate = each.PatientSex = ""
        each.AccessionNumber = each.StudyID = each.ReferringPhysicianName = ""
    described = [
        SegmentDescription(
            number, name, codes.cid7150.Tissue, codes.cid7166.ConnectiveTissue, SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(names, 1)
    ]
    return highdicom.seg.Segmentation(
        list(series), labels, SegmentationTypeValues[kind], described, samples.uid(8, 88), 88, samples.uid(9, 88, 1), 1,
        "Maker", "Model", "1", "1",
    )  # fmt: skip


def test_outlines_fill_the_pixels_whose_centres_are_inside() -> None:
    series = samples.series()
    wanted = np.zeros((6, 32, 32), np.uint8)
    wanted[1:3, 4:10, 6:12] = 1
    wanted[1:3, 6:8, 8:10] = 0  # a hole
    wanted[4, 20:22, 3:9] = 2
    rois = {
        "liver": [
            *((place, square(4, 6, 10, 12)) for place in (1, 2)),
            *((place, square(6, 8, 8, 10)) for place in (1, 2)),
        ],
        "nodule": [(4, square(20, 3, 22, 9))],
    }
    found = shown(outlines(series, rois), series[::-1])
    assert found.names == ["liver", "nodule"]
    assert (found.labels == wanted).all()
    assert found.labels.shape == DICOM.decode(samples.shuffled(series))["voxels"].shape


def test_a_smaller_region_lies_on_top_of_a_larger_one() -> None:
    series = samples.series()
    rois = {"a body": [(2, square(0, 0, 30, 30))], "b nodule": [(2, square(5, 5, 8, 8))]}
    found = shown(outlines(series, rois), series)
    assert np.bincount(found.labels.ravel()).tolist() == [6 * 32 * 32 - 900, 900 - 9, 9]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segmentations_lie_on_the_voxels_of_their_scan(kind: str) -> None:
    series = samples.series()
    labels = np.zeros((6, 32, 32), np.uint8)
    labels[1:4, 8:20, 6:16] = 1
    labels[3:5, 20:25, 6:16] = 2
    found = shown(segmentation(series, labels, ["liver", "tumour"], kind), series)
    assert found.names == ["liver", "tumour"]
    assert (found.labels == labels).all()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_each_frame_is_decoded_once_however_many_regions_there_are(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    series, labels = samples.series(), np.zeros((6, 32, 32), np.uint8)
    for region in range(12):
        labels[:, region, 3 * region % 20 :: 7] = region + 1
    made = segmentation(series, labels, [f"r{region:02}" for region in range(12)], kind)
    decoded, frames = 0, pydicom.pixels.utils.iter_pixels

    def counted(dataset: Any) -> Iterable[Any]:
        nonlocal decoded
        for frame in frames(dataset):
            decoded += 1
            yield frame

    monkeypatch.setattr("pydicom.pixels.utils.iter_pixels", counted)
    found = shown(made, series)
    assert (found.labels == labels).all()
    assert decoded == made.NumberOfFrames


def test_labels_turn_as_their_volume_does() -> None:
    """Of a coronal series: where the voxels are bright, there the region is."""
    voxels = np.full((5, 24, 24), -1000, np.int16)
    voxels[1:3, 4:9, 10:20] = 300
    series = samples.series(voxels, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    for place, each in enumerate(series):
        each.ImagePositionPatient = [0, 2.5 * place, 0]
    found = shown(segmentation(series, (voxels > 0).astype(np.uint8), ["bright"]), series)
    assert ((DICOM.decode(samples.shuffled(series))["voxels"] > 0) == found.labels).all()


def test_regions_of_another_scan_are_refused() -> None:
    series = samples.series()
    with pytest.raises(DecodeError, match="an outline of 'far' lies in no slice"):
        shown(outlines(samples.series(samples.phantom(20)), {"far": [(15, square(1, 1, 5, 5))]}), series)
    other = samples.series(samples.phantom(6, 16))
    with pytest.raises(DecodeError, match="the pixels of its frame 1 are not those of its scan"):
        shown(segmentation(other, np.ones((6, 16, 16), np.uint8), ["all"]), series)
