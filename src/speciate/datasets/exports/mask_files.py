"""The service that writes masks beside their scans: DICOM SEG (by highdicom), RTSTRUCT and NIfTI. It runs sandboxed,
as scans are foreign bytes.

A cell holds a mask of modalities/segmentation_masks.py, in the voxels of its scan; or a map of labels that a model
answered (tasks/families/segmentation.py), which is stretched over the scan; or a list of several, whose regions may
overlap. A mask of another size than its scan is left out, as are masks that show nothing where a format needs a region.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import speciate
from speciate.datasets.columns import clean
from speciate.errors import Code, SpeciateError
from speciate.modalities.bundles import is_bundle, members_of
from speciate.modalities.contract import DecodeError
from speciate.modalities.medical import nifti
from speciate.modalities.medical.dicom import stack_of
from speciate.modalities.medical.dicom_geometry import Layout, Slice, Stack, axes, layout_of
from speciate.modalities.medical.dicom_instances import instance_name, read_header, slices, text_value
from speciate.modalities.segmentation_masks import LabelMap, Mask, from_runs, mask_of, resize_labels
from speciate.workspace.packs import PackReader

_MAKER = "speciate"
_SCHEME = "99SPECIATE"
"""Codes of our own: what a label means in a terminology is not known here."""
_INWARD = 0.1
"""Share of a pixel by which outlines lie within the edges of their pixels: readers that ask for centres and readers
that round corners to centres then fill the same ones."""
_EMPTY = "it shows nothing"
_TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""Elements that a file must have and that may be empty."""

Points = list[tuple[float, float]]


class _Scan(NamedTuple):
    """A DICOM series without its pixels."""

    headers: list[Any]
    placed: list[Slice]
    stack: Stack
    layout: Layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (D, H, W) of the volume that the scan decodes to."""
        stacked = (len(self.placed), *self.placed[0].size)
        return tuple(stacked[axis] for axis in self.layout.order)

    def stacked(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(D, H, W) -> (slices in their order, rows, columns)."""
        turned = volume[tuple(slice(None, None, -1 if turn else 1) for turn in self.layout.turned)]
        return np.ascontiguousarray(turned.transpose(np.argsort(self.layout.order)))


def write(payload: dict[str, Any]) -> dict[str, Any]:
    """The service: {format, packs, items: [{content, cell, predicted_by}], modality} -> {made: [{files, why, labels}]}.

    Files lie in the working folder. `why`: the mask was left out.
    """
    made = []
    with PackReader([Path(pack) for pack in payload["packs"]]) as reader:
        for number, item in enumerate(payload["items"], 1):
            try:
                made.append(
                    _write_one(payload["format"], payload["modality"], reader.get(item["content"]), item, number)
                )
            except (DecodeError, ValueError, AttributeError, TypeError, KeyError) as error:
                detail = error.detail if isinstance(error, DecodeError) else str(error)
                made.append({"files": [], "why": detail[:300] or type(error).__name__, "labels": []})
    return {"made": made}


def _write_one(format_: str, modality: str, data: bytes, item: Mapping[str, Any], number: int) -> dict[str, Any]:
    if format_ == "nifti":
        return _write_nifti(modality, data, item["cell"], number)
    scan = read_scan(data)
    maps = maps_of(item["cell"], scan.shape)
    if not any(each.pixels.any() for each in maps):
        raise ValueError(_EMPTY)
    maker = _segmentation if format_ == "dicom-seg" else structure_set
    dataset = maker(scan, maps, str(item["name"]), item["predicted_by"])
    dataset.save_as(f"{number:05}.dcm", enforce_file_format=True)
    return {"files": [f"{number:05}.dcm"], "why": None, "labels": [name for each in maps for name in each.labels]}


def maps_of(cell: str, shape: Sequence[int]) -> list[LabelMap]:
    """The maps of labels in a cell, each (D, H, W) of `shape`. Raises ValueError for any other cell, and for a mask of
    another size."""
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{cell!r:.60} is no mask") from error
    maps = [_map_of(each, tuple(shape)) for each in (found if isinstance(found, list) else [found])]
    names = {name: None for each in maps for name in each.labels}
    if len({clean(name) for name in names}) != len(names):
        raise ValueError("two of its labels have the same name once it is cut to 64 characters")
    return [LabelMap(each.pixels, [clean(name) for name in each.labels]) for each in maps]


