"""A simulated year on the real engine: what it comes to, what it costs, and that kills leave no trace."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.loop.watch.year import Year, in_a_process

pytestmark = pytest.mark.slow


def test_a_year_is_lived_alone_and_each_day_says_why(tmp_path: Path) -> None:
    before = time.process_time()
    year = Year(tmp_path / "w")
    year.live()
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


@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_moments_leave_the_rows_of_the_undisturbed_run(tmp_path: Path, seed: int) -> None:
    assert in_a_process(tmp_path / "calm") == 0
    draw, killed = random.Random(seed), 0
    while killed < 25:
        ended = in_a_process(tmp_path / "killed", draw.uniform(0.05, 1.5))
        if ended == 0:
            break
        assert ended == -signal.SIGPROF
        killed += 1
    assert killed >= 5
    assert in_a_process(tmp_path / "killed") == 0
    calm, after = Year(tmp_path / "calm"), Year(tmp_path / "killed")
    expected, found = calm.tables(), after.tables()
    calm.close()
    after.close()
    for name, table in expected.items():
        assert found[name] == table, name
