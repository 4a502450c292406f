"""A compressed image that says it is larger than its DICOM header does is refused before a decoder allocates it."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from PIL import Image, features
from pydicom.encaps import generate_frames

from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.dicom import DICOM
from speciate.modalities.medical.dicom_instances import codestream_size
from tests.modalities import dicom_samples as samples

COMPRESSED = (
    "MR_small_jp2klossless",
    "MR_small_jpeg_ls_lossless",
    "SC_rgb_jpeg_gdcm",
    "SC_rgb_jpeg_dcmtk",
    "JPGExtended",
)


def stream(name: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(samples.FILES[f"{name}.dcm"]))
    return next(iter(generate_frames(dataset.PixelData, number_of_frames=1)))


@pytest.mark.parametrize("name", COMPRESSED)
def test_every_kind_of_stream_says_its_size(name: str) -> None:
    dataset = pydicom.dcmread(io.BytesIO(samples.FILES[f"{name}.dcm"]))
    assert codestream_size(stream(name)) == (dataset.Rows, dataset.Columns)


@pytest.mark.parametrize("options", [{"format": "JPEG"}, {"format": "JPEG", "progressive": True, "quality": 40}])
def test_jpeg_with_all_that_stands_before_its_frame(options: dict[str, object]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((31, 57, 3), np.uint8)).save(buffer, exif=bytes(900), comment=b"x" * 300, **options)  # type: ignore[arg-type]
    assert codestream_size(buffer.getvalue()) == (31, 57)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without OpenJPEG")
def test_jpeg_2000_in_boxes() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((31, 57), np.uint8)).save(buffer, "JPEG2000")
    assert buffer.getvalue()[4:8] == b"jP  "
    assert codestream_size(buffer.getvalue()) == (31, 57)


@pytest.mark.parametrize("name", COMPRESSED)
def test_whatever_is_cut_or_changed_it_is_a_size_or_none(name: str) -> None:
    whole, chance = stream(name), np.random.default_rng(0)
    for end in range(0, min(len(whole), 300), 3):
        codestream_size(whole[:end])
    for _ in range(300):
        changed = np.frombuffer(whole, np.uint8).copy()
        changed[chance.integers(2, min(len(changed), 400), 8)] = chance.integers(0, 256, 8)
        found = codestream_size(changed.tobytes())
        assert found is None or len(found) == 2


def test_a_frame_of_a_billion_pixels_in_a_small_image_is_never_decoded() -> None:
    data = samples.FILES["MR_small_jp2klossless.dcm"]
    place = data.index(b"\xff\x4f\xff\x51")
    large = data[: place + 8] + (20_000).to_bytes(4, "big") + (60_000).to_bytes(4, "big") + data[place + 16 :]
    with pytest.raises(DecodeError, match="60,000 x 20,000 pixels where the header declares 64 x 64") as raised:
        DICOM.decode(large)
    assert raised.value.quality == "partial"
