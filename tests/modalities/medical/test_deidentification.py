"""De-identification: real and damaged files give a DICOM file with the same pixels or a DecodeError; the profile table,
pseudonyms and descriptions."""

from __future__ import annotations

import datetime
import io
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from speciate.errors import SpeciateError
from speciate.modalities.contract import DecodeError
from speciate.modalities.medical.deidentification.deidentifier import deidentify, is_looked_for, keep_known_words
from speciate.modalities.medical.deidentification.profile import (
    METHODS,
    OPTIONS,
    Profile,
    action,
    basic,
    is_safe_private,
    listed,
    parse_profile,
    rows,
)
from speciate.modalities.medical.deidentification.proof import search
from speciate.modalities.medical.deidentification.pseudonyms import Pseudonyms, shift_date
from tests.drawn import drawn

KEY = Pseudonyms(b"k" * 32)
REAL = (
    "CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtstruct.dcm",
    "waveform_ecg.dcm", "SC_rgb_small_odd.dcm", "test-SR.dcm", "liver_1frame.dcm", "UN_sequence.dcm",
    "SC_rgb_jpeg.dcm", "nested_priv_SQ.dcm", "empty_charset_LEI.dcm", "rtplan.dcm",
)  # fmt: skip
"""Explicit, implicit, big-endian, deflated and compressed; images, outlines, waveforms and reports; odd ones."""
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


@settings(max_examples=drawn(150), deadline=None)
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


PATIENT_NAME, STUDY_DATE, STUDY_UID, SERIES_DESCRIPTION, STATION = (
    0x00100010, 0x00080020, 0x0020000D, 0x0008103E, 0x00081010,
)  # fmt: skip


def test_the_table_has_as_many_rows_as_its_editions() -> None:
    assert Counter(row.edition for row in rows()) == {"2024b": 621, "2026c": 35}
    assert Counter(row.basic for row in rows()) == {
        "X": 416, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2,
    }  # fmt: skip
    says = Counter((name, said) for row in rows() for name, said in row.options.items())
    assert says == {
        ("retain_safe_private", "C"): 1, ("retain_uids", "K"): 59, ("retain_device", "K"): 46,
        ("retain_device", "C"): 11, ("retain_institution", "K"): 10, ("retain_patient_characteristics", "K"): 9,
        ("retain_patient_characteristics", "C"): 4, ("retain_full_dates", "K"): 165, ("modified_dates", "C"): 165,
        ("clean_descriptors", "C"): 125, ("clean_structured_content", "C"): 3, ("clean_graphics", "C"): 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "name", "printed"),
    [
        (0x00080050, "Accession Number", "Z"),
        (PATIENT_NAME, "Patient's Name", "Z"),
        (0x00100020, "Patient ID", "Z/D"),
        (0x00100030, "Patient's Birth Date", "Z"),
        (STUDY_DATE, "Study Date", "Z"),
        (STUDY_UID, "Study Instance UID", "U"),
        (0x00081140, "Referenced Image Sequence", "X/Z/U*"),
        (0x00080080, "Institution Name", "X/Z/D"),
        (0x0040A730, "Content Sequence", "D"),
        (0x00700006, "Unformatted Text Value", "D"),
        (0x60023000, "Overlay Data", "X"),
        (0x50040010, "Curve Data", "X"),
    ],
)
def test_rows_that_everybody_knows(tag: int, name: str, printed: str) -> None:
    row = listed(tag)
    assert row is not None
    assert (row.name, row.basic) == (name, printed)


def test_no_row_is_kept_or_cleaned_by_the_basic_profile() -> None:
    assert {basic(row) for row in rows()} == {"X", "Z", "D", "U"}


@pytest.mark.parametrize(
    ("tag", "vr", "profile", "said"),
    [
        (STUDY_DATE, "DA", "basic", "Z"),
        (STUDY_DATE, "DA", "basic+retain_full_dates", "K"),
        (STUDY_DATE, "DA", "basic+modified_dates", "C"),
        (0x00181200, "DA", "basic+retain_device", "K"),  # Date of Last Calibration
        (0x00181200, "DA", "basic+retain_device+modified_dates", "C"),
        (STUDY_UID, "UI", "basic+retain_uids", "K"),
        (SERIES_DESCRIPTION, "LO", "basic", "X"),
        (SERIES_DESCRIPTION, "LO", "basic+clean_descriptors", "C"),
        (STATION, "SH", "basic+retain_device", "K"),
        (0x00081301, "SQ", "basic+clean_descriptors+retain_patient_characteristics", "X"),
    ],
)
def test_an_option_overrides_the_basic_action(tag: int, vr: str, profile: str, said: str) -> None:
    assert action(tag, vr, "Known", parse_profile(profile)) == said


