"""How much room there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from speciate.settings import Disk
from speciate.workspace.disk_space import GB, DiskGauge, DiskSpace, format_bytes, measure_used

pytestmark = pytest.mark.durable


def test_a_disk_without_a_quota_is_never_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = DiskGauge(tmp_path, Disk(stop_below_gb=1))
    gauge.usage = lambda folder: (10 * GB, 3 * GB)
    monkeypatch.setattr("speciate.workspace.disk_space.measure_used", lambda folder: pytest.fail("it was"))
    assert gauge.look() == DiskSpace(10 * GB, 3 * GB, GB)
    assert (gauge.look().spare, gauge.look().low) == (2 * GB, False)


def test_of_disk_and_quota_the_smaller_room_counts_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (3 << 20))
    gauge = DiskGauge(tmp_path, Disk(stop_below_gb=1, quota_gb=0.001))
    gauge.usage = lambda folder: (10 * GB, 9 * GB)
    room = gauge.look()
    assert room.low
    assert room.short() == "the workspace takes 3 MB of the 1.02 MB that settings.toml allows it"
    gauge.usage = lambda folder: (10 * GB, GB // 2)
    assert "the workspace's disk has 512 MB free, and 1 GB must stay free" in DiskSpace(10 * GB, GB // 2, GB).short()


def test_between_two_looks_what_the_disk_lost_is_taken_for_ours(tmp_path: Path) -> None:
    gauge, free, now = DiskGauge(tmp_path, Disk(quota_gb=1)), [5 * GB], [0.0]
    gauge.usage = lambda folder: (10 * GB, free[0])
    gauge.monotonic = lambda: now[0]
    assert gauge.look().used == 0
    free[0] -= 2 * GB  # somebody else, perhaps
    assert (gauge.look().used, gauge.look().low) == (2 * GB, True)
    now[0] += 31.0
    assert (gauge.look().used, gauge.look().low) == (0, False)


def test_a_file_with_two_names_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"x" * 40_960)
    os.link(tmp_path / "a", tmp_path / "b" / "c")
    assert measure_used(tmp_path) == 40_960
    assert measure_used(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 kB"), (1536, "1.5 kB"), (3 << 20, "3 MB"), (5 * GB // 2, "2.5 GB"), (-GB, "-1 GB")]
)
def test_amounts_are_short(count: int, text: str) -> None:
    assert format_bytes(count) == text
