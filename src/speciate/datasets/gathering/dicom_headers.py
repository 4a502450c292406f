"""Headers of DICOM files, read in a sandboxed process without a pixel, and which files are one example together.

Slices of one series are one volume. Files that differ from it by their nature are examples of their own: localizers and
slices in another orientation, further volumes in the same positions (echoes, phases, times), cine loops, and images
that are no slices. Files that differ by mistake stay in it, so that decoding names the fault: a series is never
repaired silently.

`read_from_head` picks the few elements that matter from the first bytes of an ordinary image, at a tenth of what
parsing the whole header costs; pydicom reads everything else. Both give the same fields.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict

from speciate.datasets.sources.file_kinds import kind_of
from speciate.datasets.sources.listing import SourceFile
from speciate.modalities import find
from speciate.modalities.bundles import is_bundle
from speciate.modalities.medical.dicom import patient_of
from speciate.modalities.medical.dicom_elements import DEFLATED, MAGIC, looks_like_dicom, pick_elements
from speciate.modalities.medical.dicom_geometry import orientations
from speciate.modalities.medical.dicom_instances import NOT_IMAGES, number_value, number_values, text_value

_SLICED = ("CT", "MR", "PT", "NM")
"""Modalities whose single frames are slices, so that one without a position is a mistake."""
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STACKS = ("TemporalPositionIdentifier", "AcquisitionNumber", "EchoNumbers", "DiffusionBValue", "TriggerTime",
          "AcquisitionTime", "ImageType")  # fmt: skip
"""Elements that separate volumes with the same positions, in the order of their use."""
_STACK_NAMES = dict(zip(STACKS, ("time", "acquisition", "echo", "b-value", "trigger", "at", "type"), strict=True))
_HEAD = 1 << 16  # bytes in which most headers end
TAGS = [
    "AccessionNumber", "AcquisitionNumber", "AcquisitionTime", "Columns", "DiffusionBValue", "EchoNumbers",
    "FrameOfReferenceUID", "ImageOrientationPatient", "ImagePositionPatient", "ImageType", "InstanceNumber",
    "IssuerOfPatientID", "Modality", "NumberOfFrames", "PatientID", "PatientName", "ReferencedFrameOfReferenceSequence",
    "ReferencedSeriesSequence", "ContentDate", "ContentTime", "StructureSetDate", "StructureSetTime",
    "Rows", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "TemporalPositionIdentifier",
    "TriggerTime",
]  # fmt: skip
_NUMBERS = {
    "AccessionNumber": 0x00080050, "AcquisitionNumber": 0x00200012, "AcquisitionTime": 0x00080032,
    "DiffusionBValue": 0x00189087, "EchoNumbers": 0x00180086, "FrameOfReferenceUID": 0x00200052,
    "ImageOrientationPatient": 0x00200037, "ImagePositionPatient": 0x00200032, "ImageType": 0x00080008,
    "InstanceNumber": 0x00200013, "IssuerOfPatientID": 0x00100021, "Modality": 0x00080060,
    "NumberOfFrames": 0x00280008, "PatientID": 0x00100020, "PatientName": 0x00100010,
    "Rows": 0x00280010, "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018, "SeriesInstanceUID": 0x0020000E, "StudyInstanceUID": 0x0020000D,
    "TemporalPositionIdentifier": 0x00200100, "TriggerTime": 0x00181060,
}  # fmt: skip
_CHARSET = 0x00080005
_QUICK = frozenset((*_NUMBERS.values(), _CHARSET))
_DOUBLES = ("DiffusionBValue",)
_PLAIN = {"": "iso8859", "ISO_IR 6": "iso8859", "ISO_IR 100": "latin_1", "ISO_IR 192": "utf-8"}
"""Character sets in which no byte within a letter looks like the backslash between values."""
_UID_ROOT = b"1.2.840.10008."
"""Begins the UIDs of the standard, of which every DICOM file names some."""
_FAR = 1024
_DAMAGED = "A damaged DICOM file: its header does not begin where it should, so nothing in it can be trusted."
_DIRECTORY = "1.2.840.10008.1.3.10"
_CHUNK = 1 << 20


class DicomFiles(TypedDict):
    paths: list[str]


HeaderFields = dict[str, Any]
"""A Header as JSON."""


class NotRead(TypedDict):
    """Why a file has no header here: it is a bundle, which is an example already, or it is no DICOM file."""

    kind: Literal["bundle", "none"]
    reason: NotRequired[str]
    named: NotRequired[bool]


class HeadersAnswer(TypedDict):
    headers: list[HeaderFields | NotRead]
    """Header of each file, in order."""


class DigestsAnswer(TypedDict):
    digests: list[str]


class Header(BaseModel):
    """The header of one file, read from JSON that a sandboxed process wrote."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["image", "other"]
    storage: str
    modality: str
    patient: str
    patient_id: str
    study: str
    series: str
    accession: str
    instance: str
    frame_of_reference: str
    number: float | None
    localizer: bool
    frames: int
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    stacks: tuple[str, ...]
    named: bool
    """Whether it holds the name or the id of a patient."""
    of_series: tuple[str, ...]
    """UIDs of the series that outlines or a segmentation are of."""
    when: str
    """Date and time of these, as text that sorts."""