@pytest.mark.parametrize(
    ("vr", "keyword", "said"),
    [
        ("PN", "EvaluatorName", "X"), ("DA", "ExpiryDate", "X"), ("UT", "TextValue", "X"), ("LO", "", "X"),
        ("UI", "TargetFrameOfReferenceUID", "U"), ("UI", "SOPClassUID", "K"), ("UI", "CodingSchemeUID", "K"),
        ("DS", "SliceThickness", "K"), ("CS", "Modality", "K"),
    ],
)  # fmt: skip
def test_what_the_table_does_not_list_is_judged_by_its_type(vr: str, keyword: str, said: str) -> None:
    assert listed(0x00280010) is None
    assert action(0x00280010, vr, keyword, Profile()) == said


def test_a_profile_reads_as_it_is_written() -> None:
    assert str(parse_profile(["retain_device", "basic+modified_dates"])) == "basic+modified_dates+retain_device"
    assert parse_profile("basic") == Profile()
    assert parse_profile("+".join(("basic", "retain_uids"))).options == {"retain_uids"}
    assert set(OPTIONS) | {"basic"} == set(METHODS)


def test_an_option_that_is_almost_right_is_corrected() -> None:
    with pytest.raises(SpeciateError, match="retain_device"):
        parse_profile("basic+retain_devices")


def test_safe_private_attributes_are_those_of_their_creator() -> None:
    assert is_safe_private("SIEMENS MR HEADER", 0x0019100C)
    assert is_safe_private("SIEMENS MR HEADER ", 0x0019110C)
    assert not is_safe_private("SIEMENS CT VA0  COAD", 0x0019100C)
    assert not is_safe_private("SIEMENS MR HEADER", 0x00191008)


ONE, OTHER = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_value_has_one_pseudonym_a_key(value: str, another: str) -> None:
    assert ONE.name(value) == ONE.name(value) != OTHER.name(value)
    assert (ONE.name(value) == ONE.name(another)) == (value == another)
    assert re.fullmatch(r"P-[A-Z2-7]{12}", ONE.name(value))


@given(st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,8})){2,6}", fullmatch=True))
def test_a_uid_becomes_a_valid_one_and_a_registered_one_stays(uid: str) -> None:
    made = ONE.uid(uid)
    if uid.startswith("1.2.840.10008."):
        assert made == uid
    else:
        assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", made)
        assert len(made) <= 44
        assert made != uid
    assert ONE.uid("1.2.840.10008.5.1.4.1.1.2") == "1.2.840.10008.5.1.4.1.1.2"


@given(DAYS, DAYS, st.text())
def test_dates_of_a_patient_keep_their_distance(one: datetime.date, other: datetime.date, patient: str) -> None:
    days = ONE.days(patient)
    assert -3650 <= days <= -1
    moved = [shift_date(f"{day:%Y%m%d}".rjust(8, "0"), days) for day in (one, other)]
    assert None not in moved
    first, second = (datetime.datetime.strptime(str(day), "%Y%m%d").date() for day in moved)
    assert second - first == other - one


def test_the_time_of_day_stays() -> None:
    assert shift_date("20200101120000.5+0100", -1) == "20191231120000.5+0100"
    assert shift_date("2020.03.01", -1) == "20200229"


@pytest.mark.parametrize(
    "value", ["2020", "202013", "20201301", "00010101", "20200101-20200201", "20200101 Smith", "x"]
)
def test_what_is_no_whole_date_is_not_shifted(value: str) -> None:
    assert shift_date(value, -3650) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("T2 AX FLAIR 5mm JOHN SMITH 1948", "T2 AX FLAIR 5mm"),
        ("Chest PA/LAT for Dr. Who 03/12/70", "Chest PA LAT"),
        ("Müller, Anna", ""),
        ("", ""),
    ],
)
def test_known_words_stay_in_their_order(text: str, rest: str) -> None:
    assert keep_known_words(text) == rest


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert keep_known_words(keep_known_words(text)) == keep_known_words(text)


def test_the_proof_counts_the_values_that_were_searched_for_and_finds_none() -> None:
    for name in REAL[:4]:
        made = deidentify(Path(str(get_testdata_file(name))).read_bytes(), parse_profile("basic"), KEY)
        assert made.still_there == ()
        assert len(made.originals) > 5
        assert not any(value.encode("latin-1", "replace") in made.data for value in made.originals if len(value) > 12)


def test_a_value_that_is_left_somewhere_is_found() -> None:
    before = {0x00100010: {"Smith^Anna"}, 0x00080080: {"St. Mary"}, 0x0008103E: {"HEAD"}, 0x00080070: {"Phantom"}}
    left = search(before, {0x00080070: {"Phantom"}}, {"Smith", "Anna"}, b"..Anna..Phantom..head", keep_known_words_only)
    assert left.originals == {"Smith^Anna", "St. Mary", "Smith", "Anna"}
    assert left.found == (0x00100010,)
    clean = search(before, {}, {"Smith"}, b"..Annabel, blacksmith..", keep_known_words_only)
    assert clean.found == ()
    assert search({1: {"1.2.3"}}, {}, (), b"1.2.3.4", keep_known_words_only).found == ()


def keep_known_words_only(value: str) -> bool:
    return keep_known_words(value) == value
