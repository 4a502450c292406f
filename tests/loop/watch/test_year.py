"""A simulated year on the real engine: what it comes to, what it costs, and that kills leave no trace."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from speciate.workspace.database import Row
from tests.loop.watch.year import Year, in_a_process

pytestmark = pytest.mark.slow


def test_a_year_is_lived_alone_and_each_day_says_why(tmp_path: Path) -> None:
    before = time.process_time()
    year = Year(tmp_path / "w")
    year.live()
    print(f"a year: {time.process_time() - before:.1f} CPU s, {len(year.tables()['ticks'])} rows of ticks")
    tables = year.tables()
    year.close()
    assert time.process_time() - before <= 60, "seconds of CPU for a year of daily looks"
    assert [row[5] for row in tables["episodes"]] == ["promoted", "hold", "taken_back"]
    assert sum(row[4] for row in tables["ticks"]) == 365
    assert all(row[6] for row in tables["ticks"])
    assert len(tables["ticks"]) <= 500
    assert not tables["outbox"]
    keys = [row[1] for row in tables["jobs"]]
    assert len(set(keys)) == len(keys)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    folder = tmp_path_factory.mktemp("calm") / "w"
    assert in_a_process(folder) == 0
    return rows_of(folder)


def rows_of(folder: Path) -> dict[str, list[Row]]:
    year = Year(folder)
    found = year.tables()
    year.close()
    return found


def test_fifty_kills_at_random_moments_leave_the_rows_of_the_undisturbed_run(
    tmp_path: Path, undisturbed: dict[str, list[Row]]
) -> None:
    """Years, one after another, until fifty kills came; each has the rows of the undisturbed one."""
    draw, killed, years = random.Random(0), 0, 0
    while killed < 50:
        folder = tmp_path / str(years)
        while (ended := in_a_process(folder, draw.uniform(0.05, 1.5) if killed < 50 else None)) != 0:
            assert ended == -signal.SIGPROF
            killed += 1
        years += 1
        found = rows_of(folder)
        for name, table in undisturbed.items():
            assert found[name] == table, (name, years)


@pytest.mark.parametrize("point", ["watch_decided", "watch_stored", "watch_submitted"])
def test_kills_at_each_fault_point_leave_them_too(
    tmp_path: Path, undisturbed: dict[str, list[Row]], point: str
) -> None:
    ends = []
    for times in (1, 2, 3, 5, 8):  # the point is passed less often in what is left of the year
        ends.append(in_a_process(tmp_path / "w", at=(point, times)))
        if ends[-1] == 0:
            break
    assert ends.count(-signal.SIGKILL) >= 3
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert in_a_process(tmp_path / "w") == 0
    found = rows_of(tmp_path / "w")
    for name, table in undisturbed.items():
        assert found[name] == table, name