class FileWithHeader(NamedTuple):
    file: SourceFile
    header: Header
    digest: str = ""
    """Digest of the file's bytes, where another file says that it is the same instance."""


class DicomExample(NamedTuple):
    files: list[FileWithHeader]
    """Files of the example, in an order that is independent of their names."""
    what: str = ""
    """Why it is not all of its series: `localizer`, `echo 2`; empty if it is what the series is about."""


class DuplicateFile(NamedTuple):
    file: SourceFile
    of: SourceFile


def without_copies(files: Sequence[FileWithHeader]) -> tuple[list[FileWithHeader], list[DuplicateFile]]:
    """Leaves out copies: of files with the same instance and the same bytes, the one whose name comes first stays."""
    seen: dict[tuple[str, str], SourceFile] = {}
    kept: list[FileWithHeader] = []
    twice: list[DuplicateFile] = []
    for known in sorted(files, key=lambda each: each.file.name):
        key = (known.header.instance, known.digest)
        if known.digest and known.header.instance and key in seen:
            twice.append(DuplicateFile(known.file, seen[key]))
        else:
            seen[key] = known.file
            kept.append(known)
    return kept, twice


def group_into_examples(files: Iterable[FileWithHeader]) -> list[DicomExample]:
    """Examples of all series, in the order of patients, studies and series.

    A file without an image belongs to its series if that has images: it was cut off.
    """
    series: dict[tuple[str, str, str], list[FileWithHeader]] = defaultdict(list)
    for known in files:
        series[known.header.patient, known.header.study, known.header.series].append(known)
    found: list[DicomExample] = []
    for (_, _, uid), members in sorted(series.items()):
        ordered = sorted(members, key=_order)
        found += _of_series(ordered) if uid else [DicomExample([each]) for each in ordered]
    return found


def _order(known: FileWithHeader) -> tuple[bool, float, str, str]:
    header = known.header
    return header.number is None, header.number or 0.0, header.instance, known.digest


def _of_series(members: Sequence[FileWithHeader]) -> list[DicomExample]:
    alone = [each for each in members if not _is_slice(each.header)]
    slices = [each for each in members if _is_slice(each.header)]
    made = [DicomExample([each], "" if len(members) == 1 else _numbered(each)) for each in alone]
    localizers = [each for each in slices if each.header.localizer]
    groups = [("", group) for group in _by_orientation([each for each in slices if not each.header.localizer])]
    groups += [("localizer", group) for group in _by_orientation(localizers)]
    for place, (what, group) in enumerate(groups):
        name = what if len(groups) == 1 or place == 0 else what or "other orientation"
        same = sum((other or "other orientation") == name for other, _ in groups[1:place])
        name = f"{name} {same + 1}" if same else name
        made += [DicomExample(stack, " ".join(filter(None, (name, value)))) for value, stack in _stacks(group)]
    return made


def _is_slice(header: Header) -> bool:
    if header.kind != "image":
        return True
    if header.frames > 1 or header.storage == _CAPTURE:
        return False
    return header.modality in _SLICED or (header.position is not None and header.orientation is not None)


def _numbered(known: FileWithHeader) -> str:
    number = known.header.number
    return f"instance {number:g}" if number is not None else f"instance {known.header.instance}"


def _by_orientation(slices: Sequence[FileWithHeader]) -> list[list[FileWithHeader]]:
    """The largest group first. Slices without an orientation stay with it: theirs is missing by mistake."""
    turned = [each for each in slices if each.header.orientation is not None]
    lost = [each for each in slices if each.header.orientation is None]
    kinds = orientations([each.header.orientation for each in turned])
    counts = Counter(kinds)
    groups = [
        [each for each, kind in zip(turned, kinds, strict=True) if kind == one]
        for one in sorted(counts, key=lambda one: (-counts[one], one))
    ]
    if not groups:
        return [lost] if lost else []
    groups[0] = sorted(groups[0] + lost, key=_order)
    return groups


def _stacks(slices: Sequence[FileWithHeader]) -> list[tuple[str, list[FileWithHeader]]]:
    """Several volumes in the same positions, separated by the first element that separates them all."""
    times = Counter(each.header.position for each in slices if each.header.position is not None)
    if min(times.values(), default=1) < 2 or len(set(times.values())) != 1 or sum(times.values()) != len(slices):
        return [("", list(slices))]
    for place, keyword in enumerate(STACKS):
        apart: dict[str, list[FileWithHeader]] = defaultdict(list)
        for each in slices:
            apart[each.header.stacks[place]].append(each)
        if len(apart) == next(iter(times.values())) and all(_each_once(group) for group in apart.values()):
            return [(f"{_STACK_NAMES[keyword]} {value}", apart[value]) for value in sorted(apart)]
    return [("", list(slices))]