def _map_of(document: Any, shape: tuple[int, ...]) -> LabelMap:
    if isinstance(document, dict) and "rle" in document:
        names, pixels = document.get("labels"), from_runs(document["rle"], document["size"])
        if pixels.ndim != 3 or not isinstance(names, list) or pixels.max(initial=0) > len(names):
            raise ValueError("it is no map of labels of a volume")
        return LabelMap(resize_labels(pixels, shape), [str(name) for name in names])
    found = mask_of(json.dumps(document))
    if found.pixels.shape != shape:
        size, wanted = (" x ".join(map(str, each)) for each in (found.pixels.shape, shape))
        raise ValueError(f"it is of {size} voxels, and its scan of {wanted}")
    return found


def read_scan(data: bytes) -> _Scan:
    """Raises DecodeError for what is no volume with a place in the patient."""
    members = members_of(data) if is_bundle(data) else {"": data}
    headers = [read_header(io.BytesIO(each), name) for name, each in members.items()]
    placed = [
        each
        for header in headers
        for each in slices(header, instance_name(header), text_value(header, "SOPInstanceUID"))
    ]
    if any(each.position is None or each.orientation is None for each in placed):
        raise DecodeError("error", "its scan has no place in the patient")
    if not text_value(headers[0], "FrameOfReferenceUID"):
        raise DecodeError("error", "its scan names no frame of reference")
    stack = stack_of(placed, len(headers))
    if stack.directions is None:  # one slice, which volumes leave as it is
        return _Scan(headers, placed, stack, Layout((0, 1, 2), (False, False, False)))
    return _Scan(headers, placed, stack, layout_of(stack))


# DICOM SEG


