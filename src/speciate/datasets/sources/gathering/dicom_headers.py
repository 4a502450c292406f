"""What the headers of DICOM files say of where they belong, read in a caged process without a pixel."""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from typing import Any

from speciate.modalities import find
from speciate.modalities.bundles import is_bundle
from speciate.modalities.dicom import patient_of
from speciate.modalities.dicom_elements import looks_like_dicom
from speciate.modalities.dicom_instances import number_of, numbers, text

_HEAD = 4096
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
    import pydicom

    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if is_bundle(head) and find("dicom").sniff(head, os.path.basename(path)):
            return {"kind": "bundle"}
        if not looks_like_dicom(head):
            called = path.lower().endswith((".dcm", ".dicom"))
            return {"kind": "none", "reason": f"No DICOM file{', though it is called one' if called else ''}."}
        file.seek(0)
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
        deflated = found.file_meta.get("TransferSyntaxUID") == "1.2.840.10008.1.2.1.99"
        ends = not deflated and file.tell() >= os.fstat(file.fileno()).st_size
    if found.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return {"kind": "none", "reason": "An index of DICOM files (DICOMDIR): the files say themselves what they are."}
    frames = number_of(found, "NumberOfFrames")
    return {
        "kind": "image" if "Rows" in found and not ends else "other",
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
        "of_series": _referenced(found),
        "when": text(found, "StructureSetDate") + text(found, "StructureSetTime")
        or text(found, "ContentDate") + text(found, "ContentTime"),
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