def _each_once(slices: Sequence[FileWithHeader]) -> bool:
    return len({each.header.position for each in slices}) == len(slices)


def read_headers(payload: DicomFiles) -> HeadersAnswer:
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {"headers": [_read(path) for path in payload["paths"]]}


def digests(payload: DicomFiles) -> DigestsAnswer:
    """A digest of each file, the same for files that hold the same bytes."""
    return {"digests": [_digest(path) for path in payload["paths"]]}


def _read(path: str) -> HeaderFields | NotRead:
    try:
        return _header(path)
    except OSError as error:
        return {"kind": "none", "reason": f"The file cannot be read: {error.strerror}."}
    except Exception as error:  # noqa: BLE001 - what a library makes of foreign bytes is that file's fault
        return {"kind": "none", "reason": f"A damaged DICOM header: {type(error).__name__}: {str(error)[:200]}"}


def _header(path: str) -> HeaderFields | NotRead:
    with open(path, "rb") as file:
        head = file.read(_HEAD)
        if is_bundle(head) and find("dicom").sniff(head, os.path.basename(path)):
            return {"kind": "bundle"}
        if not looks_like_dicom(head):
            reason = _why_no_dicom(head, path)
            return {"kind": "none", "reason": reason, "named": reason == _DAMAGED}
        quick = read_from_head(head)
        return quick if quick is not None else read_with_pydicom(file)


def _why_no_dicom(head: bytes, path: str) -> str:
    """Whether it is another file, or a damaged one."""
    if not head:
        return "The file is empty."
    kind = kind_of(head)
    if kind is not None:
        return f"No DICOM file but {kind.what}."
    called = path.lower().endswith((".dcm", ".dicom", ".ima"))
    if _UID_ROOT in head or (called and MAGIC in head[:_FAR]):
        return _DAMAGED
    return f"No DICOM file{', though it is called one' if called else ''}."


def read_with_pydicom(file: BinaryIO) -> HeaderFields | NotRead:
    """The fields of a header by pydicom."""
    import pydicom

    file.seek(0)
    found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True)
    meta = found.file_meta
    ends = meta.get("TransferSyntaxUID") != DEFLATED and file.tell() >= os.fstat(file.fileno()).st_size
    if meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        reason = "An index of DICOM files (DICOMDIR): the files say themselves what they are."
        return {"kind": "none", "reason": reason, "named": True}  # it lists its patients
    when = text_value(found, "StructureSetDate") + text_value(found, "StructureSetTime")
    return _header_fields(found, has_pixels=not ends) | {
        "of_series": _referenced_series(found),
        "when": when or text_value(found, "ContentDate") + text_value(found, "ContentTime"),
    }


def read_from_head(head: bytes) -> HeaderFields | None:
    """The header fields from the first bytes of an ordinary image; None for any other file."""
    found = pick_elements(head, _QUICK)
    if found is None:
        return None
    raw = _RawElements(found[0])
    if raw.charset not in _PLAIN or not found[1] or raw.get("Modality") in (None, *NOT_IMAGES):
        return None
    return _header_fields(raw, has_pixels=True) | {"of_series": [], "when": ""}


class _RawElements:
    """Values of elements with pydicom's `get`, so that `_header_fields` reads both alike."""

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


def _header_fields(found: Any, *, has_pixels: bool) -> HeaderFields:
    """`found`: a Dataset of pydicom, or _RawElements."""
    frames = number_value(found, "NumberOfFrames")
    return {
        "kind": "image" if "Rows" in found and has_pixels else "other",
        "storage": text_value(found, "SOPClassUID"),
        "modality": text_value(found, "Modality"),
        "patient": patient_of(found),
        "patient_id": text_value(found, "PatientID"),
        "study": text_value(found, "StudyInstanceUID"),
        "series": text_value(found, "SeriesInstanceUID"),
        "accession": text_value(found, "AccessionNumber"),
        "instance": text_value(found, "SOPInstanceUID"),
        "frame_of_reference": text_value(found, "FrameOfReferenceUID"),
        "number": number_value(found, "InstanceNumber"),
        "localizer": "LOCALIZER" in text_value(found, "ImageType").upper(),
        "frames": 1 if frames is None else int(frames),
        "position": number_values(found, "ImagePositionPatient", 3),
        "orientation": number_values(found, "ImageOrientationPatient", 6),
        "stacks": [text_value(found, keyword) for keyword in STACKS],
        "named": bool(text_value(found, "PatientName") or text_value(found, "PatientID")),
    }


def _referenced_series(found: Any) -> list[str]:
    """The series that outlines or a segmentation are of."""
    uids = [text_value(each, "SeriesInstanceUID") for each in found.get("ReferencedSeriesSequence") or ()]
    for frame in found.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            uids += [text_value(each, "SeriesInstanceUID") for each in study.get("RTReferencedSeriesSequence") or ()]
    return sorted({uid for uid in uids if uid})


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()
