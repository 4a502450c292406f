"""A workspace with one real cluster as its place `hpc`."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job
from speciate.jobs.kinds import Kinds
from speciate.jobs.process_identity import identity
from speciate.settings import Capacity, Place, Settings
from speciate.workspace.workspace import Workspace
from tests.jobs.places.cluster import until
from tests.jobs.places.conftest import PLACED, READS

HOLD = 8.0


class House:
    """One workspace, whose daemon (its engine) may be restarted, and the place `hpc`."""

    def __init__(self, root: Path, **place_keys: object) -> None:
        """`place_keys`: what names the cluster in settings.toml."""
        self.depot = root / "depot"
        self.depot.mkdir()
        self._root = root / "workspace"
        place = Place.model_validate(
            {
                "depot": self.depot, "python": sys.executable, "scratch": root, "lease_seconds": HOLD, "runs": 4,
                **place_keys,
            }
        )  # fmt: skip
        self._settings = Settings(policy="auto", capacity=Capacity(cpu=8), executors={"hpc": place})
        self.trace = root / "trace"
        self.trace.mkdir()
        self.begin()

    def begin(self) -> None:
        self.workspace = Workspace(self._root, settings=self._settings)
        self.engine = Engine(self.workspace, Kinds(extra=[PLACED, READS]))
        self.engine.start()

    def close(self) -> None:
        for job in self.engine.list(limit=100):
            if job.state not in ENDED:
                self.engine.control(job.id, "cancel")
        for job in self.engine.list(limit=100):
            self.engine.wait(job.id, timeout=30)
        self.end()

    def end(self) -> None:
        self.engine.stop()
        self.workspace.close()

    def run(self, seconds: float, value: int) -> Job:
        """A run that is seen to work."""
        spec = {"place": "hpc", "seconds": seconds, "value": value, "trace": str(self.trace)}
        job = self.engine.submit("placed", spec)
        until(lambda: self.engine.folder(self.engine.get(job.id)).progress() is not None, 60)
        return self.engine.get(job.id)

    def there(self, job: Job) -> Path:
        (found,) = self.depot.glob(f"speciate-*/runs/{job.id}.{job.attempt}")
        return found

    def overlaps(self) -> list[str]:
        """Attempts of one job that lived at the same time, by when each began and was last seen to."""
        lives: dict[str, list[tuple[int, float, float]]] = {}
        for line in (self.trace / "lives").read_text().splitlines():
            run, pid, what, at = line.split()
            job = run.rpartition(".")[0]
            if what == "began":
                lives.setdefault(job, []).append((int(pid), float(at), float("inf")))
        found = []
        for job, begun in lives.items():
            for (pid, _, _), (_, later, _) in pairwise(begun):
                if identity(pid):
                    found.append(f"{job}: {pid} lives beside what began at {later}")
        return found
