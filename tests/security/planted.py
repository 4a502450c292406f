"""DICOM files with a value of its own planted in every attribute of Table E.1-1, at several depths, and elsewhere."""

from __future__ import annotations

import datetime
import functools
import io
import itertools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from speciate.modalities.medical.deidentification.profile import rows

CT = "1.2.840.10008.5.1.4.1.1.2"
PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8) * 521
_FIRST = datetime.date(1920, 1, 1)
# Not in the table, so their items are walked: at depths one, two and three.
_WAYS = (), (0x00081115,), (0x00081115, 0x0008114A), (0x00081115, 0x0008114A, 0x00081199)
_PLANTED_LATER = (0x00100020, 0x00100021, 0x0020000D, 0x00101000, 0x300E0008)


class Planted(NamedTuple):
    way: tuple[int, ...]
    tag: int
    vr: str
    value: Any
    """As it stands in the file: text, a number, or bytes."""

    @property
    def trace(self) -> bytes | None:
        """Bytes that occur in the file because of it and by no other cause; None where it is too short for that."""
        if isinstance(self.value, bytes):
            return self.value
        return self.value.encode() if isinstance(self.value, str) and len(self.value) >= 7 else None


class File(NamedTuple):
    data: bytes
    planted: list[Planted]
    elsewhere: list[bytes]
    """In private attributes, drawings, the header of the file and unknown attributes: none may survive any profile but
    for what is asked for."""


@functools.cache
def file(patient: str = "ZQPATIENT1", *, implicit: bool = False, seed: int = 0) -> File:
    """`seed`: files of different ones have different values, but for the patient's number and the study."""
    numbers = itertools.count(seed * 10_000 + 1)
    dataset, planted, elsewhere = Dataset(), list[Planted](), list[bytes]()
    for way in _WAYS:
        _plant(_at(dataset, way), way, numbers, planted)
        elsewhere += _plant_private(_at(dataset, way), numbers)
    dataset.add_new(0x00100020, "LO", patient)
    dataset.add_new(0x0020000D, "UI", "1.2.3.4.555001")
    planted = [each for each in planted if each.way or each.tag not in _PLANTED_LATER]
    planted += [Planted((), 0x00100020, "LO", patient), Planted((), 0x0020000D, "UI", "1.2.3.4.555001")]
    dataset.add_new(0x00100021, "LO", "ZQISSUER")
    planted.append(Planted((), 0x00100021, "LO", "ZQISSUER"))
    elsewhere += _plant_drawings(dataset, numbers)
    _describe_pixels(dataset)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.SourceApplicationEntityTitle = "ZQMETAAE"
    meta.PrivateInformationCreatorUID = "1.2.3.4.999001"
    meta.PrivateInformation = b"ZQMETAPRIVATE0"
    elsewhere += [b"ZQMETAAE", b"ZQMETAPRIVATE0", b"1.2.3.4.999001", b"ZQPREAMBLE"]
    dataset.file_meta, dataset.preamble = meta, b"ZQPREAMBLE".ljust(128, b"\0")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a planted value need not be a sensible one
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return File(buffer.getvalue(), planted, elsewhere)


def found(dataset: Dataset, planted: Planted) -> Any:
    """The element that stands where one was planted; None where nothing does."""
    for tag in planted.way:
        if tag not in dataset or not dataset[tag].value:
            return None
        dataset = dataset[tag].value[0]
    return dataset.get(planted.tag)


def _at(dataset: Dataset, way: tuple[int, ...]) -> Dataset:
    for tag in way:
        if tag not in dataset:
            dataset.add_new(tag, "SQ", [Dataset()])
        dataset = dataset[tag].value[0]
    return dataset


