"""Limits that pass at drawn moments: whether each ends in a usable model, and whether a better one is lost.

Small trainings of tables, series, texts, proteins and images, from installed packages. Each runs in a process of its
own as a worker does (`worker.main`), and a limit passes at a drawn moment after its first candidate was finished:

announced   the run knows its limit, as every run of a search does, and may end by itself before it
asked       a limit that the run did not know: it is asked to stop (SIGTERM), as the engine asks
killed      SIGKILL without a word, as no limit does: what was finished since the last writing may be lost

What is left is collected as the engine collects it, loaded, and answers an example. Lost: a better candidate was
finished before the limit passed than the one that is left. Beside them `specialize` with a budget that ends at a drawn
moment, by the engine: its model must answer, and no training of it may be lost.

    python evals/drawn_limits.py [--trainings 70] [--searches 30] [--seed 0]

Prints Markdown. Exits with 1 where a run ended without a usable model, or a limit lost a better candidate.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speciate import worker
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest
from speciate.jobs.engine import Engine
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, JobStarted
from speciate.settings import Settings
from speciate.tasks import predictor
from speciate.tools.training import specialize
from speciate.training import train
from speciate.training.train_spec import TrainSpec
from speciate.training.training_context import TrainingContext
from speciate.use_cases import Definition, Objective
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, model_path, png

_CLEAN = multiprocessing.get_context("forkserver")
"""Children of a process that has imported what a training needs and computed nothing, as the engine's are."""
_CLEAN.set_forkserver_preload(
    [
        "speciate.training.train_run", "speciate.training.recipes.classical", "speciate.training.recipes.lora_full",
        "sklearn.ensemble", "transformers", "lightgbm", "evals.drawn_limits",
    ]
)  # fmt: skip
GRACE_SECONDS = 20.0
"""After it was asked to stop."""
_NETWORK = {"num_train_epochs": 3, "learning_rate": [2e-3, 1e-3], "batch_size": 16}


class Problem(NamedTuple):
    modality: str
    task: str
    make: Callable[[Workspace, str], Manifest]
    method: Mapping[str, Any]


# Data of packages


