"""One DICOM file: its header, and its frames as numbers on the scale that it declares.

pydicom accepts files that end early or have fewer frames than declared; dicom_elements.py finds them before a pixel is
decoded. A decoder trusts the sizes in compressed streams, whatever the DICOM header says, and allocates first; so
`codestream_size` reads them from JPEG (ITU T.81), JPEG-LS (T.87) and JPEG 2000 (T.800) before. Everything that a
library raises becomes a DecodeError."""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.dicom_elements import ElementSummary, looks_like_dicom, walk_elements
from speciate.modalities.medical.dicom_geometry import Slice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


Frame = npt.NDArray[np.float32]  # (H, W)

MOST_SIDE = 65_535
MOST_FRAMES = 32_767
_LONGEST_TEXT = 64
_HEAD = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_GRAY, _INVERTED, _PALETTE = "MONOCHROME2", "MONOCHROME1", "PALETTE COLOR"
NOT_IMAGES = {
    "SR": "a report", "KO": "a selection of objects", "PR": "how others are to be shown", "RTSTRUCT": "outlines",
    "RTPLAN": "a plan of radiation", "RTDOSE": "a grid of doses", "RTRECORD": "a record of radiation",
    "SEG": "a segmentation", "REG": "a registration", "ECG": "a waveform", "HD": "a waveform", "EPS": "a waveform",
    "DOC": "a document", "FID": "marked points", "PLAN": "a plan", "M3D": "a mesh",
}  # fmt: skip
"""Modality -> contents of such a file, if they are no image."""


class Instance(NamedTuple):
    name: str
    """As people know it: `instance 7`."""
    dataset: Dataset
    file: ElementSummary

    @property
    def size(self) -> tuple[int, int]:
        return int(self.dataset.Rows), int(self.dataset.Columns)

    @property
    def frames(self) -> int:
        return int(self.dataset.get("NumberOfFrames") or 1)

    @property
    def colours(self) -> int:
        return int(self.dataset.get("SamplesPerPixel") or 1)


def read_header(file: BinaryIO, name: str = "") -> Dataset:
    """The elements before the pixels."""
    import pydicom

    head = file.read(_HEAD)
    if not looks_like_dicom(head):
        raise DecodeError("error", f"{name or 'It is'} no DICOM file." if head else "The file is empty.")
    file.seek(0)
    with decode_errors(name):
        return pydicom.dcmread(file, force=True, stop_before_pixels=True)


def read_instance(data: bytes, name: str = "") -> Instance:
    """A complete file with pixels of a plausible size. `name`: of the file, for messages."""
    import pydicom

    try:
        file = walk_elements(data)
    except DecodeError as error:
        raise DecodeError(error.quality, f"{_known(data, name)}{error}") from error
    with decode_errors(name):
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        refuse_without_pixels(dataset, file.pixels is not None)
        found = Instance(instance_name(dataset, name), dataset, file)
        rows, columns = found.size
        if not (0 < rows <= MOST_SIDE and 0 < columns <= MOST_SIDE and found.frames > 0 and found.colours in (1, 3)):
            shape = f"{found.frames} frames of {rows} x {columns} pixels with {found.colours} values each"
            raise DecodeError("error", f"It declares {shape}, which no image has.")
    return found


def refuse_without_pixels(dataset: Dataset, has_pixels: bool) -> None:
    """Raises DecodeError if a file is no image: by its kind, or because its pixels are missing."""
    kind = text_value(dataset, "Modality")
    if kind in NOT_IMAGES:
        raise DecodeError("error", f"A DICOM file that is no image: {NOT_IMAGES[kind]} ({kind}).")
    if "Rows" not in dataset or "Columns" not in dataset:
        raise DecodeError("error", f"A DICOM file without an image ({kind or 'of no modality'}).")
    if not has_pixels:
        raise DecodeError("partial", "The header of an image, without its pixels.")


def instance_name(dataset: Dataset, name: str = "") -> str:
    number = number_value(dataset, "InstanceNumber")
    if number is not None:
        return f"instance {number:g}"
    return name or f"instance {text_value(dataset, 'SOPInstanceUID') or 'without a number'}"


