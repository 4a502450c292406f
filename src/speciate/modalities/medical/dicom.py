"""Radiological images in DICOM files, decoded to volumes: a series of slices, an instance of many frames, or a single
image, which is a volume of one slice.

A series comes as a bundle of its files (bundles.py). Its slices are sorted by where they lie, never by their names or
numbers; a series that is no complete volume is `partial`, and the reason names the slice: missing, duplicate, turned,
of another size, without a position, broken. Values are on the scale that the header declares (Hounsfield units of a
CT); colours become their luminance, and MONOCHROME1 is turned so that more is brighter.

Frames of a video have no place in the patient: they keep their stored order.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speciate.modalities.bundles import HEAD, bundle, is_bundle, members_of
from speciate.modalities.contract import DecodeError, FileSummary, Header
from speciate.modalities.medical.burned_in_text import why_suspected
from speciate.modalities.medical.dicom_elements import looks_like_dicom
from speciate.modalities.medical.dicom_geometry import Slice, Stack, layout_of, stack_slices
from speciate.modalities.medical.dicom_instances import (
    MOST_FRAMES,
    Instance,
    decode_errors,
    frames,
    number_value,
    positive_value,
    read_header,
    read_instance,
    shown_window,
    slices,
    text_value,
)
from speciate.modalities.medical.volumes import MOST_VOXELS, Volume, VolumeModality

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


_NAMED = 10
"""Most broken instances of a series that are named beside the first."""
_BUNDLE_NAME = 30  # bytes before the name of a ZIP's first member
_TEXTS = {
    "modality_code": "Modality", "study_description": "StudyDescription", "series_description": "SeriesDescription",
    "body_part": "BodyPartExamined", "laterality": "Laterality", "view": "ViewPosition",
    "manufacturer": "Manufacturer", "model_name": "ManufacturerModelName", "photometric": "PhotometricInterpretation",
    "patient_position": "PatientPosition", "sex": "PatientSex",
}  # fmt: skip
"""Column -> the element that it holds."""


class Dicom(VolumeModality):
    name = "dicom"
    suffixes = (".dcm", ".dicom")
    default_group = "patient"

    def sniff(self, head: bytes, name: str) -> bool:
        """Whether bytes are DICOM: files from hospitals have no suffix, and files called .dcm are often something
        else."""
        if is_bundle(head):
            length = int.from_bytes(head[_BUNDLE_NAME - 4 : _BUNDLE_NAME - 2], "little")
            extra = int.from_bytes(head[_BUNDLE_NAME - 2 : _BUNDLE_NAME], "little")
            stored = head.startswith(HEAD) and head[8:10] == b"\0\0"
            return stored and looks_like_dicom(head[_BUNDLE_NAME + length + extra :])
        return looks_like_dicom(head)

    def inspect(self, data: bytes) -> Header:
        members = _members(data)
        return _header([read_header(io.BytesIO(each), name) for name, each in members.items()])

    def decode(self, data: bytes) -> Volume:
        return _volume(_instances(data))

    def summarize(self, data: bytes) -> FileSummary:
        """Parses every header once. If text is suspected in the pixels, a column and the caution say so: it may be a
        name."""
        found = _instances(data)
        media = _volume(found)
        declared = _header([each.dataset for each in found])
        if (why := why_suspected(found[0].dataset, media["voxels"])) is not None:
            declared = declared._replace(fields=declared.fields | {"text_suspected": why})
        return FileSummary(
            declared,
            self.fingerprint(media),
            self.measure(media),
            self.sketch(media),
            why,
        )


def of_series(files: Sequence[bytes]) -> bytes:
    """Instances as the bytes of one example."""
    if len(files) == 1:
        return files[0]
    return bundle({member_name(number): data for number, data in enumerate(files, 1)})


def member_name(number: int) -> str:
    """File name of the instance of this place in a series, from 1 on."""
    return f"{number:05}.dcm"


def stack_of(placed: Sequence[Slice], instances: int) -> Stack:
    """The stack of slices in the patient; frames of one instance without a place there stay as they are stored."""
    if instances == 1 and all(each.position is None for each in placed):
        rows, columns = placed[0].spacing or (1.0, 1.0)
        return Stack(list(range(len(placed))), (placed[0].thickness or 1.0, rows, columns), None)
    return stack_slices(placed)


def patient_of(dataset: Dataset) -> str:
    """Who was examined, as groups need it: the id and who gave it, for two hospitals may give the same. Without an id
    the study stands for its patient. Names are never used: two people may have the same."""
    patient, issuer = text_value(dataset, "PatientID"), text_value(dataset, "IssuerOfPatientID")
    if patient:
        return f"{patient} ({issuer})" if issuer else patient
    study = text_value(dataset, "StudyInstanceUID")
    return f"unknown, of study {study}" if study else ""


class _Declared(NamedTuple):
    """What headers alone tell."""

    rows: int
    columns: int
    slices: int


def _members(data: bytes) -> dict[str, bytes]:
    if not is_bundle(data):
        return {"": data}
    members = members_of(data)
    if not members:
        raise DecodeError("error", "A bundle without files.")
    return members


def _instances(data: bytes) -> list[Instance]:
    """All of them. If one is broken, the series is partial, and the reason names it."""
    members = _members(data)
    found: list[Instance] = []
    broken: dict[str, DecodeError] = {}
    for name, each in members.items():
        try:
            found.append(read_instance(each, name))
        except DecodeError as error:
            broken[name] = error
    if not broken:
        return found
    first, *others = broken
    if not found:
        raise broken[first]
    listed = ", ".join(others[:_NAMED]) + (", …" if len(others) > _NAMED else "")
    more = f" And {len(others)} more: {listed}." if others else ""
    raise DecodeError("partial", f"{len(broken)} of {len(members)} instances cannot be used. {broken[first]}{more}")


def _volume(found: Sequence[Instance]) -> Volume:
    """Checked, then decoded."""
    _check_budget(found)
    if len(series := {text_value(each.dataset, "SeriesInstanceUID") for each in found}) > 1:
        raise DecodeError("error", f"Files of {len(series)} series are no one volume.")
    if len(found) > 1 and (many := [each.name for each in found if each.frames > 1]):
        raise DecodeError("error", f"Several instances, of which {many[0]} has frames of its own, are no one volume.")
    placed = [each for one in found for each in slices(one.dataset, one.name, one.file.pixels or "")]
    stack = stack_of(placed, len(found))
    rows, columns = placed[0].size
    voxels = np.empty((len(placed), rows, columns), np.float32)
    place_of = {place: i for i, place in enumerate(stack.order)}
    number = 0
    for one in found:
        for frame in frames(one):
            voxels[place_of[number]] = frame
            number += 1
    axes = layout_of(stack)
    volume: Volume = {"voxels": axes.array(voxels), "spacing": np.array(axes.spacing(stack.spacing), np.float32)}
    middle = stack.order[len(stack.order) // 2]
    one, frame_number = (found[0], middle) if len(found) == 1 else (found[middle], 0)
    if (window := shown_window(one.dataset, frame_number)) is not None:
        volume["window"] = window
    return volume


def _check_budget(found: Sequence[Instance]) -> None:
    """Raises DecodeError for what is too large by the headers, before a pixel is decoded."""
    count = sum(each.frames for each in found)
    if count > MOST_FRAMES:
        raise DecodeError("refused", f"{count:,} frames, more than {MOST_FRAMES:,}.")
    voxels = sum(each.frames * each.size[0] * each.size[1] * each.colours for each in found)
    if voxels > MOST_VOXELS:
        raise DecodeError("refused", f"It declares {voxels:,} values, more than {MOST_VOXELS:,}.")


def _header(found: Sequence[Dataset]) -> Header:
    first = found[0]
    declared = _declared(found)
    fields: dict[str, str | int | float] = {
        "patient": patient_of(first),
        "study": text_value(first, "StudyInstanceUID"),
        "series": text_value(first, "SeriesInstanceUID"),
        **{column: text_value(first, keyword) for column, keyword in _TEXTS.items()},
        "burned_in": text_value(first, "BurnedInAnnotation"),
        "transfer_syntax": _syntax(first),
        "instances": len(found),
        "slices": declared.slices,
        "rows": declared.rows,
        "columns": declared.columns,
    }
    if (stack := _stack_of_headers(found, declared)) is not None:
        between, fields["row_spacing"], fields["column_spacing"] = stack.spacing
        if declared.slices > 1:
            fields["slice_spacing"] = between
        if stack.tilt_degrees:
            fields["tilt_degrees"] = round(stack.tilt_degrees, 2)
    if (thickness := positive_value(first, "SliceThickness")) is not None:
        fields["slice_thickness"] = thickness
    kept = {name: value for name, value in fields.items() if value != ""}
    return Header(4 * declared.rows * declared.columns * declared.slices, kept)


def _stack_of_headers(found: Sequence[Dataset], declared: _Declared) -> Stack | None:
    """None if they make no volume: decoding says why. Unknown lengths are left out."""
    if declared.slices > MOST_FRAMES:
        return None
    try:
        with decode_errors(""):
            placed = [each for one in found for each in slices(one, "")]
            stack = stack_of(placed, len(found))
    except DecodeError:
        return None
    return stack if placed[0].spacing is not None else None


def _declared(found: Sequence[Dataset]) -> _Declared:
    def whole(dataset: Dataset, keyword: str, otherwise: int = 0) -> int:
        number = number_value(dataset, keyword)
        return max(0, int(number)) if number is not None else otherwise

    return _Declared(
        max(whole(each, "Rows") for each in found),
        max(whole(each, "Columns") for each in found),
        sum(whole(each, "NumberOfFrames", 1) for each in found),
    )


def _syntax(dataset: Dataset) -> str:
    """Name of the transfer syntax."""
    meta = getattr(dataset, "file_meta", None)
    uid = meta.get("TransferSyntaxUID") if meta is not None else None
    return str(getattr(uid, "name", uid) or "")[:64]


DICOM = Dicom()
