"""Pseudonyms: always the same under one key, and dates that move together."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.modalities.scans.deidentification.pseudonyms import Pseudonyms, shifted

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
    moved = [shifted(f"{day:%Y%m%d}".rjust(8, "0"), days) for day in (one, other)]
    assert None not in moved
    first, second = (datetime.datetime.strptime(str(day), "%Y%m%d").date() for day in moved)
    assert second - first == other - one


def test_the_time_of_day_stays() -> None:
    assert shifted("20200101120000.5+0100", -1) == "20191231120000.5+0100"
    assert shifted("2020.03.01", -1) == "20200229"


@pytest.mark.parametrize(
    "value", ["2020", "202013", "20201301", "00010101", "20200101-20200201", "20200101 Smith", "x"]
)
def test_what_is_no_whole_date_is_not_shifted(value: str) -> None:
    assert shifted(value, -3650) is None