def slices(dataset: Dataset, name: str, digest: str = "") -> list[Slice]:
    """Each frame with its place. `digest`: of the pixels of an instance with one frame."""
    count = int(dataset.get("NumberOfFrames") or 1)
    made = []
    for frame in range(count):
        placed = functional(dataset, frame, "PlanePositionSequence") or dataset
        turned = functional(dataset, frame, "PlaneOrientationSequence") or dataset
        sized = functional(dataset, frame, "PixelMeasuresSequence") or dataset
        made.append(
            Slice(
                name if count == 1 else f"frame {frame + 1}",
                (int(dataset.Rows), int(dataset.Columns)),
                number_values(placed, "ImagePositionPatient", 3),
                number_values(turned, "ImageOrientationPatient", 6),
                pixel_spacing(sized),
                positive_value(sized, "SpacingBetweenSlices") or positive_value(sized, "SliceThickness"),
                digest if count == 1 else str(frame),
            )
        )
    return made


def frames(found: Instance) -> Iterator[Frame]:
    """(H, W) each, one after another, on the declared scale: rescaled, colours as luminance, MONOCHROME1 turned so that
    more is brighter. Raises DecodeError(partial) if there are fewer than declared."""
    from pydicom.pixels.utils import iter_pixels

    dataset, count = found.dataset, 0
    with decode_errors(found.name):
        check_streams(dataset)
        for raw in iter_pixels(dataset):
            if count == found.frames or raw.shape[:2] != found.size:
                raise DecodeError("partial", "The pixels are others than the header declares.")
            frame = _on_scale(_gray(raw, dataset), dataset, count)
            if not np.isfinite(frame).all():
                raise DecodeError("error", "Some of its values are no finite numbers.")
            yield frame
            count += 1
    if count != found.frames:
        raise DecodeError("partial", f"{found.name}: {count} frames where the header declares {found.frames}.")


def check_streams(dataset: Dataset) -> None:
    """Every compressed frame must declare the header's size: decoders allocate what the frame declares."""
    from pydicom.encaps import generate_frames

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_encapsulated:
        return
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    for stream in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        size = codestream_size(stream)
        if size is not None and size != (rows, columns):
            raise DecodeError(
                "partial",
                f"A compressed frame has {size[0]:,} x {size[1]:,} pixels where the header declares "
                f"{rows:,} x {columns:,}.",
            )


def shown_window(dataset: Dataset, frame: int = 0) -> list[float] | None:
    """[centre, width] that the header asks to be seen first, on the scale of `frames`."""
    of = functional(dataset, frame, "FrameVOILUTSequence") or dataset
    centre, width = number_value(of, "WindowCenter"), number_value(of, "WindowWidth")
    if centre is None or width is None or width <= 0:
        return None
    if dataset.get("PhotometricInterpretation") == _INVERTED:
        centre = sum(_ends(dataset, frame)) - centre
    return [centre, width]


def text_value(dataset: Dataset, keyword: str) -> str:
    """A value for people and tables: without control characters, at most 64 characters; "" if there is none."""
    try:
        value = dataset.get(keyword)
        shown = (
            "\\".join(str(each).strip() for each in value)
            if _is_many(value)
            else str(value if value is not None else "")
        )
    except Exception:  # noqa: BLE001 - what a header holds may be anything, and this must not lose the rest of it
        return ""
    return _CONTROL.sub("", shown).strip()[:_LONGEST_TEXT]


def number_value(dataset: Dataset, keyword: str) -> float | None:
    """A finite number, or None."""
    try:
        value = dataset.get(keyword)
        found = float(value[0] if _is_many(value) else value)
    except Exception:  # noqa: BLE001 - as in `text`
        return None
    return found if math.isfinite(found) else None


def positive_value(dataset: Dataset, keyword: str) -> float | None:
    found = number_value(dataset, keyword)
    return found if found is not None and found > 0 else None


