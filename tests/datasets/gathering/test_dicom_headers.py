"""Reading only the head of a DICOM file gives the same fields as pydicom, and leaves unusual files to pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets.gathering.dicom_headers import read_from_head, read_headers, read_with_pydicom
from speciate.modalities.medical.dicom_elements import looks_like_dicom
from tests.drawn import drawn
from tests.modalities import dicom_samples as samples

REAL = sorted(path for path in (Path(pydicom.data.__file__).parent / "test_files").rglob("*") if path.is_file())


def thorough(data: bytes, folder: Path) -> dict[str, Any]:
    path = folder / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        return read_with_pydicom(file) | {"of_series": [], "when": ""}


@pytest.mark.filterwarnings("ignore")
def test_both_ways_say_the_same_of_real_files(tmp_path: Path) -> None:
    quick = 0
    for path in REAL:
        data = path.read_bytes()
        found = read_from_head(data[: 1 << 16]) if looks_like_dicom(data[:4096]) else None
        if found is not None:
            quick += 1
            assert found == thorough(data, tmp_path), path.name
    assert quick > 60


@settings(max_examples=drawn(60), deadline=None)
@given(data=st.data())
def test_both_ways_say_the_same_whatever_an_element_holds(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    words = st.text("aB7 .-é", max_size=12)
    whole = st.integers(-(2**31), 2**31 - 1)
    made = samples.dataset(
        np.zeros((4, 4), np.uint16), SpecificCharacterSet=data.draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192"])),
        PatientID=data.draw(words), IssuerOfPatientID=data.draw(words), AccessionNumber=data.draw(words),
        InstanceNumber=data.draw(whole), EchoNumbers=data.draw(st.lists(whole, max_size=3)),
        DiffusionBValue=data.draw(st.floats(allow_nan=False)),
        ImagePositionPatient=data.draw(st.lists(st.integers(-999, 999), max_size=4)),
        ImageType=data.draw(st.lists(st.sampled_from(["ORIGINAL", "PRIMARY", "LOCALIZER", ""]), max_size=3)),
    )  # fmt: skip
    written = samples.encoded(made)
    found = read_from_head(written)
    assert found is not None
    assert found == thorough(written, tmp_path_factory.mktemp("header"))


def test_cut_or_damaged_headers_are_read_by_pydicom() -> None:
    whole = samples.encoded(samples.series()[0])
    assert read_from_head(whole) is not None
    for length in range(200, len(whole) - 4 * 32 * 32, 37):
        assert read_from_head(whole[:length]) is None
    for data in (samples.real("image_dfl.dcm"), samples.real("MR_small_bigendian.dcm"), samples.real("rtstruct.dcm")):
        assert read_from_head(data) is None


def test_a_header_longer_than_the_head_is_read_by_pydicom(tmp_path: Path) -> None:
    made = samples.series()[0]
    made.add_new(0x00091010, "OB", bytes(1 << 17))
    data = samples.encoded(made)
    assert read_from_head(data[: 1 << 16]) is None
    (tmp_path / "file").write_bytes(data)
    assert read_headers({"paths": [str(tmp_path / "file")]})["headers"][0]["series"] == samples.uid(8, 1)
