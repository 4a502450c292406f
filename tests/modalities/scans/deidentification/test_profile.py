"""The table as data: its rows, what they say, and what options make of them."""

from __future__ import annotations

from collections import Counter

import pytest

from speciate.errors import SpeciateError
from speciate.modalities.scans.deidentification.profile import (
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