def number_values(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers of an element, or None."""
    try:
        found = tuple(float(value) for value in dataset.get(keyword) or ())
    except Exception:  # noqa: BLE001 - as in `text`
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def pixel_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Millimetres between rows, between columns: in the patient, else at the detector, else of the nominal image."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = number_values(dataset, keyword, 2)
        if found is not None and min(found) > 0:
            return found[0], found[1]
    return None


@contextmanager
def decode_errors(name: str) -> Iterator[None]:
    """Whatever a library raises becomes a DecodeError; its warnings are silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on odd headers
        try:
            yield
        except DecodeError as error:
            if not name or error.detail.startswith(name):
                raise
            raise DecodeError(error.quality, f"{name}: {error.detail}") from error
        except MemoryError as error:
            raise DecodeError("refused", "More memory than there is would be needed.") from error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # decoders in Rust panic with a BaseException
            where = f"{name}: " if name else ""
            raise DecodeError("error", f"{where}{type(error).__name__}: {str(error)[:300]}") from error


def _known(data: bytes, name: str) -> str:
    """The name of a broken file, with the readable facts of its header."""
    if not name:
        return ""
    try:
        known = instance_name(read_header(io.BytesIO(data)), name)
    except DecodeError:
        known = name
    return f"{name}: " if known == name else f"{name} ({known}): "


def _gray(raw: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) -> (H, W)."""
    if dataset.get("PhotometricInterpretation") == _PALETTE:
        from pydicom.pixels.processing import apply_color_lut

        raw = apply_color_lut(raw, dataset)[..., :3]
    return raw if raw.ndim == 2 else raw.astype(np.float32) @ _LUMINANCE


def _on_scale(stored: npt.NDArray[Any], dataset: Dataset, frame: int) -> Frame:
    """Stored values -> the unit that they stand for (PS3.3, C.11.1): Hounsfield units of a CT."""
    slope, intercept = _rescale(dataset, frame)
    if dataset.get("ModalityLUTSequence"):
        from pydicom.pixels.processing import apply_modality_lut

        values = np.asarray(apply_modality_lut(stored, dataset)).astype(np.float32)
    else:
        values = stored.astype(np.float32)
        if slope != 1:
            values *= np.float32(slope)
        if intercept:
            values += np.float32(intercept)
    if dataset.get("PhotometricInterpretation") == _INVERTED:
        np.subtract(np.float32(sum(_ends(dataset, frame))), values, out=values)
    return values


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    of = functional(dataset, frame, "PixelValueTransformationSequence") or dataset
    slope, intercept = number_value(of, "RescaleSlope"), number_value(of, "RescaleIntercept")
    return (slope if slope else 1.0), (intercept or 0.0)


def _ends(dataset: Dataset, frame: int) -> tuple[float, float]:
    """The least and the greatest value that can be stored, on the declared scale."""
    bits = min(max(int(dataset.get("BitsStored") or 8), 1), 32)
    low = -(2 ** (bits - 1)) if dataset.get("PixelRepresentation") else 0
    if dataset.get("ModalityLUTSequence"):
        return 0.0, float(2 ** min(int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]), 16) - 1)
    slope, intercept = _rescale(dataset, frame)
    return low * slope + intercept, (low + 2**bits - 1) * slope + intercept


def functional(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """An enhanced instance's functional groups of a frame, or of all frames."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        found: Sequence[Any] = dataset.get(groups) or ()
        if place < len(found) and (inner := found[place].get(keyword)):
            first: Dataset = inner[0]
            return first
    return None


def _is_many(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


_JPEG, _J2K = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame; F7 is that of JPEG-LS."""
_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
_SCAN, _END = 0xDA, 0xD9


def codestream_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a compressed stream; None if the bytes are no such stream, or do not say."""
    if stream.startswith(_JPEG):
        return _of_jpeg(stream)
    if stream.startswith(_J2K):
        return _of_j2k(stream, 0)
    place = stream.find(b"jp2c", 0, 4096)  # in the boxes of JP2
    return None if place < 0 else _of_j2k(stream, place + 4)


def _of_jpeg(stream: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", stream, place + 5)
            return (rows, columns) if rows and columns else None
        if marker in (_SCAN, _END):
            return None
        if marker == 0xFF:  # filling
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", stream, place + 2)[0]
    return None


def _of_j2k(stream: bytes, place: int) -> tuple[int, int] | None:
    if not stream.startswith(_J2K, place) or len(stream) < place + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", stream, place + 8)
    return bottom - top, right - left
