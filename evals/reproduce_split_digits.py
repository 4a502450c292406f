"""Five versions of digits, two new ones in each: what a network still knows of all ten, by method.

Split digits, class-incremental as van de Ven & Tolias (2019) name it: scikit-learn's 1,797 handwritten digits as series
of 64 pixels, for the perceptron `new:mlp`. Each method goes on from the same first network with the digits 2 and 3,
then 4 and 5, and so on, and is asked about all ten without being told which two. Beside it stand published figures on
split MNIST, which is other and forty times more data: the order may be compared, the numbers not.

    python evals/reproduce_split_digits.py [--seeds 3] [--epochs 20] [--only replay der]

Each training is planned, run and registered as a job's, one after the other in this process, on one core. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import resolve
from speciate.jobs.folder import RunFolder
from speciate.jobs.job import Job, State
from speciate.jobs.kinds import Kinds
from speciate.jobs.run import Run
from speciate.models import registry
from speciate.refs import JobId
from speciate.tasks.predictor import load
from speciate.workspace.workspace import Workspace

TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
LEARNING: dict[str, Any] = {
    "learning_rate": [1e-3], "num_train_epochs": 20, "early_stopping_patience": 20, "batch_size": 32,
    "weight_decay": 0.0, "warmup_ratio": 0.0,
    "lr_scheduler_type": "constant", "precision": "float32",
}  # fmt: skip
"""As in the runs of notes before: Adam at 0.001, 20 passes over each version, no choice by held-out examples."""
BUFFER = 100


class Way(NamedTuple):
    name: str
    method: str
    settings: dict[str, Any]
    paper: str
    """What was published on split MNIST."""


WAYS = (
    Way("naive", "replay", {"mem_size": 0}, "19.3 (a)"),
    Way("ewc", "ewc", {}, ""),
    Way("lwf", "lwf", {}, ""),
    Way("replay", "replay", {"mem_size": BUFFER}, "90.0 (a)"),
    Way("der", "der", {"mem_size": BUFFER, "beta": 0.0}, ""),
    Way("der++", "der", {"mem_size": BUFFER}, "92.0 (a)"),
    Way("slda", "slda", {}, ""),
    Way("joint", "full", {}, ""),
)
SOURCES = """(a) Ten seeds, as the dataset PureOne/Eidrion on the Hugging Face hub gives them (SGD, ER, DER++; read as a
document, not run). CLS-ER's README (neurai-lab/cls-er) has 89.5 and 92.1 for its own method, with buffers of 200 and
500."""
JOINT = "joint"


class Line(NamedTuple):
    """Of one method and seed: its model after each version; of `joint` the only one."""

    way: Way
    accuracies: list[list[float]]
    """For each model, on the test examples of each of the five versions."""

    @property
    def last(self) -> float:
        """Percent, the mean over all versions."""
        return 100 * statistics.fmean(self.accuracies[-1])

    @property
    def forgotten(self) -> float | None:
        """Mean over the earlier versions of the best accuracy that a model of the line had, less the last one's
        (Chaudhry et al. 2018); percent."""
        if len(self.accuracies) == 1:
            return None
        columns = list(zip(*self.accuracies, strict=True))[:-1]
        return 100 * statistics.fmean(max(column) - column[-1] for column in columns)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--only", nargs="*", default=[], choices=[way.name for way in WAYS])
    given = arguments.parse_args()
    ways = [way for way in WAYS if not given.only or way.name in given.only]
    with tempfile.TemporaryDirectory(prefix="split-digits-") as folder:
        lines = reproduce(Path(folder), ways, range(given.seeds), given.epochs)
    print("\n".join(table(lines)))


def reproduce(folder: Path, ways: Sequence[Way], seeds: Sequence[int], epochs: int) -> list[Line]:
    """In a workspace of its own below `folder`."""
    workspace = Workspace(folder / "workspace")
    try:
        register(workspace, folder)
        return [Split(workspace, epochs, seed).line(way) for seed in seeds for way in ways]
    finally:
        workspace.close()


def register(workspace: Workspace, folder: Path) -> None:
    """`part-1` to `part-5` with two digits each, and `all`: 60 % learn, 10 % validate, 30 % judge, by chance."""
    loaded, chance = load_digits(), np.random.default_rng(0)
    splits = np.array(["train"] * 6 + ["validation"] + ["test"] * 3)[chance.permutation(len(loaded.target)) % 10]
    for name, digits in [*((f"part-{at}", pair) for at, pair in enumerate(TASKS, 1)), ("all", range(10))]:
        mine = np.isin(loaded.target, list(digits))
        rows = {
            "values": loaded.data[mine].tolist(),
            "label": [f"digit {digit}" for digit in loaded.target[mine]],
            "split": splits[mine].tolist(),
        }
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
        perform(
            workspace, "ingest", name=name, source=str(folder / f"{name}.parquet"), modality="time-series",
            label="label", inputs=("values",),
        )  # fmt: skip


class Split:
    """The lines of one seed."""

    def __init__(self, workspace: Workspace, epochs: int, seed: int) -> None:
        self._workspace, self._seed = workspace, seed
        self._learning = LEARNING | {"num_train_epochs": epochs, "early_stopping_patience": epochs}

    def line(self, way: Way) -> Line:
        models = [self._first("all" if way.name == JOINT else "part-1")]
        if way.method == "slda":  # on the first network's states, which stand still
            models = [self._trained(way.name, "part-1", method="slda", base_model=models[0], hyperparameters={})]
        for part in range(2, 6) if way.name != JOINT else ():
            own = {} if way.method == "slda" else self._learning | {"keep": "last"} | way.settings
            before = {"method": way.method, "continue_from": models[-1], "hyperparameters": own}
            models.append(self._trained(way.name, f"part-{part}", **before))
        line = Line(way, [[self._accuracy(model, f"part-{part}") for part in range(1, 6)] for model in models])
        print(f"{way.name}, seed {self._seed}: {line.last:.1f}", file=sys.stderr)
        return line

    def _first(self, dataset: str) -> str:
        """The same one for every method; of all digits, what all of them together give."""
        name = f"first-of-{dataset}-{self._seed}"
        if name in registry.names(self._workspace.database):
            return f"{name}@v1"
        return self._trained(
            f"first-of-{dataset}", dataset, method="full", base_model="new:mlp", hyperparameters=self._learning
        )

    def _trained(self, name: str, dataset: str, **more: Any) -> str:
        made = perform(
            self._workspace, "train", name=f"{name.replace('+', 'p')}-{self._seed}", dataset=dataset, seed=self._seed,
            resources={"cpu": 1}, **more,
        )  # fmt: skip
        return str(made["model"])

    def _accuracy(self, model: str, dataset: str) -> float:
        """On the version's test split."""
        version = registry.resolve(self._workspace.database, self._workspace.folders, model)
        examples = load_examples(self._workspace.folders, resolve(self._workspace.database, dataset), ("test",))
        given = load(version.path, threads=1).predict(examples)
        right = [one.output == _label(example) for one, example in zip(given, examples, strict=True)]
        return statistics.fmean(right)