def _splits(count: int, *, validation: bool) -> list[str]:
    order = np.random.default_rng(count).permutation(count)
    parts = ["train"] * count
    for place in order[: count // 4]:
        parts[place] = "test"
    for place in order[count // 4 : count // 4 + count // 5] if validation else ():
        parts[place] = "validation"
    return parts


def _voters(workspace: Workspace, name: str) -> Manifest:
    """Who votes for whom, by questions of a survey."""
    from statsmodels.datasets import anes96

    frame = anes96.load_pandas().data.sample(120, random_state=0)
    inputs = [str(each) for each in frame.columns if each not in ("vote", "expvote", "PID")]
    columns = {each: [float(cell) for cell in frame[each]] for each in inputs}
    labels = ["dole" if vote else "clinton" for vote in frame["vote"]]
    return _made(workspace, name, "tabular", columns, labels, validation=False)


def _series(workspace: Workspace, name: str) -> Manifest:
    """Three years of a climate or a star: of which?"""
    from statsmodels.datasets import co2, elnino, sunspots

    whole = {
        "sea": elnino.load_pandas().data.drop(columns="YEAR").to_numpy(float).ravel(),
        "air": co2.load_pandas().data["co2"].interpolate().to_numpy(float)[::4],
        "sun": sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(float),
    }
    chance, values, labels = np.random.default_rng(0), list[list[float]](), list[str]()
    for label, steps in whole.items():
        for begin in np.linspace(0, len(steps) - 37, 30).astype(int):
            window = steps[begin : begin + 36]
            shown = (window - window.mean()) / (window.std() or 1.0) + chance.normal(0, 0.8, 36)
            values.append([float(each) for each in shown])
            labels.append(label)
    return _made(workspace, name, "time-series", {"level": values}, labels, validation=True)


def _sentences(workspace: Workspace, name: str) -> Manifest:
    """Of which package's documentation is a sentence?"""
    import scipy.optimize
    import scipy.signal
    import scipy.stats

    texts, labels = list[str](), list[str]()
    for label, module in (("stats", scipy.stats), ("signal", scipy.signal), ("optimize", scipy.optimize)):
        documented = (str(getattr(module, each).__doc__ or "") for each in sorted(dir(module)) if each[0] != "_")
        found = dict.fromkeys(
            " ".join(each.split()) for text in documented for each in re.findall(r"[A-Z][a-z][^.>]{40,160}\.", text)
        )
        kept = [each for each in found if label not in each.lower()][:40]
        texts += kept
        labels += [label] * len(kept)
    return _made(workspace, name, "text", {"text": texts}, labels, validation=True)


def _proteins(workspace: Workspace, name: str) -> Manifest:
    from modlamp import datasets

    found = datasets.load_AMPvsUniProt()
    unique = dict(zip(found.sequences, found.target, strict=True))
    chosen = random.Random(0).sample(sorted(unique.items()), 100)
    labels = [str(found.target_names[int(target)]) for _, target in chosen]
    return _made(workspace, name, "protein", {"sequence": [text for text, _ in chosen]}, labels, validation=False)


def _letters(workspace: Workspace, name: str) -> Manifest:
    """Letters of the fonts that matplotlib brings."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(mpl.get_data_path()) / "fonts/ttf"
    media, labels = list[bytes](), list[str]()
    for file in sorted(folder.glob("[Ds][Te]*.ttf"))[:16]:
        for letter in "OQCG":
            canvas = Image.new("L", (32, 32))
            ImageDraw.Draw(canvas).text((5, -2), letter, fill=255, font=ImageFont.truetype(str(file), 26))
            pixels = np.asarray(canvas)
            if pixels.any():
                media.append(png(pixels))
                labels.append(letter)
    return make_dataset(
        workspace, name, "image", {}, labels=labels, splits=_splits(len(labels), validation=True), media=media
    )


def _made(
    workspace: Workspace, name: str, modality: str, columns: Mapping[str, Sequence[Any]], labels: Sequence[str], *,
    validation: bool,
) -> Manifest:  # fmt: skip
    return make_dataset(
        workspace, name, modality, columns, labels=labels, splits=_splits(len(labels), validation=validation),
        inputs=list(columns),
    )  # fmt: skip


_CLASSICAL = {"method": "classical"}
PROBLEMS = {
    "table": Problem("tabular", "tabular-classification", _voters, _CLASSICAL),
    "table, network": Problem(
        "tabular", "tabular-classification", _voters,
        {"method": "full", "base_model": "new:tab-resnet", "hyperparameters": _NETWORK},
    ),
    "series": Problem("time-series", "time-series-classification", _series, _CLASSICAL),
    "text": Problem("text", "text-classification", _sentences, _CLASSICAL),
    "protein": Problem("protein", "protein-classification", _proteins, _CLASSICAL),
    "image, network": Problem(
        "image", "image-classification", _letters,
        {"method": "full", "base_model": "new:resnet", "hyperparameters": _NETWORK},
    ),
}  # fmt: skip


# One training


class Offer(NamedTuple):
    """A better candidate than those before, finished at `at` seconds of the clock."""

    at: float
    value: float


class Ended(NamedTuple):
    passed_at: float | None
    """When the limit passed; None: the run ended before."""
    offers: list[Offer]
    value: float | None
    """Of the model that is left, greater being better; None without one."""
    usable: bool
    began: float
    ended: float

    @property
    def finished(self) -> list[Offer]:
        return [each for each in self.offers if self.passed_at is None or each.at <= self.passed_at]

    @property
    def lost(self) -> bool:
        return bool(self.finished) and (self.value is None or max(each.value for each in self.finished) > self.value)


def _begin(workspace: Workspace, job: str, manifest: Manifest, problem: Problem, seconds: float) -> RunFolder:
    spec = TrainSpec.model_validate({"name": "model", "dataset": manifest.ref, **problem.method})
    folder = RunFolder(workspace.folders.runs / f"{job}.1")
    folder.create(
        {
            "payload": train.plan(spec, workspace).payload_json(), "job": job, "entry": train.KIND.run,
            "workspace": str(workspace.folders.root), "row": {"limits": {"run_seconds": seconds}},
        }
    )  # fmt: skip
    return folder


def _work(path: str) -> None:
    """In the child: what a worker does, with a note of each better candidate."""
    folder = RunFolder(Path(path))
    log = os.open(folder.path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    usual = TrainingContext.offer_best

    def offer(self: TrainingContext, make: Callable[[], Any], **more: bool) -> None:
        sign = find_metric(self.payload.objective.metric).sign
        with (folder.path / "offers").open("a") as file:
            file.write(f"{time.time()} {sign * _value_of(make)}\n")
        usual(self, make, **more)

    setattr(TrainingContext, "offer_best", offer)  # noqa: B010 - mypy forbids the assignment
    os._exit(worker.main(str(folder.path)))


def _value_of(make: Callable[[], Any]) -> float:
    """Of a candidate that is offered as `partial(make, ...)`, from its own estimate or evaluation."""
    assert isinstance(make, partial)
    for each in make.args:
        if (estimate := getattr(each, "estimate", None)) is not None:
            return float(estimate.value)
        if isinstance(value := getattr(each, "value", None), float):
            return value
    raise TypeError(f"{make.func} has no value")


def _offers(folder: RunFolder) -> list[Offer]:
    path = folder.path / "offers"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Offer(*map(float, line.split())) for line in lines if line.count(" ") == 1]


def trained(
    workspace: Workspace, job: str, manifest: Manifest, problem: Problem, way: str, moment: Callable[[], float]
) -> Ended:
    """`moment()`: seconds until the limit passes, from the begin if the run knows it, else from its first candidate."""
    known = moment() if way == "announced" else 3600.0
    folder = _begin(workspace, job, manifest, problem, known)
    began = time.time()
    process = _CLEAN.Process(target=_work, args=(str(folder.path),))
    process.start()
    child = process.pid or 0
    passed, killed = None, False
    until = began + known if way != "whole" else float("inf")
    if way in ("asked", "killed"):
        until = float("inf")
    while process.is_alive():
        now = time.time()
        if until == float("inf") and way in ("asked", "killed") and folder.best_so_far() is not None:
            until = now + moment()
        if passed is None and now >= until:
            passed = now
            os.kill(child, signal.SIGKILL if way == "killed" else signal.SIGTERM)
        if passed is not None and not killed and now > passed + GRACE_SECONDS:
            os.kill(child, signal.SIGKILL)
            killed = True
        time.sleep(0.02)
    return _ended(workspace, manifest, folder, passed, began)


def _ended(workspace: Workspace, manifest: Manifest, folder: RunFolder, passed: float | None, began: float) -> Ended:
    offers, over = _offers(folder), time.time()
    left = folder if folder.result() is not None else folder.best_so_far()
    if left is None:
        return Ended(passed, offers, None, False, began, over)
    collected = train.collect(left)
    measured = collected.report["validation"]["value"]
    sign = find_metric(collected.report["metric"]).sign
    chosen = [row["value"] for row in collected.report["candidates"] if row["chosen"]]
    values = [sign * each for each in (measured, *chosen) if each is not None]
    usable = _answers(workspace, manifest, left.outputs / "model")
    return Ended(passed, offers, max(values, default=None), usable, began, over)


def _answers(workspace: Workspace, manifest: Manifest, folder: Path) -> bool:
    """Whether it gives one of the labels for a few examples that it has not seen."""
    asked = load_examples(workspace.folders, manifest, {"test"})[:3]
    given = predictor.load(folder).predict(asked)
    return len(given) == len(asked) and all(each.output in manifest.labels for each in given)


# One search


class Search(NamedTuple):
    state: str
    usable: bool
    kept: bool
    """Whether every training that ended well left a model that answers."""
    why: str
    looks: int


def searched(app: App, workspace: Workspace, manifest: Manifest, use_case: str, minutes: float) -> Search:
    started = specialize(app, use_case, manifest.ref, budget_minutes=minutes)
    assert isinstance(started, JobStarted)
    done = app.engine.wait(started.job, timeout=600)
    children = app.engine.children(started.job)
    made = [str(child.result["model"]) for child in children if child.result and child.kind == "train"]
    result = done.result or {}
    kept = all(_answers(workspace, manifest, model_path(workspace, each)) for each in made)
    usable = result.get("model") in made
    ended: Any = result.get("ended") or {}
    why = str(ended.get("reason") or "no verdict") if done.state == "succeeded" else str(done.error)
    return Search(str(done.state), usable, kept, why, sum(child.kind == "evaluate" for child in children))


# Tables


WAYS = ("announced", "asked", "killed")


def limits(asked: argparse.Namespace, workspace: Workspace, made: Mapping[str, Manifest]) -> bool:
    chance, kept = random.Random(asked.seed), True
    print("| training | limit | runs | a model is left, and answers | better ones lost | ended before the limit "
          "| earlier limits, drawn again |\n|---|---|---|---|---|---|---|")  # fmt: skip
    number = 0
    each = -(-asked.trainings // (len(made) * len(asked.ways)))
    left = asked.trainings
    for name, problem in ((name, PROBLEMS[name]) for name in made):
        for _ in range(2):  # the first one finds nothing in the system's cache
            whole = trained(workspace, f"job-{number}", made[name], problem, "whole", lambda: 0.0)
            number += 1
        first, rest = whole.offers[0].at - whole.began, whole.ended - whole.offers[0].at
        for way in asked.ways:
            runs, early = list[Ended](), 0
            count = min(each, left)
            left -= count
            while len(runs) < count:
                begin = first if way == "announced" else 0.0
                moment = begin + chance.uniform(0.0, rest)
                found = trained(workspace, f"job-{number}", made[name], problem, way, lambda at=moment: at)  # type: ignore[misc]
                number += 1
                if found.finished:
                    runs.append(found)
                else:
                    early += 1
            if not runs:
                continue
            usable, lost = sum(one.usable for one in runs), sum(one.lost for one in runs)
            before = sum(one.passed_at is None for one in runs)
            kept &= usable == len(runs) and (not lost or way == "killed")
            print(f"| {name} | {way} | {len(runs)} | {usable} | {lost} | {before} | {early} |", flush=True)
    return kept


def searches(asked: argparse.Namespace, workspace: Workspace, app: App, made: Mapping[str, Manifest]) -> bool:
    chance, kept = random.Random(asked.seed + 1), True
    print(
        "\n| search | budgets, s | runs | with a model | trainings all kept | why they ended |\n"
        "|---|---|---|---|---|---|"
    )
    names = [name for name in made if name != "table, network"]
    each = -(-asked.searches // len(names))
    left = asked.searches
    for name in names:
        found, minutes = list[Search](), [chance.uniform(0.05, 0.6) for _ in range(min(each, left))]
        left -= len(minutes)
        found = [searched(app, workspace, made[name], f"use-{PROBLEMS[name].modality}", one) for one in minutes]
        if not found:
            continue
        usable, safe = sum(one.usable for one in found), sum(one.kept for one in found)
        kept &= usable == safe == len(found)
        whys = ", ".join(f"{why} {sum(one.why == why for one in found)}" for why in sorted({one.why for one in found}))
        drawn = f"{60 * min(minutes):.0f} to {60 * max(minutes):.0f}"
        print(f"| {name} | {drawn} | {len(found)} | {usable} | {safe} | {whys} |", flush=True)
    return kept


@contextlib.contextmanager
def _house() -> Iterator[tuple[Workspace, App]]:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder) / "workspace", settings=Settings(policy="auto"))
        app = App(workspace, Engine(workspace), Pool(workspace.folders, workspace.settings, size=0))
        try:
            yield workspace, app
        finally:
            workspace.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=70)
    parser.add_argument("--searches", type=int, default=30)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--only", nargs="*", choices=list(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with _house() as (workspace, app):
        made = {name: PROBLEMS[name].make(workspace, f"data-{at}") for at, name in enumerate(asked.only)}
        kept = limits(asked, workspace, made) if asked.trainings else True
        if asked.searches:
            for problem in PROBLEMS.values():
                _define(workspace, problem)
            app.engine.start()
            try:
                kept &= searches(asked, workspace, app, made)
            finally:
                app.engine.stop()
    print("\nrequirements met" if kept else "a requirement is missed")
    return 0 if kept else 1


def _define(workspace: Workspace, problem: Problem) -> None:
    from speciate import use_cases

    definition = Definition(
        name=f"use-{problem.modality}", task=problem.task, objective=Objective(metric="accuracy", aim="best")
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))


if __name__ == "__main__":
    sys.exit(main())
