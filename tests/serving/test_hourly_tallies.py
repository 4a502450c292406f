"""Hourly tallies: what is counted survives a restart, a torn file and a full disk, and ninety days of it stay."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.serving import hourly_tallies
from speciate.serving.hourly_tallies import (
    DAYS,
    HOUR,
    HourlyTallies,
    HourTally,
    RequestRecord,
    duration_class,
    quantile_seconds,
    read_hours,
    without_worst,
)

KEY = ("production", 3, "m@v1")
_DAY = 24 * HOUR
_START = 20_000 * _DAY + 5 * HOUR
_GOOD, _BAD = RequestRecord(0.5, False, False, False), RequestRecord(0.5, True, False, False)


def test_requests_are_counted_by_hour_and_version(tmp_path: Path) -> None:
    own = HourlyTallies(tmp_path)
    for at, seen in [(0, _GOOD), (10, _BAD), (HOUR, _GOOD), (HOUR + 1, RequestRecord(0.0, False, False, False, True))]:
        own.add(KEY, _START + at, seen)
    own.add(("canary", 4, "m@v2"), _START, RequestRecord(0.1, False, True, True))
    own.time(KEY, _START, slow=True)
    own.time(KEY, _START, slow=False)
    own.write(now=True)
    found = read_hours(tmp_path, _START, _START + 2 * HOUR)
    assert [(each.hour * HOUR - _START, each.key, each.requests, each.failed, each.overloaded, each.timed, each.slow)
            for each in found] == [
        (0, ("canary", 4, "m@v2"), 1, 0, 0, 0, 0), (0, KEY, 2, 1, 0, 2, 1), (HOUR, KEY, 1, 0, 1, 0, 0),
    ]  # fmt: skip
    assert (found[1].durations, found[1].model_dump()["durations"]) == ({-4: 2}, {-4: 2})
    assert (found[0].not_finite, found[0].unusable, found[1].seconds) == (1, 1, 1.0)
    assert read_hours(tmp_path, _START + HOUR, _START + 2 * HOUR) == found[2:]


@given(st.lists(st.floats(1e-4, 100), min_size=1, max_size=200), st.sampled_from([0.5, 0.95]))
def test_quantiles_of_times_are_right_to_nine_percent(times: list[float], share: float) -> None:
    half = [HourTally(hour=hour, alias="a", generation=1, model="m") for hour in (0, 1)]
    for place, seconds in enumerate(times):
        durations = half[place % 2].durations
        durations[duration_class(seconds)] = durations.get(duration_class(seconds), 0) + 1
    exact = sorted(times)[math.ceil(share * len(times)) - 1]
    assert quantile_seconds(half, share) == pytest.approx(exact, rel=0.1)
    assert quantile_seconds([], share) is None


def test_a_restart_goes_on_counting(tmp_path: Path) -> None:
    for _ in range(2):
        own = HourlyTallies(tmp_path)
        own.add(KEY, _START, _GOOD)
        own.write(now=True)
    assert [each.requests for each in read_hours(tmp_path, _START, _START + 1)] == [2]


def test_the_ninety_first_day_goes_and_strange_files_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("mine")
    own = HourlyTallies(tmp_path)
    for day in range(DAYS + 5):
        own.add(KEY, _START + day * _DAY, _GOOD)
    own.write(now=True)
    assert len(read_hours(tmp_path, 0, _START + 1000 * _DAY)) == DAYS
    assert len(list(tmp_path.glob("2*.json"))) == DAYS
    assert (tmp_path / "notes.json").exists()


def test_a_torn_file_and_a_full_disk_stop_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = HourlyTallies(tmp_path)
    own.add(KEY, _START, _GOOD)
    own.write(now=True)
    [path] = tmp_path.glob("*.json")
    path.write_text('[{"hour": 1')
    assert read_hours(tmp_path, _START, _START + 1) == []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hourly_tallies, "write_whole", full)
    again = HourlyTallies(tmp_path)
    again.add(KEY, _START, _GOOD)
    again.add(KEY, _START + _DAY, _GOOD)
    with pytest.raises(OSError, match="space"):
        again.write(now=True)


def test_the_worst_hour_is_left_out() -> None:
    tallies = [HourTally(hour=k, alias="production", generation=1, model="m@v1", requests=10, failed=bad)
               for k, bad in enumerate((1, 9, 0))]  # fmt: skip
    assert without_worst(tallies, "failed") == (20, 1)
    assert without_worst([], "failed") == (0, 0)