def _segmentation(scan: _Scan, maps: Sequence[LabelMap], name: str, predicted_by: str | None) -> Any:
    """One segment a label, over the whole scan; frames without a pixel are left out."""
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    algorithm = None
    kind = SegmentAlgorithmTypeValues.MANUAL
    if predicted_by is not None:
        kind = SegmentAlgorithmTypeValues.AUTOMATIC
        algorithm = AlgorithmIdentificationSequence(predicted_by[:64], codes.DCM.ArtificialIntelligence, "1")
    names = list(dict.fromkeys(label for each in maps for label in each.labels))
    concept = CodedConcept("region", _SCHEME, "labelled region")
    described = [
        SegmentDescription(
            number, label, concept, CodedConcept(f"label-{number}", _SCHEME, label), kind,
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(names, 1)
    ]  # fmt: skip
    sources = [_completed(each) for each in scan.headers]
    in_order = [sources[place] for place in scan.stack.order] if len(sources) > 1 else sources
    return Segmentation(
        source_images=in_order, pixel_array=_by_frames(scan, _segments(scan, maps, names)),
        segmentation_type=SegmentationTypeValues.BINARY, segment_descriptions=described,
        series_instance_uid=_uid(scan, name, "series"), series_number=_series_number(scan, 1),
        sop_instance_uid=_uid(scan, name, "instance", json.dumps([each.labels for each in maps]), _digest(maps)),
        instance_number=1, manufacturer=_MAKER, manufacturer_model_name=_MAKER,
        software_versions=speciate.__version__, device_serial_number="0", series_description=name[:64],
        content_label="MASK",
    )  # fmt: skip


def _segments(scan: _Scan, maps: Sequence[LabelMap], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(slices, rows, columns) of numbers of segments; (slices, rows, columns, segments) where they may overlap."""
    if len(maps) == 1:
        codes = np.array([0, *(names.index(label) + 1 for label in maps[0].labels)], np.uint8)
        found: npt.NDArray[np.uint8] = scan.stacked(codes[maps[0].pixels])
        return found
    made = np.zeros((len(scan.placed), *scan.placed[0].size, len(names)), np.uint8)
    for each in maps:
        stacked = scan.stacked(each.pixels)
        for code, label in enumerate(each.labels, 1):
            made[..., names.index(label)] |= stacked == code
    return made


def _by_frames(scan: _Scan, stacked: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The mask's frames as highdicom wants them: in the order of the files, or of the frames of the one file."""
    if len(scan.headers) > 1:
        return stacked
    made = np.empty_like(stacked)
    made[scan.stack.order] = stacked
    return made


def _completed(header: Any) -> Any:
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _series_number(scan: _Scan, further: int) -> int:
    found = str(scan.headers[0].get("SeriesNumber") or "0")
    return (int(found) if found.isdecimal() and len(found) < 7 else 0) * 100 + further


def _digest(maps: Sequence[LabelMap]) -> str:
    digest = hashlib.sha256()
    for each in maps:
        digest.update(each.pixels.tobytes())
    return digest.hexdigest()


def _uid(scan: _Scan, *names: str) -> str:
    """The same UID for the same mask of the same scan, so that an archive knows a repeated export for what it is."""
    text = "\0".join([text_value(scan.headers[0], "SeriesInstanceUID"), *names])
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


# RTSTRUCT


def structure_set(scan: _Scan, maps: Sequence[LabelMap], name: str, predicted_by: str | None) -> Any:
    """PS3.3 A.19: a region of interest a label, closed planar outlines in the slices of the scan. Holes are outlines
    within others, as readers combine them by exclusive or."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage

    if any(int(each.get("NumberOfFrames") or 1) > 1 for each in scan.headers):
        raise ValueError("an RTSTRUCT refers to images of one frame each, and its scan is one file of several")
    first, now = _completed(scan.headers[0]), datetime.datetime.now(datetime.UTC)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    identity = UID(_uid(scan, name, "structures", _digest(maps)))
    meta.MediaStorageSOPInstanceUID = identity
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, identity
    for keyword in (*_TYPE_2, "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(made, keyword, first.get(keyword, ""))
    made.PositionReferenceIndicator = first.get("PositionReferenceIndicator", "")
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", _uid(scan, name, "structure series")
    made.SeriesNumber, made.InstanceNumber, made.SeriesDescription = _series_number(scan, 2), 1, name[:64]
    made.SeriesDate = made.InstanceCreationDate = made.StructureSetDate = now.strftime("%Y%m%d")
    made.SeriesTime = made.InstanceCreationTime = made.StructureSetTime = now.strftime("%H%M%S")
    made.Manufacturer = made.ManufacturerModelName = _MAKER
    made.SoftwareVersions, made.OperatorsName = speciate.__version__, ""
    made.StructureSetLabel, made.ApprovalStatus = name[:16], "UNAPPROVED"
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(scan, first)]
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    for number, (label, rings) in enumerate(_outlines(scan, maps), 1):
        roi, contours, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName = number, first.FrameOfReferenceUID, label
        roi.ROIGenerationAlgorithm = "MANUAL" if predicted_by is None else "AUTOMATIC"
        if predicted_by is not None:
            roi.ROIGenerationDescription = predicted_by[:64]
        contours.ReferencedROINumber, contours.ContourSequence = number, [_contour(scan, *ring) for ring in rings]
        observed.ObservationNumber = observed.ReferencedROINumber = number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "", ""
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(contours)
        made.RTROIObservationsSequence.append(observed)
    return made


def _frame_of_reference(scan: _Scan, first: Any) -> Any:
    from pydicom.dataset import Dataset

    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [_image(scan.headers[place]) for place in scan.stack.order]
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired and still asked for
    study.ReferencedSOPInstanceUID, study.RTReferencedSeriesSequence = first.StudyInstanceUID, [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    return frame


def _image(header: Any) -> Any:
    from pydicom.dataset import Dataset

    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return image


def _contour(scan: _Scan, place: int, ring: Points) -> Any:
    """`ring`: x and y in pixels of the slice, 0 at the centre of the first."""
    from pydicom.dataset import Dataset

    on = scan.placed[scan.stack.order[place]]
    columns, rows, _ = axes(on.orientation or ())
    rows_apart, columns_apart = on.spacing or (1.0, 1.0)
    corner = np.array(on.position, np.float64)
    points = np.array([corner + x * columns_apart * columns + y * rows_apart * rows for x, y in ring])
    contour = Dataset()
    contour.ContourImageSequence = [_image(scan.headers[scan.stack.order[place]])]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    contour.ContourData = [f"{value:.10g}" for value in points.ravel()]
    return contour


def _outlines(scan: _Scan, maps: Sequence[LabelMap]) -> Iterator[tuple[str, list[tuple[int, Points]]]]:
    """Each label with its outlines: (slice in the order of the stack, ring)."""
    for label in dict.fromkeys(label for each in maps for label in each.labels):
        whole = np.zeros(scan.shape, bool)
        for each in maps:
            if label in each.labels:
                whole |= each.pixels == each.labels.index(label) + 1
        stacked = scan.stacked(whole)
        shown = np.flatnonzero(stacked.any(axis=(1, 2))).tolist()
        if shown:
            yield label, [(place, ring) for place in shown for ring in rings_of(stacked[place])]


def rings_of(mask: Mask) -> list[Points]:
    """The outlines of a mask (H, W), x and y in pixels with 0 at the centre of the first: outer ones, and those of
    holes. They lie `_INWARD` within the edges of the region's pixels, so filling by centres gives the mask again."""
    padded = np.pad(mask, 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for begin, end in _edges(padded):
        after.setdefault(begin, []).append(end)
    rings = []
    while after:
        start = min(after)
        ring, at, way = [start], start, (0, 0)
        while True:
            ends = after[at]
            chosen = _turning_in(at, ends, way)
            ends.remove(chosen)
            if not ends:
                del after[at]
            way, at = (chosen[0] - at[0], chosen[1] - at[1]), chosen
            if at == start:
                break
            ring.append(at)
        rings.append(_shrunk(ring))
    return rings


def _edges(padded: Mask) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Sides of pixels between inside and outside, directed with the inside to their right as x goes right and y down;
    corners in whole numbers, of the padded mask."""
    inside = padded[1:-1, 1:-1]
    sides: tuple[tuple[Mask, Callable[[int, int], Any]], ...] = (
        (padded[:-2, 1:-1], lambda x, y: ((x, y), (x + 1, y))),  # above: to the right
        (padded[1:-1, 2:], lambda x, y: ((x + 1, y), (x + 1, y + 1))),  # right: down
        (padded[2:, 1:-1], lambda x, y: ((x + 1, y + 1), (x, y + 1))),  # below: to the left
        (padded[1:-1, :-2], lambda x, y: ((x, y + 1), (x, y))),  # left: up
    )
    for beyond, side in sides:
        for y, x in np.argwhere(inside & ~beyond).tolist():
            yield side(x, y)


def _turning_in(at: tuple[int, int], ends: Sequence[tuple[int, int]], way: tuple[int, int]) -> tuple[int, int]:
    """The end that the ring goes on to. Where two pixels touch at a corner, it turns right and stays with its own
    pixel."""
    if len(ends) == 1 or way == (0, 0):
        return ends[0]
    right = (at[0] - way[1], at[1] + way[0])
    return right if right in ends else ends[0]


def _shrunk(ring: Sequence[tuple[int, int]]) -> Points:
    """Corners alone, each moved inwards from both of its sides; corners are at the edges of pixels, results at their
    centres' scale."""
    points: Points = []
    for place, (x, y) in enumerate(ring):
        before, after = ring[place - 1], ring[(place + 1) % len(ring)]
        came, goes = (x - before[0], y - before[1]), (after[0] - x, after[1] - y)
        if came == goes:
            continue
        across, down = (-came[1] - goes[1]) * _INWARD, (came[0] + goes[0]) * _INWARD
        points.append((round(x - 0.5 + across, 6), round(y - 0.5 + down, 6)))
    return points


# NIfTI


def _write_nifti(modality: str, data: bytes, cell: str, number: int) -> dict[str, Any]:
    """Label k of the file is the k-th name, in the voxels of a NIfTI scan, or of a DICOM scan with its place."""
    import nibabel as nib

    if modality == "nifti":
        grid = nifti.grid(data)
        maps, array, affine = maps_of(cell, grid.volume_shape), grid.in_file_order, grid.affine
    else:
        scan = read_scan(data)
        maps, affine = maps_of(cell, scan.shape), _affine_of(scan)

        def array(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return scan.stacked(volume).transpose(2, 1, 0)

    names = list(dict.fromkeys(label for each in maps for label in each.labels))
    files = []
    for place, each in enumerate(maps, 1):
        codes = np.array([0, *(names.index(label) + 1 for label in each.labels)], np.uint8)
        made = nib.Nifti1Image(np.ascontiguousarray(array(codes[each.pixels])), affine)
        made.header.set_intent("label", name=f"{len(names)} labels"[:16])
        made.header.set_xyzt_units("mm")
        made.set_qform(affine, code=1)
        made.set_sform(affine, code=1)
        files.append(f"{number:05}.nii.gz" if len(maps) == 1 else f"{number:05}-{place}.nii.gz")
        nib.save(made, files[-1])
    return {"files": files, "why": None, "labels": names}


def _affine_of(scan: _Scan) -> npt.NDArray[np.float64]:
    """(4, 4): columns, rows and slices -> millimetres to the right, front and head (RAS), as NIfTI has them."""
    order = scan.stack.order
    first, last = scan.placed[order[0]], scan.placed[order[-1]]
    columns, rows, normal = axes(first.orientation or ())
    rows_apart, columns_apart = first.spacing or (1.0, 1.0)
    begin, end = (np.array(each.position, np.float64) for each in (first, last))
    step = (end - begin) / (len(order) - 1) if len(order) > 1 else normal * scan.stack.spacing[0]
    made = np.eye(4)
    made[:3] = np.stack([columns * columns_apart, rows * rows_apart, step, begin], axis=1)
    turned: npt.NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ made
    return turned


def check_libraries(format_: str) -> None:
    """Raises MISSING_EXTRA where what writes a format is not installed."""
    from importlib.util import find_spec

    wanted = {"dicom-seg": ("highdicom", "pydicom"), "rtstruct": ("pydicom",), "nifti": ("nibabel",)}[format_]
    if lacking := [name for name in wanted if find_spec(name) is None]:
        raise SpeciateError(
            Code.MISSING_EXTRA,
            f"The format {format_!r} needs {', '.join(lacking)}.",
            "Run: pip install 'speciate[medical]'",
        )
