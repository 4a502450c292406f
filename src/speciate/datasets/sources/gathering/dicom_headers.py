"""What the headers of DICOM files say of where they belong, read in a caged process without a pixel.

Of an ordinary picture the few elements that matter are picked from the first bytes, at a tenth of what parsing the
whole header costs; everything else is read by pydicom. Both say the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

from speciate.modalities import find
from speciate.modalities.bundles import is_bundle
from speciate.modalities.scans.dicom import patient_of
from speciate.modalities.scans.dicom_elements import DEFLATED, looks_like_dicom, picked
from speciate.modalities.scans.dicom_instances import NO_PICTURES, number_of, numbers, text

_HEAD = 1 << 16  # bytes in which most headers end
TAGS = [
    "AccessionNumber", "AcquisitionNumber", "AcquisitionTime", "Columns", "DiffusionBValue", "EchoNumbers",
    "FrameOfReferenceUID", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "IssuerOfPatientID", "Modality", "NumberOfFrames", "PatientID", "ReferencedFrameOfReferenceSequence",
    "ReferencedSeriesSequence", "ContentDate", "ContentTime", "StructureSetDate", "StructureSetTime",
    "Rows", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "TemporalPositionIdentifier",
    "TriggerTime",
]  # fmt: skip
STACKS = ("TemporalPositionIdentifier", "AcquisitionNumber", "EchoNumbers", "DiffusionBValue", "TriggerTime",
          "AcquisitionTime", "ImageType")  # fmt: skip
"""What tells volumes apart that share their positions, in the order in which it is asked."""
_NUMBERS = {
    "AccessionNumber": 0x00080050, "AcquisitionNumber": 0x00200012, "AcquisitionTime": 0x00080032,
    "DiffusionBValue": 0x00189087, "EchoNumbers": 0x00180086, "FrameOfReferenceUID": 0x00200052,
    "ImageOrientationPatient": 0x00200037, "ImagePositionPatient": 0x00200032, "ImageType": 0x00080008,
    "InstanceNumber": 0x00200013, "IssuerOfPatientID": 0x00100021, "Modality": 0x00080060,
    "NumberOfFrames": 0x00280008, "PatientID": 0x00100020, "Rows": 0x00280010, "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018, "SeriesInstanceUID": 0x0020000E, "StudyInstanceUID": 0x0020000D,
    "TemporalPositionIdentifier": 0x00200100, "TriggerTime": 0x00181060,
}  # fmt: skip
_CHARSET = 0x00080005
_QUICK = frozenset((*_NUMBERS.values(), _CHARSET))
_DOUBLES = ("DiffusionBValue",)
_PLAIN = {"": "iso8859", "ISO_IR 6": "iso8859", "ISO_IR 100": "latin_1", "ISO_IR 192": "utf-8"}
"""Character sets in which no byte within a letter looks like the backslash between values."""
_DIRECTORY = "1.2.840.10008.1.3.10"
_CHUNK = 1 << 20


def read_headers(payload: dict[str, Any]) -> dict[str, Any]:
    """`{paths}` -> `{headers}`, one for each in order: `{kind: "image" | "other" | "bundle" | "none", ...}`."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"headers": [_read(path) for path in payload["paths"]]}


def digests(payload: dict[str, Any]) -> dict[str, Any]:
    """`{paths}` -> `{digests}`: the same for files that hold the same bytes."""
    return {"digests": [_digest(path) for path in payload["paths"]]}


def _read(path: str) -> dict[str, Any]:
    try:
        return _header(path)
    except OSError as error:
        return {"kind": "none", "reason": f"The file cannot be read: {error.strerror}."}
    except Exception as error:  # noqa: BLE001 - what a library makes of foreign bytes is that file's fault
        return {"kind": "none", "reason": f"A damaged DICOM header: {type(error).__name__}: {str(error)[:200]}"}


def _header(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if is_bundle(head) and find("dicom").sniff(head, os.path.basename(path)):
            return {"kind": "bundle"}
        if not looks_like_dicom(head):
            called = path.lower().endswith((".dcm", ".dicom"))
            return {"kind": "none", "reason": f"No DICOM file{', though it is called one' if called else ''}."}
        quick = quickly(head)
        return quick if quick is not None else thoroughly(file)


def thoroughly(file: BinaryIO) -> dict[str, Any]:
    """By pydicom."""
    import pydicom

    file.seek(0)
    found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
    meta = found.file_meta
    ends = meta.get("TransferSyntaxUID") != DEFLATED and file.tell() >= os.fstat(file.fileno()).st_size
    if meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return {"kind": "none", "reason": "An index of DICOM files (DICOMDIR): the files say themselves what they are."}
    when = text(found, "StructureSetDate") + text(found, "StructureSetTime")
    return _told(found, has_pixels=not ends) | {
        "of_series": _referenced(found),
        "when": when or text(found, "ContentDate") + text(found, "ContentTime"),
    }


def quickly(head: bytes) -> dict[str, Any] | None:
    """The same from the first bytes of an ordinary picture; None for all else."""
    found = picked(head, _QUICK)
    if found is None:
        return None
    raw = _Raw(found[0])
    if raw.charset not in _PLAIN or not found[1] or raw.get("Modality") in (None, *NO_PICTURES):
        return None
    return _told(raw, has_pixels=True) | {"of_series": [], "when": ""}


class _Raw:
    """Values of elements with pydicom's `get`, so that what is told of both is the same."""

    def __init__(self, values: Mapping[int, bytes]) -> None:
        self._values = values
        self.charset = values.get(_CHARSET, b"").rstrip(b"\0 ").decode("ascii", "replace")

    def __contains__(self, keyword: str) -> bool:
        return _NUMBERS[keyword] in self._values

    def get(self, keyword: str) -> Any:
        raw = self._values.get(_NUMBERS[keyword])
        if not raw:
            return None
        if keyword in _DOUBLES:
            return struct.unpack("<d", raw)[0] if len(raw) == 8 else None
        values = [part.strip(" \0") for part in raw.decode(_PLAIN[self.charset], "replace").split("\\")]
        return values if len(values) > 1 else values[0] or None


def _told(found: Any, *, has_pixels: bool) -> dict[str, Any]:
    """`found`: a Dataset of pydicom, or _Raw."""
    frames = number_of(found, "NumberOfFrames")
    return {
        "kind": "image" if "Rows" in found and has_pixels else "other",
        "storage": text(found, "SOPClassUID"),
        "modality": text(found, "Modality"),
        "patient": patient_of(found),
        "patient_id": text(found, "PatientID"),
        "study": text(found, "StudyInstanceUID"),
        "series": text(found, "SeriesInstanceUID"),
        "accession": text(found, "AccessionNumber"),
        "instance": text(found, "SOPInstanceUID"),
        "frame_of_reference": text(found, "FrameOfReferenceUID"),
        "number": number_of(found, "InstanceNumber"),
        "localizer": "LOCALIZER" in text(found, "ImageType").upper(),
        "frames": 1 if frames is None else int(frames),
        "position": numbers(found, "ImagePositionPatient", 3),
        "orientation": numbers(found, "ImageOrientationPatient", 6),
        "stacks": [text(found, keyword) for keyword in STACKS],
    }


def _referenced(found: Any) -> list[str]:
    """The series that outlines or a segmentation are of."""
    uids = [text(each, "SeriesInstanceUID") for each in found.get("ReferencedSeriesSequence") or ()]
    for frame in found.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            uids += [text(each, "SeriesInstanceUID") for each in study.get("RTReferencedSeriesSequence") or ()]
    return sorted({uid for uid in uids if uid})


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()