def _label(example: Example) -> str:
    return str(example.label)


def perform(workspace: Workspace, kind: str, **spec: Any) -> dict[str, Any]:
    """One job in this process, as the engine would do it; its result."""
    found = Kinds()[kind]
    folder = RunFolder(workspace.folders.runs / f"job-{kind}-{time.monotonic_ns()}.1")
    payload = found.plan(found.spec(**spec), workspace).payload_json()
    folder.create({"payload": payload, "job": folder.path.stem, "workspace": str(workspace.folders.root)})
    module, _, function = found.run.partition(":")
    result = getattr(importlib.import_module(module), function)(Run(folder))
    (folder.outputs / "result.json").write_text(json.dumps(result))
    collected = found.collect(folder)
    job = Job(
        id=JobId(folder.path.stem), kind=kind, spec={}, fingerprint="", state=State.RUNNING, created=0.0, changed=0.0
    )
    return workspace.database.transact(lambda tx: found.commit(tx, job, collected))


def table(lines: Sequence[Line]) -> Iterator[str]:
    yield "| method | split MNIST, as published | split digits: accuracy on all ten, each seed | mean | forgotten |"
    yield "|---|---|---|---|---|"
    for way in dict.fromkeys(line.way.name for line in lines):
        runs = [line for line in lines if line.way.name == way]
        values = [line.last for line in runs]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lost = [line.forgotten for line in runs if line.forgotten is not None]
        shown = f"{statistics.fmean(lost):.1f}" if lost else ""
        each = ", ".join(f"{value:.1f}" for value in values)
        yield f"| {way} | {runs[0].way.paper} | {each} | {statistics.fmean(values):.1f}{spread} | {shown} |"
    yield ""
    yield SOURCES


if __name__ == "__main__":
    main()
