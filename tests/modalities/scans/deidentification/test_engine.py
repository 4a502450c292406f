"""The engine on real and on damaged files: a DICOM file or a DecodeError comes out, and pixels are as they were."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from speciate.modalities.contract import DecodeError
from speciate.modalities.scans.deidentification.engine import deidentify, is_looked_for
from speciate.modalities.scans.deidentification.profile import Profile, parse_profile
from speciate.modalities.scans.deidentification.pseudonyms import Pseudonyms

KEY = Pseudonyms(b"k" * 32)
REAL = (
    "CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtstruct.dcm",
    "waveform_ecg.dcm", "SC_rgb_small_odd.dcm", "test-SR.dcm", "liver_1frame.dcm", "UN_sequence.dcm",
    "SC_rgb_jpeg.dcm", "nested_priv_SQ.dcm", "empty_charset_LEI.dcm", "rtplan.dcm",
)  # fmt: skip
"""Explicit, implicit, big-endian, deflated and compressed; pictures, outlines, waveforms and reports; odd ones."""
_UNDECODED = ("SC_rgb_jpeg.dcm", "nested_priv_SQ.dcm")
"""Broken as they come."""
SMALL = Path(str(get_testdata_file("MR_small.dcm"))).read_bytes()


def read(data: bytes) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data), force=True)


def names(dataset: pydicom.Dataset) -> set[str]:
    """Of people, at any depth."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {str(element.value) for element in dataset.iterall() if element.VR == "PN" and element.value}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("profile", ["basic", "basic+modified_dates+retain_device+clean_structured_content"])
def test_a_real_file_reads_as_before_and_names_nobody(name: str, profile: str) -> None:
    data = Path(str(get_testdata_file(name))).read_bytes()
    before, after = read(data), read(deidentify(data, parse_profile(profile), KEY).data)
    assert names(after) <= {KEY.name(str(before.get("PatientID", ""))), "REMOVED", str(after.get("PatientName"))}
    assert after.get("SOPClassUID") == before.get("SOPClassUID")
    assert str(after.get("PatientID", "P-")).startswith("P-")
    assert not [element for element in after.iterall() if element.tag.is_private]
    if "PixelData" in before:
        assert after.PixelData == before.PixelData
    if "PixelData" in before and name not in _UNDECODED:
        assert np.array_equal(after.pixel_array, before.pixel_array)
    if "WaveformSequence" in before:
        assert np.array_equal(after.waveform_array(0), before.waveform_array(0))


@pytest.mark.parametrize(
    ("letters", "name", "parts"),
    [
        ("ISO_IR 100", "Müller^Jörg", {"Müller", "Jörg"}),
        ("ISO_IR 192", "Müller^Jörg", {"Müller", "Jörg"}),
        ("ISO_IR 144", "Иванова^Анна", {"Иванова", "Анна"}),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", {"Yamada", "山田", "太郎", "山田太郎"}),
        ("GB18030", "Wang^XiaoDong=王^小东", {"Wang", "小东", "王小东"}),
        ("ISO_IR 100", "Lee^Kim", {"Kim Lee", "Lee Kim"}),
    ],
)  # fmt: skip
def test_people_are_told_in_the_letters_in_which_a_table_names_them(
    letters: str | list[str], name: str, parts: set[str]
) -> None:
    dataset, buffer = read(SMALL), io.BytesIO()
    dataset.SpecificCharacterSet, dataset.PatientName = letters, name
    dataset.save_as(buffer)
    told = deidentify(buffer.getvalue(), parse_profile("basic"), KEY)
    assert parts <= {person for person in told.people if is_looked_for(person)}


def test_a_name_in_a_text_is_found_in_capitals_too() -> None:
    dataset, profile = read(SMALL), parse_profile("basic+retain_device")
    dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 192", "Müller^Jörg"
    for station, stays in (("CT 7", True), ("CT MÜLLER", False)):
        buffer = io.BytesIO()
        dataset.StationName = station
        dataset.save_as(buffer)
        assert ("StationName" in read(deidentify(buffer.getvalue(), profile, KEY).data)) is stays


@pytest.mark.parametrize("data", [b"", b"\0" * 200, b"\x89PNG\r\n\x1a\n", b"\0" * 128 + b"DICM", SMALL[:132]])
def test_what_is_no_dicom_file_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        deidentify(data, Profile(), KEY)
    assert caught.value.quality == "error"


def test_a_file_that_is_cut_short_is_not_rewritten() -> None:
    with pytest.raises(DecodeError) as caught:
        deidentify(SMALL[:-100], Profile(), KEY)
    assert caught.value.quality == "partial"


def test_an_index_of_files_is_refused() -> None:
    with pytest.raises(DecodeError, match="DICOMDIR") as caught:
        deidentify(Path(str(get_testdata_file("DICOMDIR"))).read_bytes(), Profile(), KEY)
    assert caught.value.quality == "refused"


def test_no_error_quotes_what_stands_in_the_file() -> None:
    """The library's own do, so they are not passed on."""
    data = SMALL.replace(b"1.3.6.1.4.1.5962", b"ZQSMITH.ZQJOHN.9")
    assert data != SMALL
    assert b"ZQSMITH" not in outcome(data)


def outcome(data: bytes) -> bytes:
    """What is written, or what is said."""
    try:
        return deidentify(data, Profile(), KEY).data
    except DecodeError as error:
        return str(error).encode()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_rewritten_or_named_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(SMALL)
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=24), label="bytes"
    ):
        damaged[place] = value
    start = data.draw(st.integers(128, 2_000), label="start")
    cut = data.draw(st.sampled_from([0, 0, 1, 7, 300]), label="cut")
    del damaged[start : start + cut]
    try:
        made = deidentify(bytes(damaged), parse_profile("basic+modified_dates"), KEY)
    except DecodeError:
        return
    assert b"CompressedSamples" not in made.data
    assert read(made.data).PatientIdentityRemoved == "YES"
