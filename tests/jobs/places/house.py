"""A workspace with one real cluster as its place `hpc`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job, State
from speciate.jobs.kinds import Kinds
from speciate.jobs.process_identity import identity
from speciate.models import registry
from speciate.settings import Capacity, Place, Settings
from speciate.training.networks.training_log import read_metrics
from speciate.workspace.workspace import Workspace
from tests.jobs.places.cluster import allow, until
from tests.jobs.places.conftest import PLACED, READS
from tests.training.world import make_dataset, png, thirds

HOLD = 8.0


class House:
    """One workspace, whose daemon (its engine) may be restarted, and the place `hpc`."""

    def __init__(self, root: Path, **place_keys: object) -> None:
        """`place_keys`: what names the cluster in settings.toml."""
        self.depot = root / "depot"
        self.depot.mkdir()
        self._root, self._has_digits = root / "workspace", False
        place = Place.model_validate(
            {
                "depot": self.depot, "python": sys.executable, "scratch": root, "lease_seconds": HOLD, "runs": 4,
                "nodes": 2,
                **place_keys,
            }
        )  # fmt: skip
        self._settings = Settings(policy="auto", capacity=Capacity(cpu=8), executors={"hpc": place})
        self.trace = root / "trace"
        self.trace.mkdir()
        self.begin()

    def begin(self) -> None:
        self.workspace = Workspace(self._root, settings=self._settings)
        allow(self.workspace, "digits")
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

    def train_digits(
        self, name: str, resources: dict[str, object], meanwhile: Callable[[Job], None] | None = None, **spec: object
    ) -> Job:
        """To its end. `meanwhile`: what happens to a training on several nodes as soon as they have met."""
        if not self._has_digits:
            digits = load_digits()
            make_dataset(
                self.workspace, "digits", "image", {}, labels=[str(each) for each in digits.target[:300]],
                splits=thirds(300), media=[png((image * 15).astype("uint8")) for image in digits.images[:300]],
            )  # fmt: skip
            self._has_digits = True
        given = {"name": name, "dataset": "digits", "resources": resources, **spec}
        job = self.engine.submit("train", given)
        if meanwhile is not None:
            until(lambda: any(self.depot.glob(f"speciate-*/runs/{job.id}.1/team.json")), 400)
            meanwhile(self.engine.get(job.id))
        done = self.engine.wait(job.id, timeout=500)
        assert done.state is State.SUCCEEDED, (done.reason, done.error, self.engine.folder(done).log_tail(40))
        return done

    def check_same_model_here_and_there(self) -> None:
        made = {}
        for place in ("here", "hpc"):
            done = self.train_digits(place, {"place": place}, method="classical")
            card = registry.resolve(self.workspace.database, self.workspace.folders, f"{place}@v1").card
            made[place] = card.metrics, done.result and done.result["report"]["validation"]  # weights: to the last bits
        assert made["here"] == made["hpc"]

    def check_two_nodes_take_the_same_steps(self, meanwhile: Callable[[Job], None] | None = None) -> Job:
        """As one process, within 1e-6 of the loss at equal batches. Returns the job of the two nodes."""
        options = {"epochs": 4, "batch_size": 32, "learning_rate": 1e-3, "precision": "float32"}
        spec = {"method": "full", "base_model": "new:vit", "hyperparameters": options}
        found = {}
        one = self.train_digits("one", {"cpu": 1}, **spec)
        two = self.train_digits("two", {"cpu": 1, "place": "hpc", "nodes": 2}, meanwhile, **spec)
        for done in (one, two):
            rows = read_metrics(self.engine.folder(done).path / "metrics.jsonl")
            found[done.id] = {row["step"]: row["held_loss"] for row in rows if row.get("held_loss") is not None}
        assert len(found[one.id]) == 4
        assert found[two.id] == pytest.approx(found[one.id], abs=1e-6)
        return two

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
