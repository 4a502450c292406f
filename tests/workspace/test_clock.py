"""Ages while the clock jumps a year, goes back, stands still: nothing is taken for older than it is."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.workspace import clock as clock_module
from speciate.workspace.clock import Elapsed, SystemClock, begin, cutoff, greatest_age, least_age, observe

pytestmark = pytest.mark.durable

DAY, YEAR = 86_400.0, 365 * 86_400.0
START = 1_800_000_000.0


def test_on_macos_too_the_uptime_counts_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """There CLOCK_MONOTONIC counts it, and time.monotonic does not."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_MONOTONIC: 3_605.0}.__getitem__)
    assert clock_module.uptime(SystemClock()) == 3_605.0


class SetClock:
    """A wall clock that may be set, beside an uptime that may not."""

    def __init__(self) -> None:
        self.wall, self.up = START, 1_000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.up

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds


@pytest.mark.parametrize("jump", [YEAR, -YEAR, 3_600.0, -3_600.0])
def test_a_jump_makes_nothing_older_or_younger(jump: float) -> None:
    timeline = observe(observe(begin(START), START + DAY, DAY), START + DAY + jump, 1.0)
    assert least_age(timeline, START) == pytest.approx(DAY, abs=120)
    assert greatest_age(timeline, START) == pytest.approx(DAY, abs=120) or jump == -3_600.0
    later = observe(timeline, START + DAY + jump + DAY, DAY)
    assert least_age(later, START + DAY + jump) == pytest.approx(DAY, abs=120)
    assert least_age(later, START) == pytest.approx(2 * DAY, abs=120)


def test_a_clock_that_stands_still_lets_time_pass() -> None:
    timeline = begin(START)
    for _ in range(3_000):
        timeline = observe(timeline, START, 60.0)
    assert DAY <= least_age(timeline, START - DAY) <= 3_000 * 60.0 + DAY
    assert greatest_age(timeline, START) == pytest.approx(3_000 * 60.0, rel=0.1)
    assert len(timeline.segments) <= 64


def test_what_nobody_counted_is_believed_up_to_a_week() -> None:
    assert least_age(observe(begin(START), START + 2 * DAY, None), START) == pytest.approx(2 * DAY)
    assert least_age(observe(begin(START), START + YEAR, None), START) == pytest.approx(7 * DAY)
    assert least_age(observe(begin(START), START - YEAR, None), START) == pytest.approx(0.0, abs=120)


_STEPS = st.lists(
    st.tuples(st.floats(0, 40 * DAY), st.sampled_from([0.0, 0.0, 0.0, YEAR, -YEAR, 30 * DAY, -DAY, 600.0])),
    min_size=1,
    max_size=12,
)


@given(steps=_STEPS, age=st.sampled_from([DAY, 7 * DAY, 30 * DAY, 90 * DAY]))
def test_nothing_is_ever_deleted_early(steps: list[tuple[float, float]], age: float) -> None:
    """Things are stamped after each look; whatever the clock did, the cutoff spares all that are younger."""
    timeline, wall, passed = begin(START), START, 0.0
    made = [(wall, passed)]
    for counted, jump in steps:
        wall, passed = wall + counted + jump, passed + counted
        timeline = observe(timeline, wall, counted)
        made.append((wall, passed))
        limit = cutoff(timeline, age)
        for stamp, when in made:
            true_age = passed - when
            if stamp < limit - 2 * clock_module.TOLERANCE_SECONDS:
                assert true_age >= age - 2 * clock_module.TOLERANCE_SECONDS
            assert least_age(timeline, stamp) <= true_age + 2 * clock_module.TOLERANCE_SECONDS
            assert greatest_age(timeline, stamp) >= true_age - 2 * clock_module.TOLERANCE_SECONDS


def test_without_a_jump_it_is_what_the_clock_says() -> None:
    timeline = observe(begin(START), START + 40 * DAY, 40 * DAY)
    assert cutoff(timeline, 30 * DAY) == pytest.approx(START + 10 * DAY)
    assert least_age(timeline, START + 39 * DAY) == pytest.approx(DAY)


def test_the_next_process_knows_of_the_jump(tmp_path: Path) -> None:
    clock = SetClock()
    first = Elapsed(tmp_path, clock)
    first.save(now=True)
    clock.advance(DAY)
    clock.wall += YEAR  # while nobody looked
    second = Elapsed(tmp_path, clock)
    assert second.least(START) == pytest.approx(DAY, abs=120)
    second.save()
    clock.advance(3_600)
    assert Elapsed(tmp_path, clock).cutoff(30 * DAY) < START


def test_a_machine_that_was_started_again_counts_a_week_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    Elapsed(tmp_path, clock).save(now=True)
    monkeypatch.setattr(clock_module, "boot", lambda: "another")
    clock.wall, clock.up = START + YEAR, 5.0
    assert Elapsed(tmp_path, clock).least(START) == pytest.approx(7 * DAY)


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", b"{}", b'{"segments": [], "passed": 1, "wall": 1, "boot": "", "up": 1}']
)
def test_a_damaged_file_is_no_end(tmp_path: Path, said: bytes) -> None:
    (tmp_path / clock_module.NAME).write_bytes(said)
    clock = SetClock()
    assert Elapsed(tmp_path, clock).least(START - DAY) == pytest.approx(DAY)


def test_a_flipped_digit_in_the_file_makes_nothing_old(tmp_path: Path) -> None:
    clock = SetClock()
    Elapsed(tmp_path, clock).save(now=True)
    path = tmp_path / clock_module.NAME
    path.write_bytes(path.read_bytes().replace(b"1800000000.0", b"9800000000.0", 1))
    assert Elapsed(tmp_path, clock).least(START - DAY) == pytest.approx(DAY)
