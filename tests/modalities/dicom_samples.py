"""DICOM files: real ones that come with pydicom, and series, films and enhanced instances that are made with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.data
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from speciate.modalities.medical.dicom import of_series

ROOT = "1.2.826.0.1.3680043.8.498."
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Stored = npt.NDArray[Any]


def real(name: str) -> bytes:
    """A file that comes with pydicom."""
    return (Path(pydicom.data.__file__).parent / "test_files" / name).read_bytes()


def uid(*numbers: int) -> str:
    return ROOT + ".".join(map(str, numbers))


def dataset(pixels: Stored, storage: str = CTImageStorage, **elements: Any) -> FileDataset:
    """One instance of unsigned or signed 16 bits (F, H, W) or (H, W), or of colours (..., 3) of 8 bits. `elements`
    replace what is here, None takes away."""
    colour = pixels.dtype == np.uint8 and pixels.shape[-1] == 3 and pixels.ndim > 2
    shape = pixels.shape[:-1] if colour else pixels.shape
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    found: dict[str, Any] = {
        "SOPClassUID": storage,
        "SOPInstanceUID": uid(9, 1, 1),
        "StudyInstanceUID": uid(7, 1),
        "SeriesInstanceUID": uid(8, 1),
        "FrameOfReferenceUID": uid(6, 1),
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "Modality": "CT",
        "InstanceNumber": 1,
        "SeriesNumber": 1,
        "Manufacturer": "Phantom",
        "SeriesDescription": "Thorax",
        "Rows": shape[-2],
        "Columns": shape[-1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "NumberOfFrames": shape[0] if len(shape) == 3 else None,
        "PlanarConfiguration": 0 if colour else None,
    }
    for keyword, value in (found | elements).items():
        if value is not None:
            setattr(made, keyword, value)
    made.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    made["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def phantom(depth: int = 6, side: int = 32, seed: int = 0) -> npt.NDArray[np.int16]:
    """(D, H, W) in Hounsfield units: a body of water in air, with a lung of noise."""
    chance = np.random.default_rng(seed)
    z, y, x = np.mgrid[:depth, :side, :side]
    from_centre = np.hypot(y - side / 2 + 0.5, (x - side / 2 + 0.5) * 0.8)
    body = np.where(from_centre < 0.4 * side, 40, -1000)
    body = np.where(np.hypot(y - side * 0.45, x - side * 0.4) < side * 0.15, -800 + 10 * z, body)
    return (body + chance.normal(0, 12, body.shape)).astype(np.int16)


def series(
    voxels: npt.NDArray[np.int16] | None = None, gap: float = 2.5, number: int = 1, **elements: Any
) -> list[FileDataset]:
    """An axial series of a CT from the feet to the head; values are Hounsfield units, stored with an intercept."""
    voxels = phantom() if voxels is None else voxels
    common: dict[str, Any] = {
        "PixelSpacing": [0.7, 0.8],
        "SliceThickness": gap,
        "ImageOrientationPatient": list(AXIAL),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "WindowCenter": 40,
        "WindowWidth": 400,
        "SeriesInstanceUID": uid(8, number),
        "SeriesNumber": number,
    }
    return [
        dataset(
            (plane.astype(np.int32) + 1024).clip(0).astype(np.uint16),
            **common
            | {
                "ImagePositionPatient": [-11.2, -11.2, place * gap],
                "InstanceNumber": place + 1,
                "SOPInstanceUID": uid(9, number, place + 1),
            }
            | elements,
        )
        for place, plane in enumerate(voxels)
    ]


def shuffled(made: Sequence[FileDataset], seed: int = 0) -> bytes:
    """A series as one example, its slices in no order."""
    order = np.random.default_rng(seed).permutation(len(made))
    return of_series([encoded(made[place]) for place in order])


def enhanced(voxels: npt.NDArray[np.int16] | None = None, gap: float = 3.0) -> FileDataset:
    """One instance of many frames, each with a place of its own; stored from the head to the feet."""
    voxels = phantom() if voxels is None else voxels
    made = dataset((voxels[::-1].astype(np.int32) + 1024).clip(0).astype(np.uint16), EnhancedCTImageStorage)
    shared, measures, turned, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.8], gap
    turned.ImageOrientationPatient = list(AXIAL)
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turned]
    shared.PixelValueTransformationSequence = [values]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [_placed(gap * place) for place in reversed(range(len(voxels)))]
    return made


def _placed(height: float) -> Dataset:
    group, place = Dataset(), Dataset()
    place.ImagePositionPatient = [-11.2, -11.2, height]
    group.PlanePositionSequence = [place]
    return group


def film(frames: int = 5, side: int = 24) -> FileDataset:
    """An ultrasound in colour: a bright spot that moves."""
    pixels = np.zeros((frames, side, side, 3), np.uint8)
    for frame in range(frames):
        pixels[frame, 8:14, 2 + 3 * frame : 8 + 3 * frame] = (200, 120, 40)
    return dataset(pixels, UltrasoundMultiFrameImageStorage, Modality="US")


def bomb(side: int = 30_000) -> bytes:
    """Some hundred bytes of RLE that declare 900 million pixels."""
    made = dataset(np.zeros((2, 2), np.uint8), SecondaryCaptureImageStorage, Modality="OT", Rows=side, Columns=side)
    made.file_meta.TransferSyntaxUID = RLELossless
    made.PixelData = encapsulate([bytes(64)])
    made["PixelData"].VR = "OB"
    return encoded(made)


FILES: dict[str, bytes] = {
    "series.dcm": shuffled(series()),
    "enhanced.dcm": encoded(enhanced()),
    "film.dcm": encoded(film()),
    **{
        f"{name}.dcm": real(f"{name}.dcm")
        for name in (
            "CT_small",
            "MR_small",
            "MR_small_RLE",
            "MR_small_bigendian",
            "MR_small_implicit",
            "MR_small_jp2klossless",
            "MR_small_jpeg_ls_lossless",
            "SC_rgb_jpeg_gdcm",
            "SC_rgb_jpeg_dcmtk",
            "SC_rgb_gdcm_KY",
            "JPGExtended",
        )
    },
}