def _plant(dataset: Dataset, way: tuple[int, ...], numbers: Iterator[int], planted: list[Planted]) -> None:
    for row in rows():
        if row.tag == "ODD":
            continue
        tag = int(row.tag.replace("XXXXXX", "003000").replace("XX", "00"), 16)
        if tag >> 16 < 8:  # of commands and headers: they cannot stand here
            continue
        vr = _type(tag, row.name)
        if vr == "SQ":
            if row.basic.endswith("*"):
                item = Dataset()
                item.add_new(0x00081155, "UI", _value("UI", next(numbers)))
                planted.append(Planted((*way, tag), 0x00081155, "UI", item[0x00081155].value))
            else:
                item = Dataset()
                for inside, kind in ((0x00080104, "LO"), (0x00081155, "UI"), (0x0040A160, "UT"), (0x0040A123, "PN")):
                    item.add_new(inside, kind, _value(kind, next(numbers)))
                    planted.append(Planted((*way, tag), inside, kind, str(item[inside].value)))
            dataset.add_new(tag, "SQ", [item])
            continue
        value = _value(vr, next(numbers))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.add_new(tag, vr, value)
        planted.append(Planted(way, tag, vr, value))


def _type(tag: int, name: str) -> str:
    """Attributes of the newest edition are in no dictionary of ours."""
    if (known := {0x50003000: "OW", 0x60003000: "OW", 0x60004000: "LT"}.get(tag)) is not None:
        return known
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "SQ" if name.endswith("Sequence") else "DT" if name.endswith("DateTime") else "LO"


def _value(vr: str, number: int) -> Any:
    day = _FIRST + datetime.timedelta(2 * number)
    return {
        "UI": f"1.2.3.4.777{number:06}",
        "DA": f"{day:%Y%m%d}",
        "TM": f"{number % 24:02}1733.{number:06}",
        "DT": f"{day:%Y%m%d}1733.{number:06}".replace("1733.", "173300."),
        "DS": f"{number}.73519",
        "IS": f"9{number:07}",
        "AS": f"0{number % 80 + 10}Y",
        "US": 40_000 + number % 20_000,
        "OB": b"ZQB%09d" % number,
        "OW": b"ZQW%09d" % number,
        "UN": b"ZQU%09d" % number,
    }.get(vr, f"ZQ{number:06}X")


def _plant_private(dataset: Dataset, numbers: Iterator[int]) -> list[bytes]:
    traces = [f"ZQPRIVATE{next(numbers):06}" for _ in range(4)]
    block = dataset.private_block(0x0099, traces[0], create=True)
    block.add_new(0x01, "LO", traces[1])
    item = Dataset()
    item.add_new(0x00100010, "PN", traces[2])
    block.add_new(0x02, "SQ", [item])
    block.add_new(0x03, "OB", traces[3].encode())
    return [trace.encode() for trace in traces]


def _plant_drawings(dataset: Dataset, numbers: Iterator[int]) -> list[bytes]:
    """Curves and overlays of later groups, an attribute that no dictionary knows, a free text that no table names."""
    traces = {tag: f"ZQELSE{next(numbers):07}" for tag in (0x50042500, 0x60021500, 0x60022000, 0x00091F00, 0x00320FFE)}
    for tag, trace in traces.items():
        dataset.add_new(tag, "LO", trace)
    dataset.add_new(0x00186010, "ST", trace := f"ZQELSE{next(numbers):07}")  # known, and of another type
    told = f"seen by ZQREVIEWER and {next(numbers)}"
    dataset.add_new(0x00080104, "LO", told)  # kept by the table, were it not for the name in it
    dataset.add_new(0x300E0008, "PN", "ZQREVIEWER^A")
    dataset.add_new(0x00181160, "SH", f"by {_ID}")
    dataset.add_new(0x00101000, "LO", _ID)
    return [*(text.encode() for text in traces.values()), trace.encode(), told.encode(), _ID.encode()]


_ID = "ZQOTHERID77"


def _describe_pixels(dataset: Dataset) -> None:
    dataset.SOPClassUID, dataset.Modality = CT, "CT"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 8, 8, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.add_new(0x7FE00010, "OW", PIXELS.tobytes())
