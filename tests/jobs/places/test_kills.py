"""Kills at random while jobs run at a place: nothing is lost, and no job ever has two attempts at work."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, State
from speciate.jobs.places import executor
from tests.jobs.places.cluster import until
from tests.jobs.places.conftest import AnyDouble


class HasDepot(Protocol):
    depot: Path


def alive(double: HasDepot) -> dict[str, int]:
    """Process id of each worker that lives, by its run."""
    found: dict[str, int] = {}
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "speciate.worker" in words and words[-1].startswith(str(double.depot)):
            found[Path(words[-1]).name] = process.info["pid"]
    return found


class Witness(threading.Thread):
    """Looks again and again whether two attempts of one job live."""

    def __init__(self, double: HasDepot) -> None:
        super().__init__(daemon=True)
        self._double, self.over, self.seen, self.looks = double, threading.Event(), set[str](), 0

    def run(self) -> None:
        while not self.over.wait(0.05):
            jobs = Counter(run.rpartition(".")[0] for run in alive(self._double))
            self.seen |= {job for job, count in jobs.items() if count > 1}
            self.looks += 1


def _works_or_ended(double: AnyDouble, engine: Engine, jobs: Sequence[str]) -> bool:
    return bool(alive(double)) or all(engine.get(job).state in ENDED for job in jobs)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kills"), [(12, 60), (50, 200)])
def test_kills_at_random_lose_nothing_and_start_nothing_twice(
    open_engine: Callable[..., Engine], double: AnyDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int,
    kills: int,
) -> None:  # fmt: skip
    """Each run also writes down when it began; no two processes of one attempt ever do."""
    monkeypatch.setattr(executor, "_BURY_SECONDS", 60.0)  # it lies for some seconds at a time
    chance = random.Random(0)
    engine = open_engine(lease_seconds=2, runs=6)
    witness = Witness(double)
    witness.start()
    jobs = [
        engine.submit("placed", {"seconds": 6, "value": number, "trace": str(tmp_path)}).id for number in range(count)
    ]
    done = Counter[str]()
    while done.total() < kills and any(engine.get(job).state not in ENDED for job in jobs):
        until(partial(_works_or_ended, double, engine, jobs), 60)
        what = chance.choices(["worker", "node", "daemon", "cluster"], [5, 4, 1, 2])[0]
        if what in ("worker", "node") and (there := alive(double)):
            pid = chance.choice(sorted(there.values()))
            try:
                os.kill(pid if what == "worker" else psutil.Process(pid).ppid(), signal.SIGKILL)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        elif what == "daemon":
            engine = open_engine(lease_seconds=2, runs=6)
        elif (double.jobs / "says").exists():
            double.unset("says")
        else:
            double.set("says", chance.choice(["NODE_FAIL", "RUNNING", "FAILED"]))
        done[what] += 1
        threading.Event().wait(chance.random() * 0.4)
    if (double.jobs / "says").exists():
        double.unset("says")
    for job in jobs:
        assert engine.wait(job, timeout=90).state is State.SUCCEEDED, (engine.get(job), engine.trouble(job))
        result = engine.get(job).result
        assert result is not None
        assert result["value"] == jobs.index(job)
    witness.over.set()
    witness.join()
    assert witness.looks > 20
    assert witness.seen == set()
    begun = Counter(line.split()[0] for line in (tmp_path / "lives").read_text().splitlines() if "began" in line)
    assert set(begun.values()) == {1}, "an attempt begins once"
    assert {run.rpartition(".")[0] for run in begun} == set(jobs)
    print(f"\n{done.total()} kills ({dict(done)}) over {count} jobs, {len(begun)} attempts: each job ended well")
    assert done["worker"] + done["node"] > kills // 3, done
